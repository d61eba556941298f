"""What is learnt of copies inside the store: by whom, for how long, and who waits meanwhile."""

from __future__ import annotations

import asyncio
import random

from s3flow.engine import verdicts
from s3flow.engine.verdicts import (
    EXPIRY,
    FAILURES,
    LOOKING,
    MOST_REFUSALS,
    REFUSALS,
    Verdicts,
    of_parts,
)
from s3flow.model import Verdict
from s3flow.policies import CopyBy
from tests.unit.lab import left_tasks


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def refuse(known: Verdicts, times: int = REFUSALS) -> list[bool]:
    told = []
    for _ in range(times):
        assert await known.ask("b")
        told.append(known.refused("b"))
    return told


async def test_one_tries_while_the_others_wait_for_what_comes_of_it() -> None:
    known = Verdicts()
    assert await known.ask("b")
    waiting = [asyncio.create_task(known.ask("b")) for _ in range(5)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in waiting)
    known.worked("b")
    assert await asyncio.gather(*waiting) == [True] * 5
    assert set(known.works) == {"b"}
    assert await left_tasks() == []


async def test_who_learns_nothing_lets_the_next_one_try() -> None:
    known = Verdicts()
    assert await known.ask("b")
    first, second = (asyncio.create_task(known.ask("b")) for _ in range(2))
    await asyncio.sleep(0)
    known.tried("b")
    assert await first
    await asyncio.sleep(0)
    assert not second.done()
    known.tried("b")
    assert await second


async def test_nobody_waits_long_for_a_copy_that_takes_its_time() -> None:
    known, patience = Verdicts(), verdicts.PATIENCE
    verdicts.PATIENCE = 0.01
    try:
        assert await known.ask("b")
        assert await known.ask("b")
    finally:
        verdicts.PATIENCE = patience


async def test_refusals_in_a_row_are_the_verdict_and_it_is_told_once() -> None:
    known = Verdicts(Clock())
    assert await refuse(known) == [*[False] * (REFUSALS - 1), True]
    assert not await known.ask("b")
    assert known.refused("b") is False  # one that was under way
    assert await known.ask("another")


async def test_a_success_between_refusals_clears_them() -> None:
    known = Verdicts(Clock())
    known.worked("b")
    for _ in range(3 * REFUSALS):
        assert not known.refused("b")
        assert await known.ask("b")
        known.worked("b")
    assert set(known.works) == {"b"}


async def test_a_bucket_of_both_kinds_makes_up_its_mind() -> None:
    told: list[Verdict] = []
    known = Verdicts(Clock(), tell=told.append)
    chance = random.Random(4)
    objects = iter(range(4000))
    copied = []

    async def work() -> None:
        for number in objects:
            if not await known.ask("b"):
                continue  # streamed
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            if number % 2:
                known.refused("b", "not this one")
            else:
                known.copied("b")
                copied.append(number)

    await asyncio.gather(*(work() for _ in range(8)))
    assert len(told) < 20  # each is a line of the log and a write to the state
    assert len(copied) > 1000
    assert told[-1].way == CopyBy.TARGET


async def test_a_bucket_that_was_of_both_kinds_is_given_up_when_it_refuses_all() -> None:
    known = Verdicts(Clock())
    for _ in range(30):
        while not known.refused("b"):
            pass
        known.copied("b")
    count = 1
    while not known.refused("b"):
        count += 1
    assert count == MOST_REFUSALS
    assert not await known.ask("b")


async def test_a_verdict_expires_and_one_object_looks_again() -> None:
    clock = Clock()
    known = Verdicts(clock)
    await refuse(known)
    clock.now += EXPIRY - 1
    assert not await known.ask("b")
    clock.now += 1
    assert await known.ask("b")
    assert not await known.ask("b")  # the others go on streaming meanwhile
    assert not known.refused("b")  # as before: nothing to tell
    clock.now += LOOKING
    assert not await known.ask("b")
    clock.now += EXPIRY
    assert await known.ask("b")
    known.worked("b")
    assert await known.ask("b")
    assert "b" in known.works


async def test_a_look_that_came_to_nothing_is_followed_by_another() -> None:
    clock = Clock()
    known = Verdicts(clock)
    await refuse(known)
    clock.now += EXPIRY
    assert await known.ask("b")
    known.tried("b")
    assert not await known.ask("b")
    clock.now += LOOKING
    assert await known.ask("b")


async def test_what_others_found_out_counts_while_it_lasts() -> None:
    clock = Clock()
    for way in (CopyBy.STREAMED, CopyBy.TARGET):
        known = Verdicts(clock)
        known.take(Verdict("flow", "b", "objects", way, "", clock.now - 2, clock.now))
        assert (known.decided, known.works) == ({}, {})
        assert await known.ask("b")


async def test_what_was_found_out_of_parts_says_nothing_of_objects_as_a_whole() -> None:
    clock = Clock()
    known = Verdicts(clock)
    known.take(Verdict("flow", "b", "parts", CopyBy.STREAMED, "", clock.now, clock.now + EXPIRY))
    assert await known.ask("b")
    assert not await known.ask(of_parts("b"))


async def test_one_refusal_confirms_what_was_known_from_before() -> None:
    """It is no first one in a row: else an object would be refused in vain every minute."""
    clock = Clock()
    known = Verdicts(clock)
    known.take(Verdict("flow", "b", "objects", CopyBy.STREAMED, "", clock.now, clock.now + 1))
    clock.now += 1
    assert await known.ask("b")
    assert not known.refused("b")
    clock.now += LOOKING
    assert not await known.ask("b")


async def test_failures_in_a_row_are_the_verdict_and_each_lets_the_next_one_try() -> None:
    known = Verdicts(Clock())
    assert await known.ask("b")
    for _ in range(FAILURES - 1):
        waiting = asyncio.create_task(known.ask("b"))
        await asyncio.sleep(0)
        assert not known.failed("b")
        for _ in range(5):
            await asyncio.sleep(0)
        assert waiting.done()
        assert waiting.result()
    assert known.failed("b")
    assert not await known.ask("b")
