"""Copies inside the store: proven, resumed, and streamed instead where the store does not make them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine import verdicts
from s3flow.engine.copying import ATTEMPTS
from s3flow.engine.verdicts import BOTH_KINDS, REFUSALS
from s3flow.errors import (
    AccessDenied,
    ConfigError,
    KeyRefused,
    NoSuchUpload,
    Refused,
    ServerError,
    SourceChanged,
    SourceGone,
    Throttled,
)
from s3flow.events import BytesMoved, Retried, Warned
from s3flow.model import Limits, Outcome, Place
from s3flow.policies import MethodPolicy, Overwrite, RestorePolicy, TagPolicy
from s3flow.stores.memory import MemoryStore
from tests.faults import Call, Faulty, LostAnswer, Raising, Recording
from tests.unit.lab import QUICK, Lab, left_tasks, store

SIZE, COUNT = 9500, 10
COPIES = {"copy_object", "upload_part_copy"}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Give a lab whose stores are two accounts of one service."""
    src = store("src", "from")
    made = Lab(tmp_path, src, store("dst", "to", beside=src))
    made.change(part_size=1000, lanes=2)
    return made


def watched(lab: Lab) -> tuple[Recording, Recording]:
    """Record the calls of both sides."""
    lab.source, lab.target = Recording(lab.source), Recording(lab.target)
    return lab.source, lab.target


def calls(recording: Recording) -> Counter[str]:
    return Counter(call.method for call in recording.calls)


def rated(lab: Lab) -> int:
    """Give the bytes that rates are made of."""
    assert lab.daemon is not None
    flow = lab.daemon.flows["flow"]
    return flow.done.bytes + flow.route.passed


# --- one request ------------------------------------------------------------------------------


async def test_a_small_object_takes_one_request_and_no_byte_passes(lab: Lab) -> None:
    for number in range(20):
        lab.put(b"%d" % number, 100 + number)
    lab.put(b"empty", 0)
    source, target = watched(lab)
    assert await lab.sync() == {Outcome.VERIFIED: 21}
    assert lab.differences() == []
    assert await lab.proofs() == {("server_copy", "etag"): 21}
    # Once for the bucket, and for what is empty, which may redirect.
    asked = calls(source)
    assert 1 <= asked.pop("is_website") <= QUICK.concurrency
    assert asked == {"list_page": 1, "head_object": 1}
    assert calls(target) == {"copy_object": 21, "find": 1}
    assert sum(event.bytes for event in lab.of(BytesMoved)) == sum(range(100, 120))
    assert rated(lab) == sum(range(100, 120))


async def test_headers_tags_and_storage_class_come_along(lab: Lab) -> None:
    about = {"content-type": "text/x", "x-amz-meta-a": "b"}
    lab.put(b"small", 10, headers=about, tags={"k": "v"}, storage_class="STANDARD_IA")
    lab.put(
        b"parts", SIZE, part_size=1000, headers=about, tags={"k": "v"}, storage_class="STANDARD_IA"
    )
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    assert set(await lab.proofs()) == {("server_copy", "etag"), ("server_multipart", "etag")}
    for key in (b"small", b"parts"):
        copy = lab.dst.peek("to", key)
        assert copy is not None
        assert about.items() <= dict(copy.headers).items()
        assert copy.tags == {"k": "v"}
        assert copy.storage_class == "STANDARD_IA"


@pytest.mark.parametrize("size", [0, 10])
@pytest.mark.parametrize("is_website", [False, True])
async def test_redirects_come_along(lab: Lab, size: int, is_website: bool) -> None:
    redirect = {"x-amz-website-redirect-location": "/elsewhere"}
    lab.put(b"small", size, headers=redirect)
    lab.put(b"parts", SIZE, part_size=1000, headers=redirect)
    if is_website:
        lab.src.websites.add("from")
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    assert {method for method, _ in await lab.proofs()} == {"server_copy", "server_multipart"}
    for key in (b"small", b"parts"):
        copy = lab.dst.peek("to", key)
        assert copy is not None
        kept = is_website or size == 0 or key == b"parts"
        assert (redirect.items() <= dict(copy.headers).items()) is kept


async def test_a_storage_class_is_mapped_and_tags_are_dropped_on_demand(lab: Lab) -> None:
    lab.change(storage_class_map={"STANDARD_IA": "STANDARD"}, tags=TagPolicy.DROP)
    lab.put(b"a", 10, tags={"k": "v"}, storage_class="STANDARD_IA")
    _, target = watched(lab)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert target.of("copy_object")[0].kwargs["storage_class"] == "STANDARD"  # no store's default
    copy = lab.dst.peek("to", b"a")
    assert copy is not None
    assert (copy.tags, copy.storage_class) == ({}, "STANDARD")


async def test_copies_need_no_room_for_bodies(lab: Lab) -> None:
    lab.put(b"a", 100_000)
    lab.put(b"b", SIZE, part_size=1000)
    lab.target = Slots(lab.target, lab)
    assert await lab.sync() == {Outcome.VERIFIED: 2}


class Slots(Faulty):
    """Sees that no body's place is taken while a copy is made."""

    def __init__(self, inner: Any, lab: Lab) -> None:
        super().__init__(inner)
        self.lab = lab

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method in COPIES:
            assert self.lab.daemon is not None
            slots = self.lab.daemon.flows["flow"].route.slots
            assert slots._value == QUICK.bodies
        return await go()


# --- parts ------------------------------------------------------------------------------------


async def test_parts_are_the_source_s_own_and_so_is_the_etag(lab: Lab) -> None:
    lab.put(b"a", SIZE, part_size=1000)
    source, target = watched(lab)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert await lab.proofs() == {("server_multipart", "etag"): 1}
    assert calls(source)["get_object"] == 0
    spans = sorted(call.args[5] for call in target.of("upload_part_copy"))
    assert [span.size for span in spans] == [1000] * 9 + [500]
    assert sum(event.bytes for event in lab.of(BytesMoved)) == SIZE
    assert rated(lab) == SIZE


async def test_what_is_too_large_for_one_request_goes_in_parts(tmp_path: Path) -> None:
    src = store("src", "from", with_checksums=True)
    small = Limits(min_part_size=1, max_put_size=5000)
    lab = Lab(tmp_path, src, store("dst", "to", beside=src, with_checksums=True, limits=small))
    lab.change(part_size=1000)
    lab.put(b"large", 5001)
    lab.put(b"small", 5000)
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    assert lab.differences() == []
    assert await lab.proofs() == {("server_multipart", "checksum"): 1, ("server_copy", "etag"): 1}


async def test_the_flow_s_threshold_is_for_streams_alone(lab: Lab) -> None:
    lab.change(multipart_threshold=1000)
    lab.put(b"a", SIZE)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert await lab.proofs() == {("server_copy", "etag"): 1}


@pytest.mark.parametrize("with_checksums", [False, True])
async def test_parts_that_cannot_be_repeated_are_copied_as_a_whole(
    tmp_path: Path, with_checksums: bool
) -> None:
    src = store("src", "from", with_checksums=with_checksums)
    dst = store("dst", "to", beside=src, with_checksums=with_checksums, strict_parts=True)
    lab = Lab(tmp_path, src, dst)
    lab.put(b"a", SIZE, part_size=1000)  # less than the target takes
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    proof = "checksum" if with_checksums else "size"
    assert await lab.proofs() == {("server_copy", proof): 1}


@pytest.mark.parametrize("after", [1, 5])
async def test_a_stopped_copy_goes_on_with_the_missing_parts_only(lab: Lab, after: int) -> None:
    lab.put(b"a", SIZE, part_size=1000)
    _, target = watched(lab)
    lab.stop_at(BytesMoved, after)
    assert await lab.sync() == {Outcome.PENDING: 1}
    assert len(lab.uploads()) == 1
    lab.subscribers.clear()
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert sorted(call.args[4] for call in target.of("upload_part_copy")) == [*range(1, COUNT + 1)]
    assert len(target.of("create_multipart_upload")) == 1
    assert lab.differences() == []
    assert lab.uploads() == []


async def test_what_began_as_a_stream_goes_on_as_one(lab: Lab) -> None:
    lab.change(method=MethodPolicy.STREAM_ONLY, multipart_threshold=1000)
    lab.put(b"a", SIZE)
    lab.stop_at(BytesMoved, 3)
    await lab.sync()
    lab.subscribers.clear()
    lab.change(method=MethodPolicy.SERVER_FIRST)
    _, target = watched(lab)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert set(calls(target)) & COPIES == set()
    assert len(target.of("upload_part")) < COUNT
    assert lab.differences() == []
    assert lab.uploads() == []


async def test_a_stream_s_leftover_is_removed_where_only_copies_are_allowed(lab: Lab) -> None:
    lab.change(method=MethodPolicy.STREAM_ONLY, multipart_threshold=1000)
    lab.put(b"a", SIZE)
    lab.stop_at(BytesMoved, 3)
    await lab.sync()
    lab.subscribers.clear()
    lab.change(method=MethodPolicy.SERVER_ONLY)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert await lab.proofs() == {("server_copy", "etag"): 1}
    assert lab.uploads() == []


# --- wrong versions, lost answers -------------------------------------------------------------


class Overwritten(Faulty):
    """Somebody writes *data* over the source's object before the *nth* copying request."""

    def __init__(self, inner: Any, nth: int, data: bytes, *, ignored: bool = False) -> None:
        super().__init__(inner)
        self.nth, self.data, self.ignored = nth, data, ignored

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method not in COPIES:
            return await go()
        self.nth -= 1
        if self.nth == 0:
            self.inner.put("from", b"a", self.data)
        if self.nth <= 0 and self.ignored:  # the condition on the version, by this store
            original = call.args[0]._replace(etag="")
            return await getattr(self.inner, call.method)(original, *call.args[1:], **call.kwargs)
        return await go()


@pytest.mark.parametrize("ignored", [False, True], ids=["refused", "ignored"])
@pytest.mark.parametrize("size", [SIZE, SIZE + 7, 10])
async def test_an_object_that_changes_before_its_copy_starts_again(
    lab: Lab, ignored: bool, size: int
) -> None:
    lab.put(b"a", SIZE)
    new = b"n" * size
    lab.target = Overwritten(lab.dst, 1, new, ignored=ignored)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.copy_of(b"a") == new
    assert [event.reason for event in lab.of(Retried)] == ["source_changed"]
    assert await lab.proofs() == {("server_copy", "etag"): 1}


@pytest.mark.parametrize("ignored", [False, True], ids=["refused", "ignored"])
@pytest.mark.parametrize("nth", [1, 4, COUNT])
async def test_an_object_that_changes_between_its_parts_starts_again(
    lab: Lab, ignored: bool, nth: int
) -> None:
    lab.put(b"a", SIZE, part_size=1000)
    new = b"n" * SIZE
    lab.target = Overwritten(lab.dst, nth, new, ignored=ignored)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.copy_of(b"a") == new
    assert {event.reason for event in lab.of(Retried)} == {"source_changed"}
    assert lab.uploads() == []


class Deleting(Faulty):
    """Somebody deletes the source's object before its copy is asked for."""

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "copy_object" and call.args[0].key == b"a":
            await self.inner.delete_object("from", b"a", etag="")
        return await go()


@pytest.mark.parametrize("method", [MethodPolicy.SERVER_FIRST, MethodPolicy.SERVER_ONLY])
async def test_an_object_deleted_before_its_copy_is_skipped(lab: Lab, method: MethodPolicy) -> None:
    lab.change(method=method)
    lab.put(b"a", 10)
    lab.put(b"b", 10)
    lab.target = Deleting(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1, Outcome.SKIPPED: 1}
    assert lab.of(Warned) == []


async def test_a_change_is_no_refusal(lab: Lab) -> None:
    lab.change(method=MethodPolicy.SERVER_ONLY)
    lab.put(b"a", SIZE)
    lab.target = Overwritten(lab.dst, 1, b"new")
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.copy_of(b"a") == b"new"


async def test_an_archived_object_is_no_refusal(lab: Lab) -> None:
    lab.change(restore=RestorePolicy.NEVER)
    lab.put(b"a", 10, storage_class="GLACIER")
    for number in range(5):
        lab.put(b"b%d" % number, 10, storage_class="GLACIER")
    source, target = watched(lab)
    assert await lab.sync() == {Outcome.FAILED: 6}
    assert set((await lab.failures()).values()) == {"archived"}
    assert calls(source)["get_object"] == 0
    assert calls(target)["copy_object"] == 6


async def test_a_copy_stays_when_its_source_goes_for_it_may_be_the_last_one(lab: Lab) -> None:
    lab.put(b"a", SIZE)

    class Mixing(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method != "copy_object":
                return await go()
            self.inner.put("from", b"a", b"another version")
            original = call.args[0]._replace(etag="")
            stored = await self.inner.copy_object(original, *call.args[1:], **call.kwargs)
            await self.inner.delete_object("from", b"a", etag="")
            return stored

    lab.target = Mixing(lab.dst)
    assert await lab.sync() == {Outcome.SKIPPED: 1}
    left = lab.dst.peek("to", b"a")
    assert left is not None
    assert left.data == b"another version"


async def test_a_copy_that_somebody_wrote_over_is_made_again(lab: Lab) -> None:
    lab.put(b"a", SIZE, encryption="aws:kms")  # so that the copy has to be looked at

    class WrittenOver(Faulty):
        times = 1

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            stored = await go()
            if call.method == "copy_object" and self.times:
                self.times -= 1
                self.inner.put("to", b"a", b"?" * SIZE)
            return stored

    lab.target = WrittenOver(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert [event.reason for event in lab.of(Retried)] == ["conflict"]


class Spoiling(Faulty):
    """A store whose first *times* copies have a wrong byte."""

    def __init__(self, inner: Any, times: int) -> None:
        super().__init__(inner)
        self.times = times

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        stored = await go()
        if call.method == "copy_object" and self.times:
            self.times -= 1
            copy = self.inner.peek("to", call.args[2])
            spoilt = self.inner.put("to", call.args[2], b"?" + copy.data[1:])
            stored.etag = spoilt.etag
        return stored


async def test_a_damaged_copy_is_removed_and_made_again(lab: Lab) -> None:
    lab.put(b"a", SIZE)
    lab.target = Spoiling(lab.dst, 1)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert [event.reason for event in lab.of(Retried)] == ["corrupted"]


async def test_a_damaged_copy_that_may_not_be_removed_is_made_again_and_told(lab: Lab) -> None:
    lab.put(b"a", SIZE)
    denied = AccessDenied("no s3:DeleteObject")
    spoiling = Spoiling(lab.dst, 1)
    lab.target = Raising(spoiling, denied, lambda call: call.method == "discard")
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    [told] = lab.of(Retried)
    assert told.reason == "corrupted"
    assert "could not be removed: no s3:DeleteObject" in told.message


async def test_copies_that_are_always_damaged_are_streamed_in_the_end(lab: Lab) -> None:
    lab.put(b"a", SIZE)
    lab.target = Spoiling(lab.dst, -1)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert len(lab.of(Retried)) == ATTEMPTS
    assert await lab.proofs() == {("put", "etag"): 1}


async def test_a_keyed_etag_is_no_sign_of_damage(lab: Lab) -> None:
    lab.put(b"a", SIZE, encryption="aws:kms")
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.of(Retried) == []
    assert lab.differences() == []
    assert await lab.proofs() == {("server_copy", "size"): 1}


@pytest.mark.parametrize("method", ["copy_object", "upload_part_copy", "complete_multipart_upload"])
async def test_a_lost_answer_is_found_out(lab: Lab, method: str) -> None:
    lab.put(b"a", SIZE, part_size=None if method == "copy_object" else 1000)
    lab.target = LostAnswer(lab.dst, method)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert {proof for _, proof in await lab.proofs()} == {"etag"}
    assert lab.uploads() == []


class Hanging(Faulty):
    """The first copy is made, and its answer never comes."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.reached = asyncio.Event()

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        answer = await go()
        if call.method in COPIES:
            self.reached.set()
            await asyncio.Event().wait()
        return answer


@pytest.mark.parametrize("part_size", [None, 1000])
async def test_a_cancelled_copy_counts_for_nothing_before_its_answer(
    lab: Lab, part_size: int | None
) -> None:
    lab.put(b"a", SIZE, part_size=part_size)
    below = lab.dst
    lab.target = hanging = Hanging(below)
    running = asyncio.create_task(lab.sync())
    await hanging.reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await left_tasks() == []
    assert [key for key, _ in lab.claimed_nowhere()] == [b"a"]
    if part_size is None:  # the store undid it after the connection was gone
        await below.delete_object("to", b"a", etag="")
    lab.target = below
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert lab.uploads() == []


# --- falling back -----------------------------------------------------------------------------


def refusing(inner: Any, error: Exception = AccessDenied("no (403)")) -> Recording:  # noqa: B008
    """Give a store that makes no copies."""
    return Recording(Raising(inner, error, lambda call: call.method in COPIES))


@pytest.mark.parametrize(
    "error",
    [
        AccessDenied("no (403)"),
        Refused("501 NotImplemented"),
        SourceGone("404"),
        SourceChanged("412"),
        KeyRefused("400 KMS.DisabledException"),
    ],
)
async def test_where_copies_are_refused_everything_is_streamed_and_nothing_fails(
    lab: Lab, error: Exception
) -> None:
    for number in range(40):
        lab.put(b"%d" % number, 100)
    lab.target = target = refusing(lab.dst, error)
    assert await lab.sync() == {Outcome.VERIFIED: 40}
    assert lab.differences() == []
    assert await lab.proofs() == {("put", "etag"): 40}
    assert sum(calls(target)[name] for name in COPIES) <= REFUSALS
    assert lab.of(Retried) == []
    [warned] = lab.of(Warned)
    assert "streamed" in warned.message
    assert str(error) in warned.message
    assert lab.uploads() == []


async def test_where_parts_alone_are_refused_whole_objects_are_still_copied(lab: Lab) -> None:
    lab.change(lanes=1)
    for number in range(20):
        lab.put(b"%02d" % number, 100)
        lab.put(b"%02d-parts" % number, SIZE, part_size=1000)
    denied = AccessDenied("no (403)")
    lab.target = target = Recording(
        Raising(lab.dst, denied, lambda call: call.method == "upload_part_copy")
    )
    assert await lab.sync() == {Outcome.VERIFIED: 40}
    assert lab.differences() == []
    assert await lab.proofs() == {("server_copy", "etag"): 20, ("multipart", "etag"): 20}
    assert calls(target)["upload_part_copy"] <= REFUSALS
    assert len(target.of("create_multipart_upload")) == 20
    [warned] = lab.of(Warned)
    assert "objects in parts" in warned.message
    assert lab.uploads() == []


class RefusesFrom(Recording):
    """Makes copies up to the *nth*, and none from then on."""

    def __init__(self, inner: Any, nth: int) -> None:
        super().__init__(inner)
        self.nth = nth

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method in COPIES:
            self.nth -= 1
            if self.nth < 0:
                self.calls.append(call)
                raise AccessDenied("not any more (403)")
        return await super().around(call, go)


async def test_a_route_that_starts_refusing_falls_back_for_the_objects_at_hand(lab: Lab) -> None:
    for number in range(100):
        lab.put(b"%d" % number, 100)
    lab.target = target = RefusesFrom(lab.dst, 50)
    assert await lab.sync() == {Outcome.VERIFIED: 100}
    assert lab.differences() == []
    assert await lab.proofs() == {("server_copy", "etag"): 50, ("put", "etag"): 50}
    assert calls(target)["copy_object"] <= 50 + BOTH_KINDS + QUICK.concurrency
    assert len(lab.of(Warned)) == 1


@pytest.mark.parametrize("nth", [1, 4])
async def test_parts_copied_before_a_refusal_are_not_sent_again(lab: Lab, nth: int) -> None:
    lab.put(b"a", SIZE, part_size=1000)
    lab.target = target = RefusesFrom(lab.dst, nth)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert await lab.proofs() == {("multipart", "etag"): 1}
    assert len(target.of("upload_part")) == COUNT - nth
    assert len(target.of("create_multipart_upload")) == 1
    assert lab.of(Retried) == []


async def test_objects_that_are_refused_for_their_own_sake_change_nothing_for_others(
    lab: Lab,
) -> None:
    for number in range(30):
        lab.put(b"%02d" % number, 100)
    chosen = {b"07", b"20"}
    lab.target = Raising(
        lab.dst,
        Refused("400 InvalidRequest: a customer's key"),
        lambda call: call.method == "copy_object" and call.args[0].key in chosen,
    )
    assert await lab.sync() == {Outcome.VERIFIED: 30}
    assert await lab.proofs() == {("server_copy", "etag"): 28, ("put", "etag"): 2}
    assert lab.of(Warned) == []


async def test_a_throttled_copy_is_no_refused_one(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "PATIENCE", 3600.0)  # who waits for it in vain hangs
    for number in range(10):
        lab.put(b"%d" % number, 100)

    class Busy(Faulty):
        times = 5

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "copy_object" and self.times:
                self.times -= 1
                raise Throttled("slow down", endpoint="dst")
            return await go()

    lab.target = Busy(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 10}
    assert await lab.proofs() == {("server_copy", "etag"): 10}
    assert {event.reason for event in lab.of(Retried)} == {"throttled"}


async def test_a_store_that_fails_at_every_copy_gets_them_streamed(lab: Lab) -> None:
    lab.put(b"a", 100)
    error = ServerError("200 InternalError")
    lab.target = target = refusing(lab.dst, error)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert calls(target)["copy_object"] == ATTEMPTS
    assert await lab.proofs() == {("put", "etag"): 1}


async def test_an_upload_that_the_target_forgets_begins_again(lab: Lab) -> None:
    lab.put(b"a", SIZE, part_size=1000)

    class Forgetting(Faulty):
        parts = 0

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "upload_part_copy":
                self.parts += 1
                if self.parts == 5:
                    self.inner._uploads.clear()
                    raise NoSuchUpload("gone")
            return await go()

    lab.target = Forgetting(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert await lab.proofs() == {("server_multipart", "etag"): 1}
    assert lab.differences() == []


# --- policies ---------------------------------------------------------------------------------


async def test_stream_only_copies_nothing_inside(lab: Lab) -> None:
    lab.change(method=MethodPolicy.STREAM_ONLY)
    lab.put(b"a", 100)
    _, target = watched(lab)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert set(calls(target)) & COPIES == set()


async def test_server_only_streams_nothing_and_says_what_to_do(lab: Lab) -> None:
    lab.change(method=MethodPolicy.SERVER_ONLY)
    for number in range(REFUSALS + 2):
        lab.put(b"%d" % number, 100)
    lab.target = target = refusing(lab.dst)
    assert await lab.sync() == {Outcome.FAILED: REFUSALS + 2}
    assert set((await lab.failures()).values()) == {"copy_refused"}
    assert calls(target)["put_object"] == 0
    [[message]] = lab.query("SELECT DISTINCT message FROM objects WHERE message LIKE '%/0:%'")
    assert "no (403)" in message
    assert "server-first" in message


async def test_server_only_between_two_services_is_refused_at_once(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.change(method=MethodPolicy.SERVER_ONLY)
    lab.put(b"a", 100)
    with pytest.raises(ConfigError, match="server-first"):
        await lab.sync()


async def test_two_services_copy_nothing_between_them(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.put(b"a", 100)
    _, target = watched(lab)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert set(calls(target)) & COPIES == set()


# --- the very same object ---------------------------------------------------------------------


async def test_an_object_is_never_copied_onto_itself(tmp_path: Path) -> None:
    src = store("src", "from")
    lab = Lab(tmp_path, src, store("dst", "from", beside=src))
    lab.change(target=Place("dst", "from", b""), overwrite=Overwrite.ALWAYS)
    data = lab.put(b"a", 100)
    _, target = watched(lab)
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert await lab.failures() == {b"a": "same_object"}
    assert calls(target)["copy_object"] == calls(target)["put_object"] == 0
    found = src.peek("from", b"a")
    assert found is not None
    assert found.data == data


async def test_one_name_in_two_accounts_is_no_copy_onto_itself(tmp_path: Path) -> None:
    src, other = store("src", "from"), MemoryStore("dst")
    other.service = src.service  # one service that shows each account buckets of its own
    lab = Lab(tmp_path, src, other)
    lab.change(target=Place("dst", "from", b""))
    other.put("from", b"a", b"an older copy")
    data = lab.put(b"a", 100)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert other.peek("from", b"a").data == data  # type: ignore[union-attr]
    assert await lab.proofs() == {("put", "etag"): 1}
