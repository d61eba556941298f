"""Limits at which somebody has always come first: who comes waits, however the schedule falls.

Strangers take all that is free in the moment that somebody asks for it, and give it back in the
loop's next turn. So every wait that is possible happens, in the code that waits in earnest.
"""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from s3flow.engine import daemon, purse, restorer, route, scrub, throttle, wiring
from s3flow.engine.purse import Purse
from s3flow.engine.recorder import Entry, Recorder
from s3flow.engine.route import Route
from s3flow.engine.wiring import RouteMaker

RATE = 100_000.0  # a second, of whatever: time enough to wait at all, and no more
DEBT = 0.0001  # seconds


def _soon(call: Any, *args: object) -> None:
    asyncio.get_running_loop().call_soon(call, *args)


class FullLock(asyncio.Lock):
    """A lock that somebody has just taken."""

    async def acquire(self) -> Literal[True]:
        """Wait for the lock."""
        if not self.locked():
            await super().acquire()
            _soon(self.release)
        return await super().acquire()


class FullSlots(asyncio.Semaphore):
    """Places that were all taken just before."""

    async def acquire(self) -> Literal[True]:
        """Wait for a place."""
        while not self.locked():
            await super().acquire()
            _soon(self.release)
        return await super().acquire()


class FullGate(throttle.Gate):
    """A gate whose places were all taken just before."""

    async def __aenter__(self) -> None:
        while self._inside < self.limit and not self._waiting:
            await super().__aenter__()
            _soon(self.leave)
        await super().__aenter__()


class DryBucket(throttle.TokenBucket):
    """A bucket that others have emptied, and are about to draw from again."""

    def __init__(self, rate: float) -> None:
        super().__init__(max(rate, RATE))
        self._line = FullLock()

    async def take(self, amount: float) -> None:
        """Wait for one's turn, and then for what it lacks."""
        self._level = min(self._level, -self._rate * DEBT)
        await super().take(amount)


class FullRecorder(Recorder):
    """A recorder whose room others have just filled."""

    async def record(self, entry: Entry) -> None:
        """Wait for room."""
        self._room.clear()
        _soon(self._room.set)
        await super().record(entry)


class BusyPurse(Purse):
    """A purse in which somebody is always writing; *short* says that the last sum did not fit."""

    short = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._writing = FullLock()

    async def _pay(self, cost: int) -> None:
        self.short = not self._fits(cost)
        await super()._pay(cost)


_empty_route = RouteMaker.route


def _full_route(maker: RouteMaker, *given: Any) -> Route:
    it = _empty_route(maker, *given)
    it.gate = FullGate(it.flow.name, 2, it.emit)
    it.slots = FullSlots(1)
    it.request_buckets = it.bytes_buckets = (DryBucket(RATE),)
    return it


# What a scene patches: everywhere others come first.
FULL = (
    (wiring.RouteMaker, "route", _full_route),
    (route, "SMALL_BODY", 0),
    (scrub, "Gate", FullGate),
    (restorer, "TokenBucket", DryBucket),
    (daemon, "Recorder", FullRecorder),
)
# All that is paid is noted before, one sum by itself: in earnest some more is noted at once.
NOTED = ((daemon, "Purse", BusyPurse), (purse, "AHEAD", 10**15))
