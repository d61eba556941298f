"""Everything in one thread, in an order that a number decides, so that what broke breaks again."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeVar

from s3flow.state import database
from s3flow.stores.local.threads import Threads
from tests.torture.sim.clock import simulated
from tests.torture.sim.loop import SimLoop

T = TypeVar("T")


class Here:
    """A connection whose thread is this one: what is asked for is done, whoever waits for it."""

    def __init__(self, connect: Callable[[], sqlite3.Connection], iter_chunk_size: int) -> None:
        del iter_chunk_size
        self._connect = connect

    def __await__(self) -> Generator[Any, None, Here]:
        self._db = self._connect()
        yield from asyncio.sleep(0).__await__()
        return self

    async def run(self, work: Callable[[], T]) -> T:
        """Do it; the answer comes later."""
        try:
            return work()
        finally:
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Close it."""
        self._db.close()


async def _run_here(
    self: Threads, stop: threading.Event | None, work: Callable[..., T], /, *args: Any, **more: Any
) -> T:
    del self, stop
    try:
        return work(*args, **more)
    finally:
        await asyncio.sleep(0)


@contextlib.contextmanager
def ordered() -> Iterator[SimLoop]:
    """Give a loop without threads, whose time is s3flow's."""
    loop = SimLoop(random.Random(0), shuffled=True)
    thread, run_until = database._Thread, Threads.run_until
    database._Thread = Here  # type: ignore[assignment,misc]
    Threads.run_until = _run_here  # type: ignore[method-assign]
    try:
        with simulated(loop, loop.rng):
            yield loop
    finally:
        database._Thread = thread  # type: ignore[misc]
        Threads.run_until = run_until  # type: ignore[method-assign]
        loop.close()


def begin_anew(loop: asyncio.AbstractEventLoop, order: int) -> None:
    """Let what is ready run in the *order* of that number, from the beginning of time."""
    if isinstance(loop, SimLoop):
        loop.rng.seed(order)
        loop.now, loop.steps = 0.0, 0
        loop._numbers = 0  # of tasks: sets are in their order
