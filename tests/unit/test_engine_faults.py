"""Flows on bad days: storms, full disks, damage, surprises. No object is lost count of."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine import recorder as recorder_module
from s3flow.engine import throttle
from s3flow.engine.wiring import Wiring
from s3flow.errors import (
    ConnectionLost,
    ServerError,
    StateError,
    TargetFull,
    TargetUnavailable,
    Throttled,
)
from s3flow.events import (
    BucketFailed,
    Event,
    FlowBlocked,
    FlowUnblocked,
    Recorded,
    Retried,
    ThrottleChanged,
    Warned,
)
from s3flow.model import Outcome, Sample, Stored
from s3flow.ports import StateStore
from tests.faults import BitFlipping, Call, Faulty, LostAnswer, Recording, Throttling, Truncating
from tests.unit.lab import FLOW, PARTS, QUICK, Lab, left_tasks, store

MANY = 40


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab(tmp_path)
    made.change(**PARTS)
    for number in range(MANY):
        made.put(b"%02d" % number, number * 60)  # the last ones in parts
    return made


class Raising(Faulty):
    """The calls that *chosen* names raise *error* instead of being done."""

    def __init__(self, inner: Any, error: Exception, chosen: Callable[[Call], bool]) -> None:
        super().__init__(inner)
        self.error = error
        self.chosen = chosen

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if self.chosen(call):
            await asyncio.sleep(0)
            raise self.error
        return await go()


def first(times: int, *methods: str) -> Callable[[Call], bool]:
    """Choose the first calls of some methods."""

    def chosen(call: Call) -> bool:
        nonlocal times
        times -= call.method in methods
        return call.method in methods and times >= 0

    return chosen


def assert_all_arrived(lab: Lab) -> None:
    assert lab.differences() == []
    assert lab.uploads() == []
    assert lab.claimed_nowhere() == []


class Impatient:
    """Seconds pass with every look at the clock: no storm hides in the one before."""

    now = 0.0

    def monotonic(self) -> float:
        self.now += 2.0
        return self.now


# --- storms ----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["source", "target"])
async def test_in_a_storm_no_object_fails_and_the_pace_comes_back(
    lab: Lab, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "time", Impatient())
    setattr(lab, end, Throttling(getattr(lab, end), every=3, times=60))
    assert await lab.sync() == {Outcome.VERIFIED: MANY}
    assert_all_arrived(lab)
    limits = [event.concurrency for event in lab.of(ThrottleChanged)]
    assert min(limits) == 1
    assert limits[-1] > 1
    assert all(change.attempts == 1 for event in lab.of(Recorded) for change in event.changes)


async def test_a_wish_to_wait_is_granted(lab: Lab) -> None:
    lab.target = Throttling(lab.dst, every=20, times=3, retry_after=0.02)
    assert await lab.sync() == {Outcome.VERIFIED: MANY}
    delays = [event.delay for event in lab.of(Retried) if event.reason == "throttled"]
    assert delays
    assert min(delays) >= 0.02


@pytest.mark.timeout(30)
async def test_a_throttled_flow_does_not_hold_the_bodies_of_the_others(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throttle, "time", Impatient())
    lab.pace = replace(QUICK, bodies=2)
    release = asyncio.Event()

    class Hanging(Faulty):
        waiting = 0

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method in {"put_object", "upload_part"}:
                self.waiting += 1
                await release.wait()
            return await go()

    class Late(Faulty):
        """Begins when the other flow has one body in its hands and stands at its gate."""

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            assert lab.daemon is not None
            gate = lab.daemon.flows["flow"].route.gate
            if call.method == "list_page":
                while gate.limit > 1 or not (gate._waiting and hanging.waiting):
                    await asyncio.sleep(0)
            return await go()

    lab.source = Raising(lab.src, Throttled("slow down"), first(20, "get_object"))
    lab.target = hanging = Hanging(lab.dst)
    source, target = store("src2", "from"), store("dst2", "to")
    for number in range(10):
        source.put("from", b"%d" % number, b"x")
    late: Any = Late(source)
    lab.others = [Wiring(replace(FLOW, name="other"), late, target)]

    def watch(event: Event) -> None:
        if len(target.keys("to")) == 10:
            release.set()

    lab.subscribers.append(watch)
    await lab.sync()
    assert release.is_set()
    assert_all_arrived(lab)


# --- everything would fail -------------------------------------------------------------------


@pytest.mark.parametrize("error", [TargetFull("no room"), TargetUnavailable("gone")])
async def test_a_block_is_told_once_fails_nothing_and_passes(lab: Lab, error: Exception) -> None:
    lab.target = Raising(lab.dst, error, first(25, "put_object", "upload_part"))
    assert await lab.sync() == {Outcome.VERIFIED: MANY}
    assert_all_arrived(lab)
    assert len(lab.of(FlowBlocked)) == len(lab.of(FlowUnblocked)) == 1
    assert lab.of(Retried) == []


async def test_a_stop_while_blocked_leaves_everything_for_the_next_start(lab: Lab) -> None:
    below = lab.dst
    lab.target = Raising(below, TargetFull("no room"), lambda call: call.method == "put_object")
    lab.stop_at(FlowBlocked)
    counted = await lab.sync()
    assert counted[Outcome.FAILED] == 0
    assert counted[Outcome.PENDING] > 0
    assert lab.of(FlowUnblocked) == []
    lab.target = below
    lab.subscribers.clear()
    assert await lab.sync() == {Outcome.VERIFIED: MANY}
    assert_all_arrived(lab)


# --- damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["source", "target"])
async def test_a_flipped_bit_is_found_and_sent_again(lab: Lab, end: str) -> None:
    lab.change(multipart_threshold=100_000)
    setattr(lab, end, BitFlipping(getattr(lab, end), 30, times=5))
    assert await lab.sync() == {Outcome.VERIFIED: MANY}
    assert_all_arrived(lab)
    assert [event.reason for event in lab.of(Retried)] == ["corrupted"] * 5


async def test_what_always_arrives_damaged_fails_and_leaves_nothing(lab: Lab) -> None:
    lab.change(multipart_threshold=100_000, max_attempts=3)
    lab.target = BitFlipping(lab.dst, 0, times=-1)
    assert await lab.sync() == {Outcome.FAILED: MANY - 1, Outcome.VERIFIED: 1}  # one is empty
    assert set((await lab.failures()).values()) == {"corrupted"}
    assert lab.dst.keys("to") == [b"00"]


@pytest.mark.parametrize("silent", [False, True])
async def test_a_body_that_breaks_off_is_read_again(lab: Lab, silent: bool) -> None:
    lab.source = Truncating(lab.src, at=50, times=7, silent=silent)
    assert await lab.sync() == {Outcome.VERIFIED: MANY}
    assert_all_arrived(lab)
    assert len(lab.of(Retried)) == 7


@pytest.mark.parametrize("method", ["put_object", "upload_part", "complete_multipart_upload"])
async def test_lost_answers_cost_a_repetition_at_most(lab: Lab, method: str) -> None:
    lab.target = LostAnswer(lab.dst, method, times=4)
    assert await lab.sync() == {Outcome.VERIFIED: MANY}
    assert_all_arrived(lab)


# --- durability ------------------------------------------------------------------------------


class Unsettled(Faulty):
    """Every put must be settled; the first *times* answers say that it did not work."""

    times = 6
    error: Exception = ServerError("fsync")

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "settle":
            return await self._settle(call.args[0])
        answer = await go()
        if isinstance(answer, Stored):
            answer.settle = True
        return answer

    async def _settle(self, stored: Sequence[Stored]) -> list[Exception | None]:
        answers: list[Exception | None] = []
        for _ in stored:
            self.times -= 1
            answers.append(self.error if self.times >= 0 else None)
        return answers


async def test_what_did_not_become_durable_is_sent_again(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.target = target = Recording(Unsettled(lab.dst))
    lab.change(multipart_threshold=100_000)
    assert await lab.sync() == {Outcome.VERIFIED: MANY}
    assert_all_arrived(lab)
    assert len(target.of("put_object")) == MANY + 6


@pytest.mark.parametrize("error", [ServerError("x"), OSError("x")])
async def test_what_never_becomes_durable_fails_after_its_attempts(
    lab: Lab, error: Exception
) -> None:
    lab.target = unsettled = Unsettled(lab.dst)
    unsettled.times, unsettled.error = 10**9, error
    lab.change(multipart_threshold=100_000, max_attempts=3)
    assert await lab.sync() == {Outcome.FAILED: MANY}
    assert set((await lab.failures()).values()) == {getattr(error, "reason", "unexpected")}


async def test_a_full_disk_at_the_very_end_of_an_object_fails_nothing(lab: Lab) -> None:
    lab.target = unsettled = Unsettled(lab.dst)
    unsettled.times, unsettled.error = 5 * MANY, TargetFull("no room")
    lab.change(multipart_threshold=100_000, max_attempts=3)
    assert await lab.sync() == {Outcome.VERIFIED: MANY}
    assert_all_arrived(lab)


async def test_a_state_that_cannot_be_written_for_a_while_loses_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder_module, "STATE_RETRY", 0.001)
    chosen = first(10, "save")
    lab.wrap_state = lambda state: _failing_state(state, StateError("disk full"), chosen)
    lab.target = target = Recording(lab.dst)
    lab.change(multipart_threshold=100_000)
    assert await lab.sync() == {Outcome.VERIFIED: MANY}
    assert_all_arrived(lab)
    assert len(target.of("put_object")) == MANY
    assert len(lab.of(Warned)) >= 1


async def test_a_sample_that_cannot_be_kept_ends_nothing(lab: Lab) -> None:
    chosen = first(100, "sample")
    lab.wrap_state = lambda state: _failing_state(state, StateError("disk full"), chosen)
    assert await lab.sync() == {Outcome.VERIFIED: MANY}


def _failing_state(
    state: StateStore, error: Exception, chosen: Callable[[Call], bool]
) -> StateStore:
    wrapped: Any = Raising(state, error, chosen)
    return wrapped  # type: ignore[no-any-return]


# --- surprises -------------------------------------------------------------------------------


async def test_a_defect_that_one_object_meets_fails_that_object_only(lab: Lab) -> None:
    def chosen(call: Call) -> bool:
        return call.method == "get_object" and call.args[1] in {b"07", b"33"}

    lab.source = source = Recording(Raising(lab.src, ValueError("defect"), chosen))
    assert await lab.sync() == {Outcome.FAILED: 2, Outcome.VERIFIED: MANY - 2}
    assert await lab.failures() == {b"07": "unexpected", b"33": "unexpected"}
    assert len([call for call in source.of("get_object") if call.args[1] == b"07"]) == 2
    assert lab.uploads() == []


@pytest.mark.parametrize("error", [ConnectionLost("x"), Throttled("x"), ValueError("x")])
async def test_a_failing_look_at_what_changed_ends_nothing(lab: Lab, error: Exception) -> None:
    """The object changes while it is read, and then the HEAD for its new version fails."""
    chosen = first(1, "head_object")

    class Changes(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "get_object" and call.args[1] == b"05":
                newer = b"newer" * 20
                if lab.src.peek("from", b"05").data != newer:  # type: ignore[union-attr]
                    lab.src.put("from", b"05", newer)
            return await go()

    lab.change(multipart_threshold=100_000)  # the only HEAD at the source is that one
    lab.source = Changes(Raising(lab.src, error, chosen))
    assert await lab.sync() == {Outcome.VERIFIED: MANY}
    assert_all_arrived(lab)


@pytest.mark.parametrize("method", ["save", "claim", "next_retry"])
async def test_a_defect_in_the_state_takes_the_daemon_down_and_the_next_start_goes_on(
    lab: Lab, method: str
) -> None:
    chosen = first(1, method)
    lab.wrap_state = lambda state: _failing_state(state, ValueError("defect"), chosen)
    with pytest.raises(BaseExceptionGroup) as caught:
        await lab.sync()
    assert caught.group_contains(ValueError, match="defect")
    assert await left_tasks() == []
    lab.wrap_state = lambda state: state
    assert await lab.sync() == {Outcome.VERIFIED: MANY}
    assert_all_arrived(lab)


async def test_a_subscriber_that_breaks_takes_the_daemon_down(lab: Lab) -> None:
    def broken(event: Event) -> None:
        if isinstance(event, Recorded):
            raise ArithmeticError("metrics")  # noqa: TRY004

    lab.subscribers.append(broken)
    with pytest.raises(BaseExceptionGroup):
        await lab.sync()
    assert await left_tasks() == []


async def test_a_bucket_that_cannot_be_listed_is_told_and_the_rest_goes_on(lab: Lab) -> None:
    chosen = first(100, "list_page")
    below = lab.src
    lab.source = Raising(below, ConnectionLost("no route"), chosen)
    assert await lab.sync() == {}
    [failed] = lab.of(BucketFailed)
    assert (failed.bucket, failed.reason) == ("from", "connection_lost")
    lab.source = below
    assert await lab.sync() == {Outcome.VERIFIED: MANY}


async def test_work_done_is_sampled_for_the_rate(lab: Lab) -> None:
    await lab.sync()
    samples = [Sample(*row) for row in lab.query("SELECT at, objects, bytes FROM samples")]
    assert samples[-1].objects == MANY
    assert samples[-1].bytes == sum(number * 60 for number in range(MANY))
