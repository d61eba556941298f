"""The worker processes of a daemon: who gets which transfer, and that all of them live."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from s3flow.crew.chorus import Chorus
from s3flow.crew.process import Start
from s3flow.crew.seat import Seat, Tidy
from s3flow.engine.flow import RunningFlow
from s3flow.events import Emit

LOOK_EVERY = 5.0  # seconds between looks at the pulses


@dataclass(frozen=True, slots=True)
class Post:
    """What a worker process is started with: its *orders*, and its *places* for each flow's transfers."""

    orders: bytes
    places: dict[str, int]


@dataclass(slots=True)
class ProcessCrew:
    """Worker processes as the engine's crew. `run` keeps them alive; it must run while flows do.

    *start* starts a process.
    """

    start: Start
    posts: Sequence[Post]
    stop: asyncio.Event
    tell: Emit
    tidy: Tidy
    _flows: dict[str, RunningFlow] = field(default_factory=dict)
    _seats: list[Seat] = field(default_factory=list)
    _freed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        """Make the seats; processes come with `run`."""
        usual = max((sum(post.places.values()) for post in self.posts), default=0)
        chorus = Chorus(len(self.posts), usual, self.tell)
        self._seats += [
            Seat(
                number=number,
                start=self.start,
                orders=post.orders,
                places=post.places,
                flows=self._flows,
                stop=self.stop,
                tell=self.tell,
                chorus=chorus,
                freed=self._freed.set,
                tidy=self.tidy,
                peers=self._seats,
            )
            for number, post in enumerate(self.posts)
        ]

    def hands(self, flow: RunningFlow) -> Iterator[Coroutine[Any, Any, None]]:
        """Give what hands the flow's transfers out."""
        self._flows[flow.route.flow.name] = flow
        for seat in self._seats:
            seat.teach(flow)
        yield self._serve(flow)

    async def run(self) -> None:
        """Keep a process in every seat until cancelled; then they end too."""
        async with asyncio.TaskGroup() as group:
            for seat in self._seats:
                group.create_task(seat.run(), name=f"worker process {seat.number}")
            group.create_task(self._watch(), name="pulses")
            await self.stop.wait()
            self._freed.set()
            for seat in self._seats:
                seat.say_stop()

    async def _serve(self, flow: RunningFlow) -> None:
        """Hand transfers out, each to who has least to do, until none is left or the daemon stops."""
        name, feed = flow.route.flow.name, flow.feed
        while await self._room(name):
            transfer = await feed.take()
            if transfer is None:
                break
            seat = self._least_loaded(name)
            if seat is None:  # it died meanwhile
                await feed.returned([transfer])
            else:
                seat.give(flow, transfer)
        while any(self._held(seat, name) for seat in self._seats):
            await self._change()

    async def _room(self, flow: str) -> bool:
        """Wait until a process has room; False at a stop."""
        while not self.stop.is_set():
            if any(seat.has_room(flow) for seat in self._seats):
                return True
            await self._change()
        return False

    async def _change(self) -> None:
        self._freed.clear()
        await self._freed.wait()

    def _least_loaded(self, flow: str) -> Seat | None:
        free = [seat for seat in self._seats if seat.has_room(flow)]
        return min(free, key=_work_of) if free else None

    @staticmethod
    def _held(seat: Seat, flow: str) -> bool:
        return any(held.transfer.flow == flow for held in seat.held.values())

    async def _watch(self) -> None:
        while True:
            looked = time.monotonic()
            await asyncio.sleep(LOOK_EVERY)
            if time.monotonic() - looked > 2 * LOOK_EVERY:
                continue  # this process stood still, maybe with all others: nothing was heard
            for seat in self._seats:
                seat.check_pulse()


def _work_of(seat: Seat) -> float:
    # What a small transfer costs is its requests: as much as the bytes of a larger one.
    return seat.load + 65_536 * len(seat.held)
