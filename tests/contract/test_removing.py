"""Deletes of exact versions, over every source; and whether each store compares before it deletes."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from html import unescape

import pytest

from s3flow.errors import (
    AccessDenied,
    ConnectionLost,
    NameRefused,
    Refused,
    ServerError,
    SourceChanged,
    SourceGone,
)
from s3flow.model import Doomed
from s3flow.policies import Guard
from s3flow.probes import DELETE_BYTES, DELETE_PROBE
from s3flow.stores.s3 import removing
from tests import servers
from tests.contract.kit import AWKWARD_KEYS, Bench
from tests.contract.s3_bench import opened_store
from tests.contract.s3_scripted import BUCKET, Answer, Request, error, scripted

ETAG = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"


async def guard_of(source: Bench) -> Guard:
    guard: Guard = await source.store.guard_of(source.bucket, b"some/prefix ", "flow")
    return guard


async def keys_of(source: Bench) -> list[bytes]:
    page = await source.store.list_page(source.bucket, b"", b"")
    return [entry.key for entry in page.entries]


async def test_the_probe_leaves_nothing_and_finds_what_is_so(source: Bench) -> None:
    guard = await guard_of(source)
    assert await keys_of(source) == []
    await source.put(b"key", b"old")
    new = await source.put(b"key", b"new")
    [answer] = await source.store.delete_objects(source.bucket, [Doomed(b"key", "0" * 32)], guard)
    assert isinstance(answer, SourceChanged)
    assert await source.read(b"key") == b"new"
    doomed = [Doomed(b"key", new.etag)]
    assert await source.store.delete_objects(source.bucket, doomed, guard) == [None]
    assert await source.read(b"key") is None


@pytest.mark.parametrize("guard", list(Guard))
async def test_each_of_many_has_an_answer_of_its_own(source: Bench, guard: Guard) -> None:
    found = await guard_of(source)
    if list(Guard).index(guard) < list(Guard).index(found):
        pytest.skip(f"the store compares {found} at a time")
    right = await source.put(b"right & <wrong>", b"1")
    await source.put(b"changed", b"2")
    await source.put(b"other", b"3")
    doomed = [
        Doomed(b"changed", right.etag),
        Doomed(b"right & <wrong>", right.etag),
        Doomed(b"gone", right.etag),
    ]
    changed, done, gone = await source.store.delete_objects(source.bucket, doomed, guard)
    assert isinstance(changed, SourceChanged)
    assert done is None
    # Some stores say that they have deleted what was not there.
    assert gone is None or isinstance(gone, SourceGone | SourceChanged)
    assert await keys_of(source) == [b"changed", b"other"]


async def test_awkward_keys_are_deleted_and_none_beside_them(source: Bench) -> None:
    guard = await guard_of(source)
    doomed: list[Doomed] = []
    for key in AWKWARD_KEYS:
        if b"\n" in key or b"\r" in key:
            continue  # moto routes none
        try:
            source.store.refuse(source.bucket, key)
            stored = await source.put(key, key)
        except (NameRefused, Refused):
            continue  # by a written rule
        doomed.append(Doomed(key, stored.etag))
    assert len(doomed) > 20
    await source.put(b"beside", b"x")
    answers = await source.store.delete_objects(source.bucket, doomed, guard)
    assert answers == [None] * len(doomed)
    assert await keys_of(source) == [b"beside"]


async def test_the_probe_leaves_no_version_behind(signing_server: servers.Server) -> None:
    bucket = servers.make_bucket(signing_server)
    client = signing_server.client()
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    async with opened_store(signing_server) as store:
        assert await store.guard_of(bucket, b"", "flow") is not Guard.NOT
        answer = client.list_object_versions(Bucket=bucket)
        assert (answer.get("Versions"), answer.get("DeleteMarkers")) == (None, None)
        # A version is deleted by its name, and only that one.
        first = client.put_object(Bucket=bucket, Key="key", Body=b"1")
        client.put_object(Bucket=bucket, Key="key", Body=b"2")
        named = Doomed(b"key", first["ETag"].strip('"'), first["VersionId"])
        assert await store.delete_objects(bucket, [named], Guard.ONE) == [None]
        [left] = client.list_object_versions(Bucket=bucket)["Versions"]
        assert left["IsLatest"]
        with client.get_object(Bucket=bucket, Key="key")["Body"] as body:
            assert body.read() == b"2"
    client.close()


async def test_a_probe_that_a_death_left_is_gone_after_the_next(source: Bench) -> None:
    key = DELETE_PROBE + b"flow"
    await source.put(key, b"of one who died")
    await source.store.guard_of(source.bucket, b"", "flow")
    if source.store.name != "memory":
        assert await keys_of(source) == []


async def test_only_what_is_a_probe_by_its_bytes_too_goes_when_it_is_old(
    source: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removing, "PROBE_LEFT", -60.0)
    ours, same = (DELETE_PROBE + each * 16 for each in (b"0", b"1"))
    await source.put(ours, DELETE_BYTES)
    await source.put(same, b"somebody's only copy")
    await source.put(DELETE_PROBE + b"1", b"somebody's as well")
    await source.store.guard_of(source.bucket, b"", "2" * 16)
    if source.store.name != "memory":
        assert await keys_of(source) == [DELETE_PROBE + b"1", same]


# --- what a store may say ------------------------------------------------------------------------


def result(*lines: str) -> Answer:
    return Answer(200, f"<DeleteResult>{''.join(lines)}</DeleteResult>".encode())


def deleted(key: str) -> str:
    return f"<Deleted><Key>{key}</Key></Deleted>"


def refused(key: str, code: str) -> str:
    return f"<Error><Key>{key}</Key><Code>{code}</Code><Message>no</Message></Error>"


async def test_a_request_for_many_has_a_condition_for_each_and_a_digest() -> None:
    async with scripted(lambda _: result(deleted("a&amp;b"), deleted("c"))) as server:
        doomed = [Doomed(b"a&b", ETAG), Doomed(b"c", OTHER, "v<1>")]
        assert await server.store().delete_objects(BUCKET, doomed, Guard.EACH) == [None, None]
        [request] = server.requests
    assert request.method == "POST"
    assert "delete" in request.query
    digest = base64.b64encode(hashlib.md5(request.body).digest()).decode()
    assert request.headers["content-md5"] == digest
    objects = re.findall("<Object>(.*?)</Object>", request.body.decode())
    assert [unescape(text) for text in objects] == [
        f'<Key>a&b</Key><ETag>"{ETAG}"</ETag>',
        "<Key>c</Key><VersionId>v<1></VersionId>",
    ]


async def test_refusals_inside_of_a_200_are_each_object_s_own() -> None:
    codes = {
        "changed": ("PreconditionFailed", SourceChanged),
        "gone": ("NoSuchKey", SourceGone),
        "locked": ("AccessDenied", AccessDenied),
        "broken": ("InternalError", ServerError),
        "odd": ("SomethingNew", ServerError),
    }
    said = [refused(key, code) for key, (code, _) in codes.items()]
    async with scripted(lambda _: result(deleted("done"), *said)) as server:
        doomed = [Doomed(key.encode(), ETAG) for key in ("done", *codes, "silence")]
        answers = await server.store().delete_objects(BUCKET, doomed, Guard.EACH)
    kinds = [type(answer) for answer in answers]
    assert kinds == [type(None), *(kind for _, kind in codes.values()), ConnectionLost]


async def test_an_error_under_a_200_is_no_success() -> None:
    async with scripted(lambda _: Answer(200, error(500, "InternalError").body)) as server:
        doomed = [Doomed(b"a", ETAG), Doomed(b"b", ETAG)]
        with pytest.raises(ServerError):
            await server.store().delete_objects(BUCKET, doomed, Guard.EACH)


NOTHING = Answer(200, b"<ListBucketResult></ListBucketResult>")


class Pretender:
    """A store with one object at a time; *deletes* says what it does about deletes."""

    def __init__(self, deletes: Callable[[Pretender, Request], Answer]) -> None:
        self.deletes = deletes
        self.held: bytes | None = None

    @property
    def etag(self) -> str:
        return hashlib.md5(self.held or b"").hexdigest()

    def __call__(self, request: Request) -> Answer:
        etag = {"etag": f'"{self.etag}"'}
        if request.method == "PUT":
            self.held = request.body
            return Answer(200, headers={"etag": f'"{self.etag}"'})
        if request.method == "GET":
            return NOTHING
        if request.method == "HEAD":
            return Answer(404) if self.held is None else Answer(200, self.held, etag)
        return self.deletes(self, request)


def ignores(store: Pretender, request: Request) -> Answer:
    """Delete whatever is there, and say so."""
    store.held = None
    key = request.body.partition(b"<Key>")[2].partition(b"</Key>")[0].decode()
    return result(deleted(key)) if request.method == "POST" else Answer(204)


def knows_none(store: Pretender, request: Request) -> Answer:
    """Refuse conditions, as localstack does; delete without one."""
    if b"<ETag>" in request.body or "if-match" in request.headers:
        return error(501, "NotImplemented")
    return ignores(store, request)


def refuses_all(store: Pretender, request: Request) -> Answer:
    """Say of every ETag that it is another, as Ceph does of quoted ones in places."""
    if "if-match" in request.headers:
        return error(412, "PreconditionFailed")
    return knows_none(store, request)


def compares_many_alone(store: Pretender, request: Request) -> Answer:
    """Compare what DeleteObjects names, and delete whatever is there by DeleteObject."""
    if request.method == "POST" and store.etag.encode() not in request.body:
        key = request.body.partition(b"<Key>")[2].partition(b"</Key>")[0].decode()
        return result(refused(key, "PreconditionFailed"))
    return ignores(store, request)


@pytest.mark.parametrize("deletes", [ignores, knows_none, refuses_all, compares_many_alone])
async def test_a_store_that_does_not_compare_is_found_out(
    deletes: Callable[[Pretender, Request], Answer],
) -> None:
    store = Pretender(deletes)
    async with scripted(store) as server:
        assert await server.store().guard_of(BUCKET, b"a/", "flow") is Guard.NOT
        assert {it.key.rpartition(b"-")[0] for it in server.requests if it.key} == {
            b"a/.s3flow-probe"
        }
    assert store.held is None


async def test_where_no_probe_may_be_written_that_is_said() -> None:
    def script(request: Request) -> Answer:
        return error(403, "AccessDenied") if request.method == "PUT" else NOTHING

    async with scripted(script) as server:
        with pytest.raises(AccessDenied, match="s3:PutObject"):
            await server.store().guard_of(BUCKET, b"", "flow")


@pytest.mark.parametrize("deletes", [ignores, knows_none, refuses_all])
async def test_without_a_guard_a_store_deletes_whatever_it_makes_of_conditions(
    deletes: Callable[[Pretender, Request], Answer],
) -> None:
    store = Pretender(deletes)
    async with scripted(store) as server:
        store.held = b"as it was copied"
        doomed = [Doomed(b"k", store.etag)]
        assert await server.store().delete_objects(BUCKET, doomed, Guard.NOT) == [None]
        assert store.held is None


def overtaken(store: Pretender, request: Request) -> Answer:
    """Compare, after somebody has written in this very moment."""
    store.held = b"written just now"
    if "if-match" in request.headers:
        return error(412, "PreconditionFailed")
    return ignores(store, request)


def redirects_at_first(store: Pretender, request: Request) -> Answer:
    """Send the first delete elsewhere, and be overtaken at the next."""
    store.deletes = overtaken
    return error(301, "PermanentRedirect")


@pytest.mark.parametrize("deletes", [overtaken, redirects_at_first])
async def test_a_store_that_compares_though_it_did_not_seem_to_keeps_what_came_after_the_look(
    deletes: Callable[[Pretender, Request], Answer],
) -> None:
    store = Pretender(deletes)
    async with scripted(store) as server:
        store.held = b"as it was copied"
        doomed = [Doomed(b"k", store.etag)]
        [answer] = await server.store().delete_objects(BUCKET, doomed, Guard.NOT)
        assert isinstance(answer, SourceChanged)
        assert store.held == b"written just now"


async def test_without_a_guard_it_is_looked_just_before() -> None:
    store = Pretender(ignores)
    async with scripted(store) as server:
        store.held = b"another by now"
        [answer] = await server.store().delete_objects(BUCKET, [Doomed(b"k", ETAG)], Guard.NOT)
        assert isinstance(answer, SourceChanged)
        assert store.held is not None
        doomed = [Doomed(b"k", store.etag)]
        assert await server.store().delete_objects(BUCKET, doomed, Guard.NOT) == [None]
        [answer] = await server.store().delete_objects(BUCKET, doomed, Guard.NOT)
        assert isinstance(answer, SourceGone)
        assert [it.method for it in server.requests] == ["HEAD", "HEAD", "DELETE", "HEAD"]
