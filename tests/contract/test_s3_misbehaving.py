"""S3 servers that answer wrongly, late, elsewhere or with an error inside a success."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from email.utils import formatdate
from pathlib import Path

import pytest

from s3flow import errors
from s3flow.model import Attributes, ObjectInfo, Part, Span
from s3flow.ports import Body
from s3flow.stores.s3 import S3Settings, S3Store
from tests.contract.s3_scripted import (
    ACCESS,
    BUCKET,
    SECRET,
    TOKEN,
    Answer,
    Request,
    error,
    scripted,
)

ETAG = "900150983cd24fb0d6963f7d28e17f72"
KEY = b"a key"
PLAIN = Attributes({}, {}, "STANDARD", 0, "our-token")


def found(body: bytes = b"abc", **changes: object) -> Answer:
    headers = {"ETag": f'"{ETAG}"'}
    return Answer(**{"body": body, "headers": headers, **changes})  # type: ignore[arg-type]


class Chunks:
    """A body of chunks; *gate* must be set before the first one comes."""

    def __init__(self, *chunks: bytes, size: int | None = None) -> None:
        self.info = ObjectInfo(0, "")
        self.size = sum(map(len, chunks)) if size is None else size
        self.gate = asyncio.Event()
        self.gate.set()
        self._chunks = list(chunks)

    async def read(self) -> memoryview:
        await self.gate.wait()
        return memoryview(self._chunks.pop(0) if self._chunks else b"")

    def close(self) -> None:
        self._chunks.clear()


async def drain(body: Body) -> bytes:
    data = b""
    while chunk := await body.read():
        data += chunk
    body.close()
    return data


# --- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (found(b"ab", length=3, cut=True), errors.Truncated),  # B-01
        (found(b"ab", length=None), errors.Truncated),  # B-02
        (found(b"abcd", length=None), errors.BadAnswer),
        (
            found(
                b"2\r\nab\r\n", length=None, headers={"ETag": ETAG, "Transfer-Encoding": "chunked"}
            ),
            errors.Truncated,  # B-03
        ),
    ],
)
async def test_a_body_that_ends_early_or_late_is_no_object(
    answer: Answer, kind: type[Exception]
) -> None:
    def script(request: Request) -> Answer:
        return found() if request.method == "HEAD" else answer

    async with scripted(script) as server:
        body = await server.store().get_object(BUCKET, KEY, etag=ETAG)
        with pytest.raises(kind):
            await drain(body)
        body.close()
        body.close()


async def test_a_body_without_a_length_is_measured_by_asking() -> None:
    async with scripted(lambda r: found(length=-1 if r.method == "HEAD" else None)) as server:
        body = await server.store().get_object(BUCKET, KEY, etag=ETAG)
        assert body.size == 3
        assert await drain(body) == b"abc"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (found(b"bc"), errors.BadAnswer),  # B-07: 200 to a Range request
        (found(b"bc", status=206), errors.BadAnswer),
        (found(b"bc", status=206, headers={"Content-Range": "bytes 0-1/3", "ETag": ETAG}), errors.BadAnswer),
        (found(b"bc", status=206, headers={"Content-Range": "bytes 1-2/*", "ETag": ETAG}), errors.BadAnswer),
        (found(b"bc", status=206, headers={"Content-Range": "bytes 1-2/2", "ETag": ETAG}), errors.BadAnswer),
        (found(b"b", status=206, headers={"Content-Range": "bytes 1-2/3", "ETag": ETAG}), errors.BadAnswer),
        # B-06: If-Match was ignored
        (
            found(b"bc", status=206, headers={"Content-Range": "bytes 1-2/3", "ETag": "new"}),
            errors.SourceChanged,
        ),
        (found(b"bc", status=206, headers={"Content-Range": "bytes 1-2/3"}), errors.BadAnswer),
        (error(412, "PreconditionFailed"), errors.SourceChanged),
        (error(416, "InvalidRange"), errors.SourceChanged),
        (error(404, "NoSuchKey"), errors.SourceGone),  # B-09
        (error(403, "InvalidObjectState"), errors.Archived),
    ],
)  # fmt: skip
async def test_a_range_is_the_range_of_that_version_or_an_error(
    answer: Answer, kind: type[Exception]
) -> None:
    async with scripted(lambda request: answer) as server:
        store = server.store()
        with pytest.raises(kind) as caught:
            await store.get_object(BUCKET, KEY, etag=ETAG, span=Span(1, 3))
        assert f"scripted:{BUCKET}/a key" in str(caught.value)
        assert server.requests[0].headers["range"] == "bytes=1-2"
        assert server.requests[0].headers["if-match"] == f'"{ETAG}"'
        assert "partNumber" not in server.requests[0].target  # B-08


async def test_a_part_is_asked_for_by_number_and_its_checksum_is_not_the_objects() -> None:
    headers = {"ETag": '"e-2"', "x-amz-mp-parts-count": "2", "x-amz-checksum-crc32": "AAAAAA=="}
    async with scripted(lambda request: found(b"abc", headers=headers)) as server:
        info = await server.store().head_object(BUCKET, KEY, part_number=2)
        assert info is not None
        assert (info.size, info.parts_count, info.etag, info.checksums) == (3, 2, "e-2", {})
        assert server.requests[0].query == {"partNumber": "2"}


async def test_a_range_knows_its_own_and_the_objects_size() -> None:
    headers = {
        "Content-Range": "bytes 1-2/3",
        "ETag": f'"{ETAG}"',
        "x-amz-checksum-crc32": "AAAAAA==",
    }
    async with scripted(lambda request: found(b"bc", status=206, headers=headers)) as server:
        body = await server.store().get_object(BUCKET, KEY, etag=ETAG, span=Span(1, 3))
        assert (body.size, body.info.size, body.info.checksums) == (2, 3, {})
        assert await drain(body) == b"bc"


async def test_a_part_of_the_content_to_a_whole_request_is_a_bad_answer() -> None:
    async with scripted(lambda request: found(status=206)) as server:
        with pytest.raises(errors.BadAnswer):
            await server.store().get_object(BUCKET, KEY, etag=ETAG)


async def test_compressed_objects_arrive_as_they_are_stored() -> None:  # B-34
    raw = b"\x1f\x8b not really gzip"
    headers = {"ETag": f'"{ETAG}"', "Content-Encoding": "gzip"}
    async with scripted(lambda request: found(raw, headers=headers)) as server:
        body = await server.store().get_object(BUCKET, KEY, etag=ETAG)
        assert await drain(body) == raw
        assert body.info.headers["content-encoding"] == "gzip"
        assert server.requests[0].headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("checksums", ["auto", "when_required"])
async def test_checksum_headers_are_sent_only_where_wanted(checksums: str) -> None:  # B-23
    def script(request: Request) -> Answer:
        if request.method == "POST":
            return Answer(body=b"<R><UploadId>u</UploadId></R>")
        return found(b"" if request.method == "PUT" else b"abc")

    async with scripted(script) as server:
        store = server.store(server.settings(checksums=checksums))
        await drain(await store.get_object(BUCKET, KEY, etag=ETAG))
        await store.put_object(BUCKET, KEY, Chunks(b"abc"), PLAIN, md5=b"\0" * 16)
        await store.create_multipart_upload(BUCKET, KEY, PLAIN, 1)
        sent = [
            name for request in server.requests for name in request.headers if "checksum" in name
        ]
        assert sent == (["x-amz-checksum-mode"] if checksums == "auto" else [])
        assert server.requests[1].headers["content-md5"] == "AAAAAAAAAAAAAAAAAAAAAA=="
        assert all("trailer" not in request.headers for request in server.requests)


# --- keys and metadata byte for byte -----------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        b"/lead", b"a//b", b"./a", b"../a", b"a/../b", b"a/./b", b"a/.", b"//", b"+", b"a b", b"%25",
        b"%2F", b"?versionId=x", b"&?#=", b"~-._", "\N{OK HAND SIGN}".encode(),
        "\N{LATIN SMALL LETTER E WITH ACUTE}".encode(),
        "e\N{COMBINING ACUTE ACCENT}".encode(), b"\x01\n\r\x7f", b"*'()!", b"x" * 1024,
    ],
)  # fmt: skip
async def test_keys_go_out_encoded_once_and_unchanged(key: bytes) -> None:  # B-51..B-54
    async with scripted(lambda request: found()) as server:
        store = server.store()
        store.refuse(BUCKET, key)
        await drain(await store.get_object(BUCKET, key, etag=ETAG))
        assert server.requests[0].key == key
        assert "?" not in server.requests[0].target


@pytest.mark.parametrize(
    ("key", "kind"),
    [(b"", errors.NameRefused), (b"x" * 1025, errors.NameTooLong), (b"\xff", errors.NameRefused)],
)
async def test_keys_that_s3_cannot_hold_are_refused(key: bytes, kind: type[Exception]) -> None:
    async with scripted(lambda request: found()) as server:
        with pytest.raises(kind):
            server.store().refuse(BUCKET, key)


async def test_metadata_travels_byte_for_byte() -> None:  # B-144
    values = {
        "x-amz-meta-word": "=?UTF-8?B?w6k=?=",
        "x-amz-meta-raw": "caf\xc3\xa9 \xc3\xa0",  # UTF-8 as HTTP carries it
        "expires": "not a date",
    }
    answer = found(headers={"ETag": ETAG, "x-amz-missing-meta": "1", **values})
    async with scripted(lambda r: answer if r.method == "GET" else found(b"")) as server:
        store = server.store()
        body = await store.get_object(BUCKET, KEY, etag=ETAG)
        attributes = Attributes(body.info.headers, {}, "STANDARD", 0)
        await store.put_object(BUCKET, KEY, body, attributes, md5=None)
        body.close()
        assert body.info.missing_metadata == 1
        sent = server.requests[1].headers
        assert {name: sent[name] for name in values} == values


async def test_a_line_break_in_metadata_never_becomes_a_header() -> None:  # B-144
    async with scripted(lambda request: found(b"")) as server:
        attributes = Attributes({"x-amz-meta-a": "b\r\nx-evil: 1"}, {}, "STANDARD", 0)
        with pytest.raises(errors.Refused):
            await server.store().put_object(BUCKET, KEY, Chunks(b"a"), attributes, md5=None)
        assert server.requests == []


# --- writing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 300_000])
async def test_nothing_is_asked_of_the_target_before_the_source_delivers(size: int) -> None:  # B-25
    async with scripted(lambda request: found(b"")) as server:
        body = Chunks(b"x" * size)
        body.gate.clear()
        store = server.store()
        task = asyncio.ensure_future(store.put_object(BUCKET, KEY, body, PLAIN, md5=None))
        for _ in range(50):
            await asyncio.sleep(0)
        assert server.heads == 0
        body.gate.set()
        stored = await task
        assert (stored.size, stored.etag) == (size, ETAG)
        assert server.requests[0].body == b"x" * size


@pytest.mark.parametrize(
    ("chunks", "size", "kind"),
    [
        ([b"abc"], 4, errors.Truncated),
        ([b"abc", b"d"], 3, errors.BadAnswer),
        ([], 1, errors.Truncated),
        ([b"a"], 0, errors.BadAnswer),
        ([b"x" * 100_000], 100_001, errors.Truncated),
    ],
)
async def test_a_body_of_another_size_is_not_stored(
    chunks: list[bytes], size: int, kind: type[Exception]
) -> None:
    async with scripted(lambda request: found(b"")) as server:
        with pytest.raises(kind):
            await server.store().put_object(
                BUCKET, KEY, Chunks(*chunks, size=size), PLAIN, md5=None
            )
        assert server.requests == []


async def test_an_empty_object_is_one_empty_request() -> None:
    async with scripted(lambda request: found(b"")) as server:
        await server.store().put_object(BUCKET, KEY, Chunks(), PLAIN, md5=None)
        assert server.requests[0].headers["content-length"] == "0"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(body=b"<Error><Code>InternalError</Code></Error>"), errors.ServerError),  # B-11
        (Answer(body=b"<Error><Code>SlowDown</Code></Error>"), errors.Throttled),
        (Answer(), errors.ServerError),  # no ETag
        (error(400, "BadDigest"), errors.Corrupted),
        (error(400, "RequestTimeout"), errors.ServerError),  # B-25
        (error(409, "ConditionalRequestConflict"), errors.Conflict),  # B-26
        (error(412, "PreconditionFailed"), errors.Conflict),
        (error(404, "NoSuchBucket"), errors.NoSuchBucket),
        (error(404, "NoSuchUpload"), errors.NoSuchUpload),  # B-22
        (error(400, "EntityTooLarge"), errors.TooLarge),
        (error(403, "AccessDenied"), errors.AccessDenied),
        (Answer(400, b"<html>proxy</html>"), errors.Refused),
        (Answer(502, b"<html>proxy</html>"), errors.ServerError),
    ],
)
async def test_a_write_succeeds_only_with_an_etag(answer: Answer, kind: type[Exception]) -> None:
    async with scripted(lambda request: answer) as server:
        store = server.store()
        with pytest.raises(kind):
            await store.upload_part(BUCKET, KEY, "id", 1, 0, Chunks(b"abc"))
        with pytest.raises(kind):
            await store.put_object(BUCKET, KEY, Chunks(b"abc"), PLAIN, md5=None)
        assert server.requests[0].query == {"partNumber": "1", "uploadId": "id"}


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


# --- multipart ---------------------------------------------------------------------------------


async def test_the_upload_id_survives_an_answer_that_is_no_xml() -> None:  # B-18
    body = b"<R><Key>a\x01&#x1;</Key><UploadId>id&amp;1</UploadId></R>"
    async with scripted(lambda request: Answer(body=body)) as server:
        upload_id = await server.store().create_multipart_upload(BUCKET, b"a\x01", PLAIN, 1)
        assert upload_id == "id&1"
        assert server.requests[0].headers["x-amz-meta-s3flow-transfer"] == "our-token"


async def test_unreadable_keys_in_other_answers_do_not_matter() -> None:  # B-18
    key = b"a\x01\x0b"
    said = b"<Key>a\x01&#x1;&#11;</Key>"

    def script(request: Request) -> Answer:
        if request.method == "POST":
            return Answer(
                body=b"<CompleteMultipartUploadResult>"
                + said
                + b"<ETag>&quot;e-1&quot;</ETag></CompleteMultipartUploadResult>"
            )
        part = b"<Part><PartNumber>1</PartNumber><ETag>&quot;e&quot;</ETag><Size>5</Size></Part>"
        return Answer(body=b"<ListPartsResult>" + said + part + b"</ListPartsResult>")

    async with scripted(script) as server:
        store = server.store()
        assert await store.list_parts(BUCKET, key, "id") == [Part(1, 5, "e")]
        stored = await store.complete_multipart_upload(BUCKET, key, "id", [Part(1, 5, "e")])
        assert (stored.size, stored.etag) == (5, "e-1")
        assert [request.key for request in server.requests] == [key, key]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(body=b"<Error><Code>InternalError</Code></Error>"), errors.ServerError),  # B-11
        (Answer(body=b"<Error><Code>SlowDown</Code></Error>"), errors.Throttled),
        (Answer(body=b""), errors.S3flowError),
        (Answer(body=b"<CompleteMultipartUploadResult/>"), errors.ServerError),
        (error(404, "NoSuchUpload"), errors.NoSuchUpload),  # B-13
        (error(409, "ConditionalRequestConflict"), errors.Conflict),  # B-26
        (Answer(body=b"<Compl", length=500, cut=True), errors.ConnectionLost),
    ],
)
async def test_complete_succeeds_only_with_an_etag(answer: Answer, kind: type[Exception]) -> None:
    async with scripted(lambda request: answer) as server:
        with pytest.raises(kind):
            await server.store().complete_multipart_upload(BUCKET, KEY, "id", [Part(1, 5, "e")])
        assert len(server.requests) == 1


async def test_a_lost_answer_to_complete_is_a_lost_connection() -> None:  # B-13
    async with scripted(lambda request: Answer(body=b"", status=0)) as server:
        with pytest.raises(errors.ConnectionLost):
            await server.store().complete_multipart_upload(BUCKET, KEY, "id", [Part(1, 5, "e")])
        assert len(server.requests) == 1


async def test_an_abort_is_repeated_until_the_upload_is_gone() -> None:  # B-17
    left = [2]  # times that the upload shows up again

    def script(request: Request) -> Answer:
        if request.method == "DELETE":
            return Answer(204)
        left[0] -= 1
        if left[0] < 0:
            return error(404, "NoSuchUpload")
        return Answer(body=b"<ListPartsResult></ListPartsResult>")

    async with scripted(script) as server:
        await server.store().abort_multipart_upload(BUCKET, KEY, "id")
        assert [request.method for request in server.requests] == ["DELETE", "GET"] * 3


async def test_aborting_what_is_gone_is_no_error() -> None:
    async with scripted(lambda request: error(404, "NoSuchUpload")) as server:
        await server.store().abort_multipart_upload(BUCKET, KEY, "id")


@pytest.mark.parametrize("verb", ["ListParts", "ListMultipartUploads"])
async def test_listings_that_go_in_circles_are_bad_answers(verb: str) -> None:  # B-48
    body = (
        f"<{verb}Result><IsTruncated>true</IsTruncated>"
        "<NextPartNumberMarker>1</NextPartNumberMarker>"
        f"<NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>u</NextUploadIdMarker></{verb}Result>"
    ).encode()
    async with scripted(lambda request: Answer(body=body)) as server:
        store = server.store()
        asked: Coroutine[object, object, object]
        if verb == "ListParts":
            asked = store.list_parts(BUCKET, KEY, "id")
        else:
            asked = store.list_multipart_uploads(BUCKET, b"")
        with pytest.raises(errors.BadAnswer, match="circles"):
            await asked


# --- deleting ----------------------------------------------------------------------------------


async def test_a_store_that_ignores_conditions_deletes_no_other_version() -> None:
    async with scripted(lambda request: found(b"")) as server:
        store = server.store()
        with pytest.raises(errors.SourceChanged):
            await store.delete_object(BUCKET, KEY, etag="another")
        assert [request.method for request in server.requests] == ["HEAD"]
        assert await store.delete_object(BUCKET, KEY, etag=ETAG)
        assert server.requests[-1].headers["if-match"] == f'"{ETAG}"'


@pytest.mark.parametrize(
    ("answer", "expected"), [(error(404, "NoSuchKey"), False), (Answer(204), True)]
)
async def test_a_delete_says_whether_something_was_there(answer: Answer, expected: bool) -> None:
    async with scripted(lambda r: found() if r.method == "HEAD" else answer) as server:
        assert await server.store().delete_object(BUCKET, KEY, etag=ETAG) is expected


async def test_a_failed_condition_keeps_the_object() -> None:
    answer = error(412, "PreconditionFailed")
    async with scripted(lambda r: found() if r.method == "HEAD" else answer) as server:
        with pytest.raises(errors.SourceChanged):
            await server.store().delete_object(BUCKET, KEY, etag=ETAG)


# --- listings ----------------------------------------------------------------------------------


async def test_control_characters_in_a_listing_block_no_page() -> None:  # B-50
    body = (
        b"<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>"
        b"<Contents><Key>a%01%25+b%2B</Key><Size>1</Size><ETag>&quot;e&quot;</ETag>"
        b"<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents></ListBucketResult>"
    )
    async with scripted(lambda request: Answer(body=body)) as server:
        page = await server.store().list_page(BUCKET, b"a", b"")
        assert [entry.key for entry in page.entries] == [b"a\x01% b+"]
        assert server.requests[0].query == {
            "list-type": "2", "encoding-type": "url", "max-keys": "1000", "prefix": "a",
        }  # fmt: skip


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"<Error><Code>InternalError</Code></Error>", errors.ServerError),
        (b"<html>", errors.BadAnswer),
        (b"<ListBucketResult><Contents>", errors.BadAnswer),
    ],
)
async def test_a_listing_that_is_none_is_an_error(body: bytes, kind: type[Exception]) -> None:
    async with scripted(lambda request: Answer(body=body)) as server:
        with pytest.raises(kind):
            await server.store().list_page(BUCKET, b"", b"")


# --- weight ------------------------------------------------------------------------------------


async def test_static_keys_need_no_botocore() -> None:
    program = """
import asyncio, sys
from s3flow.model import Attributes
from s3flow.stores.s3 import S3Settings, S3Store
from s3flow import errors

async def main(url):
    store = S3Store(S3Settings("s", url, access_key_id="a", secret_access_key="b"), environ={})
    body = await store.get_object("b", b"k", etag="")
    await store.put_object("b", b"k", body, Attributes({}, {}, "", 0), md5=None)
    body.close()
    await store.head_object("b", b"k")
    await store.list_page("b", b"", b"")
    assert not await store.delete_object("b", b"none", etag="e")
    await store.close()
    heavy = [name for name in sys.modules if name.partition(".")[0] in ("botocore", "aiobotocore", "aiohttp")]
    assert not heavy, heavy

asyncio.run(main(sys.argv[1]))
"""

    def script(request: Request) -> Answer:
        if "list-type" in request.query:
            return Answer(body=b"<ListBucketResult></ListBucketResult>")
        return Answer(404) if request.target.endswith("/none") else found()

    async with scripted(script) as server:
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, f"http://127.0.0.1:{server.port}",
            env=environ, stderr=subprocess.PIPE,
        )  # fmt: skip
        _, said = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert len(server.requests) == 5


def test_a_store_can_be_made_without_a_loop() -> None:
    assert S3Store(S3Settings("somewhere")).name == "somewhere"


async def test_an_upload_id_that_is_no_text_is_not_believed() -> None:
    async with scripted(lambda _: Answer(body=b"<I><UploadId>\xff</UploadId></I>")) as server:
        with pytest.raises(errors.BadAnswer, match="not UTF-8"):
            await server.store().create_multipart_upload(BUCKET, b"a key", PLAIN, 1)
