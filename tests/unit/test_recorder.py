"""Write-behind: first the target is durable, then the state says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from s3flow.engine import recorder as recorder_module
from s3flow.engine.recorder import Entry, Recorder
from s3flow.errors import ConnectionLost, ServerError, StateError
from s3flow.events import Event, Recorded, Warned
from s3flow.model import Change, State, Stored, Transfer


def change(number: int) -> Change:
    transfer = Transfer(
        number, "f", "b", b"k%d" % number, 1, "e", 0, "S", State.DISCOVERED, 1, 0, None, None
    )
    return Change(transfer, State.VERIFIED)


class World:
    """The state, a target and the log of what was asked of them, in order."""

    def __init__(self, *, errors: Sequence[Exception] = (), unsettled: Sequence[int] = ()) -> None:
        self.log: list[str] = []
        self.saved: list[Change] = []
        self.batches: list[int] = []
        self.errors = list(errors)
        self.unsettled = unsettled
        self.events: list[Event] = []
        self.go = asyncio.Event()
        self.go.set()

    async def save(self, changes: Sequence[Change]) -> None:
        await self.go.wait()
        if self.errors:
            raise self.errors.pop(0)
        self.log.append("save")
        self.saved += changes
        self.batches.append(len(changes))

    async def settle(self, stored: Sequence[Stored]) -> list[Exception | None]:
        self.log.append("settle")
        return [ServerError("no") if it.size in self.unsettled else None for it in stored]

    def entry(self, number: int) -> Entry:
        target: Any = self
        return Entry(change(number), target, Stored(number))


def again(failed: Change, error: Exception) -> Change:
    return Change(failed.transfer, State.DISCOVERED, message=str(error))


@asynccontextmanager
async def running(world: World) -> AsyncIterator[Recorder]:
    state: Any = world
    made = Recorder(state, world.events.append, again)
    task = asyncio.create_task(made.run())
    try:
        yield made
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_a_flush_returns_when_all_that_came_before_is_durable() -> None:
    world = World()
    async with running(world) as recorder:
        for number in range(5):
            await recorder.record(Entry(change(number)))
        await recorder.flush()
        assert [it.transfer.id for it in world.saved] == [0, 1, 2, 3, 4]
        assert world.batches == [5]
        assert world.events == [Recorded(world.saved)]


async def test_a_flush_with_nothing_to_do_returns() -> None:
    async with running(World()) as recorder:
        await recorder.flush()
        await recorder.flush()


async def test_the_target_is_durable_before_the_state_says_so() -> None:
    world = World()
    async with running(world) as recorder:
        await recorder.record(world.entry(1))
        await recorder.flush()
    assert world.log == ["settle", "save"]


async def test_what_does_not_settle_is_not_recorded_as_done() -> None:
    world = World(unsettled=[2])
    async with running(world) as recorder:
        for number in (1, 2, 3):
            await recorder.record(world.entry(number))
        await recorder.record(Entry(change(4)))
        await recorder.flush()
    states = {it.transfer.id: it.state for it in world.saved}
    assert states.pop(2) is State.DISCOVERED
    assert set(states.values()) == {State.VERIFIED}
    assert len(states) == 3


async def test_a_target_that_cannot_say_what_settled_has_settled_nothing() -> None:
    world = World()

    async def settle(_: Sequence[Stored]) -> list[Exception | None]:
        raise ConnectionLost("the answer is lost")

    world.settle = settle  # type: ignore[method-assign]
    async with running(world) as recorder:
        await recorder.record(world.entry(1))
        await recorder.flush()
    assert [it.state for it in world.saved] == [State.DISCOVERED]


async def test_a_state_that_cannot_be_written_delays_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder_module, "STATE_RETRY", 0.001)
    world = World(errors=[StateError("disk full")] * 3)
    async with running(world) as recorder:
        await recorder.record(Entry(change(1)))
        await recorder.flush()
    assert [it.transfer.id for it in world.saved] == [1]
    assert [type(event) for event in world.events] == [Warned, Recorded]  # told once


async def test_any_other_error_of_the_state_ends_the_recorder() -> None:
    world = World(errors=[ValueError("bug")])
    state: Any = world
    recorder = Recorder(state, world.events.append, again)
    await recorder.record(Entry(change(1)))
    with pytest.raises(ValueError, match="bug"):
        await recorder.run()


async def test_batches_have_a_bound_and_keep_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "BATCH", 10)
    world = World()
    async with running(world) as recorder:
        for number in range(35):
            await recorder.record(Entry(change(number)))
        await recorder.flush()
    assert [it.transfer.id for it in world.saved] == list(range(35))
    assert max(world.batches) == 10


async def test_workers_wait_when_too_much_is_not_durable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder_module, "BATCH", 3)
    monkeypatch.setattr(recorder_module, "BACKLOG", 6)
    world = World()
    world.go.clear()
    waits: list[int] = []

    async def produce(recorder: Recorder) -> None:
        for number in range(30):
            await recorder.record(Entry(change(number)))
            waits.append(number)

    async with running(world) as recorder:
        producing = asyncio.create_task(produce(recorder))
        for _ in range(200):  # far more steps than 30 entries need
            await asyncio.sleep(0)
        assert len(waits) < 30
        assert len(recorder._entries) <= 6
        world.go.set()
        await producing
        await recorder.flush()
    assert [it.transfer.id for it in world.saved] == list(range(30))


async def test_many_workers_do_not_rush_in_through_one_opening(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recorder_module, "BATCH", 2)
    monkeypatch.setattr(recorder_module, "BACKLOG", 4)
    world, most = World(), 0

    async def produce(recorder: Recorder, number: int) -> None:
        nonlocal most
        await recorder.record(Entry(change(number)))
        most = max(most, len(recorder._entries))

    async with running(world) as recorder:
        async with asyncio.TaskGroup() as group:
            for number in range(100):
                group.create_task(produce(recorder, number))
        await recorder.flush()
    assert sorted(it.transfer.id for it in world.saved) == list(range(100))
    assert most <= 4


@pytest.mark.timeout(30)
async def test_a_flush_does_not_wait_for_what_others_record_meanwhile() -> None:
    world = World()
    async with running(world) as recorder:
        await recorder.record(Entry(change(0)))
        flushing = asyncio.create_task(recorder.flush())
        number = 0
        while not flushing.done() and number < 20_000:
            number += 1
            await recorder.record(Entry(change(number)))
            await asyncio.sleep(0)
        assert flushing.done()
