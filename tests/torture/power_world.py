"""A flow to a disk that is watched, in a process whose clock and threads are simulated.

So a lifetime of the daemon takes as long as its work, and its seed decides the order of everything.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import heapq
import os
import random
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from s3flow import upkeep
from s3flow.engine import deleter, recorder
from s3flow.engine.daemon import Daemon
from s3flow.engine.holding import OwnHolds
from s3flow.engine.retry import Backoff
from s3flow.engine.wiring import Pace, Wiring
from s3flow.events import Event
from s3flow.model import Flow, Page, Place
from s3flow.policies import Mode
from s3flow.state.database import _Thread
from s3flow.state.sqlite import open_sqlite
from s3flow.stores.crc64 import Crc64Nvme
from s3flow.stores.local import LocalStore
from s3flow.stores.local.threads import Threads
from s3flow.stores.memory import MemoryStore
from s3flow.stores.memory_object import MemoryObject

T = TypeVar("T")
BUCKET = "from"
TARGET = "disk"  # the folder of the target, beside the state
PART = 1000  # bytes: parts in miniature
PACE = Pace(concurrency=6, bodies=6, drain_timeout=5.0, block_retry=0.1, backoff=Backoff(0.01, 0.1))


@dataclass(frozen=True, slots=True)
class Placed:
    """Somebody, or s3flow, changed the source: None deleted it."""

    key: bytes
    found: MemoryObject | None


class Source(MemoryStore):
    """A source that tells of each change, and into which people write while it is read."""

    tell: Callable[[Placed], None]
    meanwhile: Callable[[bytes], None]
    beside: Callable[[], None]

    async def list_page(self, bucket: str, prefix: bytes, after: bytes) -> Page:
        """Let others, sometimes, write to the target what is being listed."""
        self.beside()
        return await super().list_page(bucket, prefix, after)

    async def delete_object(self, bucket: str, key: bytes, *, etag: str) -> bool:
        """Tell of what s3flow deletes."""
        done = await super().delete_object(bucket, key, etag=etag)
        if done:
            self.tell(Placed(key, None))
        return done

    async def get_object(self, bucket: str, key: bytes, **more: Any) -> Any:
        """Let people write, sometimes, to what was just opened."""
        body = await super().get_object(bucket, key, **more)
        self.meanwhile(key)
        return body


@dataclass(frozen=True, slots=True)
class Life:
    """How one lifetime of the daemon is configured."""

    mode: Mode = Mode.COPY
    started: float = 0.0  # seconds since the epoch; what is older was left by lives before

    def flow(self) -> Flow:
        """Give the flow."""
        flow = Flow("flow", Place("src", BUCKET, b""), Place("dst", "to", b""), mode=self.mode)
        return replace(flow, multipart_threshold=PART, part_size=PART)

    async def live(self, folder: Path, source: Source) -> None:
        """Do what `app.Work.run` does: the folder is recognised and swept, and all is moved."""
        target = LocalStore("dst", folder / TARGET)
        state = await open_sqlite(folder / "state.db", clock=time.time)  # the simulated one
        try:
            wirings = [Wiring(self.flow(), source, target)]
            await upkeep.recognise(state, wirings)
            daemon = Daemon(
                *(state, wirings, PACE, Crc64Nvme(), self._tell),
                *(asyncio.Event(), asyncio.Event()),
                holds=OwnHolds(),
            )
            async with asyncio.TaskGroup() as group:
                sweep = upkeep.sweep(state, wirings, self.started, self._tell)
                group.create_task(sweep)
                await daemon.run(once=True)
        finally:
            await state.close()
            await target.close()

    def _tell(self, event: Event) -> None:
        pass


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next thing to do: nothing is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0

    def time(self) -> float:
        """Give the seconds of the simulated clock."""
        return self._now

    def _run_once(self) -> None:
        while self._scheduled and self._scheduled[0]._cancelled:  # type: ignore[attr-defined]
            handle = heapq.heappop(self._scheduled)  # type: ignore[attr-defined]
            handle._scheduled = False
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0]._when)  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


@contextlib.contextmanager
def simulated(seed: int, started: float) -> Iterator[VirtualLoop]:
    """Give a loop on which the work of threads is done at once, after a seeded while.

    The clock starts at *started*, seconds since the epoch.
    """
    draw = random.Random(seed)

    async def run_until(
        self: Threads, stop: Any, work: Callable[..., T], *args: Any, **more: Any
    ) -> T:
        if work.__name__ == "_sweep":  # a walk over all files: it may take as long as all the rest
            await asyncio.sleep(draw.choice([0.0, 0.01, 1.0, 100.0]))
        for _ in range(draw.randrange(4)):
            await asyncio.sleep(0)
        done = work(*args, **more)
        for _ in range(draw.randrange(4)):
            await asyncio.sleep(0)
        return done

    async def run(self: _Thread, work: Callable[[], T]) -> T:
        for _ in range(draw.randrange(3)):
            await asyncio.sleep(0)
        return _at_once(self, work)

    loop, chance = VirtualLoop(), random.getstate()
    begun = loop.time()
    random.seed(seed)  # pauses between tries

    def now() -> float:
        return started + loop.time() - begun

    with (
        mock.patch("time.time", now),
        mock.patch.object(os, "urandom", draw.randbytes),
        mock.patch.object(secrets, "token_hex", lambda size: draw.randbytes(size).hex()),
        mock.patch.object(Threads, "run_until", run_until),
        mock.patch.object(_Thread, "run", run),
        mock.patch.object(deleter, "LINGER", draw.choice([0.0, 0.01])),
        mock.patch.object(deleter, "LOOK_AGAIN", 0.01),
        mock.patch.object(recorder, "LINGER", draw.choice([0.001, 0.05])),
        contextlib.closing(loop),
    ):
        try:
            yield loop
        finally:
            random.setstate(chance)


def _at_once(thread: _Thread, work: Callable[[], T]) -> T:
    """Run *work* on SQLite's own thread, and let nothing else happen meanwhile."""
    done: concurrent.futures.Future[T] = concurrent.futures.Future()

    def job() -> None:
        try:
            done.set_result(work())
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            done.set_exception(error)

    thread._tx.put_nowait((None, job))  # nobody else waits for it
    return done.result()
