"""Threads for what may block: a cancelled caller waits for its thread before it lets go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_THREADS = 8
_BUFFERS = 32  # of half a MiB: large bodies beyond these write each chunk as it comes
_BUFFER_SIZE = 512 * 1024
_P = ParamSpec("_P")
_T = TypeVar("_T")


class Threads:
    """A small pool of its own, so that slow disks do not starve name look-ups and the like."""

    def __init__(self, name: str) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix=f"s3flow-{name}")
        self._free: list[memoryview] = []
        self._lent = 0

    def borrow(self) -> memoryview | None:
        """Lend a buffer to gather small writes in; None when all are lent."""
        if self._lent == _BUFFERS:
            return None
        self._lent += 1
        return self._free.pop() if self._free else memoryview(bytearray(_BUFFER_SIZE))

    def give_back(self, buffer: memoryview) -> None:
        """Take a lent buffer back, to be lent again."""
        self._lent -= 1
        self._free.append(buffer)

    async def run(self, work: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call *work* in a thread.

        A thread cannot be cancelled, and it uses the caller's buffer and descriptor: freed too early,
        both would be another's. So cancellation is raised once the thread is done with them.
        """
        return await self.run_until(None, work, *args, **kwargs)

    async def run_until(
        self,
        stop: threading.Event | None,
        work: Callable[_P, _T],
        /,
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Call *work* in a thread and set *stop* when cancelled, so that long work ends early."""
        running = self._pool.submit(work, *args, **kwargs)
        future = asyncio.wrap_future(running)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if running.cancel():
                raise  # it had not begun
            if stop is not None:
                stop.set()
            await _wait(future)
            raise

    async def close(self) -> None:
        """End the threads, once they are idle."""
        await asyncio.to_thread(self._pool.shutdown)


async def _wait(future: asyncio.Future[_T]) -> None:
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError:
            continue  # the caller raises the first one when the thread is done
    if not future.cancelled():
        future.exception()  # seen, so that nobody reports it as lost
