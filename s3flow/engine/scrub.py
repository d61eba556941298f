"""Copies are proven again for as long as the daemon runs, so many a day; what differs is marked as failed."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

from s3flow.engine.inspection import after, look_again
from s3flow.engine.reverify import REFUTED, Copy, Looked, Prover, copy_of, refutal
from s3flow.engine.route import Route, Stopped, object_name
from s3flow.engine.throttle import Gate
from s3flow.errors import Blocked, StateError, StateLost
from s3flow.events import Event, LookedAgain, Recorded, Warned
from s3flow.lanes import heed_cancellation, in_lanes
from s3flow.model import State
from s3flow.ports import StateStore
from s3flow.records import Scrubbed

DAY = 86_400.0
LANES = 4  # looks at a time: it has all day
BATCH = 100  # looks between two marks of how far it got; a crash repeats at most these
ROWS = 2_500  # of the state that one turn reads, however few copies are among them
SHORTEST_REST = 1.0  # seconds
LONGEST_REST = 60.0
COPIED = (State.VERIFIED, State.DELETED)


class Due(NamedTuple):
    """How many copies may be looked at now, since when that counts, and so many a second."""

    copies: int
    since: float  # seconds since the epoch
    rate: float


def due(mark: Scrubbed, copies: int, share: float, now: float) -> Due:
    """Say how many of all *copies* are due, of which *share* is looked at each day.

    What a time without a daemon has left undone is made up for, up to a day's worth.
    """
    rate = share * copies / DAY
    since = min(max(mark.at, now - DAY), now)
    return Due(int((now - since) * rate), since, rate)


@dataclass(slots=True)
class Scrubber:
    """Goes round one flow's copies in the order of their keys, and begins again at the end."""

    route: Route
    state: StateStore
    clock: Callable[[], float] = time.time
    _prover: Prover = field(init=False)
    _blocked: str = ""

    def __post_init__(self) -> None:
        # A gate of its own: what it meets is no reason for transfers to go slower.
        gate = Gate(self.route.flow.name, LANES, _ignore)
        self._prover = Prover(replace(self.route, gate=gate))

    async def run(self, moved: asyncio.Event) -> None:
        """Look at copies until the daemon stops, or all is *moved*."""
        while not (self.route.stop.is_set() or moved.is_set()):
            try:
                rest = await self._turn()
                self._blocked = ""
            except Stopped:
                return
            except StateLost:
                raise
            except (Blocked, StateError) as error:
                heed_cancellation()
                rest = LONGEST_REST
                if self._blocked != error.reason:
                    self._blocked = error.reason
                    self._warn(f"copies are not proven again for now: {error}")
            await self._rest(rest, moved)

    async def _turn(self) -> float:
        """Look at what is due, a batch of it; say for how many seconds nothing more is."""
        name, now = self.route.flow.name, self.clock()
        mark = await self.state.scrubbed(name)
        if mark is None:
            mark = Scrubbed("", b"", now)
            await self.state.note_scrubbed(name, mark)
        copies = sum(it.objects for it in await self.state.totals(name) if it.state in COPIED)
        count, since, rate = due(mark, copies, self.route.flow.scrub, now)
        if not rate:
            # Copies that are yet to come are not due for the time before them.
            await self.state.note_scrubbed(name, mark._replace(at=now))
            return LONGEST_REST
        if not count:
            return min(max(SHORTEST_REST, since + 1 / rate - now), LONGEST_REST)
        found, bucket, key = await self._next(mark, min(count, BATCH))
        await self._look_at(found)
        await self.state.note_scrubbed(name, Scrubbed(bucket, key, since + len(found) / rate))
        return SHORTEST_REST if len(found) < BATCH else 0.0

    async def _next(self, mark: Scrubbed, limit: int) -> tuple[list[Copy], str, bytes]:
        """Give the copies that follow, and the place of the last row that was read."""
        name, found, rows = self.route.flow.name, list[Copy](), 0
        for bucket in await self.state.buckets(name):
            if bucket < mark.bucket:
                continue
            key = mark.after if bucket == mark.bucket else b""
            while page := await self.state.transfers(name, bucket, after(key), 2 * limit):
                rows += len(page)
                for row in page:
                    key = row.transfer.key
                    copy = copy_of(row)
                    if copy is not None:
                        found.append(copy)
                    if len(found) == limit:
                        return found, bucket, key
                if rows >= ROWS:
                    return found, bucket, key
        return found, "", b""

    async def _look_at(self, copies: list[Copy]) -> None:
        results: Counter[str] = Counter()
        try:
            await in_lanes(copies, partial(self._look_at_one, results), LANES)
        finally:
            if results:
                self.route.emit(LookedAgain(self.route.flow.name, results))

    async def _look_at_one(self, results: Counter[str], copy: Copy) -> None:
        if self.route.stop.is_set():
            raise Stopped("the rest is looked at after the next start")
        seen = await look_again(self._prover, self.state, copy)
        if seen is not None:
            results[str(seen[1].result)] += 1
            await self._mark(*seen)

    async def _mark(self, copy: Copy, looked: Looked) -> None:
        if looked.result not in REFUTED:
            return
        what = f"{object_name(copy.transfer)}: its copy is {looked.result}: {looked.message}"
        if copy.gone:
            self._warn(f"{what}. Its source was deleted by the move")
            return
        held = await self.state.refute([refutal(copy, looked)])
        if held:
            self._warn(f"{what}. It is marked as failed: s3flow retry copies it again")
            self.route.emit(Recorded(held))

    def _warn(self, message: str) -> None:
        self.route.emit(Warned(self.route.flow.name, message))

    async def _rest(self, seconds: float, moved: asyncio.Event) -> None:
        waits = [asyncio.create_task(it.wait()) for it in (self.route.stop, moved)]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.wait(waits)


def _ignore(event: Event) -> None:
    """Its pace is nobody else's."""
