"""Uploads in parts: resumed, lost, answered in the dark, and never left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.errors import ConnectionLost, Throttled
from s3flow.events import BytesMoved, Retried, UploadAborted
from s3flow.model import Outcome
from tests.faults import BitFlipping, Call, Faulty, LostAnswer, Recording
from tests.unit.lab import PARTS, Lab, left_tasks, store

SIZE, COUNT = 9500, 10


@pytest.fixture(params=[None, 1000], ids=["whole", "in-parts"])
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Lab:
    """Give a lab with one object of ten parts; uploaded to the source in one, or in those parts."""
    made = Lab(tmp_path)
    made.change(**PARTS, lanes=2)
    made.put(b"a", SIZE, part_size=request.param)
    return made


def numbers(target: Recording) -> list[int]:
    return [call.args[3] for call in target.of("upload_part")]


@pytest.mark.parametrize("after", [1, 2, 5])
async def test_a_stopped_upload_goes_on_with_the_missing_parts_only(lab: Lab, after: int) -> None:
    lab.target = target = Recording(lab.dst)
    lab.stop_at(BytesMoved, after)
    assert await lab.sync() == {Outcome.PENDING: 1}
    [upload_id] = lab.uploads()
    assert lab.claimed_nowhere() == [(b"a", upload_id)]
    assert lab.copy_of(b"a") is None
    sent = len(target.of("upload_part"))
    assert after <= sent < COUNT
    lab.subscribers.clear()
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert sorted(numbers(target)) == list(range(1, COUNT + 1))
    assert len(target.of("create_multipart_upload")) == 1
    assert lab.differences() == []
    assert lab.uploads() == []
    assert "size" not in {proof for _, proof in await lab.proofs()}


class HangsAt(Faulty):
    """The *nth* call of *method* never returns; *reached* is set when it is made."""

    def __init__(self, inner: Any, method: str, nth: int = 1) -> None:
        super().__init__(inner)
        self.method = method
        self.nth = nth
        self.reached = asyncio.Event()

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == self.method:
            self.nth -= 1
            if self.nth == 0:
                self.reached.set()
                await asyncio.Event().wait()
        return await go()


class DiesAfter(HangsAt):
    """The first call of *method* is carried out and never returns."""

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        answer = await go()
        if call.method == self.method:
            self.reached.set()
            await asyncio.Event().wait()
        return answer


async def cancel_at(lab: Lab, hanging: HangsAt) -> None:
    running = asyncio.create_task(lab.sync())
    await hanging.reached.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert await left_tasks() == []


@pytest.mark.parametrize("nth", [1, 4, 10])
async def test_a_killed_upload_goes_on_with_the_missing_parts_only(lab: Lab, nth: int) -> None:
    store_below = lab.dst
    counting = Recording(store_below)
    lab.target = hanging = HangsAt(counting, "upload_part", nth)
    await cancel_at(lab, hanging)
    held = next(iter(store_below._uploads.values())).parts.keys()
    done = len(held)
    lab.target = resumed = Recording(store_below)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert len(numbers(resumed)) == COUNT - done
    assert lab.differences() == []
    assert lab.uploads() == []


async def test_death_between_complete_and_the_record_sends_nothing_again(lab: Lab) -> None:
    store_below = lab.dst

    lab.target = hanging = DiesAfter(store_below, "complete_multipart_upload")
    await cancel_at(lab, hanging)
    lab.target = resumed = Recording(store_below)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert resumed.of("upload_part") == []
    assert lab.differences() == []


async def test_an_upload_whose_creation_was_answered_into_the_void_is_aborted(lab: Lab) -> None:
    lab.target = LostAnswer(lab.dst, "create_multipart_upload")
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.uploads() == []
    assert len(lab.of(UploadAborted)) == 1


async def test_the_last_creation_answered_into_the_void_is_aborted_too(lab: Lab) -> None:
    lab.change(max_attempts=3)
    lab.target = LostAnswer(lab.dst, "create_multipart_upload", times=3)
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert lab.uploads() == []


async def test_death_before_the_id_is_recorded_leaves_no_upload_behind(lab: Lab) -> None:
    store_below = lab.dst

    lab.target = hanging = DiesAfter(store_below, "create_multipart_upload")
    await cancel_at(lab, hanging)
    assert len(lab.uploads()) == 1
    lab.target = store_below
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.uploads() == []


async def test_a_lost_answer_to_complete_is_found_out_without_sending_again(lab: Lab) -> None:
    lab.target = target = Recording(LostAnswer(lab.dst, "complete_multipart_upload"))
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert len(numbers(target)) == COUNT
    assert lab.of(Retried) == []
    assert "size" not in {proof for _, proof in await lab.proofs()}


class CompletedInTheDark(Faulty):
    """The first Complete is done and not answered, and neither is the question after it."""

    lost = False
    asked = False

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        answer = await go()
        if call.method == "complete_multipart_upload" and not self.lost:
            self.lost = True
            raise ConnectionLost("no answer")
        if call.method == "head_object" and self.lost and not self.asked:
            self.asked = True
            raise ConnectionLost("no answer")
        return answer


async def test_an_archived_copy_that_was_completed_in_the_dark_is_proven(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.change(**PARTS, lanes=2)
    lab.put(b"a", SIZE, storage_class="GLACIER")
    lab.src.restore("from", b"a")
    lab.target = target = CompletedInTheDark(lab.dst)  # the copy is as cold as the source was
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert target.asked
    assert lab.differences() == []
    assert lab.uploads() == []
    assert "size" not in {proof for _, proof in await lab.proofs()}


class CompleteLost(Faulty):
    """The first Complete is lost before it arrives; somebody else's object is at the key by then."""

    lost = False

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "complete_multipart_upload" and not self.lost:
            self.lost = True
            self.inner.put("to", b"a", b"?" * SIZE)
            raise ConnectionLost("no answer")
        return await go()


async def test_a_foreign_object_at_the_key_is_no_completed_upload(lab: Lab) -> None:
    lab.target = target = Recording(CompleteLost(lab.dst))
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert len(numbers(target)) == COUNT
    assert len(target.of("complete_multipart_upload")) == 2


class Forgetting(Faulty):
    """Loses every upload at the *nth* part of each, at most *times* times."""

    def __init__(self, inner: Any, nth: int, times: int) -> None:
        super().__init__(inner)
        self.nth, self.times, self.parts = nth, times, 0

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "upload_part" and self.times:
            self.parts += 1
            if self.parts == self.nth:
                self.parts, self.times = 0, self.times - 1
                self.inner._uploads.clear()
        return await go()


@pytest.mark.parametrize("nth", [1, 5, COUNT])
async def test_an_upload_that_the_target_forgets_begins_again(lab: Lab, nth: int) -> None:
    lab.target = Forgetting(lab.dst, nth, 1)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert lab.of(Retried) == []
    assert lab.uploads() == []


async def test_an_upload_that_was_begun_under_the_id_of_another_does_not_stay_open(
    lab: Lab,
) -> None:
    class GivesFormer(BitFlipping):
        former = ""

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            answer = await super().around(call, go)
            if call.method == "create_multipart_upload":
                answer, self.former = self.former or answer, "" if self.former else answer
            return answer

    lab.target = GivesFormer(lab.dst, 0)  # the first upload is aborted, for damage
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert lab.uploads() == []


async def test_a_target_that_always_forgets_is_not_tried_for_ever(lab: Lab) -> None:
    lab.change(max_attempts=2)
    lab.target = target = Recording(Forgetting(lab.dst, 2, -1))
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert await lab.failures() == {b"a": "no_such_upload"}
    assert len(target.of("create_multipart_upload")) <= 2 * 3
    assert lab.uploads() == []


@pytest.mark.parametrize("at", [0, 700, 499])
@pytest.mark.parametrize("with_checksums", [False, True])
async def test_a_part_that_arrives_damaged_is_sent_again(
    lab: Lab, at: int, with_checksums: bool
) -> None:
    lab.target = target = Recording(
        BitFlipping(store("dst", "to", with_checksums=with_checksums), at)
    )
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert lab.uploads() == []
    assert [event.reason for event in lab.of(Retried)] == ["corrupted"]
    # The damage is found while nobody but us can see it.
    assert len(target.of("complete_multipart_upload")) == 1
    assert "size" not in {proof for _, proof in await lab.proofs()}


@pytest.mark.parametrize("with_checksums", [False, True])
async def test_parts_that_always_arrive_damaged_leave_nothing_at_the_target(
    lab: Lab, with_checksums: bool
) -> None:
    lab.change(max_attempts=3)
    lab.target = BitFlipping(store("dst", "to", with_checksums=with_checksums), 0, times=-1)
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert await lab.failures() == {b"a": "corrupted"}
    assert lab.copy_of(b"a") is None
    assert lab.uploads() == []


async def test_a_stop_while_the_last_parts_are_on_their_way_lets_the_object_be_finished(
    lab: Lab, request: pytest.FixtureRequest
) -> None:
    in_order = request.node.callspec.params["lab"] is None  # and so one is on its way, not two
    lab.stop_at(BytesMoved, COUNT if in_order else COUNT - 1)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []


async def test_a_damaged_copy_whose_writer_died_is_not_taken_over(lab: Lab) -> None:
    data = lab.put(b"a", SIZE, part_size=1000)
    store_below = lab.dst
    lab.target = hanging = DiesAfter(store_below, "complete_multipart_upload")
    await cancel_at(lab, hanging)
    ours = store_below.peek("to", b"a")
    assert ours is not None
    store_below.put("to", b"a", b"!" + data[1:], part_size=1000, headers=ours.headers)
    assert lab.differences() == [b"a"]
    lab.target = store_below
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []


async def test_a_version_that_is_superseded_between_runs_leaves_no_upload(lab: Lab) -> None:
    lab.stop_at(BytesMoved, 2)
    await lab.sync()
    assert len(lab.uploads()) == 1
    lab.subscribers.clear()
    lab.put(b"a", 4321)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert lab.uploads() == []


async def test_an_object_that_vanishes_between_runs_leaves_no_upload(lab: Lab) -> None:
    lab.stop_at(BytesMoved, 2)
    await lab.sync()
    lab.subscribers.clear()
    await lab.src.delete_object("from", b"a", etag="")
    assert await lab.sync() == {Outcome.SKIPPED: 1}
    assert lab.uploads() == []
    assert lab.copy_of(b"a") is None


class SlowsDownOnce(Faulty):
    """Throttles the third part's first try."""

    asked = 0

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "upload_part" and call.args[3] == 3:
            self.asked += 1
            if self.asked == 1:
                raise Throttled("slow down", endpoint="dst")
        return await go()


async def test_a_throttled_part_waits_and_the_others_go_on(lab: Lab) -> None:
    lab.target = target = Recording(SlowsDownOnce(lab.dst))
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    # Only the throttled one was tried again, none was cancelled with it, nothing began anew.
    assert sorted(numbers(target)) == sorted([3, *range(1, COUNT + 1)])
    assert [event.reason for event in lab.of(Retried)] == ["throttled"]
    assert len(target.of("list_parts")) == 0
    assert lab.differences() == []
