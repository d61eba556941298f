"""Worker processes of a simulated daemon: the crew's own code over a line, and an end for each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import Context
from dataclasses import replace
from typing import TYPE_CHECKING

from s3flow.crew.crew import Post, ProcessCrew
from s3flow.crew.link import Link
from s3flow.crew.station import Desk, Station
from s3flow.engine.wiring import Pace, Share
from s3flow.model import Transfer
from s3flow.stores.crc64 import Crc64Nvme
from tests.torture.sim.calls import Caller, Died
from tests.torture.sim.chance import Chances, End
from tests.torture.sim.line import line
from tests.torture.sim.loop import Process

if TYPE_CHECKING:
    from tests.torture.sim.life import Course, Life

KILLED, ORPHANED = -9, 1  # exit codes
TO_END = 300.0  # seconds that a worker whose call had died may take: its cleanups' calls
UNLUCKY = 12  # workers of one life; those that come after them have no faults


def crew_of(life: Life, course: Course) -> ProcessCrew:
    """Give the worker processes of a life."""
    pace, count = course.pace, course.workers
    posts = []
    for number in range(count):
        share = replace(pace, share=Share(number, count, 1 / count))
        places = {each.name: share.concurrency_of(each) for each in course.flows}
        posts.append(Post(b"%d" % number, places))
    return ProcessCrew(lambda: Hand(life, course), posts, life.stop, life.tell, _tidy_nothing)


async def _tidy_nothing(marks: Mapping[str, bytes], lost: Sequence[Transfer]) -> None:
    """Leave the stores as they are: none of them is a folder."""


class Hand(Caller):
    """A worker process; to its seat, the process that it started."""

    def __init__(self, life: Life, course: Course) -> None:
        world, chances = life.world, life.chances
        lucky = chances.calm or len(life.hands) >= UNLUCKY
        own = Chances(world.rng, calm=lucky, flips=chances.flips, is_worker=True)
        self.pid = len(life.hands) + 1
        process = Process(life.loop, f"{life.process.name}, worker {self.pid}")
        super().__init__(world, own, process)
        self.life = life
        self.course = course
        self.over = asyncio.Event()
        self._code = KILLED
        process.on_death.append(self.over.set)
        self._near, self._far = line(life.loop, life.process, process, chances.line_delay)
        self._near.passing = self._far.passing = self._passes
        if world.rng.random() < 0.5:  # by the kernel, at once; else by the end of the line
            life.process.on_death.append(process.kill)
        life.hands.append(self)
        life.family.append(self)
        self.family = life.family
        world.counts["workers"] += 1
        main = process.start(self._live(), process.name)
        main.add_done_callback(self._ended, context=process.context.copy())
        if own.moment is not None:
            life.loop.call_later(own.moment, self.end, own.end, context=Context())

    # --- what a seat asks of its process ----------------------------------------------------------

    async def connect(self, link: Link) -> None:
        """Let *link* be the supervisor's end of the line."""
        self._near.join(link)

    async def ended(self, seconds: float | None = None) -> int:
        """Wait for its end."""
        async with asyncio.timeout(seconds):
            await self.over.wait()
        return self._code

    def kill(self) -> None:
        """End it."""
        self.world.note("worker killed by its supervisor")
        self.process.kill()

    # --- its life ----------------------------------------------------------------------------------

    async def _live(self) -> None:
        await asyncio.sleep(self.chances.delay())
        desk = Desk(lambda: self._exit(ORPHANED))
        self._far.join(desk.link)
        try:
            share = Share(int(await desk.orders()), self.course.workers)
            pace: Pace = replace(self.course.pace, share=share)
            station = Station(desk.link, self.course.wire(self), pace, Crc64Nvme(), {})
            await desk.man(station)
        finally:
            desk.link.flush()

    def _ended(self, main: asyncio.Task[None]) -> None:
        error = None if main.cancelled() else main.exception()
        if main.cancelled() or (error is not None and not (self.died and _has_died(error))):
            self.world.wrong.append(f"a worker process ended with {error!r}")
        elif self.died and error is None:
            self.world.note("worker's death not told")
        self._exit(0 if error is None else ORPHANED)

    def _exit(self, code: int) -> None:
        if not self.process.dead:
            self._code = code
            self._far.close()  # nothing that was written is lost
            self.process.kill()

    # --- its end -----------------------------------------------------------------------------------

    def end(self, how: End) -> None:
        """Be killed, or stand still for a while."""
        if self.process.dead:
            return
        self.world.note(f"worker {how.value}")
        if how is End.FREEZE:
            self.process.freeze(self.chances.frozen_for())
        else:
            self.process.kill()

    def ended_by_death(self) -> None:
        """See to it that the process ends."""
        self.world.note(f"worker {End.DIE.value}")
        self.loop.call_later(TO_END, self._see_ended, context=Context())

    def _see_ended(self) -> None:
        if not self.process.dead:
            stacks = self.process.stacks()
            self.world.wrong.append(f"a worker process whose call had died goes on:\n{stacks}")

    @property
    def is_overtaken(self) -> bool:
        """Whether another daemon has the state by now."""
        return self.life.is_overtaken

    # --- its line ----------------------------------------------------------------------------------

    def _passes(self, data: bytes) -> None:
        """Count what is said, both ways: it may die at each."""
        if self.chances.at_line and data:
            self.calls += 1
            if self.calls == self.chances.until_end:
                self.end(self.chances.end)


def _has_died(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return any(_has_died(each) for each in error.exceptions)
    return isinstance(error, Died)
