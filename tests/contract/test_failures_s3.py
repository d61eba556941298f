"""Failures seen in the field that concern what goes over the wire to S3, as a server sees it."""

from __future__ import annotations

import asyncio
import re
from html import unescape

import pytest

from s3flow import errors
from s3flow.model import Attributes, ObjectInfo, Part, Stored
from s3flow.stores.memory_object import MemoryBody
from s3flow.stores.s3 import S3Settings, S3Store, rare
from tests.contract.s3_scripted import BUCKET, Answer, Request, error, scripted
from tests.unit.hostile import Peer, serve

KEY = b"a key"
ETAG = "900150983cd24fb0d6963f7d28e17f72"
PLAIN = Attributes({}, {}, "STANDARD", 0, "our-token")
DRESSED = Attributes(
    {"content-type": "text/x", "cache-control": "no-cache", "x-amz-meta-a": "b"},
    {"colour": "blue"},
    "STANDARD_IA",
    0,
    "our-token",
)
DONE = (
    b"<CompleteMultipartUploadResult><ETag>&quot;e-1&quot;</ETag></CompleteMultipartUploadResult>"
)
DECLARATION = b'<?xml version="1.0" encoding="UTF-8"?>'


def body(data: bytes = b"abc") -> MemoryBody:
    return MemoryBody(memoryview(data), ObjectInfo(len(data), ""), 65_536)


# --- completing takes its time (B-14) ----------------------------------------------------------


def impatient(url: str) -> S3Store:
    settings = S3Settings(
        "slow",
        url,
        access_key_id="a",
        secret_access_key="b",
        progress_timeout=0.2,
        answer_timeout=0.2,
    )
    return S3Store(settings, environ={})


@pytest.mark.parametrize("begin", [b"", DECLARATION])
async def test_blanks_while_an_upload_is_completed_are_waited_out(begin: bytes) -> None:
    """S3 says 200 at once and sends a blank now and then; some stores begin with the blanks."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.5)
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        rest = DONE if begin else DECLARATION + DONE
        for piece in (begin, *[b"\n", b" "] * 6, rest):
            if piece:
                await peer.send(b"%x\r\n%s\r\n" % (len(piece), piece))
            await asyncio.sleep(0.1)
        await peer.send(b"0\r\n\r\n")

    async with serve(script) as served:
        store = impatient(f"http://127.0.0.1:{served.origin.port}")
        try:
            stored = await store.complete_multipart_upload(BUCKET, KEY, "id", [Part(1, 5, "e")])
        finally:
            await store.close()
    assert (stored.size, stored.etag) == (5, "e-1")


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n "])
async def test_an_answer_to_complete_that_never_ends_is_a_lost_one(
    begin: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rare, "COMPLETE_SECONDS", 0.3)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(begin)
        await peer.gone()

    async with serve(script) as served:
        store = impatient(f"http://127.0.0.1:{served.origin.port}")
        try:
            with pytest.raises(errors.ConnectionLost):
                await store.complete_multipart_upload(BUCKET, KEY, "id", [Part(1, 5, "e")])
        finally:
            await store.close()


# --- what a write says -------------------------------------------------------------------------


@pytest.mark.parametrize("url", [None, "https://s3.example"])
async def test_complete_names_the_last_etag_of_each_part_and_the_size(url: str | None) -> None:
    """The size goes to AWS only: elsewhere the header is younger than most stores."""
    async with scripted(lambda request: Answer(body=DONE)) as server:
        store = server.store()
        store._rare._is_aws = S3Settings("s", url).is_aws
        parts = [Part(1, 5, "again"), Part(2, 7, "second")]
        await store.complete_multipart_upload(BUCKET, KEY, "id", parts)
        [request] = server.requests
    named = re.findall(
        r"<PartNumber>(\d+)</PartNumber><ETag>([^<]*)</ETag>", unescape(request.body.decode())
    )
    assert named == [("1", '"again"'), ("2", '"second"')]
    assert request.headers.get("x-amz-mp-object-size") == ("12" if url is None else None)


def new_upload(request: Request) -> Answer:
    if request.method == "POST":
        return Answer(body=b"<R><UploadId>id</UploadId></R>")
    return Answer(headers={"ETag": f'"{ETAG}"'})


async def test_small_and_large_objects_are_dressed_alike_and_in_one_request() -> None:
    """Nothing is set afterwards, so nothing can be denied once the bytes are there."""
    async with scripted(new_upload) as server:
        store = server.store()
        await store.put_object(BUCKET, KEY, body(), DRESSED, md5=None)
        await store.create_multipart_upload(BUCKET, KEY, DRESSED, 3)
        put, create = server.requests
    expected = {
        "content-type": "text/x",
        "cache-control": "no-cache",
        "x-amz-meta-a": "b",
        "x-amz-tagging": "colour=blue",
        "x-amz-storage-class": "STANDARD_IA",
    }
    for request in (put, create):
        assert {name: request.headers.get(name) for name in expected} == expected
        assert not any("acl" in name or "grant" in name for name in request.headers)
    assert create.headers["x-amz-meta-s3flow-transfer"] == "our-token"


@pytest.mark.parametrize("status", [400, 403])
async def test_tags_that_the_target_denies_leave_nothing_there(status: int) -> None:
    code = "AccessDenied" if status == 403 else "InvalidTag"

    def script(request: Request) -> Answer:
        return error(status, code) if "x-amz-tagging" in request.headers else new_upload(request)

    async with scripted(script) as server:
        store = server.store()
        with pytest.raises(errors.Permanent, match=code):
            await store.put_object(BUCKET, KEY, body(), DRESSED, md5=None)
        with pytest.raises(errors.Permanent, match=code):
            await store.create_multipart_upload(BUCKET, KEY, DRESSED, 3)
        assert [request.method for request in server.requests] == ["PUT", "POST"]


# --- what a store or a proxy does to bodies (B-35) ---------------------------------------------


@pytest.mark.parametrize("etag", [f'W/"{ETAG}"', ""])
async def test_a_store_that_compresses_on_the_fly_is_named(etag: str) -> None:
    def script(request: Request) -> Answer:
        assert request.headers["accept-encoding"] == "identity"
        headers = {"Content-Encoding": "gzip", **({"ETag": etag} if etag else {})}
        return Answer(body=b"\x1f\x8b", headers=headers, length=None)

    async with scripted(script) as server:
        with pytest.raises(errors.BadAnswer, match=r"scripted:.*does a proxy stand between"):
            await server.store().get_object(BUCKET, KEY, etag=ETAG)


# --- how a refusal is named --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("AccessDenied", errors.AccessDenied),
        ("AccessControlListNotSupported", errors.Refused),
        ("KMS.DisabledException", errors.Refused),
        ("InvalidObjectName", errors.Refused),  # what OSS says to a leading slash
    ],
)
async def test_a_refusal_by_policy_is_final_and_says_what_was_said(
    code: str, kind: type[errors.Permanent]
) -> None:
    status = 403 if code == "AccessDenied" else 400
    async with scripted(lambda request: error(status, code)) as server:
        with pytest.raises(kind, match=code):
            await server.store().put_object(BUCKET, b"/lead", body(), PLAIN, md5=None)
        assert len(server.requests) == 1


async def test_a_bad_copy_goes_where_deletes_know_no_condition() -> None:
    def answer(request: Request) -> Answer:
        if request.method == "DELETE":
            refused = "if-match" in request.headers
            return error(501, "NotImplemented") if refused else Answer(204)
        return Answer(headers={"ETag": f'"{ETAG}"'}, length=3)

    async with scripted(answer) as server:
        await server.store().discard(BUCKET, KEY, Stored(3, ETAG))
        deletes = [each.headers for each in server.requests if each.method == "DELETE"]
    assert ["if-match" in headers for headers in deletes] == [True, False]
