"""A daemon that is cancelled or stopped at any step leaves nothing that the next start cannot use."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s3flow.model import Outcome
from tests.faults import Call, Faulty
from tests.unit.lab import PARTS, QUICK, Lab, left_tasks

OBJECTS = 5
TRIES = 40  # of about a hundred steps, spread over them by a seed


class Stepped(Coroutine[Any, Any, Any]):
    """A coroutine that tells *step* whenever it goes on."""

    def __init__(self, inner: Coroutine[Any, Any, Any], step: Callable[[], None]) -> None:
        self._inner = inner
        self._step = step

    def send(self, value: Any) -> Any:
        self._step()
        return self._inner.send(value)

    def throw(self, *error: Any) -> Any:
        return self._inner.throw(*error)

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()


@asynccontextmanager
async def at_steps(
    lab: Lab, *numbers: int, act: Callable[[], None]
) -> AsyncIterator[Callable[[], int]]:
    """Count the steps of all tasks of the lab's daemon, and *act* at some of them."""
    loop, steps = asyncio.get_running_loop(), 0

    def step() -> None:
        nonlocal steps
        steps += lab.daemon is not None  # from here on it is the engine that is at work
        if steps in numbers:
            loop.call_soon(act)

    def make(
        loop: asyncio.AbstractEventLoop, inner: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        return asyncio.Task(Stepped(inner, step), loop=loop, **options)

    loop.set_task_factory(make)  # type: ignore[arg-type]
    try:
        yield lambda: steps
    finally:
        loop.set_task_factory(None)


def lab_in(folder: Path) -> Lab:
    folder.mkdir()
    lab = Lab(folder, pace=replace(QUICK, concurrency=3))
    lab.change(**PARTS, lanes=2)
    lab.put(b"empty", 0)
    lab.put(b"put", 50)
    lab.put(b"put2", 900)
    lab.put(b"parts", 2500)
    lab.put(b"repeated", 2500, part_size=1000)
    return lab


async def count_steps(folder: Path) -> int:
    lab = lab_in(folder)
    async with at_steps(lab, act=lambda: None) as steps:
        assert await asyncio.create_task(lab.sync()) == {Outcome.VERIFIED: OBJECTS}
    assert steps() > TRIES
    return steps()


async def chosen_steps(folder: Path) -> list[int]:
    every = range(1, await count_steps(folder))
    return sorted(random.Random(4).sample(every, min(TRIES, len(every))))


async def ended(task: asyncio.Task[Any]) -> bool:
    """Wait for a task; say whether it was cancelled. Its failure is raised."""
    await asyncio.wait({task})
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:  # what was cancelled twice may still be on its way
        await asyncio.wait(others, timeout=10)
    assert await left_tasks() == []
    if not task.cancelled():
        task.result()
    return task.cancelled()


async def assert_a_clean_run_completes(lab: Lab, where: str) -> None:
    assert await lab.sync() == {Outcome.VERIFIED: OBJECTS}, where
    assert lab.differences() == [], where
    assert lab.claimed_nowhere() == [], where
    lab.check_totals()
    if lab.uploads():  # abandoned in the meantime: the next scan removes them
        await lab.sync()
    assert lab.uploads() == [], where


@pytest.mark.parametrize("again", [None, 1, 7])
async def test_cancelled_at_any_step_the_next_start_goes_on(
    tmp_path: Path, again: int | None
) -> None:
    cancelled = 0
    for k in await chosen_steps(tmp_path / "count"):
        lab = lab_in(tmp_path / str(k))
        tasks: list[asyncio.Task[Any]] = []
        steps = (k,) if again is None else (k, k + again)
        async with at_steps(lab, *steps, act=lambda tasks=tasks: tasks[0].cancel()):  # type: ignore[misc]
            tasks.append(asyncio.create_task(lab.sync()))
            cancelled += await ended(tasks[0])
        await assert_a_clean_run_completes(lab, f"step {k}")
    assert cancelled > TRIES / 2


@pytest.mark.parametrize("abandon", [False, True])
async def test_stopped_at_any_step_all_is_counted_and_the_next_start_goes_on(
    tmp_path: Path, abandon: bool
) -> None:
    pending = 0
    for k in await chosen_steps(tmp_path / "count"):
        lab = lab_in(tmp_path / str(k))

        def stop(lab: Lab = lab) -> None:
            lab.stop.set()
            if abandon:
                lab.abandon.set()

        async with at_steps(lab, k, act=stop):
            task = asyncio.create_task(lab.sync())
            assert not await ended(task)
        counted = task.result()
        assert sum(counted.values()) in {0, OBJECTS}
        assert counted[Outcome.FAILED] == 0
        pending += counted[Outcome.PENDING]
        lab.abandon.clear()
        await assert_a_clean_run_completes(lab, f"step {k}")
    assert pending > 0


class Reluctant(Faulty):
    """A put that takes its time to end when it is cancelled."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.begun, self.ending, self.may_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def around(self, call: Call, go: Callable[[], Any]) -> Any:
        if call.method == "put_object":
            self.begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.ending.set()
                await self.may_end.wait()
        return await go()


async def test_a_cancellation_is_not_lost_in_the_cancelling_of_the_flows(tmp_path: Path) -> None:
    lab = lab_in(tmp_path / "lab")
    lab.target = reluctant = Reluctant(lab.dst)
    task = asyncio.create_task(lab.sync())
    await reluctant.begun.wait()
    lab.abandon.set()
    lab.stop.set()
    await reluctant.ending.wait()  # the flows are being cancelled
    task.cancel()
    reluctant.may_end.set()
    assert await ended(task)


async def test_a_flow_that_takes_too_long_to_drain_is_cancelled_and_resumed(
    tmp_path: Path,
) -> None:
    lab = lab_in(tmp_path / "lab")
    lab.pace = replace(lab.pace, drain_timeout=0.01)
    below = lab.dst
    lab.target = reluctant = Reluctant(below)
    reluctant.may_end.set()
    task = asyncio.create_task(lab.sync())
    await reluctant.begun.wait()
    lab.stop.set()
    assert not await ended(task)
    assert task.result()[Outcome.PENDING] > 0
    lab.target = below
    await assert_a_clean_run_completes(lab, "after the drain")


async def test_a_recorder_that_dies_takes_the_daemon_down(tmp_path: Path) -> None:
    lab = lab_in(tmp_path / "lab")

    class Dying(Faulty):
        async def around(self, call: Call, go: Callable[[], Any]) -> Any:
            if call.method == "save":
                raise ArithmeticError("defect")
            return await go()

    lab.wrap_state = Dying
    with pytest.raises(BaseExceptionGroup) as caught:
        await lab.sync(once=False)
    assert caught.group_contains(ArithmeticError)
    assert await left_tasks() == []


async def test_a_daemon_goes_on_until_it_is_stopped(tmp_path: Path) -> None:
    lab = lab_in(tmp_path / "lab")
    task = asyncio.create_task(lab.sync(once=False))
    while lab.differences():
        await asyncio.sleep(0)
    assert not task.done()
    lab.stop.set()
    assert not await ended(task)
    assert task.result() == {Outcome.VERIFIED: OBJECTS}
