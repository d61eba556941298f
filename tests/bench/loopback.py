"""An event loop without sockets, threads or clocks: the same program takes the same steps each time.

Time moves on when nothing is left to do, threads' work is done at once, and connections lead to a
small S3 server in this process. What runs on it can be counted.
"""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import contextlib
import hashlib
import selectors
import threading
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock
from urllib.parse import parse_qs

from tests.bench.objects import _ENTRY, _HEAD, _MORE

SIZE = 4096  # bytes of every object
_MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"


class Bucket:
    """As many objects as asked for, all different."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.requests = 0
        self.stored: dict[str, bytes] = {}
        bodies = [f"{index:08d}".encode() * (SIZE // 8) for index in range(count)]
        self._objects = {
            f"d0000/{index:08d}": (body, hashlib.md5(body, usedforsecurity=False).hexdigest())
            for index, body in enumerate(bodies)
        }

    def answer(self, method: str, target: str, body: bytes) -> bytes:
        """Answer a request to the buckets "from" and "to" with the bytes of a response."""
        self.requests += 1
        # Taken apart by hand: urlsplit's instructions would be counted as s3flow's.
        path, _, query = target.partition("?")
        bucket, _, key = path[1:].partition("/")
        if method == "GET" and query == "tagging=":
            return _response(b"<Tagging><TagSet></TagSet></Tagging>", "application/xml")
        if method == "GET" and not key:
            return _response(self._page(bucket, parse_qs(query)), "application/xml")
        if method == "PUT":
            self.stored[key] = body
            return _response(b"", etag=hashlib.md5(body, usedforsecurity=False).hexdigest())
        if method == "GET" and bucket == "from":
            found, etag = self._objects[key]
            return _response(found, etag=etag)
        raise AssertionError(f"the server of the count knows no {method} {target}")

    def is_copied(self) -> bool:
        """Say whether every object has arrived."""
        return self.stored == {key: body for key, (body, _) in self._objects.items()}

    def _page(self, bucket: str, query: dict[str, list[str]]) -> bytes:
        keys = sorted(self._objects) if bucket == "from" else []
        after = query.get("start-after", query.get("continuation-token", [""]))[0]
        left = [key for key in keys if key > after]
        page, is_last = left[:1000], len(left) <= 1000
        more = "" if is_last else _MORE.format(last=page[-1])
        head = _HEAD.format(count=len(page), truncated=str(not is_last).lower(), more=more)
        entries = (_ENTRY.format(key=key, etag=self._objects[key][1]) for key in page)
        return (head + "".join(entries) + "</ListBucketResult>").encode()


def _response(body: bytes, kind: str = "application/octet-stream", etag: str = "") -> bytes:
    lines = ["HTTP/1.1 200 OK", "Server: loopback", f"Last-Modified: {_MODIFIED}"]
    lines += [f'ETag: "{etag}"'] if etag else []
    lines += [f"Content-Type: {kind}", f"Content-Length: {len(body)}", "Connection: keep-alive"]
    return "\r\n".join((*lines, "", "")).encode() + body


class _Transport(asyncio.Transport):
    """The near end of a connection to a `Bucket`; takes all that is written at once."""

    def __init__(self, loop: Loop, protocol: asyncio.BufferedProtocol, bucket: Bucket) -> None:
        super().__init__()
        self._loop, self._protocol, self._bucket = loop, protocol, bucket
        self._sent = bytearray()
        self._coming = bytearray()
        self._paused = self._closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._sent += data
        while (end := self._sent.find(b"\r\n\r\n")) >= 0:
            first, *lines = self._sent[:end].decode("latin-1").split("\r\n")
            fields = dict(line.lower().split(": ", 1) for line in lines)
            stop = end + 4 + int(fields.get("content-length", "0"))
            if len(self._sent) < stop:
                return
            method, target, _ = first.split(" ")
            self._coming += self._bucket.answer(method, target, bytes(self._sent[end + 4 : stop]))
            del self._sent[:stop]
            self._loop.call_uncounted(self._deliver)

    def _deliver(self) -> None:
        while self._coming and not self._paused and not self._closed:
            room = self._protocol.get_buffer(-1)
            size = min(len(room), len(self._coming))
            room[:size] = self._coming[:size]
            del self._coming[:size]
            self._protocol.buffer_updated(size)

    def pause_reading(self) -> None:
        self._paused = True

    def resume_reading(self) -> None:
        self._paused = False
        self._loop.call_uncounted(self._deliver)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever kept here."""

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.call_uncounted(self._protocol.connection_lost, None)

    abort = close


class _Clock(selectors.DefaultSelector):
    """Where a loop would sleep, its clock moves on instead."""

    now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if timeout is None and not events:
            raise RuntimeError("everything waits and nothing will happen")
        self.now += timeout or 0.0
        return events


class Loop(asyncio.SelectorEventLoop):
    """asyncio's loop with connections to *bucket*; *counts* says what was asked of it."""

    def __init__(self, bucket: Bucket) -> None:
        self._clock = _Clock()
        self._bucket = bucket
        self.counts: collections.Counter[str] = collections.Counter()
        super().__init__(self._clock)

    def time(self) -> float:
        return self._clock.now

    async def create_connection(self, factory: Any, *args: Any, **settings: Any) -> Any:
        protocol = factory()
        transport = _Transport(self, protocol, self._bucket)
        protocol.connection_made(transport)
        return transport, protocol

    def call_uncounted(self, callback: Callable[..., object], *args: Any) -> None:
        """Do the server's side soon."""
        super().call_soon(callback, *args)

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:
        self.counts["callbacks"] += 1
        return super().call_soon(callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:
        self.counts["timers"] += 1
        return super().call_at(when, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        self.counts["futures"] += 1
        return super().create_future()

    def create_task(self, coro: Any, **settings: Any) -> asyncio.Task[Any]:
        self.counts["tasks"] += 1
        return super().create_task(coro, **settings)

    def call_soon_threadsafe(self, callback: Any, *args: Any, context: Any = None) -> Any:
        self.counts["thread hops"] += 1
        return super().call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:
        self.counts["thread hops"] += 1
        future = super().create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001  the caller's, as from a thread
            future.set_exception(error)
        return future


class _AtOnce:
    """In place of the queue to aiosqlite's thread: whoever puts work in does it."""

    def __init__(self) -> None:
        self._ended = threading.Event()

    def put_nowait(self, item: tuple[asyncio.Future[Any] | None, Callable[[], Any]]) -> None:
        from aiosqlite import core

        future, function = item
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001  as aiosqlite does
            if future:
                future.get_loop().call_soon_threadsafe(core.set_exception, future, error)
            return
        if future:
            future.get_loop().call_soon_threadsafe(core.set_result, future, result)
        if result is core._STOP_RUNNING_SENTINEL:
            self._ended.set()

    def get(self) -> tuple[None, Callable[[], object]]:
        from aiosqlite import core

        self._ended.wait()
        return None, lambda: core._STOP_RUNNING_SENTINEL


def _submit(pool: object, work: Any, /, *args: Any, **kwargs: Any) -> Any:
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    try:
        future.set_result(work(*args, **kwargs))
    except Exception as error:  # noqa: BLE001  the caller's, as from a thread
        future.set_exception(error)
    return future


def _work(threads: object, job: Any) -> None:
    """Do what a thread of a folder's would do."""
    if job.take():
        job.work()


@contextlib.contextmanager
def no_threads() -> Iterator[None]:
    """Do at once what would be done in other threads: their turns are nobody's to foresee."""
    with (
        mock.patch("aiosqlite.core.SimpleQueue", _AtOnce),
        mock.patch("concurrent.futures.ThreadPoolExecutor.submit", _submit),
        mock.patch("s3flow.stores.local.threads.Threads._submit", _work),
        # It looks at the loop from beside, by the clock, and has nothing to do with objects.
        mock.patch("s3flow.observe.watchdog._Watch.run"),
    ):
        yield
