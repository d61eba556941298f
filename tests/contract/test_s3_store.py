"""S3Store against S3 servers that somebody else wrote, with signatures checked where they do."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import AsyncIterator

import pytest

from s3flow import errors
from s3flow.model import MIB, Attributes, Bucket, ObjectInfo, Part, Span
from s3flow.ports import Body
from s3flow.stores.s3 import S3Settings, S3Store
from tests import servers
from tests.contract.s3_bench import opened_store

KEYS = sorted(
    [
        b"/lead", b"a//b", b"./a", b"../a", b"a/../b", b"dir/", b"%25", b"%2F", b"+", b"a b", b"&?#=",
        b"?versionId=x", b"~-._", b"*'()!", "\N{OK HAND SIGN}".encode(),
        "\N{LATIN SMALL LETTER E WITH ACUTE}".encode(), "e\N{COMBINING ACUTE ACCENT}".encode(),
        b"x" * 1024,
    ]
)  # fmt: skip
PLAIN = Attributes({}, {}, "STANDARD", 0, "our-token")


@pytest.fixture(params=["ministack", "moto"])
def server(request: pytest.FixtureRequest) -> servers.Server:
    """Give a server that checks signatures, and a second opinion that does not."""
    name = {"ministack": "signing_server", "moto": "moto_server"}[request.param]
    found: servers.Server = request.getfixturevalue(name)
    return found


@pytest.fixture
def bucket(server: servers.Server) -> str:
    """Give a new bucket."""
    return servers.make_bucket(server)


@pytest.fixture
async def store(server: servers.Server) -> AsyncIterator[S3Store]:
    """Give a store with the server's first account."""
    async with opened_store(server) as made:
        yield made


class Bytes:
    """A body that comes in pieces from one buffer, which the next piece overwrites."""

    def __init__(self, data: bytes, piece: int = 48 * 1024) -> None:
        self.info = ObjectInfo(len(data), "")
        self.size = len(data)
        self._data = data
        self._at = 0
        self._buffer = bytearray(piece)

    async def read(self) -> memoryview:
        piece = self._data[self._at : self._at + len(self._buffer)]
        self._buffer[:] = b"\xee" * len(self._buffer)
        self._buffer[: len(piece)] = piece
        self._at += len(piece)
        return memoryview(self._buffer)[: len(piece)]

    def close(self) -> None:
        self._data = b""


async def drain(body: Body) -> bytes:
    """Read *body* to its end."""
    data = bytearray()
    while chunk := await body.read():
        data += chunk
    body.close()
    return bytes(data)


def md5(data: bytes) -> str:
    """Give the ETag of *data*."""
    return hashlib.md5(data).hexdigest()


@pytest.mark.parametrize("key", KEYS, ids=lambda key: repr(key)[:24])
async def test_every_key_comes_back_as_it_went(store: S3Store, bucket: str, key: bytes) -> None:
    data = secrets.token_bytes(100)
    stored = await store.put_object(bucket, key, Bytes(data), PLAIN, md5=hashlib.md5(data).digest())
    assert stored.etag == md5(data)
    page = await store.list_page(bucket, b"", b"")
    assert [entry.key for entry in page.entries] == [key]
    entry = page.entries[0]
    assert (entry.size, entry.etag, page.last) == (100, stored.etag, True)
    assert await drain(await store.get_object(bucket, key, etag=entry.etag)) == data
    assert list(await store.find(bucket, [key])) == [key]
    assert (await store.list_page(bucket, key, b"")).entries == page.entries
    assert (await store.list_page(bucket, b"", key)).entries == []
    assert await store.delete_object(bucket, key, etag=entry.etag)
    assert await store.head_object(bucket, key) is None


@pytest.mark.parametrize("size", [0, 1, 65_536, 65_537, 3_000_000])
async def test_objects_of_every_size_go_through(store: S3Store, bucket: str, size: int) -> None:
    data = secrets.token_bytes(size)
    stored = await store.put_object(bucket, b"from", Bytes(data), PLAIN, md5=None)
    body = await store.get_object(bucket, b"from", etag=stored.etag)
    copied = await store.put_object(bucket, b"to", body, PLAIN, md5=hashlib.md5(data).digest())
    body.close()
    assert (copied.size, copied.etag) == (size, md5(data))
    assert await drain(await store.get_object(bucket, b"to", etag=copied.etag)) == data


async def test_what_travels_with_an_object_arrives(store: S3Store, bucket: str) -> None:
    headers = {
        "content-type": "text/x-test",
        "content-encoding": "gzip",
        "content-disposition": "attachment",
        "content-language": "de",
        "cache-control": "no-store",
        "x-amz-meta-colour": "blue",
        "x-amz-meta-word": "=?UTF-8?B?w6k=?=",
    }
    attributes = Attributes(headers, {"a b": "c=d/\u00e9+@", "e": ""}, "STANDARD_IA", 0)
    await store.put_object(bucket, b"k", Bytes(b"data"), attributes, md5=None)
    info = await store.head_object(bucket, b"k")
    assert info is not None
    assert {name: info.headers.get(name) for name in headers} == headers
    assert (info.size, info.etag, info.storage_class) == (4, md5(b"data"), "STANDARD_IA")
    assert info.modified > 1_500_000_000_000
    assert await store.get_object_tagging(bucket, b"k") == attributes.tags


async def test_metadata_that_is_not_ascii_is_signed_as_it_is_sent(
    signing_server: servers.Server,
) -> None:  # B-144
    bucket = servers.make_bucket(signing_server)
    raw = "caf\u00e9 \u00e0  \u00fc".encode().decode("latin-1")
    async with opened_store(signing_server) as store:
        attributes = Attributes({"x-amz-meta-raw": raw}, {}, "STANDARD", 0)
        await store.put_object(bucket, b"k", Bytes(b"data"), attributes, md5=None)


async def test_a_listing_pages_in_byte_order(store: S3Store, bucket: str) -> None:
    keys = sorted(b"p/%d" % number for number in range(1003))
    for key in keys:
        await store.put_object(bucket, key, Bytes(b""), PLAIN, md5=None)
    first = await store.list_page(bucket, b"p/", b"")
    assert len(first.entries) == 1000
    assert not first.last
    rest = await store.list_page(bucket, b"p/", first.entries[-1].key)
    assert rest.last
    assert [entry.key for entry in first.entries + rest.entries] == keys
    found = await store.find(bucket, [b"p/0", b"p/00", *keys[500:600], b"q"])
    assert sorted(found) == [b"p/0", *keys[500:600]]


async def test_a_span_is_read_exactly(store: S3Store, bucket: str) -> None:
    data = secrets.token_bytes(1000)
    stored = await store.put_object(bucket, b"k", Bytes(data), PLAIN, md5=None)
    for span in (Span(0, 1), Span(10, 500), Span(999, 1000), Span(0, 1000)):
        body = await store.get_object(bucket, b"k", etag=stored.etag, span=span)
        assert (body.size, body.info.size) == (span.size, 1000)
        assert await drain(body) == data[span.start : span.stop]
    with pytest.raises(errors.SourceChanged):
        await store.get_object(bucket, b"k", etag="0" * 32, span=Span(0, 1))
    with pytest.raises(errors.SourceChanged):
        await store.get_object(bucket, b"k", etag="0" * 32)


async def test_what_is_not_there_is_told_apart(store: S3Store, bucket: str) -> None:
    with pytest.raises(errors.SourceGone):
        await store.get_object(bucket, b"none", etag="0" * 32)
    assert await store.head_object(bucket, b"none") is None
    assert await store.delete_object(bucket, b"none", etag="0" * 32) is False
    for call in (
        store.list_page("s3flow-no-such-bucket", b"", b""),
        store.put_object("s3flow-no-such-bucket", b"k", Bytes(b"x"), PLAIN, md5=None),
        store.get_object("s3flow-no-such-bucket", b"k", etag="0"),
        store.list_multipart_uploads("s3flow-no-such-bucket", b""),
    ):
        with pytest.raises(errors.NoSuchBucket):
            await call


async def test_a_delete_takes_the_version_that_was_meant(store: S3Store, bucket: str) -> None:
    stored = await store.put_object(bucket, b"k", Bytes(b"new"), PLAIN, md5=None)
    with pytest.raises(errors.SourceChanged):
        await store.delete_object(bucket, b"k", etag=md5(b"old"))
    assert await store.head_object(bucket, b"k") is not None
    assert await store.delete_object(bucket, b"k", etag=stored.etag) is True


@pytest.mark.parametrize("key", [b"plain", b"a//b c+%25", b"ctrl\x01"])
async def test_a_multipart_upload_goes_all_the_way(
    store: S3Store, server: servers.Server, bucket: str, key: bytes
) -> None:  # B-18
    data = secrets.token_bytes(2 * 5 * MIB + 7)
    attributes = Attributes({"x-amz-meta-a": "b"}, {"t": "u"}, "STANDARD", 0, "our-token")
    upload_id = await store.create_multipart_upload(bucket, key, attributes, len(data))
    if key != b"ctrl\x01":  # both servers answer 500 to a listing with such a key
        uploads = await store.list_multipart_uploads(bucket, key[:1])
        assert [(upload.key, upload.upload_id) for upload in uploads] == [(key, upload_id)]
    for number in (3, 1, 2):
        offset = (number - 1) * 5 * MIB
        piece = data[offset : offset + 5 * MIB]
        part = await store.upload_part(bucket, key, upload_id, number, offset, Bytes(piece))
        assert (part.number, part.size, part.etag) == (number, len(piece), md5(piece))
    parts = await store.list_parts(bucket, key, upload_id)
    assert [part.number for part in parts] == [1, 2, 3]
    stored = await store.complete_multipart_upload(bucket, key, upload_id, parts)
    assert stored.size == len(data)
    assert stored.etag.endswith("-3")
    info = await store.head_object(bucket, key)
    assert info is not None
    assert (info.size, info.etag) == (len(data), stored.etag)
    assert info.headers["x-amz-meta-s3flow-transfer"] == "our-token"
    if server.store != "ministack":  # which loses the tags of multipart uploads
        assert await store.get_object_tagging(bucket, key) == {"t": "u"}
    assert await drain(await store.get_object(bucket, key, etag=stored.etag)) == data


async def test_an_aborted_upload_is_gone(
    store: S3Store, server: servers.Server, bucket: str
) -> None:
    upload_id = await store.create_multipart_upload(bucket, b"k", PLAIN, 1)
    await store.upload_part(bucket, b"k", upload_id, 1, 0, Bytes(b"x"))
    await store.abort_multipart_upload(bucket, b"k", upload_id)
    await store.abort_multipart_upload(bucket, b"k", upload_id)
    with pytest.raises(errors.NoSuchUpload):
        await store.list_parts(bucket, b"k", upload_id)
    # moto answers 500 to parts and ends of an upload that it does not know.
    kind = errors.NoSuchUpload if server.store == "ministack" else errors.ServerError
    with pytest.raises(kind):
        await store.complete_multipart_upload(bucket, b"k", upload_id, [Part(1, 1, md5(b"x"))])
    with pytest.raises(kind):
        await store.upload_part(bucket, b"k", upload_id, 2, 0, Bytes(b"x"))
    assert await store.list_multipart_uploads(bucket, b"") == []


async def test_buckets_are_listed(store: S3Store, bucket: str) -> None:
    assert Bucket(bucket) in await store.list_buckets()


async def test_wrong_bytes_are_refused_by_md5(signing_server: servers.Server) -> None:
    bucket = servers.make_bucket(signing_server)  # moto would take them
    async with opened_store(signing_server) as store:
        for size in (4, 200_000):
            with pytest.raises(errors.Corrupted):
                await store.put_object(bucket, b"k", Bytes(b"x" * size), PLAIN, md5=b"\0" * 16)
        assert await store.head_object(bucket, b"k") is None


async def test_wrong_keys_are_named_as_such(signing_server: servers.Server) -> None:
    bucket = servers.make_bucket(signing_server)
    async with opened_store(signing_server, secret_access_key="not-the-secret") as store:
        for call in (
            store.list_page(bucket, b"", b""),
            store.put_object(bucket, b"k", Bytes(b"x"), PLAIN, md5=None),
            store.list_multipart_uploads(bucket, b""),
        ):
            with pytest.raises(errors.AccessDenied, match="secret_access_key"):
                await call


async def test_an_archived_object_says_so(store: S3Store, bucket: str) -> None:
    glacier = Attributes({}, {}, "GLACIER", 0)
    stored = await store.put_object(bucket, b"k", Bytes(b"x"), glacier, md5=None)
    info = await store.head_object(bucket, b"k")
    assert info is not None
    assert info.storage_class == "GLACIER"
    with pytest.raises(errors.Archived):
        await store.get_object(bucket, b"k", etag=stored.etag)


async def test_a_role_is_assumed_and_its_keys_serve_wire_and_botocore(
    moto_server: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> None:  # B-40
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", moto_server.url)
    bucket = servers.make_bucket(moto_server)
    role = "arn:aws:iam::123456789012:role/mover"
    async with opened_store(moto_server, role_arn=role, external_id="xyz") as store:
        await store.put_object(bucket, b"k", Bytes(b"x"), PLAIN, md5=None)
        assert await store.list_multipart_uploads(bucket, b"") == []


async def test_a_server_that_is_not_there_is_a_lost_connection() -> None:
    settings = S3Settings(
        "s3",
        f"http://{servers.HOST}:{servers.free_port()}",
        access_key_id="a",
        secret_access_key="b",
    )
    store = S3Store(settings, environ={})
    for call in (store.list_page("b", b"", b""), store.list_parts("b", b"k", "id")):
        with pytest.raises(errors.ConnectionLost):
            await call
    await store.close()
