"""HTTP/1.1 to one origin over kept-alive connections, at one wake-up per request."""  # noqa: A005 - not the stdlib's

from __future__ import annotations

import asyncio
import ssl
from functools import lru_cache
from typing import Final, NamedTuple

from s3flow.errors import BadAnswer, ConnectionLost, Refused, Truncated
from s3flow.model import MIB
from s3flow.ports import Body
from s3flow.wire.connection import JOINED, Connection
from s3flow.wire.dial import Origin, dial, parse_proxy, proxy_for
from s3flow.wire.framing import Head
from s3flow.wire.progress import Waiting, Watch
from s3flow.wire.response import Response

__all__ = ["Origin", "Pool", "Response", "Timeouts", "proxy_for"]

_IDLE_LIMIT: Final = 60.0  # seconds; below the usual server's keep-alive, so it rarely closes first
_EARLY_BODY: Final = MIB  # bytes of an early answer's body: an error document
_DRAIN: Final = Waiting.DRAIN
_WHOLE: Final = (bytes, memoryview)
_WITH_BODY: Final = frozenset({"PUT", "POST", "PATCH"})


class Timeouts(NamedTuple):
    """In seconds. *connect* covers TCP, CONNECT and TLS; *answer* runs from the request's last
    byte to the end of the answer's head; *progress* is the window of waiting in which at least
    `MIN_PROGRESS` bytes per second must move while a body is under way.
    """

    connect: float = 10.0
    progress: float = 30.0
    answer: float = 60.0


_DEFAULT_TIMEOUTS: Final = Timeouts()


class _Outgoing:
    """A request on its way: the head, and of the body what was read already."""

    __slots__ = (
        "answer",
        "first",
        "head",
        "method",
        "patient",
        "sent",
        "size",
        "spent",
        "stream",
    )

    def __init__(
        self, method: str, first: bytes | memoryview, size: int, stream: Body | None, answer: float
    ) -> None:
        self.method = method
        self.head = b""
        self.first = first
        self.sent = len(first)  # of the body, when all up to now has gone
        self.size = size  # of the body
        self.stream = stream
        self.spent = False  # part of the body is gone: it cannot be sent again
        self.answer = answer
        self.patient = False


class Pool:
    """Connections to one origin, the last used one first; *limit* bounds how many are open.

    A body's first chunk is read before a connection is taken, so a slow source holds none. The
    source's own answer holds one meanwhile: a pool that serves both needs room for both.
    """

    def __init__(
        self,
        origin: Origin,
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        limit: int = 256,
        timeouts: Timeouts = _DEFAULT_TIMEOUTS,
    ) -> None:
        if origin.scheme == "https" and ssl_context is None:
            ssl_context = ssl.create_default_context()
        self.origin = origin
        self._context = ssl_context if origin.scheme == "https" else None
        self._proxy = parse_proxy(proxy) if proxy else None
        self._timeouts = timeouts
        self._authority = origin.authority
        self._name = str(origin)
        self._slots = asyncio.Semaphore(limit)
        self._idle: list[Connection] = []
        self._open: set[Connection] = set()
        self._all_lost = asyncio.Event()
        self._closed = False
        # Several samples per window; a second is fine enough for the usual windows.
        self._period = min(1.0, max(0.01, min(timeouts.progress, timeouts.answer) / 8))
        self._timer: asyncio.TimerHandle | None = None
        self._sampled = 0.0

    async def request(
        self,
        method: str,
        target: str,
        headers: dict[str, str],
        body: bytes | memoryview | Body = b"",
        *,
        timeout_answer: float | None = None,
    ) -> Response:
        """Send a request and give its answer as soon as the head is there.

        *target* is the encoded path and query and goes out as it is, and so do *headers*; Host
        and Content-Length are added when they are missing. A `Body` is read to its end, and not
        closed. An answer that comes before all of it was sent ends the sending. *timeout_answer*
        (seconds) replaces `Timeouts.answer`, and the progress window for the answer's body.
        Nothing is followed, retried or decompressed, with one exception: a kept-alive connection
        that turns out to be dead is replaced once.

        Raises `ConnectionLost`, `Stalled`, `BadAnswer`, `Truncated` (the body was shorter than
        its size), `Refused`, or what reading the body raises.
        """
        answer = self._timeouts.answer if timeout_answer is None else timeout_answer
        if isinstance(body, _WHOLE):
            out = _Outgoing(method, body, len(body), None, answer)
        else:
            out = _Outgoing(method, await body.read(), body.size, body, answer)
            if out.sent > out.size or (out.size and not out.sent):
                raise _wrong_size(out.sent, out.size)
        out.patient = timeout_answer is not None
        head = self._head(method, target, headers, out.size)
        if out.sent and len(head) + out.sent <= JOINED:
            out.head = b"".join((head, out.first))
            out.first = b""
        else:
            out.head = head
        # A POST is never repeated, so it does not risk a connection that may be dead.
        connection = await self._lease(fresh=method == "POST")
        try:
            return await self._exchange(connection, out)
        except ConnectionLost:
            # The server may close an idle connection at the moment we use it. With no byte of an
            # answer and the whole request still at hand, that is nobody's failure.
            fresh = not connection.reused or self._closed
            if fresh or connection.received or out.spent:
                raise
        return await self._exchange(await self._lease(fresh=True), out)

    async def close(self) -> None:
        """Drop all connections; requests under way end with `ConnectionLost`."""
        self._closed = True
        self._idle.clear()
        for connection in tuple(self._open):
            connection.fail(ConnectionLost(f"{self._name}: closed on our side"))
        while self._open:
            self._all_lost.clear()
            await self._all_lost.wait()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- one request -----------------------------------------------------------------------

    async def _exchange(self, connection: Connection, out: _Outgoing) -> Response:
        """Send and await the answer's head. The connection is dropped on any failure."""
        try:
            connection.begin(out.method, out.answer, patient=out.patient)
            connection.write(out.head, out.first)
            complete = True
            if out.stream is not None:
                complete = await self._send_rest(connection, out, out.stream)
            head = await connection.answer("before it answered")
            if complete and not connection.unsent:
                return Response(head, connection, self._done)
            return await self._early(connection, head)
        except BaseException:
            self._done(connection, clean=False)
            raise

    async def _send_rest(self, connection: Connection, out: _Outgoing, stream: Body) -> bool:
        """Send what follows the first chunk; False when the answer or the end came before."""
        while True:
            while connection.unsent and connection.head is None and not connection.ended:
                await connection.wait(_DRAIN)
            unfinished = connection.unsent or out.sent < out.size
            if connection.ended or (connection.head is not None and unfinished):
                return False
            # Reading on gives the previous chunk's memory up, unless it was joined to the head.
            out.spent = out.spent or bool(out.first)
            chunk = await stream.read()
            if not chunk:
                break
            out.spent = True
            out.sent += len(chunk)
            if out.sent > out.size:
                raise _wrong_size(out.sent, out.size)
            connection.write(chunk)
        if out.sent < out.size:
            raise _wrong_size(out.sent, out.size)
        return True

    async def _early(self, connection: Connection, head: Head) -> Response:
        """Give an answer that came before the request was sent, and drop the connection."""
        if head.status < 300:
            raise BadAnswer(f"{self._name}: {head.status} came before the whole body was sent")
        response = Response(head, connection, self._done, keep=False)
        await response.preload(_EARLY_BODY)
        return response

    # --- connections -----------------------------------------------------------------------

    async def _lease(self, *, fresh: bool = False) -> Connection:
        """Take an idle connection or open one, as soon as *limit* allows."""
        await self._slots.acquire()
        idle = self._idle
        if fresh and idle:
            idle.pop(0).abort()  # in exchange, or those left idle would exceed the limit
        while idle and not fresh:
            connection = idle.pop()
            if connection.usable:
                connection.leased = True
                return connection
        try:
            connection = await self._connect()
        except BaseException:
            self._slots.release()
            raise
        connection.leased = True
        return connection

    async def _connect(self) -> Connection:
        if self._closed:
            raise ConnectionLost(f"{self._name}: closed on our side")
        watch = Watch(self._timeouts.progress)
        connection = Connection(self._name, watch, self._forget)
        await dial(
            connection,
            self.origin,
            context=self._context,
            proxy=self._proxy,
            timeout=self._timeouts.connect,
        )
        if connection.ended or self._closed:
            connection.abort()
            raise connection.lost("as soon as it was open")
        self._open.add(connection)
        if self._timer is None:
            self._schedule()
        return connection

    def _done(self, connection: Connection, clean: bool) -> None:
        """End a lease; only the first call for it counts."""
        if not connection.leased:
            return
        connection.leased = False
        if clean and not self._closed:
            connection.park()
            self._idle.append(connection)
        else:
            connection.abort()
            connection.release_memory()
        self._slots.release()

    def _forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._open:
            self._all_lost.set()

    def _schedule(self) -> None:
        loop = asyncio.get_running_loop()
        self._sampled = loop.time()
        self._timer = loop.call_later(self._period, self._sample)

    def _sample(self) -> None:
        # What a busy loop took longer than planned is our own slowness, not the peers'.
        elapsed = asyncio.get_running_loop().time() - self._sampled
        elapsed = min(elapsed, 2 * self._period)
        for connection in tuple(self._open):
            connection.watch(elapsed, _IDLE_LIMIT)
        self._timer = None
        if self._open:
            self._schedule()

    # --- bytes -----------------------------------------------------------------------------

    def _head(self, method: str, target: str, headers: dict[str, str], size: int) -> bytes:
        form = _form(tuple(headers), self._authority)
        values = tuple(headers.values())
        length = ""
        if (size or method in _WITH_BODY) and not form.has_length:
            length = f"Content-Length: {size}\r\n"
        text = f"{method} {target} HTTP/1.1\r\n{form.fields % values}{length}\r\n"
        foreign = target + "".join(values)
        if "\n" in foreign or "\r" in foreign or "\0" in foreign or not form.is_clean:
            raise Refused(f"{self._name}: a header's value or the target holds a line break or NUL")
        if " " in target:
            raise Refused(f"{self._name}: the target holds a space; it must come encoded")
        try:
            return text.encode("latin-1")
        except UnicodeEncodeError as error:
            raise Refused(f"{self._name}: a header holds what HTTP cannot carry: {error}") from None


class _Form(NamedTuple):
    """A request's head without its values. *is_clean*: no name holds a line break or NUL."""

    fields: str
    has_length: bool
    is_clean: bool


@lru_cache(maxsize=128)  # names of metadata may be as long as a whole head
def _form(names: tuple[str, ...], authority: str) -> _Form:
    """Give the form of a head with these header names: most requests have one of a few."""
    lines = [f"{name.replace('%', '%%')}: %s\r\n" for name in names]
    if "host" not in names and "Host" not in names:
        lines.insert(0, f"Host: {authority.replace('%', '%%')}\r\n")
    foreign = "".join(names)
    is_clean = not any(mark in foreign for mark in "\r\n\0")
    return _Form("".join(lines), "content-length" in names, is_clean)


def _wrong_size(got: int, size: int) -> Truncated | BadAnswer:
    message = f"the body to send has {got} bytes where {size} were announced"
    return Truncated(message) if got < size else BadAnswer(f"{message}, or more")
