"""S3 servers that are elsewhere, slow down, or refuse: regions, clocks, credentials, permissions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest

from s3flow import errors
from s3flow.model import Part
from tests.contract.s3_scripted import (
    ACCESS,
    BUCKET,
    ETAG,
    KEY,
    PLAIN,
    SECRET,
    TOKEN,
    Answer,
    Chunks,
    Request,
    drain,
    error,
    found,
    scripted,
)

# --- throttling and clocks ---------------------------------------------------------------------


async def test_slow_down_is_throttling_with_the_stores_wish() -> None:  # B-44
    answer = error(503, "SlowDown")
    answer.headers = {"Retry-After": "3"}
    async with scripted(lambda request: answer) as server:
        store = server.store()
        calls: list[Callable[[], object]] = [
            lambda: store.get_object(BUCKET, KEY, etag=ETAG),
            lambda: store.list_page(BUCKET, b"", b""),
            lambda: store.delete_object(BUCKET, KEY, etag=""),
            lambda: store.list_parts(BUCKET, KEY, "id"),
            lambda: store.head_object(BUCKET, KEY),
        ]
        for call in calls:
            before = len(server.requests)
            with pytest.raises(errors.Throttled) as caught:
                await call()  # type: ignore[misc]
            assert caught.value.retry_after == 3.0
            assert len(server.requests) == before + 1  # nobody but the engine retries


async def test_a_skewed_clock_blocks_and_is_measured() -> None:  # B-42
    answer = error(403, "RequestTimeTooSkewed")
    answer.headers = {"Date": formatdate(10_000, usegmt=True)}
    async with scripted(lambda request: answer) as server:
        store = server.store(clock=lambda: 8_000.0)
        for call in (store.get_object(BUCKET, KEY, etag=ETAG), store.head_object(BUCKET, KEY)):
            with pytest.raises(errors.ClockSkewed, match="2000 s behind"):
                await call


# --- regions -----------------------------------------------------------------------------------


def signed_region(request: Request) -> str:
    return request.headers["authorization"].split("Credential=")[1].split("/")[2]


@pytest.mark.parametrize("status", [301, 307, 400])
@pytest.mark.parametrize("by", ["header", "body"])
async def test_a_bucket_elsewhere_is_found_once_and_remembered(
    status: int, by: str
) -> None:  # B-43
    def script(request: Request) -> Answer:
        if signed_region(request) == "eu-central-1":
            return found()
        code = "AuthorizationHeaderMalformed" if status == 400 else "PermanentRedirect"
        answer = error(status, code, more="<Region>eu-central-1</Region>" if by == "body" else "")
        extra = {"x-amz-bucket-region": "eu-central-1"} if by == "header" else {}
        answer.headers = {"Location": "http://evil.example/", **extra}
        return answer

    async with scripted(script) as server:
        store = server.store()
        for _ in range(2):
            assert await drain(await store.get_object(BUCKET, KEY, etag=ETAG)) == b"abc"
        regions = [signed_region(request) for request in server.requests]
        assert regions == ["us-east-1", "eu-central-1", "eu-central-1"]


@pytest.mark.parametrize("status", [301, 400])
async def test_a_bare_answer_to_head_is_explained_by_the_location(
    status: int,
) -> None:  # B-43, B-46
    def script(request: Request) -> Answer:
        if signed_region(request) == "eu-west-1":
            return found()
        if "location" in request.query:
            return Answer(body=b"<LocationConstraint xmlns='x'>EU</LocationConstraint>")
        return Answer(status)

    async with scripted(script) as server:
        info = await server.store().head_object(BUCKET, KEY)
        assert info is not None
        assert info.size == 3


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_requests_that_were_under_way_when_the_region_was_found_are_sent_again(
    method: str,
) -> None:  # a run that goes on begins with as many requests as it may have at a time
    def script(request: Request) -> Answer:
        if signed_region(request) == "eu-central-1":
            return found()
        answer = Answer(301) if method == "HEAD" else error(301, "PermanentRedirect")
        answer.headers = {"x-amz-bucket-region": "eu-central-1"}
        return answer

    async with scripted(script) as server:
        store = server.store()

        async def ask() -> None:
            if method == "GET":
                assert await drain(await store.get_object(BUCKET, KEY, etag=ETAG)) == b"abc"
            else:
                assert await store.head_object(BUCKET, KEY) is not None

        await asyncio.gather(*(ask() for _ in range(8)))
        assert sum(signed_region(request) == "us-east-1" for request in server.requests) > 1


async def test_two_regions_that_name_each_other_do_not_loop() -> None:
    def script(request: Request) -> Answer:
        other = "eu-west-1" if signed_region(request) != "eu-west-1" else "us-east-1"
        return error(301, "PermanentRedirect", more=f"<Region>{other}</Region>")

    async with scripted(script) as server:
        with pytest.raises(errors.Refused):
            await server.store().get_object(BUCKET, KEY, etag=ETAG)
        assert len(server.requests) == 3


async def test_a_redirect_to_nowhere_is_refused_and_location_not_followed() -> None:
    async with scripted(
        lambda r: Answer(301, headers={"Location": f"http://{r.headers['host']}/x"})
    ) as server:
        with pytest.raises(errors.Refused):
            await server.store().get_object(BUCKET, KEY, etag=ETAG)
        assert all(request.target.startswith(f"/{BUCKET}") for request in server.requests)


async def test_a_moved_bucket_is_looked_for_again() -> None:
    home = "eu-central-1"

    def script(request: Request) -> Answer:
        if signed_region(request) == home:
            return found()
        return error(301, "PermanentRedirect", more=f"<Region>{home}</Region>")

    async with scripted(script) as server:
        store = server.store()
        await drain(await store.get_object(BUCKET, KEY, etag=ETAG))
        home = "eu-north-1"
        await drain(await store.get_object(BUCKET, KEY, etag=ETAG))
        assert signed_region(server.requests[-1]) == "eu-north-1"


async def test_a_streamed_body_is_tried_again_by_the_engine_with_the_region_known() -> None:
    def script(request: Request) -> Answer:
        if signed_region(request) == "eu-central-1":
            return found(b"")
        return error(301, "PermanentRedirect", more="<Region>eu-central-1</Region>")

    async with scripted(script) as server:
        store = server.store()
        data = [b"x" * 50_000] * 4
        with pytest.raises(errors.Transient):
            await store.put_object(BUCKET, KEY, Chunks(*data), PLAIN, md5=None)
        await store.put_object(BUCKET, KEY, Chunks(*data), PLAIN, md5=None)
        assert server.requests[-1].body == b"".join(data)


# --- credentials -------------------------------------------------------------------------------


async def test_expired_static_credentials_are_not_tried_again() -> None:
    async with scripted(lambda request: error(400, "ExpiredToken")) as server:
        store = server.store()
        for call in (
            store.get_object(BUCKET, KEY, etag=ETAG),
            store.head_object(BUCKET, KEY),
            store.list_parts(BUCKET, KEY, "id"),
        ):
            with pytest.raises(errors.CredentialsMissing, match="start again with fresh ones"):
                await call


async def test_expired_credentials_are_renewed_and_the_request_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # B-40
    file = tmp_path / "credentials"

    def write(key: str) -> None:
        file.write_text(
            f"[mine]\naws_access_key_id={key}\naws_secret_access_key=s\naws_session_token=t\n"
        )

    def script(request: Request) -> Answer:
        if "OLDKEY" in request.headers["authorization"]:
            write("NEWKEY")
            return error(400, "ExpiredToken")
        if request.method == "GET" and "uploadId" in request.query:
            return Answer(
                body=b"<ListPartsResult><IsTruncated>false</IsTruncated></ListPartsResult>"
            )
        return found(b"")

    write("OLDKEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    async with scripted(script) as server:
        settings = server.settings(access_key_id=None, secret_access_key=None, profile="mine")
        stored = await server.store(settings).put_object(
            BUCKET, KEY, Chunks(b"abc"), PLAIN, md5=None
        )
        assert stored.etag == ETAG
        write("OLDKEY")
        assert await server.store(settings).list_parts(BUCKET, KEY, "id") == []


async def test_secrets_are_in_no_message(caplog: pytest.LogCaptureFixture) -> None:
    def script(request: Request) -> Answer:
        return error(
            403, "InvalidAccessKeyId", f"The key {ACCESS} with {SECRET} and {TOKEN} is bad"
        )

    async with scripted(script) as server:
        store = server.store(server.settings(session_token=TOKEN))
        for call in (store.get_object(BUCKET, KEY, etag=ETAG), store.list_parts(BUCKET, KEY, "id")):
            with pytest.raises(errors.CredentialsMissing) as caught:
                await call
            said = str(caught.value) + caplog.text + repr(store)
            assert not any(secret in said for secret in (ACCESS, SECRET, TOKEN))
            assert "InvalidAccessKeyId" in said


# --- refusals ----------------------------------------------------------------------------------


async def test_a_refusal_of_head_tells_of_the_permission_to_list() -> None:  # B-45
    def script(request: Request) -> Answer:
        return error(403, "AccessDenied") if request.method == "GET" else Answer(403)

    async with scripted(script) as server:
        with pytest.raises(errors.AccessDenied, match="s3:ListBucket"):
            await server.store().head_object(BUCKET, KEY)


async def test_the_expected_owner_is_named_in_every_request() -> None:  # B-47
    async with scripted(lambda request: error(403, "AccessDenied")) as server:
        store = server.store(server.settings(expected_bucket_owner="123456789012"))
        for call in (
            store.get_object(BUCKET, KEY, etag=ETAG),
            store.put_object(BUCKET, KEY, Chunks(b"a"), PLAIN, md5=None),
            store.upload_part(BUCKET, KEY, "id", 1, 0, Chunks(b"a")),
            store.head_object(BUCKET, KEY),
            store.list_page(BUCKET, b"", b""),
            store.delete_object(BUCKET, KEY, etag=""),
            store.create_multipart_upload(BUCKET, KEY, PLAIN, 1),
            store.complete_multipart_upload(BUCKET, KEY, "id", [Part(1, 1, "e")]),
            store.list_parts(BUCKET, KEY, "id"),
            store.abort_multipart_upload(BUCKET, KEY, "id"),
            store.list_multipart_uploads(BUCKET, b""),
            store.get_object_tagging(BUCKET, KEY),
        ):
            with pytest.raises(errors.AccessDenied):
                await call
        owners = {request.headers.get("x-amz-expected-bucket-owner") for request in server.requests}
        assert owners == {"123456789012"}
