"""The line between two simulated processes: bytes in order, late and in pieces; a death may cut them off."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable

from tests.torture.sim.loop import Process, SimLoop

NOTHING_SAID: Callable[[bytes], None] = lambda _: None  # noqa: E731


class End(asyncio.Transport):
    """One end of a line, in the hands of *owner*: what it writes arrives at the other end.

    *passing* hears each batch that was written and each piece that is about to arrive here: a moment at
    which its owner may die.
    """

    def __init__(self, loop: SimLoop, owner: Process, delay: Callable[[], float]) -> None:
        super().__init__()
        self.other = self
        self.owner = owner
        self.passing = NOTHING_SAID
        self._loop = loop
        self._delay = delay
        self._protocol: asyncio.Protocol | None = None
        self._closing = False
        self._coming: deque[bytes | None] = deque()  # None: the end
        self._last = 0.0
        owner.on_death.append(self._break_off)

    def join(self, protocol: asyncio.Protocol) -> None:
        """Let *protocol* hear what comes."""
        self._protocol = protocol
        protocol.connection_made(self)
        if self._coming:  # the other end was quicker
            self._wait_for(len(self._coming))

    def write(self, data: bytes | bytearray | memoryview[int]) -> None:
        """Send, in up to three pieces."""
        if self._closing or self.owner.dead:
            return
        data, draw = bytes(data), self._loop.rng
        for _ in range(draw.choice((0, 0, 0, 1, 2))):
            cut = draw.randrange(len(data)) if data else 0
            self.other._take(data[:cut])
            data = data[cut:]
        self.other._take(data)
        self.passing(data)

    def is_closing(self) -> bool:
        """Say whether it was closed."""
        return self._closing

    def close(self) -> None:
        """Hang up: what was written arrives before the end does."""
        if not self._closing:
            self._closing = True
            self.other._take(None)
            self._loop.call_soon(self._lose)

    def _break_off(self) -> None:
        """Hang up as the kernel does for the dead: what its loop had not yet written is lost."""
        if self._closing:
            return
        self._closing = True
        if self._loop.rng.random() < 0.5:
            self.other._cut(self._loop.rng)
        self.other._take(None)

    def _cut(self, rng: random.Random) -> None:
        data = b"".join(each for each in self._coming if each)
        kept = data[: rng.randrange(len(data) + 1)]
        self._coming = deque([kept] if kept else ())

    def _take(self, data: bytes | None) -> None:
        self._coming.append(data)
        if self._protocol is not None:
            self._wait_for(1)

    def _wait_for(self, pieces: int) -> None:
        for _ in range(pieces):
            self._last = max(self._loop.now + self._delay(), self._last)
            self._loop.call_at(self._last, self._arrive, context=self.owner.context.copy())

    def _arrive(self) -> None:
        if not self._coming or self._protocol is None:
            return
        data = self._coming.popleft()
        if data is None:
            self._lose()
            return
        self.passing(data)
        if data and not self.owner.dead:
            self._protocol.data_received(data)

    def _lose(self) -> None:
        protocol, self._protocol = self._protocol, None
        self._closing = True
        if protocol is not None:
            protocol.connection_lost(None)


def line(
    loop: SimLoop, one: Process, another: Process, delay: Callable[[], float]
) -> tuple[End, End]:
    """Join two processes; gives the end of each."""
    ends = End(loop, one, delay), End(loop, another, delay)
    ends[0].other, ends[1].other = ends[1], ends[0]
    return ends
