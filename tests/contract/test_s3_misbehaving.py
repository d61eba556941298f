"""S3 servers that answer wrongly to what is read or listed, or with an error inside a success."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from s3flow import errors
from s3flow.model import Span
from s3flow.stores.s3 import S3Settings, S3Store
from tests.contract.s3_scripted import (
    BUCKET,
    ETAG,
    KEY,
    PLAIN,
    Answer,
    Chunks,
    Request,
    drain,
    error,
    found,
    scripted,
)

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
