"""Moves that catch themselves: what holds the deletes of a flow, and who lets them go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from s3flow.engine import breaker, deleter
from s3flow.errors import CredentialsMissing, StateError
from s3flow.events import DeletesHeld, DeletesResumed, FlowBlocked, FlowUnblocked, Recorded
from s3flow.model import Change, Outcome, State
from s3flow.policies import Mode
from s3flow.records import Hold
from tests.faults import Call, Faulty, Raising
from tests.unit.lab import Lab
from tests.unit.moves_kit import lab, put_some

__all__ = ["lab"]  # a fixture


async def test_a_flow_that_is_held_copies_and_deletes_nothing_until_released(lab: Lab) -> None:
    put_some(lab)
    await lab.holds.put("flow", Hold("of mine", 1.0))
    assert await lab.sync() == {Outcome.VERIFIED: 5}
    [held] = lab.of(DeletesHeld)
    assert (held.reason, held.message) == ("hold", "of mine")
    assert await lab.holds.drop("flow")
    assert await lab.sync() == {Outcome.DELETED: 5}


async def test_a_running_flow_is_held_and_released(lab: Lab) -> None:
    put_some(lab, 3)
    await lab.holds.put("flow", Hold("of mine", 1.0))
    held, resumed = asyncio.Event(), asyncio.Event()

    def watch(event: object) -> None:
        if isinstance(event, DeletesHeld):
            held.set()
        elif isinstance(event, DeletesResumed):
            resumed.set()
        elif isinstance(event, Recorded) and event.changes[0].state is State.DELETED:
            lab.stop.set()

    lab.subscribers.append(watch)
    running = asyncio.create_task(lab.sync(once=False))
    await held.wait()
    assert len(lab.src.keys("from")) == 3
    await lab.holds.drop("flow")
    assert await running == {Outcome.DELETED: 3}
    assert resumed.is_set()


async def test_a_block_ends_when_what_was_blocked_is_held(lab: Lab) -> None:
    class Blocked(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "guard_of":
                await lab.holds.put("flow", Hold("of mine", 1.0))
                raise CredentialsMissing("none")
            return await go()

    def watch(event: object) -> None:
        if isinstance(event, FlowUnblocked):  # or nothing archived would ever be asked for
            lab.stop.set()

    put_some(lab)
    lab.source = Blocked(lab.src)
    lab.subscribers.append(watch)
    assert await lab.sync(once=False) == {Outcome.VERIFIED: 5}
    assert [it.reason for it in lab.of(FlowBlocked)] == [CredentialsMissing.reason]


async def test_a_flow_does_not_end_because_its_hold_could_not_be_read_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deleter, "FAILURES", 1_000_000)  # however long the copies take
    put_some(lab)
    in_vain = 0

    class FailsFirst(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            nonlocal in_vain
            if call.method == "get":
                proven = sum(len(event.changes) for event in lab.of(Recorded))
                in_vain += proven >= 5
                if in_vain <= 2:
                    raise StateError("no answer")
            return await go()

    lab.holds = FailsFirst(lab.holds)
    assert await lab.sync() == {Outcome.DELETED: 5}
    assert in_vain > 2


async def test_holds_that_cannot_be_read_hold(lab: Lab) -> None:
    put_some(lab)
    lab.holds = Raising(lab.holds, StateError("no answer"), lambda it: it.method == "get")
    assert await lab.sync() == {Outcome.VERIFIED: 5}
    assert "no answer" in lab.of(DeletesHeld)[0].message


def outcome(lab: Lab, state: State, reason: str = "") -> Change:
    transfer: Any = type("Transfer", (), {"flow": lab.flow.name})()
    return Change(transfer, state, reason)


@pytest.mark.parametrize(("wrong", "trips"), [(5, False), (6, True)])
def test_the_breaker_trips_on_its_share_of_bad_copies(lab: Lab, wrong: int, trips: bool) -> None:
    tried = breaker.Breaker(lab.flow)
    right = [outcome(lab, State.VERIFIED)] * (breaker.LEAST - wrong)
    tried.recorded([outcome(lab, State.FAILED, "corrupted")] * wrong)
    assert tried.why == ""  # a few prove nothing
    tried.recorded(right)
    assert bool(tried.why) is trips
    tried.closed()
    assert tried.why == ""


@pytest.mark.parametrize(
    ("counts", "trips"),
    [
        ([(500, 0)], False),
        ([(500, 0), (1000, 0)], True),
        ([(501, 0), (1000, 0)], False),
        ([(0, 0), (1000, 1000)], False),  # all that was there was moved
        ([(0, 0), (1000, 800)], True),
        ([(100, 100), (1000, 800)], False),
        ([(0, 0), (99, 0)], False),
    ],
)
def test_the_breaker_trips_on_a_listing_that_lacks_too_much(
    lab: Lab, counts: Sequence[tuple[int, int]], trips: bool
) -> None:
    tried = breaker.Breaker(lab.flow)
    tried.listed(counts)
    assert bool(tried.why) is trips


async def test_a_listing_that_comes_back_half_empty_stops_deletes_until_released(lab: Lab) -> None:
    lab.change(delete_after=3600.0)
    put_some(lab, 200)
    assert await lab.sync() == {Outcome.VERIFIED: 200}

    class HalfEmpty(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            answer = await go()
            if call.method == "list_page":
                answer = answer._replace(entries=answer.entries[::2])
            return answer

    lab.source = HalfEmpty(lab.src)
    lab.change(delete_after=0.0)
    found = await lab.sync()
    assert found[Outcome.VERIFIED] >= 200
    [held] = lab.of(DeletesHeld)
    assert held.reason == "circuit_breaker"
    assert "max_missing" in held.message
    assert len(lab.src.keys("from")) >= 200
    lab.source = lab.src
    assert (await lab.sync())[Outcome.VERIFIED] >= 200  # another start does not forget it
    await lab.holds.drop("flow")
    await lab.sync()
    assert not lab.of(DeletesHeld)


async def test_a_target_that_loses_what_it_took_stops_deletes(lab: Lab) -> None:
    put_some(lab, 150)
    lab.change(mode=Mode.COPY)
    await lab.sync()
    lab.change(mode=Mode.MOVE)
    contents = lab.dst._contents("to")
    for key in contents.keys[::2]:
        del contents.objects[key]
    contents.keys[:] = sorted(contents.objects)
    await lab.sync()
    [held] = lab.of(DeletesHeld)
    assert held.reason == "circuit_breaker"
    assert lab.differences() == []
    assert len(lab.src.keys("from")) >= 75
