"""S3 servers that answer wrongly, or not at all, to what is written, named or deleted."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import pytest

from s3flow import errors
from s3flow.model import Attributes, Part
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


async def test_an_upload_id_that_is_no_text_is_not_believed() -> None:
    async with scripted(lambda _: Answer(body=b"<I><UploadId>\xff</UploadId></I>")) as server:
        with pytest.raises(errors.BadAnswer, match="not UTF-8"):
            await server.store().create_multipart_upload(BUCKET, b"a key", PLAIN, 1)


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
