"""One life of a daemon: the process that has the state, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from s3flow.engine.daemon import Daemon
from s3flow.engine.flow import OwnHands
from s3flow.engine.holding import OwnHolds
from s3flow.engine.wiring import Pace, Wiring
from s3flow.events import Event, PageMerged, Recorded, Retried, TransferStarted, WorkerEnded
from s3flow.model import Flow
from s3flow.records import Hold
from s3flow.state.store import SqlState
from s3flow.stores.crc64 import Crc64Nvme
from tests.torture.sim.calls import Caller
from tests.torture.sim.chance import Chances, End
from tests.torture.sim.database import Fate, SimDatabase
from tests.torture.sim.hands import Hand, crew_of
from tests.torture.sim.loop import Process

if TYPE_CHECKING:
    from tests.torture.sim.world import World


@dataclass(slots=True)
class Course:
    """How a life is lived: *flows*, which *wire* wires to stores as a process sees them, at a *pace*,
    *once* or until it is ended; with 0 *workers* in one process.
    """

    flows: list[Flow]
    wire: Callable[[Caller], list[Wiring]]
    pace: Pace
    once: bool
    workers: int = 0


class Patient(OwnHolds):
    """Holds that a person looks at, and releases after a while."""

    async def put(self, flow: str, hold: Hold) -> None:
        """Hold, for an hour."""
        await super().put(flow, hold)
        asyncio.get_running_loop().call_later(3600, self._holds.pop, flow, None)


class Life(Caller):
    """A daemon as a process of the simulated machine, with its worker processes."""

    def __init__(self, world: World, number: int, chances: Chances) -> None:
        super().__init__(world, chances, Process(world.loop, f"daemon {number}"))
        self.stop = asyncio.Event()
        self.abandon = asyncio.Event()
        self.ended = asyncio.Event()  # by a death, or by an order to end
        self.process.on_death.append(self.ended.set)
        self.once = False
        self.hands: list[Hand] = []
        self.stopped_at: float | None = None
        self._refused_until = 0.0

    # --- the daemon --------------------------------------------------------------------------------

    async def run(self, course: Course) -> None:
        """Run a daemon on the world's state and stores."""
        world, self.once = self.world, course.once
        database = SimDatabase(
            world.disk, self.loop, self._fate, self.chances.state_delay, self.process.kill
        )
        state = SqlState(database, self.loop.wall)
        try:
            await state.prepare()
            crew = crew_of(self, course) if course.workers else None
            self.chances.amid_parts &= crew is None  # the parts are others'
            daemon = Daemon(
                state,
                course.wire(self),
                course.pace,
                Crc64Nvme(),
                self.tell,
                self.stop,
                self.abandon,
                crew=crew or OwnHands(),
                holds=Patient(),
            )
            async with asyncio.TaskGroup() as group:
                keeping = group.create_task(crew.run()) if crew else None
                await daemon.run(once=course.once)
                if keeping is not None:
                    keeping.cancel()
        finally:
            await state.close()

    def tell(self, event: Event) -> None:
        """Look at what the daemon says."""
        if isinstance(event, Retried) and event.reason == "unexpected":
            self.world.wrong.append(f"an unexpected error: {event.message}")
        if isinstance(event, TransferStarted) and not self.hands and self.is_past_death:
            self.world.wrong.append("a life whose call had died begins another transfer")
        if isinstance(event, Recorded):
            told = [(it.transfer.key, it.transfer.etag, it.state.value) for it in event.changes]
            self.world.mark("recorded", told)
        elif isinstance(event, WorkerEnded):
            self.world.counts["given back"] += event.returned
            self.world.mark("worker ended", (event.worker, event.how, event.returned))
        elif isinstance(event, PageMerged):
            self.world.mark("merged", (event.new, event.changed))

    # --- what comes to an end ----------------------------------------------------------------------

    def ended_by_death(self) -> None:
        """Let the world know."""
        self.world.note(End.DIE.value)
        self.ended.set()

    def end(self, how: End) -> None:
        """End this life in the way of *how*, unless it has ended."""
        if self.ended.is_set():
            return
        self.world.note(how.value)
        match how:
            case End.KILL:
                self.process.kill()
            case End.STOP | End.ABANDON:
                self.stopped_at = self.loop.now
                self.stop.set()
                if self.chances.end is End.ABANDON:
                    self.loop.call_later(self.chances.delay(), self.abandon.set)
                self.ended.set()
            case End.TAKEOVER:
                self.ended.set()
            case End.FREEZE:
                self.process.freeze(self.chances.frozen_for() / 3)

    async def bury(self) -> None:
        """Be gone, once the last worker is: as long as one lives nobody else gets the state's lock."""
        self.process.bury()
        for hand in self.hands:
            await hand.over.wait()
            hand.process.bury()

    @property
    def is_overtaken(self) -> bool:
        """Whether another daemon has the state by now."""
        return self.chances.end is End.TAKEOVER and self.ended.is_set()

    def _fate(self, writes: bool) -> Fate:
        chances, draw = self.chances, self.world.rng.random()
        self.world.mark("state", b"w" if writes else b"r")
        self.calls += chances.at_state
        if chances.at_state and self.calls == chances.until_end:
            self.world.note("killed at a commit" if writes else "killed at a read")
            return Fate.DIE_AFTER if writes and draw < 0.5 else Fate.DIE_BEFORE
        if self.loop.now < self._refused_until:
            return Fate.REFUSED
        if draw < chances.state:
            self.world.note("state refused")
            if draw < chances.state / 4:
                self._refused_until = self.loop.now + 400 * draw / chances.state
            return Fate.REFUSED
        if draw < 2 * chances.state and writes:
            self.world.note("state's answer lost")
            return Fate.LOST
        return Fate.DONE
