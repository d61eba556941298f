"""Several tasks as one step: no failure hides a cancellation, none is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from s3flow.errors import ConnectionLost, Interrupted
from s3flow.lanes import answers_of, heed_cancellation, in_lanes, together
from tests.faults import Call, Faulty
from tests.unit.lab import PARTS, Lab


class Died(BaseException):
    """What nobody handles."""


async def test_a_cancellation_that_meets_a_failure_is_heard() -> None:
    began = asyncio.Event()

    async def fails_when_it_is_cancelled(_: int) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            raise ConnectionLost("in the same moment")

    async def goes_on_for_ever() -> None:
        while True:
            try:
                await in_lanes([1, 2], fails_when_it_is_cancelled)
            except ConnectionLost:
                began.clear()

    task = asyncio.create_task(goes_on_for_ever())
    await began.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()


async def test_a_failure_of_its_own_is_no_cancellation() -> None:
    async def fails() -> None:
        raise ConnectionLost("x")

    async def waits_beside(work: Coroutine[Any, Any, None]) -> None:
        async def begin(group: asyncio.TaskGroup) -> None:
            group.create_task(work)
            await asyncio.Event().wait()

        await together(begin)

    task = asyncio.current_task()
    assert task is not None
    for _ in range(2):
        with pytest.raises(ConnectionLost):
            await waits_beside(fails())
        assert task.cancelling() == 0


async def test_what_a_task_left_undone_that_was_cancelled_alone_is_not_called_done() -> None:
    done: list[int] = []

    async def one(item: int) -> None:
        if item == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        await asyncio.sleep(0)
        done.append(item)

    with pytest.raises(Interrupted):
        await in_lanes([1, 2, 3], one, 2)
    assert done == [2, 3]


async def test_a_death_comes_before_failures() -> None:
    async def fails() -> None:
        raise ConnectionLost("x")

    async def dies() -> None:
        raise Died

    async def inner(group: asyncio.TaskGroup) -> None:
        group.create_task(fails())
        group.create_task(dies())

    async def outer(group: asyncio.TaskGroup) -> None:
        group.create_task(fails())
        await together(inner)

    with pytest.raises(Died):
        await together(outer)


async def test_lanes_take_their_items_in_order_and_so_many_at_a_time() -> None:
    inside, most, order = 0, 0, list[int]()

    async def call(item: int) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        order.append(item)
        await asyncio.sleep(0)
        inside -= 1

    await in_lanes(range(20), call, 3)
    assert (most, order) == (3, list(range(20)))
    await in_lanes([], call)


async def test_answers_stand_where_their_items_stood() -> None:
    async def call(item: int) -> None:
        if item % 2:
            raise ConnectionLost(str(item))

    assert [str(answer) for answer in await answers_of([0, 1, 2, 3], call)] == [
        "None",
        "1",
        "None",
        "3",
    ]


class FailsWhenCancelled(Faulty):
    """A target whose parts fail as they are cancelled, which a lost connection may do; puts kill."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.sending = asyncio.Event()

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "put_object":
            await self.sending.wait()
            raise Died
        if call.method == "upload_part":
            self.sending.set()
            try:
                await asyncio.Event().wait()
            finally:
                raise ConnectionLost("in the same moment")
        return await go()


async def test_a_death_ends_a_flow_whose_parts_fail_in_the_same_moment(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.change(**PARTS)
    lab.put(b"parts", 2500)
    lab.put(b"put", 10)
    lab.target = FailsWhenCancelled(lab.dst)
    running = asyncio.create_task(lab.sync())
    await asyncio.wait({running}, timeout=30)
    assert running.done()
    with pytest.raises(BaseExceptionGroup):
        running.result()


async def test_what_fails_in_cleaning_up_does_not_take_the_place_of_a_cancellation() -> None:
    began = asyncio.Event()

    async def works() -> None:
        try:
            began.set()
            await asyncio.Event().wait()
        finally:
            raise ConnectionLost("what it would remove cannot be reached either")

    async def goes_on_for_ever() -> None:
        while True:
            try:
                await works()
            except ConnectionLost:
                heed_cancellation()

    heed_cancellation()  # nobody asked for anything
    task = asyncio.create_task(goes_on_for_ever())
    await began.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=5)
    assert task.cancelled()
