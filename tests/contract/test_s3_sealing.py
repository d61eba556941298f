"""Encryption, ACLs and who pays: what goes with which request, and what never shows."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator

import pytest

from s3flow import errors
from s3flow.model import Attributes, Original, Part, Sealed, Span
from s3flow.stores.s3 import S3Settings, S3Store
from tests.contract.kit import body_of, read_body
from tests.contract.s3_scripted import BUCKET, Answer, Request, error, scripted
from tests.servers import Server, make_bucket

KEY = base64.b64encode(bytes(range(32))).decode()
MD5 = base64.b64encode(hashlib.md5(bytes(range(32))).digest()).decode()
ETAG = "900150983cd24fb0d6963f7d28e17f72"
CUSTOMER = "x-amz-server-side-encryption-customer-"
OPENING = "x-amz-copy-source-server-side-encryption-customer-"
SSE = "x-amz-server-side-encryption"
PLAIN = Attributes({}, {}, "STANDARD", 0)
EVERY = ["GET", "HEAD", "PUT", "CREATE", "PART", "COMPLETE", "COPY", "PART COPY"]
NEW = ["PUT", "CREATE", "COPY"]


def answer(request: Request) -> Answer:
    """Answer whatever was asked with what a store needs to go on."""
    if request.method == "POST" and "uploads" in request.query:
        return Answer(body=b"<a><UploadId>id</UploadId></a>")
    if request.method == "POST" or "x-amz-copy-source" in request.headers:
        name = b"CompleteMultipartUploadResult" if request.method == "POST" else b"CopyObjectResult"
        name = b"CopyPartResult" if "partNumber" in request.query else name
        return Answer(body=b"<%s><ETag>&quot;%s&quot;</ETag></%s>" % (name, ETAG.encode(), name))
    body = b"abc" if request.method == "GET" else b""
    length = 3 if request.method == "HEAD" else -1
    return Answer(body=body, headers={"etag": f'"{ETAG}"'}, length=length)


def kind(request: Request) -> str:
    """Name a request as the tests do."""
    copy = " COPY" if "x-amz-copy-source" in request.headers else ""
    if "ownershipControls" in request.query:
        return "OWNERSHIP"
    if "uploadId" in request.query:
        return "COMPLETE" if request.method == "POST" else f"PART{copy}"
    if "uploads" in request.query:
        return "CREATE"
    return copy.strip() or request.method


async def work(store: S3Store, opening: Sealed | None = None) -> None:
    """Ask for one of everything that moves bytes."""
    body = await store.get_object(BUCKET, b"a", etag=ETAG)
    while await body.read():
        pass
    body.close()
    await store.head_object(BUCKET, b"a")
    await store.put_object(BUCKET, b"a", body_of(b"abc"), PLAIN, md5=None)
    upload_id = await store.create_multipart_upload(BUCKET, b"a", PLAIN, 3)
    await store.upload_part(BUCKET, b"a", upload_id, 1, 0, body_of(b"abc"))
    of = Original("from-bucket", b"key", ETAG, 3, "", Sealed() if opening is None else opening)
    await store.upload_part_copy(of, BUCKET, b"a", upload_id, 1, Span(0, 3))
    await store.complete_multipart_upload(BUCKET, b"a", upload_id, [Part(1, 3, ETAG)])
    await store.copy_object(of, BUCKET, b"a", storage_class="", with_tags=True)


async def asked(opening: Sealed | None = None, **changes: object) -> dict[str, dict[str, str]]:
    """Give the headers of each kind of request to a store with these settings."""
    async with scripted(answer) as server:
        await work(server.store(server.settings(**changes)), opening)
        return {kind(request): request.headers for request in server.requests}


def those(found: dict[str, dict[str, str]], name: str) -> list[str]:
    """Name the kinds of requests that had a header, in the usual order."""
    return [each for each in EVERY if name in found[each]]


async def test_nothing_is_said_unless_it_is_set() -> None:
    found = await asked()
    assert set(found) == set(EVERY)
    for headers in found.values():
        said = [name for name in headers if "encryption" in name or name in ("x-amz-acl",)]
        assert said == []
        assert "x-amz-request-payer" not in headers


async def test_what_is_written_is_encrypted_as_told() -> None:
    found = await asked(encryption="aws:kms", kms_key_id="arn:aws:kms:::key/1", bucket_key=True)
    for name in (SSE, SSE + "-aws-kms-key-id", SSE + "-bucket-key-enabled"):
        assert those(found, name) == NEW  # S3 refuses them with parts and reads
    assert found["COPY"][SSE] == "aws:kms"
    assert found["CREATE"][SSE + "-aws-kms-key-id"] == "arn:aws:kms:::key/1"
    assert found["PUT"][SSE + "-bucket-key-enabled"] == "true"
    signed = found["PUT"]["authorization"]
    assert SSE + "-aws-kms-key-id" in signed


async def test_a_customer_s_key_goes_with_all_that_reads_or_writes_bytes() -> None:
    found = await asked(customer_key=KEY)
    for name, value in (("algorithm", "AES256"), ("key", KEY), ("key-md5", MD5)):
        assert those(found, CUSTOMER + name) == EVERY
        assert {headers[CUSTOMER + name] for headers in found.values()} == {value}
        assert those(found, OPENING + name) == []


async def test_a_source_s_key_opens_it_for_copies_and_is_not_that_of_the_copy() -> None:
    async with scripted(answer) as server:
        source = server.store(server.settings(customer_key=KEY))
    found = await asked(source.opening)
    for name, value in (("algorithm", "AES256"), ("key", KEY), ("key-md5", MD5)):
        assert those(found, OPENING + name) == ["COPY", "PART COPY"]
        assert found["COPY"][OPENING + name] == value
        assert those(found, CUSTOMER + name) == []


async def test_who_pays_says_so_each_time_and_for_copies_from_there() -> None:
    found = await asked(requester_pays=True)
    assert those(found, "x-amz-request-payer") == EVERY
    async with scripted(answer) as server:
        source = server.store(server.settings(requester_pays=True))
    found = await asked(source.opening)
    assert those(found, "x-amz-request-payer") == ["COPY", "PART COPY"]


@pytest.mark.parametrize("text", ["", "short", "x" * 44, base64.b64encode(b"x" * 31).decode()])
async def test_a_key_that_is_none_is_refused_without_showing_it(text: str) -> None:
    settings = S3Settings("dst", customer_key=text or "====")
    with pytest.raises(errors.ConfigError, match=r"endpoints\.dst\.customer_key") as caught:
        S3Store(settings, environ={})
    assert (text or "====") not in str(caught.value)


async def test_a_key_shows_nowhere() -> None:
    settings = S3Settings("dst", customer_key=KEY)
    store = S3Store(settings, environ={})
    original = Original("b", b"k", ETAG, 3, "", store.opening)
    for text in (repr(settings), repr(store.opening), repr(original), str(original)):
        assert KEY not in text
        assert MD5 not in text
    await store.close()


# --- ACLs -------------------------------------------------------------------------------------

FULL = "bucket-owner-full-control"


def owned(controls: Answer) -> object:
    def script(request: Request) -> Answer:
        return controls if kind(request) == "OWNERSHIP" else answer(request)

    return script


def rule(ownership: str) -> Answer:
    space = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    return Answer(
        body=f"<OwnershipControls {space}><Rule><ObjectOwnership>{ownership}</ObjectOwnership></Rule>"
        "</OwnershipControls>".encode()
    )


@pytest.mark.parametrize(
    ("controls", "sent"),
    [
        (rule("BucketOwnerEnforced"), []),
        (rule("BucketOwnerPreferred"), NEW),
        (rule("ObjectWriter"), NEW),
        (error(404, "OwnershipControlsNotFoundError"), NEW),
        (error(403, "AccessDenied"), NEW),
        (error(501, "NotImplemented"), NEW),
    ],
)
async def test_an_acl_is_sent_where_the_bucket_takes_one(controls: Answer, sent: list[str]) -> None:
    async with scripted(owned(controls)) as server:  # type: ignore[arg-type]
        await work(server.store(server.settings(acl=FULL)))
        kinds = [kind(request) for request in server.requests]
        found = {kind(request): request.headers for request in server.requests}
    assert kinds.count("OWNERSHIP") == 1  # once for a bucket
    assert those(found, "x-amz-acl") == sent
    assert {found[each]["x-amz-acl"] for each in sent} <= {FULL}


async def test_a_bucket_that_refuses_acls_gets_none_from_then_on() -> None:
    def script(request: Request) -> Answer:
        if kind(request) == "OWNERSHIP":
            return error(403, "AccessDenied")
        if "x-amz-acl" in request.headers:
            return error(400, "AccessControlListNotSupported")
        return answer(request)

    of = Original("from-bucket", b"key", ETAG, 3)
    async with scripted(script) as server:
        for _ in range(2):
            store = server.store(server.settings(acl=FULL))
            await store.copy_object(of, BUCKET, b"a", storage_class="", with_tags=True)
            await store.create_multipart_upload(BUCKET, b"a", PLAIN, 3)
            kinds = [kind(each) for each in server.requests]
            assert kinds == ["OWNERSHIP", "COPY", "COPY", "CREATE"]
            server.requests.clear()
        store = server.store(server.settings(acl=FULL))
        with pytest.raises(errors.Transient, match="without an ACL"):  # a body is not sent twice
            await store.put_object(BUCKET, b"a", body_of(b"abc"), PLAIN, md5=None)
        await store.put_object(BUCKET, b"a", body_of(b"abc"), PLAIN, md5=None)


@pytest.mark.parametrize("is_wish", [False, True])
async def test_an_acl_that_may_not_be_set_is_left_out_only_if_it_is_ours(is_wish: bool) -> None:
    def script(request: Request) -> Answer:
        denied = kind(request) == "OWNERSHIP" or "x-amz-acl" in request.headers
        return error(403, "AccessDenied") if denied else answer(request)

    of = Original("from-bucket", b"key", ETAG, 3)
    async with scripted(script) as server:
        store = server.store(server.settings(acl=FULL, acl_is_wish=is_wish))
        if not is_wish:  # who asked for it is not to have a copy without
            with pytest.raises(errors.AccessDenied):
                await store.copy_object(of, BUCKET, b"a", storage_class="", with_tags=True)
            return
        for _ in range(2):
            await store.copy_object(of, BUCKET, b"a", storage_class="", with_tags=True)
            await store.create_multipart_upload(BUCKET, b"a", PLAIN, 3)
        kinds = [kind(each) for each in server.requests]
    assert kinds == ["OWNERSHIP", "COPY", "COPY", "CREATE", "COPY", "CREATE"]


async def test_what_is_denied_with_and_without_an_acl_is_denied() -> None:
    of = Original("from-bucket", b"key", ETAG, 3)
    async with scripted(lambda request: error(403, "AccessDenied")) as server:
        store = server.store(server.settings(acl=FULL, acl_is_wish=True))
        with pytest.raises(errors.AccessDenied):
            await store.copy_object(of, BUCKET, b"a", storage_class="", with_tags=True)


# --- a store that keeps no key ----------------------------------------------------------------


@contextlib.asynccontextmanager
async def sealed_store(server: Server, key: str | None, bucket: str) -> AsyncIterator[S3Store]:
    settings = S3Settings(
        bucket,
        server.url,
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        customer_key=key,
    )
    store = S3Store(settings, environ={})
    try:
        yield store
    finally:
        await store.close()


async def read(store: S3Store, bucket: str, key: bytes) -> bytes:
    return await read_body(await store.get_object(bucket, key, etag=""))


@pytest.mark.parametrize("here", [False, True], ids=["plain", "sealed"])
@pytest.mark.parametrize("there", [False, True], ids=["to-plain", "to-sealed"])
async def test_copies_between_keys_are_opened_and_sealed(
    ministack_server: Server, here: bool, there: bool
) -> None:
    bucket = make_bucket(ministack_server)
    data = os.urandom(6 * 1024 * 1024)
    other = base64.b64encode(os.urandom(32)).decode()
    async with (
        sealed_store(ministack_server, KEY if here else None, bucket) as source,
        sealed_store(ministack_server, other if there else None, bucket) as target,
        sealed_store(ministack_server, None, bucket) as stranger,
    ):
        stored = await source.put_object(bucket, b"from", body_of(data, 65536), PLAIN, md5=None)
        assert stored.encryption == ("customer" if here else "")
        of = Original(bucket, b"from", stored.etag, len(data), "", source.opening)
        copied = await target.copy_object(of, bucket, b"to", storage_class="", with_tags=True)
        assert await read(target, bucket, b"to") == data
        upload_id = await target.create_multipart_upload(bucket, b"parts", PLAIN, len(data))
        cut = 5 * 1024 * 1024
        parts = [
            await target.upload_part_copy(of, bucket, b"parts", upload_id, number, span)
            for number, span in ((1, Span(0, cut)), (2, Span(cut, len(data))))
        ]
        await target.complete_multipart_upload(bucket, b"parts", upload_id, parts)
        assert await read(target, bucket, b"parts") == data
        assert copied.encryption == ("customer" if there else "")
        info = await target.head_object(bucket, b"to")
        assert info is not None
        assert info.encryption == ("customer" if there else "")
        if there:
            with pytest.raises(errors.Permanent):
                await read(stranger, bucket, b"to")
