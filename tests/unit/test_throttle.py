"""Concurrency that yields, rates, and the block."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3flow.engine import throttle
from s3flow.engine.throttle import Blockade, Gate, TokenBucket
from s3flow.errors import ConnectionLost, TargetFull, TargetUnavailable
from s3flow.events import Event, FlowBlocked, FlowUnblocked, ThrottleChanged


class Time:
    """A clock that moves when told; *slept* is what was slept by it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(throttle, "time", made)
    return made


# --- gate ------------------------------------------------------------------------------------


def in_use(gate: Gate) -> int:
    return gate._inside


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


class Crowd:
    """Tasks that stand in a gate until they are told to leave, or wait before it."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.inside: list[asyncio.Event] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self) -> None:
        self.tasks.append(asyncio.create_task(self._stay()))
        await settle()

    async def _stay(self) -> None:
        leave = asyncio.Event()
        async with self.gate:
            self.inside.append(leave)
            try:
                await leave.wait()
            finally:
                self.inside.remove(leave)

    async def go(self) -> None:
        if self.inside:
            self.inside[0].set()
        await settle()

    async def cancel(self, index: int) -> None:
        alive = [task for task in self.tasks if not task.done()]
        if alive:
            alive[index % len(alive)].cancel()
        await settle()

    async def end(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


steps = st.lists(
    st.one_of(
        st.sampled_from(["come", "come", "go", "throttled", "succeeded"]),
        st.tuples(st.just("cancel"), st.integers(0, 10)),
    ),
    max_size=60,
)


@given(most=st.integers(1, 9), script=steps)
def test_no_more_pass_than_the_limit_once_it_has_settled(
    most: int, script: list[str | tuple[str, int]]
) -> None:
    async def play() -> None:
        gate = Gate("g", most, lambda _: None)
        crowd = Crowd(gate)
        for step in script:
            before = len(crowd.inside)
            match step:
                case "come":
                    await crowd.come()
                case "go":
                    await crowd.go()
                case "throttled":
                    gate._shrunk_at = float("-inf")  # a storm of its own
                    gate.throttled()
                case "succeeded":
                    gate.succeeded()
                    await settle()
                case ("cancel", index):
                    await crowd.cancel(int(index))
            assert 1 <= gate.limit <= most
            assert len(crowd.inside) <= max(gate.limit, before)
            assert in_use(gate) == len(crowd.inside)
        await crowd.end()
        # Whatever happened, every place of the limit can be taken again, and no other.
        assert in_use(gate) == 0
        for _ in range(most + 1):
            await crowd.come()
        for _ in range(most + 1):
            await crowd.go()
            await crowd.come()
        assert len(crowd.inside) == gate.limit
        await crowd.end()

    asyncio.run(play())


async def test_idle_places_vanish_with_the_limit() -> None:
    gate = Gate("g", 8, lambda _: None)
    gate.throttled()
    crowd = Crowd(gate)
    for _ in range(8):
        await crowd.come()
    assert len(crowd.inside) == gate.limit == 4
    await crowd.end()


def test_a_storm_counts_once_a_second(clock: Time) -> None:
    events: list[Event] = []
    gate = Gate("g", 64, events.append)
    for _ in range(10):
        gate.throttled()
    assert gate.limit == 32
    clock.now += 1.0
    gate.throttled()
    assert gate.limit == 16
    assert events == [ThrottleChanged("g", 32, True), ThrottleChanged("g", 16, True)]


def test_the_last_place_stays_and_successes_bring_the_others_back(clock: Time) -> None:
    gate = Gate("g", 4, lambda _: None)
    for _ in range(5):
        gate.throttled()
        clock.now += 1.0
    assert gate.limit == 1
    successes = 0
    while gate.limit < 4:
        gate.succeeded()
        successes += 1
    assert successes == 1 + 2 + 3  # as many as there are places, for each one more
    gate.succeeded()
    assert gate.limit == 4


# --- rates -----------------------------------------------------------------------------------


@given(amounts=st.lists(st.floats(0, 500), min_size=1, max_size=30), rate=st.floats(1, 1000))
def test_a_bucket_never_gives_more_than_its_burst_and_its_rate(
    amounts: list[float], rate: float
) -> None:
    clock = Time()

    async def spend() -> None:
        bucket = TokenBucket(rate)
        spent = 0.0
        for amount in amounts:
            await bucket.take(amount)
            spent += amount
            assert spent <= rate + (clock.now - 100.0) * rate + 1e-6 * spent

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(throttle, "time", clock)
        patch.setattr(throttle, "asyncio", SimpleNamespace(sleep=clock.sleep, Lock=asyncio.Lock))
        asyncio.run(spend())


async def test_an_idle_bucket_saves_no_more_than_a_second(clock: Time) -> None:
    bucket = TokenBucket(10)
    clock.now += 3600
    await bucket.take(0)
    assert bucket._level == 10


# --- the block -------------------------------------------------------------------------------


def blockade(events: list[Event], stop: asyncio.Event | None = None, wait: float = 0.0) -> Blockade:
    return Blockade("f", wait, events.append, stop or asyncio.Event())


async def test_an_open_blockade_asks_nothing() -> None:
    assert await blockade([]).enter() is False


async def test_one_scout_passes_and_the_others_when_it_is_over() -> None:
    events: list[Event] = []
    block = blockade(events)
    assert not await block.enter()
    block.leave(TargetFull("no room"), scout=False)
    waiting = [asyncio.create_task(block.enter()) for _ in range(5)]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    await settle()
    assert [task.done() for task in waiting].count(True) == 1
    block.leave(None, scout=True)
    assert sorted(await asyncio.gather(*waiting)) == [False] * 4 + [True]
    assert events == [
        FlowBlocked("f", "target_full", "no room", 0.0),
        FlowUnblocked("f", "target_full"),
    ]


async def test_a_scout_that_finds_it_blocked_hands_over_to_the_next_and_tells_nothing_new() -> None:
    events: list[Event] = []
    block = blockade(events)
    block.leave(TargetFull("no room"), scout=False)
    for _ in range(3):
        assert await block.enter() is True
        block.leave(TargetFull("no room"), scout=True)
    assert len(events) == 1
    assert block.reason == "target_full"


async def test_another_reason_is_told() -> None:
    events: list[Event] = []
    block = blockade(events)
    block.leave(TargetFull("no room"), scout=False)
    assert await block.enter()
    block.leave(TargetUnavailable("gone"), scout=True)
    assert events == [
        FlowBlocked("f", "target_full", "no room", 0.0),
        FlowUnblocked("f", "target_full"),
        FlowBlocked("f", "target_unavailable", "gone", 0.0),
    ]
    assert block.reason == "target_unavailable"


async def test_an_ordinary_failure_of_the_scout_ends_the_block() -> None:
    block = blockade([])
    block.leave(TargetFull("no room"), scout=False)
    assert await block.enter()
    block.leave(ConnectionLost("x"), scout=True)
    assert block.reason == ""
    assert await block.enter() is False


async def test_a_cancelled_scout_says_nothing_and_leaves_its_place() -> None:
    block = blockade([])
    block.leave(TargetFull("no room"), scout=False)
    assert await block.enter()
    block.leave(asyncio.CancelledError(), scout=True)
    assert block.reason == "target_full"
    assert await block.enter() is True
    block.leave(None, scout=True)


async def test_who_is_cancelled_while_waiting_leaves_its_place() -> None:
    stop = asyncio.Event()
    block = blockade([], stop, wait=3600)
    block.leave(TargetFull("no room"), scout=False)
    waiting = [asyncio.create_task(block.enter()) for _ in range(3)]
    await settle()
    for task in waiting[:2]:
        task.cancel()
    await settle()
    stop.set()
    assert await waiting[2] is True
    block.leave(None, scout=True)


async def test_a_stop_ends_the_waiting() -> None:
    stop = asyncio.Event()
    block = blockade([], stop, wait=3600)
    block.leave(TargetFull("no room"), scout=False)
    waiting = asyncio.create_task(block.enter())
    await settle()
    assert not waiting.done()
    stop.set()
    assert await waiting is True
    block.leave(None, scout=True)
