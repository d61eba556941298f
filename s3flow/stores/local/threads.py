"""Threads for what may block: a cancelled caller waits for its thread before it lets go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, ParamSpec, TypeVar

_THREADS = 8
_BUFFERS = 32  # large bodies beyond these write each chunk as it comes
_BUFFER_SIZE = 128 * 1024
_P = ParamSpec("_P")
_T = TypeVar("_T")


class _Job(Generic[_T]):
    """Something to do in a thread. Whoever takes its ticket decides: a thread, or its canceller."""

    __slots__ = ("_loop", "_ticket", "_work", "done", "ended", "unwanted")

    def __init__(self, work: Callable[[], _T]) -> None:
        self._loop = asyncio.get_running_loop()
        self._work = work
        self._ticket = [True]
        self.done: asyncio.Future[_T | None] = self._loop.create_future()
        self.ended = False
        self.unwanted = False  # the caller waits for the end, not for the answer

    def take(self) -> bool:
        """Say whether nobody was faster. Taking from a list is one step for all threads."""
        try:
            return self._ticket.pop()
        except IndexError:
            return False

    def work(self) -> None:
        """Do it, in a thread."""
        answer: _T | None = None
        error: BaseException | None = None
        try:
            answer = self._work()
        except BaseException as caught:  # noqa: BLE001 - it is the caller's
            error = caught
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(self._end, answer, error)

    async def wait(self) -> None:
        """Wait for the end, whoever else is in a hurry."""
        if self.done.done() and not self.done.cancelled():
            self.done.exception()  # seen, so that nobody reports it as lost
        self.unwanted = True
        while not self.ended:
            self.done = self._loop.create_future()
            with suppress(asyncio.CancelledError):
                await self.done

    def _end(self, answer: _T | None, error: BaseException | None) -> None:
        self.ended = True
        if self.done.done():
            return  # cancelled
        if error is None or self.unwanted:
            self.done.set_result(answer)
        else:
            self.done.set_exception(error)


class Threads:
    """A small pool of its own, so that slow disks do not starve name look-ups and the like.

    Not concurrent.futures with asyncio.wrap_future and shield: for what a thread does in 20 us they
    cost another 12, this costs 2.
    """

    def __init__(self, name: str) -> None:
        self._name = f"s3flow-{name}"
        self._jobs: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._under_way = 0
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
        job = _Job(partial(work, *args, **kwargs))
        self._under_way += 1
        try:
            self._submit(job)
            return await job.done  # type: ignore[return-value]  # None only if it is the answer
        except asyncio.CancelledError:
            if job.take():
                raise  # it had not begun
            if stop is not None:
                stop.set()
            await job.wait()
            raise
        finally:
            self._under_way -= 1

    async def close(self) -> None:
        """End the threads, once they are idle."""
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        self._threads.clear()

    def _submit(self, job: _Job[_T]) -> None:
        if len(self._threads) < min(self._under_way, _THREADS):
            name = f"{self._name}_{len(self._threads)}"
            # A daemon: it must not keep a program alive that forgot to close the store.
            thread = threading.Thread(target=_serve, args=(self._jobs,), name=name, daemon=True)
            thread.start()
            self._threads.append(thread)
        self._jobs.put(job)


def _serve(jobs: SimpleQueue[_Job[Any] | None]) -> None:
    while (job := jobs.get()) is not None:
        if job.take():
            job.work()
        del job  # it holds buffers and descriptors, and the next one may be long in coming
