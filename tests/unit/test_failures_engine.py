"""Failures seen in the field that concern a whole flow: what it does when they happen to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s3flow.errors import ClockSkewed, Conflict, Refused
from s3flow.events import FlowBlocked, Recorded, Retried
from s3flow.model import ObjectInfo, Outcome, Place
from s3flow.policies import Overwrite
from s3flow.stores.memory import MemoryStore
from s3flow.stores.memory_object import MemoryBody
from tests.faults import Call, ChangingSource, Faulty, Recording
from tests.unit.lab import PARTS, Lab, store


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab(tmp_path)
    made.change(**PARTS)
    return made


# --- reading -----------------------------------------------------------------------------------


class Compressing(Faulty):
    """What stands before the store halves bodies, says so in lengths, and keeps the ETag."""

    def __init__(self, inner: Any, *, heads: bool) -> None:
        super().__init__(inner)
        self.heads = heads

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        answer = await go()
        if call.method == "get_object":
            start, stop = call.kwargs.get("span") or (0, answer.info.size // 2)
            data = memoryview(self.inner.peek(*call.args[:2]).data)[start:stop]
            return MemoryBody(data, _half(answer.info), 65_536)
        if call.method == "head_object" and self.heads and answer is not None:
            return _half(answer)
        return answer


def _half(info: ObjectInfo) -> ObjectInfo:
    return replace(info, size=info.size // 2)


@pytest.mark.parametrize("heads", [False, True])
@pytest.mark.parametrize("encryption", ["", "aws:kms"])
@pytest.mark.parametrize("size", [10, 5000])
async def test_a_body_of_another_size_than_the_listing_is_no_copy(
    lab: Lab, size: int, encryption: str, heads: bool
) -> None:
    """Under KMS no ETag would tell, and lengths that agree with each other prove nothing."""
    lab.change(max_attempts=2)
    lab.put(b"a", size, encryption=encryption)
    lab.source = Compressing(lab.src, heads=heads)
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert await lab.failures() == {b"a": "bad_answer"}
    assert lab.copy_of(b"a") is None
    assert lab.uploads() == []


class KnowsNoPartNumbers(Faulty):
    """A store that refuses to be asked for a part by its number."""

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.kwargs.get("part_number") is not None:
            raise Refused("HeadObject: 400 InvalidArgument")
        return await go()


async def test_a_source_that_knows_no_part_numbers_is_read_by_ranges(lab: Lab) -> None:
    lab.put(b"a", 5000, part_size=700)
    lab.source = source = Recording(KnowsNoPartNumbers(lab.src))
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert all(call.kwargs["span"] for call in source.of("get_object"))


@pytest.mark.parametrize("encryption", ["aws:kms", "customer"])
async def test_encrypted_objects_are_never_proven_by_their_etags(lab: Lab, encryption: str) -> None:
    for size in (0, 10, 5000):
        lab.put(b"%d" % size, size, encryption=encryption)
    assert await lab.sync() == {Outcome.VERIFIED: 3}
    assert lab.differences() == []
    assert {proof for _, proof in await lab.proofs()} <= {"checksum", "md5"}


# --- writing -----------------------------------------------------------------------------------


class Conflicting(Faulty):
    """Completing answers 409 for the first *uploads* uploads, however often it is asked."""

    def __init__(self, inner: MemoryStore, uploads: int) -> None:
        super().__init__(inner)
        self.uploads = uploads
        self.refused: set[str] = set()

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "complete_multipart_upload":
            upload_id = call.args[2]
            if upload_id in self.refused or len(self.refused) < self.uploads:
                self.refused.add(upload_id)
                raise Conflict("CompleteMultipartUpload: 409 ConditionalRequestConflict")
        return await go()


async def test_an_upload_that_conflicts_time_and_again_is_begun_anew(lab: Lab) -> None:
    lab.put(b"a", 5000)
    lab.target = target = Recording(Conflicting(lab.dst, 1))
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert len(target.of("create_multipart_upload")) == 2
    assert lab.uploads() == []


async def test_conflicts_are_not_fought_for_ever(lab: Lab) -> None:
    lab.change(max_attempts=4)
    lab.put(b"a", 5000)
    lab.target = target = Recording(Conflicting(lab.dst, 1000))
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert await lab.failures() == {b"a": "conflict"}
    assert len(target.of("complete_multipart_upload")) == 4
    assert lab.uploads() == []
    assert lab.copy_of(b"a") is None


class PartsInFlight(Faulty):
    """Counts the parts that are on their way; *at_abort* has the count of every abort."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.now = self.most = 0
        self.at_abort: list[int] = []

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "abort_multipart_upload":
            self.at_abort.append(self.now)
        if call.method != "upload_part":
            return await go()
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            for _ in range(10):
                await asyncio.sleep(0)
            return await go()
        finally:
            self.now -= 1


async def test_no_part_is_on_its_way_when_its_upload_is_aborted(lab: Lab) -> None:
    lab.change(lanes=4)
    lab.put(b"a", 9000, part_size=1000)  # else they go one after the other
    lab.source = ChangingSource(lab.src, "from", b"a", b"newer" * 1500, after=3)
    lab.target = target = PartsInFlight(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert target.most > 1
    assert target.at_abort
    assert set(target.at_abort) == {0}
    assert lab.uploads() == []


@pytest.mark.parametrize("key", [b"in/", b"in/" + b"k" * 1000])
async def test_a_key_that_becomes_none_or_too_long_at_the_target_is_never_read(
    lab: Lab, key: bytes
) -> None:
    prefix = b"" if key == b"in/" else b"p" * 25
    lab.change(source=Place("src", "from", b"in/"), target=Place("dst", "to", prefix))
    lab.put(key, 1)
    lab.source = source = Recording(lab.src)
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert set((await lab.failures()).values()) <= {"name_refused", "name_too_long"}
    assert source.of("get_object") == []
    assert lab.dst.keys("to") == []


# --- what counts as a change -------------------------------------------------------------------


@pytest.fixture
def timeless(lab: Lab) -> Lab:
    """Give a lab whose source says the same time of everything."""
    lab.source = store("src", "from", clock=lambda: 1_600_000_000.0)
    return lab


async def sent(lab: Lab) -> list[bytes]:
    """Sync; give the keys that were read."""
    below = lab.src
    lab.source = source = Recording(below)
    counted = await lab.sync()
    lab.source = below
    assert set(counted) == {Outcome.VERIFIED}
    return sorted({call.args[1] for call in source.of("get_object")})


async def test_other_bytes_of_equal_size_and_time_are_a_change(timeless: Lab) -> None:
    timeless.src.put("from", b"a", b"old bytes")
    timeless.src.put("from", b"b", b"the same")
    assert await sent(timeless) == [b"a", b"b"]
    timeless.src.put("from", b"a", b"new bytes")
    assert await sent(timeless) == [b"a"]
    assert timeless.differences() == []


async def test_a_later_time_alone_is_no_change(lab: Lab) -> None:
    hour = iter(range(100))
    lab.source = store("src", "from", clock=lambda: 3600.0 * next(hour))
    lab.src.put("from", b"a", b"the same")
    assert await sent(lab) == [b"a"]
    lab.src.put("from", b"a", b"the same")
    assert await sent(lab) == []


async def test_the_same_bytes_in_other_parts_are_sent_once_and_not_for_ever(lab: Lab) -> None:
    lab.put(b"a", 5000)
    assert await sent(lab) == [b"a"]
    for part_size in (700, 1000):
        lab.put(b"a", 5000, part_size=part_size)
        assert await sent(lab) == [b"a"]
        assert await sent(lab) == []
    assert lab.differences() == []


async def test_a_copy_with_another_etag_than_its_source_is_not_sent_again(lab: Lab) -> None:
    lab.put(b"a", 5000, part_size=5000)  # one part at the source, five at the target
    lab.put(b"b", 5000)
    await sent(lab)
    there, here = lab.dst.peek("to", b"b"), lab.src.peek("from", b"b")
    assert there is not None
    assert here is not None
    assert there.etag != here.etag
    assert await sent(lab) == []


async def test_headers_that_change_alone_are_seen_by_overwriting_always(lab: Lab) -> None:
    lab.src.put("from", b"a", b"the same", headers={"content-type": "text/plain"})
    await sent(lab)
    lab.src.put("from", b"a", b"the same", headers={"content-type": "text/html"})
    assert await sent(lab) == []
    lab.change(overwrite=Overwrite.ALWAYS)
    assert await sent(lab) == [b"a"]
    there = lab.dst.peek("to", b"a")
    assert there is not None
    assert there.headers["content-type"] == "text/html"


# --- clocks ------------------------------------------------------------------------------------


class Skewed(Faulty):
    """The first *times* reads are refused for the time they were signed at."""

    times = 20

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "get_object" and self.times:
            self.times -= 1
            await asyncio.sleep(0)
            raise ClockSkewed("this machine's clock is 2000 s behind the server's")
        return await go()


async def test_a_wrong_clock_is_told_once_and_costs_no_attempt(lab: Lab) -> None:
    for number in range(10):
        lab.put(b"%d" % number, 10)
    lab.source = Skewed(lab.src)
    assert await lab.sync() == {Outcome.VERIFIED: 10}
    assert [event.reason for event in lab.of(FlowBlocked)] == ["clock_skewed"]
    assert lab.of(Retried) == []
    assert all(change.attempts == 1 for event in lab.of(Recorded) for change in event.changes)
