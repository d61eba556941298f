"""A proxy between s3flow and a server that counts requests, and can delay, refuse or encrypt them."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

import uvloop

from tests.e2e.relaying import Head, Request, kind_of, read_head, relay, relay_chunked, send
from tests.servers import HOST

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

HEAD_LIMIT = 256 * 1024
SLOW_DOWN = (
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code>"
    b"<Message>Please reduce your request rate.</Message></Error>"
)


@dataclass(slots=True)
class Exchange:
    """One client's connection and its twin to the server."""

    proxy: Proxy
    client: Streams
    server: Streams
    waiting: deque[Request] = field(default_factory=deque)

    async def run(self) -> None:
        """Relay until either side is done; what the server was asked in full it may still answer."""
        answers = asyncio.create_task(self._answers())
        try:
            complete = await self._requests()
            if complete and self.waiting:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(10):
                        await answers
        finally:
            answers.cancel()
            await asyncio.wait({answers})
            for _, writer in (self.client, self.server):
                writer.close()

    async def _requests(self) -> bool:
        """Relay requests; False when the last one stayed incomplete."""
        reader, writer = self.client[0], self.server[1]
        while (head := await read_head(reader)) is not None:
            request = self.proxy.note(head)
            if request.kind == "delete_many":
                try:
                    request.body = await reader.readexactly(head.length or 0)
                except (ConnectionError, asyncio.IncompleteReadError):
                    return False
            delay = self.proxy.delay(request)
            if delay:
                await asyncio.sleep(delay)
            refused = self.proxy.refuse(request)
            if not refused:
                self.waiting.append(request)
            try:
                if not refused:
                    send(writer, self.proxy.rewrite(head.raw))
                whole = await self._pass_body(head, None if refused else writer, request.body)
            except (ConnectionError, asyncio.IncompleteReadError):
                whole = False
            if not whole:
                return False
            if refused:
                await self._say_slow_down(request)
        return True

    async def _pass_body(
        self, head: Head, writer: asyncio.StreamWriter | None, taken: bytes
    ) -> bool:
        reader = self.client[0]
        send(writer, taken)
        if "chunked" in head.headers.get("transfer-encoding", ""):
            return await relay_chunked(reader, writer)
        if writer is not None:
            await writer.drain()
        return await relay(reader, writer, (head.length or 0) - len(taken))

    async def _say_slow_down(self, request: Request) -> None:
        writer = self.client[1]
        body = b"" if request.method == "HEAD" else SLOW_DOWN
        request.status, request.answered = 503, self.proxy.tick()
        send(
            writer,
            b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\n"
            b"Content-Length: %d\r\n\r\n%s" % (len(body), body),
        )
        await writer.drain()
        request.ended = self.proxy.tick()

    async def _answers(self) -> None:
        reader = self.server[0]
        sink = self.client[1]
        while (head := await read_head(reader)) is not None:
            status = int(head.start.split(" ", 2)[1])
            if status >= 200 and self.waiting:
                self.waiting[0].status, self.waiting[0].answered = status, self.proxy.tick()
            try:
                if not await self._pass_answer(head, status, sink):
                    break
            except ConnectionError:
                break  # the client is gone: its answers are recorded, and nobody waits for the rest
            if status >= 200:
                self.waiting.popleft().ended = self.proxy.tick()
            if self.client[0].at_eof() and not self.waiting:
                return
        self.client[1].close()

    async def _pass_answer(self, head: Head, status: int, sink: asyncio.StreamWriter) -> bool:
        send(sink, head.raw)
        if status < 200 or status in {204, 304} or self.waiting[0].method == "HEAD":
            return True
        if "chunked" in head.headers.get("transfer-encoding", ""):
            return await relay_chunked(self.server[0], sink)
        if head.length is None:
            await relay(self.server[0], sink, 1 << 62)
            return False
        return await relay(self.server[0], sink, head.length)


async def _tunnel(client: Streams, server: Streams) -> None:
    """Take a CONNECT and pass bytes both ways until one side ends."""
    head = await read_head(client[0])
    if head is not None and head.start.startswith("CONNECT "):
        client[1].write(b"HTTP/1.1 200 Connected\r\n\r\n")
        ways = ((client[0], server[1]), (server[0], client[1]))
        tasks = [asyncio.create_task(relay(reader, writer, 1 << 62)) for reader, writer in ways]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            if not task.cancelled():
                task.exception()  # a side that vanished; the other one sees its connection end
    for _, writer in (client, server):
        writer.close()


async def _hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection and see it closed: a loop that ends before leaks it."""
    writer.close()
    try:
        async with asyncio.timeout(1):
            await writer.wait_closed()
    except (OSError, TimeoutError):
        writer.transport.abort()
        await asyncio.sleep(0)


def _never(_: Request) -> bool:
    return False


def _no_delay(_: Request) -> float:
    return 0.0


class Proxy:
    """Listens on a loopback port, in a thread of its own, while its context lasts.

    *refuse* says which requests are answered 503 SlowDown, *delay* how many seconds one waits
    before it goes on, *tls* makes it speak TLS to clients, *rewrite* changes request heads. A
    *tunnel* answers CONNECT, whatever for, with a connection to *upstream*, and looks no further.
    """

    def __init__(
        self,
        upstream: str,
        *,
        refuse: Callable[[Request], bool] = _never,
        delay: Callable[[Request], float] = _no_delay,
        tls: ssl.SSLContext | None = None,
        rewrite: Callable[[bytes], bytes] = bytes,
        tunnel: bool = False,
    ) -> None:
        address = urlsplit(upstream)
        self._upstream = (str(address.hostname), address.port or 80)
        self.refuse = refuse
        self.delay = delay
        self.rewrite = rewrite
        self._tls = tls
        self._tunnel = tunnel
        self.port = 0
        self.requests: list[Request] = []
        self._clock = itertools.count(1)
        self._loop = uvloop.new_event_loop()
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="proxy", daemon=True)

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return f"{'https' if self._tls else 'http'}://{HOST}:{self.port}"

    def tick(self) -> int:
        """Give the time: every call is later than the one before."""
        return next(self._clock)

    def note(self, head: Head) -> Request:
        """Record a request by its head."""
        method, target, _ = head.start.split(" ", 2)
        path, _, text = target.partition("?")
        query = dict(parse_qsl(text, keep_blank_values=True))
        bucket, _, key = unquote(path).lstrip("/").partition("/")
        kind = kind_of(method, key, query, head.headers)
        host = head.headers.get("host", "")
        request = Request(kind, method, bucket, key, query, host, self.tick())
        request.if_match = head.headers.get("if-match", "").strip('"')
        self.requests.append(request)
        return request

    def exchange(self, client: Streams, server: Streams) -> Exchange:
        """Begin to relay between a client and the server."""
        return Exchange(self, client, server)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if not self.port:
            raise RuntimeError("the proxy could not listen")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        exchanges: set[asyncio.Task[None]] = set()

        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            if task is not None:
                exchanges.add(task)
                task.add_done_callback(exchanges.discard)
            writers = [writer]
            try:
                server = await asyncio.open_connection(*self._upstream, limit=HEAD_LIMIT)
                writers.append(server[1])
                if self._tunnel:
                    await _tunnel((reader, writer), server)
                else:
                    await self.exchange((reader, writer), server).run()
            except (ConnectionError, asyncio.CancelledError, ssl.SSLError):
                return  # whoever was connected is gone, or the test has ended
            finally:
                for each in writers:
                    await _hang_up(each)

        server = await asyncio.start_server(
            accepted, HOST, 0, limit=HEAD_LIMIT, ssl=self._tls, backlog=1024
        )
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in tuple(exchanges):
            task.cancel()
        if exchanges:
            await asyncio.wait(exchanges)

    # --- what was seen -------------------------------------------------------------------------

    def clear(self) -> None:
        """Forget what was seen."""
        self.requests = []

    def seen(self, *kinds: str) -> list[Request]:
        """Give the requests of *kinds*."""
        return [request for request in tuple(self.requests) if request.kind in kinds]

    def counts(self) -> Counter[str]:
        """Give how many requests of each kind there were."""
        return Counter(request.kind for request in tuple(self.requests))

    def in_flight(self) -> int:
        """Say how many requests have begun and not ended."""
        return sum(not request.ended for request in tuple(self.requests))
