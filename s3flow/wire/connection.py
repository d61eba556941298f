"""One connection: answers arrive in its buffer and are handed out as views, without copies."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, Protocol, cast

from s3flow.errors import BadAnswer, ConnectionLost, S3flowError, Stalled
from s3flow.wire.framing import HEAD_END, MAX_HEAD, Framing, Head, parse_head
from s3flow.wire.progress import Waiting, Watch

SMALL: Final = 16 * 1024  # bytes that every connection owns: heads and small answers
# Bytes that it borrows while a larger body arrives. One more than a round number: parts have round
# sizes, and a body that ends where the buffer does costs the connection (see `Response._finish`).
LARGE: Final = 256 * 1024 + 1
JOINED: Final = 16 * 1024  # bytes up to which copying is cheaper than a second write
_MAX_SPARE: Final = 32  # large buffers kept for the next body: 8 MiB at most

_NOTHING: Final = Waiting.NOTHING
_ANSWER: Final = Waiting.ANSWER
_DRAIN: Final = Waiting.DRAIN

_spare: list[bytearray] = []


class _ReadLimits(Protocol):
    """What TLS transports of asyncio and uvloop have beyond `asyncio.Transport`."""

    def set_read_buffer_limits(self, high: int) -> None: ...


class Connection(asyncio.BufferedProtocol):
    """A transport, its buffer and the state of the one request that is under way.

    Bytes between *start* and *stop* of the buffer have arrived and are not handed out. What was
    handed out lies before *start* and stays untouched until `make_room`: new bytes go behind
    *stop*, and when nothing is free there, reading pauses until everything was consumed.
    """

    __slots__ = (
        "_buffer",
        "_capacity",
        "_loop",
        "_method",
        "_on_lost",
        "_raw",
        "_reading_paused",
        "_scan",
        "_small",
        "_transport",
        "_view",
        "_waiter",
        "_waiting",
        "_watch",
        "cut",
        "ended",
        "error",
        "filled",
        "head",
        "idle",
        "leased",
        "name",
        "received",
        "reused",
        "start",
        "stop",
        "unsent",
        "usable",
    )

    def __init__(self, name: str, watch: Watch, on_lost: Callable[[Connection], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._small = self._buffer = bytearray(SMALL)
        self._view = memoryview(self._buffer)
        self._capacity = SMALL
        self._transport: asyncio.Transport | None = None
        self._raw: asyncio.Transport | None = None
        self._reading_paused = False
        self._method = ""  # of the request whose head is awaited; else ""
        self._scan = 0
        self._waiter: asyncio.Future[None] | None = None
        self._waiting = _NOTHING
        self._watch = watch
        self._on_lost = on_lost
        self.name = name
        self.start = self.stop = 0
        self.filled = False  # the last bytes took all room: there may be more behind them
        self.received = 0  # bytes, of this request's answer
        self.head: Head | None = None
        self.error: S3flowError | None = None
        self.ended = False  # the peer sends no more
        self.cut = False  # under TLS, and nobody who knows its keys has said that it ends
        self.unsent = False  # the transport still needs what it was given
        self.usable = False  # for another request
        self.leased = False  # a request or its answer holds it
        self.reused = False  # it was idle before
        self.idle = -1.0  # seconds in the pool without a request; negative while one is under way

    # --- what the transport calls ----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = self._transport = cast("asyncio.Transport", transport)
        # Zero: either a chunk has left when write() returns, or we wait until it has. So its
        # memory can be used again, and no layer between source and target hoards bytes.
        self._transport.set_write_buffer_limits(high=0)
        self.usable = True

    def secure(self, transport: asyncio.Transport) -> None:
        """Go on over TLS."""
        self._transport = transport
        self.cut = True  # until it says that it ends
        # uvloop's and asyncio's TLS call pause_writing at *reaching* the limit: zero would pause
        # an empty transport for ever.
        transport.set_write_buffer_limits(high=1, low=0)
        # The raw transport is paused by us and must not be resumed by anybody else, see _pause.
        cast("_ReadLimits", transport).set_read_buffer_limits(high=1 << 30)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the protocol's signature
        return self._view[self.stop :]

    def buffer_updated(self, nbytes: int) -> None:
        self.stop += nbytes
        self.received += nbytes
        filled = self.filled = self.stop == self._capacity
        if self._method:
            self._read_head()
        elif self._waiter is not None:
            self._wake()
        elif self.idle >= 0:
            self.abort()  # nobody asked: whatever it is, it must not answer the next request
        if not filled:
            return
        self._pause()
        if self.stop < self._capacity:  # a larger buffer is there by now
            self._resume()

    def pause_writing(self) -> None:
        self.unsent = True

    def resume_writing(self) -> None:
        self.unsent = False
        if self._waiting is _DRAIN:
            self._wake()

    def eof_received(self) -> None:
        self.cut = self.cut and not _has_said_end(self._transport)
        self.ended = True
        self.usable = False
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None and self.error is None:
            self.error = ConnectionLost(f"{self.name}: the connection broke: {exc}")
        self.ended = True
        self.usable = False
        self._wake()
        self._on_lost(self)

    # --- what a request does ---------------------------------------------------------------

    def begin(self, method: str, answer: float, *, patient: bool = False) -> None:
        """Expect the answer to a request of *method* within *answer* seconds, see `Watch.reset`."""
        self.idle = -1.0
        self.start = self.stop = self._scan = 0
        self.received = 0
        self.head = None
        self._method = method
        self._watch.reset(answer, patient=patient)

    def write(self, first: bytes | memoryview, second: bytes | memoryview = b"") -> None:
        """Send both; while *unsent* is set their memory must stay as it is."""
        transport = self._transport
        if transport is None or not self.usable:
            return
        transport.write(first)
        if second:
            # Not writelines(): asyncio's own does not report every pause in every version, and
            # the caller's memory depends on that report.
            transport.write(second)

    def wait(self, waiting: Waiting) -> asyncio.Future[None]:
        """Give a future that is done when something happened; the caller looks what it was."""
        waiter = self._waiter = self._loop.create_future()
        self._waiting = waiting
        return waiter

    async def answer(self, lost: str) -> Head:
        """Wait for the answer's head; *lost* completes the message when the connection ends."""
        while self.head is None:
            if self.ended:
                raise self.lost(lost)
            await self.wait(_ANSWER)
        return self.head

    def take(self, size: int) -> memoryview:
        """Hand out the next *size* bytes."""
        start = self.start
        self.start = stop = start + size
        return self._view[start:stop]

    def find_framing(self, advance: Callable[[bytearray, int, int], int]) -> None:
        """Let *advance* consume framing from what has arrived."""
        self.start = advance(self._buffer, self.start, self.stop)

    def make_room(self) -> None:
        """Use the memory of what was handed out again, and read on."""
        size = self.stop - self.start
        if self.start:
            if size:  # an unfinished line of framing, so little
                self._view[:size] = bytes(self._view[self.start : self.stop])
            self.start, self.stop = 0, size
        if self._reading_paused and self.stop < self._capacity:
            self._resume()

    def lost(self, what: str) -> S3flowError:
        """Give the error for a connection that ended while *what*."""
        return self.error or ConnectionLost(f"{self.name}: the connection was closed {what}")

    def park(self) -> None:
        """Become idle: only the small buffer stays."""
        self.release_memory()
        self.idle = 0.0
        self.reused = True
        if self._reading_paused:
            self._resume()

    def release_memory(self) -> None:
        """Give a borrowed buffer back; nobody may hold a view of it any more."""
        self.start = self.stop = 0
        if self._capacity == LARGE:
            if len(_spare) < _MAX_SPARE:
                _spare.append(self._buffer)
            self._use(self._small)

    def abort(self) -> None:
        """Drop the connection now; buffered bytes go nowhere."""
        self.usable = False
        self.ended = True
        self._method = ""
        if self._transport is not None:
            self._transport.abort()
        if self._raw is not None and self._raw is not self._transport:
            self._raw.abort()  # a TLS transport that never finished its handshake holds no other

    def fail(self, error: S3flowError) -> None:
        """Drop the connection and tell its user why."""
        if self.error is None:
            self.error = error
        self.abort()
        self._wake()

    def watch(self, elapsed: float, idle_limit: float) -> None:
        """Judge the last *elapsed* seconds: drop what was idle or stalled for too long."""
        if self.idle >= 0:
            self.idle += elapsed
            if self.idle >= idle_limit:
                self.abort()
            return
        if self._waiter is None or self._raw is None:
            return
        verdict = self._watch.sample(self._waiting, elapsed, self.received, self._raw)
        if verdict is not None:
            self.fail(Stalled(f"{self.name}: {verdict}"))

    # --- inside ----------------------------------------------------------------------------

    def _read_head(self) -> None:
        while True:
            end = self._buffer.find(HEAD_END, max(self._scan, self.start), self.stop)
            size = (self.stop if end < 0 else end) - self.start
            if size > MAX_HEAD:
                self.fail(BadAnswer(f"{self.name}: the answer's head exceeds {MAX_HEAD} bytes"))
                return
            if end < 0:
                self._scan = max(self.start, self.stop - 3)
                if self.stop == self._capacity:
                    self._enlarge()
                return
            try:
                head = parse_head(self._view[self.start : end], self._method)
            except BadAnswer as error:
                self.fail(BadAnswer(f"{self.name}: {error}"))
                return
            self.start = end + len(HEAD_END)
            if head.status >= 200:
                self._deliver(head)
                return
            if head.status == 101:
                self.fail(BadAnswer(f"{self.name}: the server switches protocols unasked"))
                return

    def _deliver(self, head: Head) -> None:
        self._method = ""
        self.head = head
        if head.framing is not Framing.LENGTH or head.length >= self._capacity - self.start:
            self._enlarge()
        self._wake()

    def _enlarge(self) -> None:
        """Move to a large buffer. Nothing was handed out yet, so what there is can be copied."""
        self._scan = max(0, self._scan - self.start)
        if self._capacity == LARGE:
            self.make_room()
            return
        arrived = bytes(self._view[self.start : self.stop])
        self._use(_spare.pop() if _spare else bytearray(LARGE))
        self._view[: len(arrived)] = arrived
        self.start, self.stop = 0, len(arrived)

    def _use(self, buffer: bytearray) -> None:
        self._buffer = buffer
        self._view = memoryview(buffer)
        self._capacity = len(buffer)

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            self._waiting = _NOTHING
            if not waiter.done():
                waiter.set_result(None)

    def _pause(self) -> None:
        # Both layers: a TLS transport that sees the raw one's end of file throws away what it has
        # not handed over yet (uvloop 0.23, sslproto.pyx, eof_received).
        if self._transport is None or self._raw is None or not self.usable:
            return
        self._reading_paused = True
        self._transport.pause_reading()
        if self._raw is not self._transport:
            self._raw.pause_reading()

    def _resume(self) -> None:
        self._reading_paused = False
        if self._transport is None or self.ended:
            return
        self._transport.resume_reading()
        if self._raw is not self._transport:
            # The TLS transport hands over what it holds in the loop's next round, and the raw one
            # would see the end of file before: it comes after, and only if there is room still.
            self._loop.call_soon(self._resume_raw)

    def _resume_raw(self) -> None:
        if self._raw is not None and not self._reading_paused and not self.ended:
            self._raw.resume_reading()


def _has_said_end(transport: asyncio.Transport | None) -> bool:
    """Say whether a TLS connection was ended by its peer (close_notify), not by anybody on the way.

    asyncio and uvloop tell of both alike. To read on is an end only after the former.
    """
    if transport is None:
        return False
    tls: ssl.SSLObject = transport.get_extra_info("ssl_object")
    try:
        return not tls.read(1)
    except ssl.SSLZeroReturnError:
        return True
    except ssl.SSLError:
        return False
