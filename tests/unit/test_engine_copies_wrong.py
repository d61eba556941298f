"""Copies inside the store that go wrong in ways that an answer does not tell."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine.probe import examine
from s3flow.engine.verdicts import FAILURES, REFUSALS
from s3flow.engine.wiring import RouteMaker, Wiring
from s3flow.errors import (
    AccessDenied,
    Conflict,
    ConnectionLost,
    Corrupted,
    Refused,
    ServerError,
    Stalled,
)
from s3flow.events import BucketFailed, Retried, Warned
from s3flow.model import Filters, Limits, Outcome, Place, Span
from s3flow.policies import MethodPolicy
from s3flow.stores.crc64 import Crc64Nvme
from s3flow.stores.memory import MemoryStore
from tests.faults import Call, Faulty, Raising, Recording
from tests.unit.copies_kit import WrittenOver
from tests.unit.lab import QUICK, Lab, store

SIZE = 9500


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Give a lab whose stores are two accounts of one service, which copies 5,000 bytes at once."""
    src = store("src", "from")
    limits = Limits(min_part_size=1, max_put_size=5000)
    made = Lab(tmp_path, src, store("dst", "to", beside=src, limits=limits))
    made.change(part_size=1000, lanes=2)
    return made


# --- parts whose ETag says nothing ------------------------------------------------------------


class IgnoresRanges(Faulty):
    """A store that takes all of the source's object for each part of it."""

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "complete_multipart_upload":
            stored = await go()
            stored.size = sum(part.size for part in call.args[3])  # the answer has no size
            return stored
        if call.method != "upload_part_copy":
            return await go()
        original, span = call.args[0], call.args[5]
        whole = Span(0, original.size)
        part = await self.inner.upload_part_copy(*call.args[:5], whole)
        return part._replace(size=span.size)  # nor has this one


async def test_parts_with_too_many_bytes_are_no_copy(lab: Lab) -> None:
    lab.put(b"a", SIZE, encryption="aws:kms")  # no ETag to compare
    lab.target = IgnoresRanges(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert {event.reason for event in lab.of(Retried)} == {"corrupted"}
    assert lab.uploads() == []


class MixedUp(Faulty):
    """A proxy that answers what was asked about one object with what it knows of another."""

    def __init__(self, inner: MemoryStore, times: int) -> None:
        super().__init__(inner)
        self.times = times

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "head_object" and "part_number" in call.kwargs and self.times:
            self.times -= 1
            return await self.inner.head_object("from", b"other", part_number=1)
        return await go()


@pytest.mark.parametrize(("part_size", "times"), [(SIZE, 1), (SIZE, 2), (4000, 1)])
async def test_boundaries_are_not_taken_from_another_objects_answer(
    tmp_path: Path, part_size: int, times: int
) -> None:
    """A copy as a whole would have another ETag, and a move would keep its source for good."""
    src = store("src", "from")
    lab = Lab(tmp_path, src, store("dst", "to", beside=src))
    lab.change(filters=Filters(exclude=("other",)))
    lab.put(b"a", SIZE, part_size=part_size)
    lab.put(b"other", 700, part_size=300)
    lab.source = MixedUp(lab.src, times)
    assert await lab.sync() == {Outcome.VERIFIED: 1, Outcome.SKIPPED: 1}
    assert (await lab.proofs())["server_multipart", "etag"] == 1


async def test_parts_that_somebody_wrote_over_are_copied_again(lab: Lab) -> None:
    lab.put(b"a", SIZE, encryption="aws:kms")
    lab.target = WrittenOver(lab.dst, "complete_multipart_upload", b"?" * SIZE)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert [event.reason for event in lab.of(Retried)] == ["conflict"]


async def test_parts_are_proven_by_what_the_target_says_when_it_is_asked(tmp_path: Path) -> None:
    limits = Limits(min_part_size=1, max_put_size=5000)
    src = store("src", "from", with_checksums=True)
    lab = Lab(tmp_path, src, store("dst", "to", beside=src, with_checksums=True, limits=limits))
    lab.change(part_size=1000)
    lab.put(b"a", SIZE, encryption="aws:kms")

    class SaysNothing(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            stored = await go()
            if call.method == "complete_multipart_upload":
                stored.checksums = {}
            return stored

    lab.target = SaysNothing(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert await lab.proofs() == {("server_multipart", "checksum"): 1}


# --- failures that never end ------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [ServerError("200 InternalError"), Conflict("409"), Corrupted("x"), Stalled("no answer")],
)
@pytest.mark.parametrize("good", [0, 20])
async def test_a_store_that_fails_at_every_copy_is_not_asked_for_every_object(
    lab: Lab, error: Exception, good: int
) -> None:
    for number in range(100):
        lab.put(b"%02d" % number, 100)
    lab.target = target = FailsFrom(lab.dst, good, error)
    assert await lab.sync() == {Outcome.VERIFIED: 100}
    assert lab.differences() == []
    assert await lab.proofs() == +Counter(
        {("server_copy", "etag"): good, ("put", "etag"): 100 - good}
    )
    assert -target.left <= FAILURES + QUICK.concurrency
    assert len(lab.of(Warned)) == 1


class FailsFrom(Faulty):
    """Makes *left* copies, and fails at the others."""

    def __init__(self, inner: Any, left: int, error: Exception) -> None:
        super().__init__(inner)
        self.left, self.error = left, error

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "copy_object":
            self.left -= 1
            if self.left < 0:
                await asyncio.sleep(0)
                raise self.error
        return await go()


async def test_failures_between_successes_are_no_verdict(lab: Lab) -> None:
    for number in range(100):
        lab.put(b"%02d" % number, 100)

    class EveryOther(Faulty):
        calls = 0

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "copy_object":
                self.calls += 1
                if self.calls % 2:
                    raise ServerError("500")
            return await go()

    lab.change(concurrency=1)
    lab.target = EveryOther(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 100}
    assert {method for method, _ in await lab.proofs()} >= {"server_copy"}
    assert lab.of(Warned) == []


async def test_lost_connections_are_no_verdict(lab: Lab) -> None:
    for number in range(60):
        lab.put(b"%02d" % number, 100)
    chosen = {b"%02d" % number for number in range(5)}
    error = ConnectionLost("reset")
    lab.target = Raising(
        lab.dst,
        error,
        lambda call: call.method == "copy_object" and call.args[0].key in chosen,
    )
    assert await lab.sync() == {Outcome.VERIFIED: 60}
    assert await lab.proofs() == {("server_copy", "etag"): 55, ("put", "etag"): 5}
    assert lab.of(Warned) == []


class TakesNoCopiedParts(Recording):
    """A store that copies parts, and makes no object of them."""

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "complete_multipart_upload":
            copied = {each.args[3] for each in self.of("upload_part_copy")}
            if call.args[2] in copied:
                self.calls.append(call)
                raise Refused("400 InvalidPart")
        return await super().around(call, go)


async def test_copied_parts_that_make_no_object_are_streamed_instead(lab: Lab) -> None:
    lab.change(concurrency=1)
    for number in range(20):
        lab.put(b"%02d" % number, SIZE, part_size=1000)
    lab.target = target = TakesNoCopiedParts(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 20}
    assert lab.differences() == []
    assert await lab.proofs() == {("multipart", "etag"): 20}
    assert len({call.args[0].key for call in target.of("upload_part_copy")}) == REFUSALS
    assert len(lab.of(Warned)) == 1
    assert lab.uploads() == []


async def test_copied_parts_that_make_no_object_are_no_copy_where_nothing_is_streamed(
    lab: Lab,
) -> None:
    lab.change(method=MethodPolicy.SERVER_ONLY)
    lab.put(b"a", SIZE, part_size=1000)
    lab.target = TakesNoCopiedParts(lab.dst)
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert await lab.failures() == {b"a": "copy_refused"}
    assert lab.uploads() == []


# --- targets that may be written, and not read ------------------------------------------------


def unreadable(inner: Any) -> Raising:
    """Give a store whose credentials may not look at objects."""
    return Raising(inner, AccessDenied("403"), lambda call: call.method == "head_object")


@pytest.mark.parametrize("size", [100, SIZE])
async def test_what_cannot_be_looked_at_is_streamed(lab: Lab, size: int) -> None:
    lab.put(b"a", size, encryption="aws:kms")  # so that the copy would have to be looked at
    lab.target = unreadable(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    [(method, proof)] = await lab.proofs()
    assert (method, proof) in {("put", "md5"), ("multipart", "md5")}
    assert lab.uploads() == []


async def test_parts_are_not_copied_in_vain_for_each_object(lab: Lab) -> None:
    lab.change(concurrency=1)
    for number in range(20):
        lab.put(b"%02d" % number, SIZE, encryption="aws:kms")
    lab.target = target = Recording(unreadable(lab.dst))
    assert await lab.sync() == {Outcome.VERIFIED: 20}
    assert len({call.args[0].key for call in target.of("upload_part_copy")}) == REFUSALS


async def test_what_cannot_be_looked_at_is_no_copy_where_nothing_is_streamed(lab: Lab) -> None:
    lab.change(method=MethodPolicy.SERVER_ONLY)
    lab.put(b"a", SIZE, encryption="aws:kms")
    lab.target = unreadable(lab.dst)
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert await lab.failures() == {b"a": "copy_refused"}
    assert lab.uploads() == []


async def test_buckets_of_one_name_that_cannot_be_looked_at_are_streamed_to(tmp_path: Path) -> None:
    src, dst = store("src", "from"), store("dst", "from")
    dst.service = src.service  # which has accounts with buckets of their own
    lab = Lab(tmp_path, src, unreadable(dst))
    lab.change(target=Place("dst", "from", b""))
    lab.put(b"a", 100)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []


# --- one bucket by two names ------------------------------------------------------------------


@pytest.mark.parametrize("aliased", [False, True], ids=["one-service", "two-urls"])
@pytest.mark.parametrize(("read", "written"), [(b"", b"b/"), (b"a/", b""), (b"a/", b"a/b/")])
async def test_a_bucket_is_not_copied_into_itself_again_and_again(
    tmp_path: Path, read: bytes, written: bytes, aliased: bool
) -> None:
    src = store("src", "from")
    dst = store("dst", "from", beside=src)
    if aliased:
        dst.service = "by another name"
    lab = Lab(tmp_path, src, dst)
    lab.change(source=Place("src", "from", read), target=Place("dst", "from", written))
    for key in (b"a/1", b"a/2", b"a/a/1"):
        lab.put(key, 10)
    before = {key: src.peek("from", key) for key in src.keys("from")}
    assert await lab.sync() == {}
    assert {key: src.peek("from", key) for key in src.keys("from")} == before
    [failed] = lab.of(BucketFailed)
    assert failed.reason == "same_object"
    assert "src" in failed.message
    assert "dst" in failed.message


async def test_another_bucket_of_the_same_name_takes_a_copy_below_a_prefix(tmp_path: Path) -> None:
    src, dst = store("src", "from"), store("dst", "from")
    lab = Lab(tmp_path, src, dst)
    lab.change(target=Place("dst", "from", b"b/"))
    for key in (b"a/1", b"a/2"):
        data = lab.put(key, 10)
        dst.put("from", key, data if key == b"a/1" else b"another")
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    lab.put(b"a/3", 10)
    assert await lab.sync() == {Outcome.VERIFIED: 3}
    assert lab.differences() == []


async def test_who_may_not_look_at_the_target_is_not_refused(tmp_path: Path) -> None:
    src, dst = store("src", "from"), store("dst", "from")
    lab = Lab(tmp_path, src, dst)
    lab.change(target=Place("dst", "from", b"b/"), method=MethodPolicy.STREAM_ONLY)
    lab.put(b"a", 10)
    lab.target = unreadable(dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}


async def test_accounts_whose_buckets_share_a_name_are_found_out_once(tmp_path: Path) -> None:
    src, dst = store("src", "from"), store("dst", "from")
    dst.service = src.service
    source, target = Recording(src), Recording(dst)
    lab = Lab(tmp_path, source, target)
    lab.change(target=Place("dst", "from", b""))
    for number in range(100):
        lab.put(b"%02d" % number, 10)
    assert await lab.sync() == {Outcome.VERIFIED: 100}
    assert await lab.proofs() == {("put", "etag"): 100}
    for side in (source, target):
        assert 0 < len(side.of("head_object")) <= QUICK.concurrency
    assert target.of("copy_object") == []


# --- what doctor tries ------------------------------------------------------------------------


@pytest.mark.parametrize("method", [MethodPolicy.SERVER_FIRST, MethodPolicy.SERVER_ONLY])
async def test_doctor_lets_the_store_copy_an_object_that_can_be_read(
    lab: Lab, method: MethodPolicy
) -> None:
    lab.change(method=method)
    lab.put(b"a", 1, storage_class="GLACIER")
    lab.put(b"b", 2, storage_class="DEEP_ARCHIVE")
    lab.put(b"c", 3)
    maker = RouteMaker(QUICK, Crc64Nvme(), lambda event: None, asyncio.Event())
    found = [each async for each in examine(maker.route(Wiring(lab.flow, lab.src, lab.dst)))]
    copied = [each for each in found if each.tried.startswith("copy ")]
    assert len(copied) == 2  # whole, and in parts
    for each in copied:
        assert each.ok
        assert "'c' of from" in each.tried
        assert "target's credentials: no byte" in each.answer
    assert lab.dst.keys("to") == []
    assert lab.uploads() == []


async def test_equal_etags_of_no_known_form_prove_no_copy(tmp_path: Path) -> None:
    """Some stores call every object the same."""

    class Odd(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            answer = await go()
            if call.method == "copy_object":
                answer.etag = self.inner.peek("to", b"a").etag = "odd"
            return answer

    source = store("src", "from")
    lab = Lab(tmp_path, source, Odd(store("dst", "to", beside=source)))
    lab.put(b"a", 100)
    source.peek("from", b"a").etag = "odd"  # type: ignore[union-attr]
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert await lab.proofs() == {("server_copy", "size"): 1}
