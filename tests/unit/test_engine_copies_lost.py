"""Copies inside a store that are of another version, or of which no answer comes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from s3flow.engine.copying import ATTEMPTS
from s3flow.errors import AccessDenied
from s3flow.events import Retried, Warned
from s3flow.model import Outcome
from s3flow.policies import MethodPolicy, RestorePolicy
from tests.faults import Call, Faulty, LostAnswer, Raising
from tests.unit.copies_kit import COPIES, COUNT, SIZE, WrittenOver, calls, lab, watched
from tests.unit.lab import Lab, left_tasks

__all__ = ["lab"]  # a fixture


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
    lab.target = WrittenOver(lab.dst, "copy_object", b"?" * SIZE)
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
