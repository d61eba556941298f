"""How fast: concurrency that yields to throttling (AIMD), rates of bytes and requests, and the block."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from s3flow.errors import Blocked
from s3flow.events import Emit, FlowBlocked, FlowUnblocked, ThrottleChanged
from s3flow.model import ObjectInfo
from s3flow.ports import Body


class Gate:
    """Places for those at work, whose number follows what the stores can take.

    A throttled request halves it, at most once a second so that one storm counts once; as many
    successes as it has places add one back. Those who are in when it shrinks finish; nobody new
    comes in until fewer than *limit* are left. First come, first served. Its events name the
    endpoint that asked last, and *name* where nobody said which it was.
    """

    def __init__(self, name: str, most: int, emit: Emit) -> None:
        self.limit = most
        self._name = name
        self._most = most
        self._emit = emit
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._successes = 0
        self._shrunk_at = float("-inf")

    async def __aenter__(self) -> None:
        if self._inside < self.limit and not self._waiting:
            self._inside += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self.leave()  # the place was given in the moment of the cancellation
            elif place in self._waiting:
                self._waiting.remove(place)
            raise

    async def __aexit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Give a place back."""
        self._inside -= 1
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self._inside < self.limit:
            place = self._waiting.popleft()
            if not place.done():
                self._inside += 1
                place.set_result(None)

    def throttled(self, endpoint: str = "") -> None:
        """Halve the concurrency, because *endpoint* asks for it."""
        self._name = endpoint or self._name
        now = time.monotonic()
        if now - self._shrunk_at < 1.0:
            return
        self._shrunk_at = now
        self._successes = 0
        self.limit = max(1, self.limit // 2)
        self._emit(ThrottleChanged(self._name, self.limit, throttled=True))

    def succeeded(self) -> None:
        """Count towards one more place."""
        if self.limit == self._most:
            return
        self._successes += 1
        if self._successes >= self.limit:
            self._successes = 0
            self.limit += 1
            self._admit()
            self._emit(ThrottleChanged(self._name, self.limit, throttled=False))


class TokenBucket:
    """At most *rate* units a second, with a burst of one second; first come, first served."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._level = rate
        self._at = time.monotonic()
        self._line = asyncio.Lock()

    async def take(self, amount: float) -> None:
        """Wait until *amount* units may be spent. More than a burst is waited for as a debt."""
        async with self._line:
            now = time.monotonic()
            self._level = min(self._rate, self._level + (now - self._at) * self._rate)
            self._at = now
            self._level -= amount
            if self._level < 0:
                await asyncio.sleep(-self._level / self._rate)


class PacedBody:
    """A body that spends bytes of one or more buckets as it is read."""

    def __init__(self, body: Body, buckets: tuple[TokenBucket, ...]) -> None:
        self._body = body
        self._buckets = buckets
        self.info: ObjectInfo = body.info
        self.size = body.size

    async def read(self) -> memoryview:
        """Give the next chunk once its bytes may be spent."""
        chunk = await self._body.read()
        for bucket in self._buckets:
            await bucket.take(len(chunk))
        return chunk

    def close(self) -> None:
        """Close the body below."""
        self._body.close()


class Blockade:
    """Holds a flow's workers while every transfer would fail; one scout at a time looks again."""

    def __init__(self, flow: str, retry_after: float, emit: Emit, stop: asyncio.Event) -> None:
        self._flow = flow
        self._retry_after = retry_after
        self._emit = emit
        self._stop = stop
        self._open = asyncio.Event()
        self._open.set()
        self._reason = ""
        self._scout = asyncio.Lock()

    @property
    def reason(self) -> str:
        """Why the flow waits, "" when it does not."""
        return self._reason

    async def enter(self) -> bool:
        """Let a transfer through. While blocked only a scout passes (True), and not before its time."""
        while not self._open.is_set():
            await self._scout.acquire()
            if self._open.is_set():
                self._scout.release()
                break
            try:
                await self._wait()
            except BaseException:
                self._scout.release()
                raise
            return True
        return False

    def leave(self, error: BaseException | None, *, scout: bool) -> None:
        """End a passage: a `Blocked` *error* blocks the flow, any other end of a scout's opens it."""
        if isinstance(error, Blocked):
            self._close(error)
        elif scout and not isinstance(error, asyncio.CancelledError) and not self._stop.is_set():
            self.lift()  # at a stop scouts come back without having looked
        if scout:
            self._scout.release()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._retry_after):
                await self._stop.wait()
        except TimeoutError:
            return

    def _close(self, error: Blocked) -> None:
        if self._reason != error.reason:
            if self._reason:  # who counts by reasons must not wait for its end for ever
                self._emit(FlowUnblocked(self._flow, self._reason))
            self._reason = error.reason
            self._emit(FlowBlocked(self._flow, error.reason, str(error), self._retry_after))
        self._open.clear()

    def lift(self) -> None:
        """Let everybody through again."""
        if self._reason:
            self._emit(FlowUnblocked(self._flow, self._reason))
        self._reason = ""
        self._open.set()
