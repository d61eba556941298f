"""S3 servers that answer copies wrongly, slowly, or with an error inside a success."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from urllib.parse import unquote_to_bytes

import pytest

from s3flow import errors
from s3flow.model import GIB, Original, Part, Span, Stored
from s3flow.stores.s3 import S3Settings, S3Store
from tests.contract.kit import AWKWARD_KEYS
from tests.contract.s3_scripted import BUCKET, Answer, Request, error, scripted
from tests.unit.hostile import Peer, serve

ETAG = "900150983cd24fb0d6963f7d28e17f72"
OF = Original("from-bucket", b"a key", ETAG, 3)
DECLARED = '<?xml version="1.0" encoding="UTF-8"?>\n'


def said(name: str, etag: str = f"&quot;{ETAG}&quot;", more: str = "", before: str = "") -> Answer:
    """Give the answer to a copy."""
    inner = f"<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>{etag}</ETag>{more}"
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    return Answer(body=f'{before}{DECLARED}<{name} xmlns="{space}">{inner}</{name}>'.encode())


async def copy_object(store: S3Store, of: Original = OF) -> Stored:
    return await store.copy_object(of, BUCKET, b"to", storage_class="", with_tags=True)


async def copy_part(store: S3Store, of: Original = OF) -> Part:
    return await store.upload_part_copy(of, BUCKET, b"to", "id/1", 7, Span(0, 3))


Ask = Callable[..., Awaitable[Stored | Part]]
both = pytest.mark.parametrize(
    ("ask", "name"), [(copy_object, "CopyObjectResult"), (copy_part, "CopyPartResult")]
)


async def ask_once(answer: Answer, ask: Ask) -> tuple[Stored | Part, Request]:
    async with scripted(lambda request: answer) as server:
        done = await ask(server.store())
        [request] = server.requests
        return done, request


# --- what goes out -----------------------------------------------------------------------------


@both
async def test_a_copy_is_one_request_with_its_condition_and_no_body(ask: Ask, name: str) -> None:
    done, request = await ask_once(said(name), ask)
    assert (done.size, done.etag) == (3, ETAG)
    assert (request.method, request.body, request.key) == ("PUT", b"", b"to")
    assert request.headers["content-length"] == "0"
    assert request.headers["x-amz-copy-source"] == "from-bucket/a%20key"
    assert request.headers["x-amz-copy-source-if-match"] == f'"{ETAG}"'
    signed = request.headers["authorization"]
    assert "x-amz-copy-source;x-amz-copy-source-if-match;" in signed
    others = {"x-amz-copy-source-range", "x-amz-storage-class", "x-amz-tagging-directive"}
    assert others & request.headers.keys() == set()


@pytest.mark.parametrize(
    "key", [*AWKWARD_KEYS, b"a?versionId=null", b"100%25+x", b"a\xc3\xa9/\xf0\x9f\x98\x80"]
)
async def test_the_source_s_key_goes_out_encoded_once(key: bytes) -> None:
    _, request = await ask_once(
        said("CopyObjectResult"), lambda store: copy_object(store, OF._replace(key=key))
    )
    text = request.headers["x-amz-copy-source"]
    assert text.isascii()
    assert not set(text) & set(" +?#&\r\n")
    assert unquote_to_bytes(text) == b"from-bucket/" + key


async def test_class_and_tags_are_said_where_they_differ() -> None:
    async with scripted(lambda request: said("CopyObjectResult")) as server:
        store = server.store()
        await store.copy_object(OF, BUCKET, b"to", storage_class="STANDARD_IA", with_tags=False)
        headers = server.requests[0].headers
    assert headers["x-amz-storage-class"] == "STANDARD_IA"
    assert headers["x-amz-tagging-directive"] == "REPLACE"
    assert "x-amz-tagging" not in headers
    assert "x-amz-metadata-directive" not in headers  # all of it comes along


async def test_a_part_names_its_range_unless_it_is_all() -> None:
    async with scripted(lambda request: said("CopyPartResult")) as server:
        store = server.store()
        of = OF._replace(size=100)
        part = await store.upload_part_copy(of, BUCKET, b"to", "id/1", 7, Span(10, 30))
        assert part == Part(7, 20, ETAG)
        [request] = server.requests
    assert request.headers["x-amz-copy-source-range"] == "bytes=10-29"
    assert request.query == {"partNumber": "7", "uploadId": "id/1"}


async def test_the_owners_of_both_buckets_are_checked() -> None:
    async with scripted(lambda request: said("CopyObjectResult")) as server:
        settings = server.settings(expected_bucket_owner="111122223333")
        store = server.store(settings)
        assert store.owner == "111122223333"
        await copy_object(store, OF._replace(owner="444455556666"))
        headers = server.requests[0].headers
    assert headers["x-amz-expected-bucket-owner"] == "111122223333"
    assert headers["x-amz-source-expected-bucket-owner"] == "444455556666"


# --- what comes back ---------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    "etag", [f"&quot;{ETAG}&quot;", f'"{ETAG}"', f"&#34;{ETAG}&#34;", ETAG, f"\n {ETAG}\n"]
)
async def test_an_etag_is_read_however_it_is_written(ask: Ask, name: str, etag: str) -> None:
    done, _ = await ask_once(said(name, etag), ask)
    assert done.etag == ETAG


@both
async def test_blanks_that_kept_the_connection_open_are_no_answer_and_no_error(
    ask: Ask, name: str
) -> None:
    done, _ = await ask_once(said(name, before=" \n" * 500), ask)
    assert done.etag == ETAG


@both
@pytest.mark.parametrize("blanks", ["", " \r\n" * 100])
@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("InternalError", errors.ServerError),
        ("SlowDown", errors.Throttled),
        ("AccessDenied", errors.AccessDenied),
        ("Whatever", errors.ServerError),
    ],
)
async def test_an_error_inside_a_success_is_an_error(
    ask: Ask, name: str, blanks: str, code: str, kind: type[Exception]
) -> None:
    failed = error(200, code)
    failed.body = blanks.encode() + failed.body
    with pytest.raises(kind, match=code):
        await ask_once(failed, ask)


@both
@pytest.mark.parametrize("body", [b"", b" " * 50, b"<CopyObjectResult/>", b"<html>hello</html>"])
async def test_a_success_without_an_etag_is_none(ask: Ask, name: str, body: bytes) -> None:
    with pytest.raises(errors.ServerError, match="no ETag"):
        await ask_once(Answer(body=body), ask)


@both
async def test_an_etag_of_blanks_without_an_end_is_none(ask: Ask, name: str) -> None:
    # Each blank in two places or three of a pattern: this took years.
    with pytest.raises(errors.ServerError, match="no ETag"):
        await ask_once(Answer(body=b"<ETag>" + b" " * 1_000_000), ask)


@both
async def test_an_answer_that_breaks_off_is_a_lost_one(ask: Ask, name: str) -> None:
    whole = said(name)
    broken = Answer(body=whole.body[:-5], length=len(whole.body), cut=True)
    with pytest.raises(errors.ConnectionLost):
        await ask_once(broken, ask)


@both
@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(412, "PreconditionFailed"), errors.SourceChanged),
        (error(404, "NoSuchKey"), errors.SourceGone),
        (error(404, "NoSuchBucket"), errors.NoSuchBucket),
        (error(403, "AccessDenied"), errors.AccessDenied),
        (error(403, "InvalidObjectState"), errors.Archived),
        (error(400, "InvalidRequest"), errors.Refused),
        (error(405, "MethodNotAllowed"), errors.Refused),
        (error(501, "NotImplemented"), errors.Refused),
        (error(400, "KMS.DisabledException"), errors.KeyRefused),
        (error(400, "KMS.KMSInvalidStateException"), errors.KeyRefused),
        (error(400, "KMS.ThrottlingException"), errors.Throttled),
        (error(500, "KMS.KMSInternalException"), errors.ServerError),
        (error(409, "OperationAborted"), errors.Conflict),
        (error(503, "SlowDown"), errors.Throttled),
        (error(500, "InternalError"), errors.ServerError),
    ],
)
async def test_refusals_are_named(
    ask: Ask, name: str, answer: Answer, kind: type[Exception]
) -> None:
    with pytest.raises(kind):
        await ask_once(answer, ask)


async def test_an_upload_that_is_gone_is_named() -> None:
    with pytest.raises(errors.NoSuchUpload):
        await ask_once(error(404, "NoSuchUpload"), copy_part)


async def test_a_denied_copy_says_which_permissions_it_takes() -> None:
    with pytest.raises(errors.AccessDenied, match="s3:GetObject on the source"):
        await ask_once(error(403, "AccessDenied"), copy_object)


async def test_checksums_versions_and_encryption_are_read() -> None:
    more = "<ChecksumCRC64NVME>AAAAAAAAAAA=</ChecksumCRC64NVME><ChecksumType>FULL_OBJECT</ChecksumType>"
    answer = said("CopyObjectResult", more=more)
    answer.headers = {"x-amz-version-id": "v1", "x-amz-server-side-encryption": "aws:kms"}
    done, _ = await ask_once(answer, copy_object)
    assert isinstance(done, Stored)
    assert done.checksums == {"crc64nvme": "AAAAAAAAAAA="}
    assert (done.version_id, done.encryption) == ("v1", "aws:kms")


async def test_a_composite_checksum_is_none_of_the_whole() -> None:
    more = "<ChecksumCRC32C>AAAAAA==-3</ChecksumCRC32C><ChecksumType>COMPOSITE</ChecksumType>"
    done, _ = await ask_once(said("CopyObjectResult", more=more), copy_object)
    assert isinstance(done, Stored)
    assert done.checksums == {}


async def test_a_large_copy_may_take_longer_than_other_answers() -> None:
    body = said("CopyObjectResult").body

    async def work(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.5)
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n " % (len(body) + 2))
        await asyncio.sleep(0.5)
        await peer.send(b" " + body)

    async with serve(work) as served:
        keys = {"access_key_id": "K", "secret_access_key": "S"}
        url = f"http://{served.origin.authority}"
        settings = S3Settings("slow", url, **keys, progress_timeout=0.1, answer_timeout=0.1)
        store = S3Store(settings, environ={})
        try:
            assert (await copy_object(store, OF._replace(size=5 * GIB))).etag == ETAG
            with pytest.raises(errors.Stalled):  # which says more of the store than a lost one
                await copy_object(store)
        finally:
            await store.close()


# --- which services are one --------------------------------------------------------------------


def service(url: str | None, region: str = "us-east-1") -> str:
    return S3Store(S3Settings(name="one", url=url, region=region), environ={}).service


def test_one_service_is_one_whatever_its_regions() -> None:
    assert service(None, "eu-west-1") == service(None, "us-east-1")
    assert service("https://s3.eu-central-1.amazonaws.com") == service(None)
    assert service("http://127.0.0.1:9000") == service("http://127.0.0.1:9000/")


def test_other_services_are_others() -> None:
    names = [
        service(None),
        service(None, "cn-north-1"),
        service(None, "us-gov-west-1"),
        service("http://127.0.0.1:9000"),
        service("http://127.0.0.1:9001"),
        service("https://127.0.0.1:9000"),
    ]
    assert len(set(names)) == len(names)
    assert service("https://s3.cn-north-1.amazonaws.com.cn") == service(None, "cn-north-1")
