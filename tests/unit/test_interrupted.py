"""What is cancelled by nobody is no quiet end: it is tried again, or takes the daemon down."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.errors import Interrupted
from s3flow.events import BucketFailed
from s3flow.lanes import Group, together
from s3flow.model import Outcome
from tests.faults import Call, Faulty
from tests.unit.lab import PARTS, Lab, left_tasks


class GivingUp(Faulty):
    """The first call of a method ends as a library's does whose own future was cancelled."""

    def __init__(self, inner: Any, method: str) -> None:
        super().__init__(inner)
        self.method: str | None = method

    async def around(self, call: Call, go: Callable[[], Any]) -> Any:
        if call.method == self.method:
            self.method = None
            gone = asyncio.get_running_loop().create_future()
            gone.cancel()
            await gone
        return await go()


async def test_a_task_that_was_cancelled_by_nobody_fails_its_group() -> None:
    async def gives_up() -> None:
        gone = asyncio.get_running_loop().create_future()
        gone.cancel()
        await gone

    async def begin(group: asyncio.TaskGroup) -> None:
        group.create_task(gives_up())
        group.create_task(asyncio.Event().wait())

    with pytest.raises(Interrupted):
        await together(begin)


async def test_a_task_that_its_group_cancels_is_quiet_also_before_it_began() -> None:
    began = []

    async def work() -> None:
        began.append(1)

    async with Group() as group:
        group.create_task(work()).cancel()
        group.create_task(asyncio.Event().wait()).cancel()
    assert began == []


async def test_a_listing_that_is_given_up_is_not_called_done(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.put(b"key", 10)
    lab.source = GivingUp(lab.src, "list_page")
    assert await lab.sync() == {}
    assert [event.reason for event in lab.of(BucketFailed)] == ["interrupted"]
    assert await lab.sync() == {Outcome.VERIFIED: 1}


async def test_a_part_that_is_given_up_is_sent_again(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.change(**PARTS, lanes=2)
    lab.put(b"parts", 2500)
    lab.target = GivingUp(lab.dst, "upload_part")
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []


@pytest.mark.parametrize("method", ["claim", "save", "next_retry", "last_scan"])
async def test_a_state_that_gives_up_takes_the_daemon_down(tmp_path: Path, method: str) -> None:
    lab = Lab(tmp_path)
    lab.put(b"key", 10)
    lab.put(b"later", 10)
    lab.wrap_state = lambda state: GivingUp(state, method)
    run = asyncio.create_task(lab.sync())
    await asyncio.wait({run}, timeout=60)  # it waited for ever
    assert run.done()
    with pytest.raises(BaseExceptionGroup) as caught:
        await run
    assert caught.group_contains(Interrupted)
    assert await left_tasks() == []
    lab.wrap_state = lambda state: state
    assert await lab.sync() == {Outcome.VERIFIED: 2}


async def test_nothing_is_left_of_a_daemon_that_is_cancelled_while_it_drains(
    tmp_path: Path,
) -> None:
    lab = Lab(tmp_path)
    lab.put(b"key", 10)
    asked, never = asyncio.Event(), asyncio.Event()

    class Hanging(Faulty):
        async def around(self, call: Call, go: Callable[[], Any]) -> Any:
            if call.method == "put_object":
                asked.set()
                await never.wait()
            return await go()

    lab.target = Hanging(lab.dst)
    run = asyncio.create_task(lab.sync())
    await asked.wait()
    lab.stop.set()
    for _ in range(5):
        await asyncio.sleep(0)
    run.cancel()
    await asyncio.wait({run})
    assert run.cancelled()
    assert await left_tasks() == []
