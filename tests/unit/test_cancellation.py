"""A daemon that is cancelled while it ends, or that one of its tasks takes down.

Cancelled at each await: `tests/torture/test_nth.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s3flow.errors import AccessDenied
from s3flow.model import Outcome
from s3flow.policies import Mode
from s3flow.probes import DELETE_PROBE
from tests.faults import Call, Faulty
from tests.unit.lab import PARTS, QUICK, Lab, left_tasks

OBJECTS = 5


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


async def test_a_deleter_that_may_not_clean_up_is_cancelled_all_the_same(tmp_path: Path) -> None:
    # Found by the simulation with the seed 2402939569: a probe that could not be removed was taken for
    # a refusal of its bucket, and the deleter went on for ever.
    lab = lab_in(tmp_path / "lab")
    lab.change(mode=Mode.MOVE)
    probing, probes = asyncio.Event(), list[bytes]()

    class Slow(Faulty):
        async def around(self, call: Call, go: Callable[[], Any]) -> Any:
            if call.method == "list_page" and DELETE_PROBE in call.args[1]:
                probes.append(call.args[1])
                if len(probes) == 2:  # the scan has looked: these are the deletes
                    probing.set()
                    await asyncio.Event().wait()
            return await go()

    class Denying(Faulty):
        async def around(self, call: Call, go: Callable[[], Any]) -> Any:
            if call.method == "discard" and probing.is_set():
                raise AccessDenied("no")
            return await go()

    lab.source, lab.target = Slow(lab.src), Denying(lab.dst)
    task = asyncio.create_task(lab.sync(once=False))
    await asyncio.wait_for(probing.wait(), 30)
    task.cancel()
    await asyncio.wait({task}, timeout=10)
    assert task.cancelled()


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
