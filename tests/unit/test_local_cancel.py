"""Callers of the local store that are cancelled at any instant."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from s3flow.errors import ConnectionLost
from s3flow.stores.local import LocalStore
from s3flow.stores.local.threads import Threads
from s3flow.stores.memory import MemoryStore
from tests.contract.kit import ATTRIBUTES, body_of, pattern
from tests.faults import NthCallFails


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    opened = LocalStore("disk", tmp_path)
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def spare() -> Iterator[None]:
    """Leave out what was there before where cycles are looked for: hundreds of times in one test."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


async def put(store: LocalStore, key: bytes, data: bytes, chunk_size: int = 65_536) -> None:
    """Put and settle."""
    stored = await store.put_object("", key, body_of(data, chunk_size), ATTRIBUTES, md5=None)
    for error in await store.settle([stored]):
        if error is not None:
            raise error


def open_files() -> int:
    """Count this process's descriptors, after what refers to them is gone."""
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_a_cancelled_caller_waits_until_its_thread_is_done() -> None:
    threads = Threads("test")
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait()
        done.set()

    task = asyncio.create_task(threads.run(work))
    await asyncio.to_thread(begun.wait)
    try:
        for _ in range(3):  # not even an impatient one lets go
            task.cancel()
            for _ in range(5):
                await asyncio.sleep(0)
            assert not task.done()
    finally:
        go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done.is_set()
    await threads.close()


async def test_an_error_that_comes_after_the_cancellation_disturbs_nobody() -> None:
    threads = Threads("test")
    begun, go_on = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait()
        raise OSError(errno.EIO, "Input/output error")

    task = asyncio.create_task(threads.run(work))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    gc.collect()
    await threads.close()


async def test_what_is_cancelled_before_a_thread_is_free_is_never_done() -> None:
    threads = Threads("test")
    go_on = threading.Event()
    done: list[int] = []
    busy = [asyncio.create_task(threads.run(go_on.wait)) for _ in range(20)]
    late = asyncio.create_task(threads.run(done.append, 1))
    last = asyncio.create_task(threads.run(done.append, 2))
    await asyncio.sleep(0)
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late  # at once: all threads are still busy
    go_on.set()
    await asyncio.gather(*busy, last)
    await threads.close()
    assert done == [2]


async def test_a_cancelled_digest_ends_before_the_file_does(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(store, b"key", pattern(3 * 1024 * 1024))
    begun, go_on = threading.Event(), threading.Event()
    reads = 0
    preadv = os.preadv

    def slow(fd: int, buffers: list[memoryview], offset: int) -> int:
        nonlocal reads
        reads += 1
        begun.set()
        go_on.wait()
        return preadv(fd, buffers, offset)

    monkeypatch.setattr(os, "preadv", slow)
    task = asyncio.create_task(store.digest("", b"key", "md5", None))
    await asyncio.to_thread(begun.wait)
    task.cancel()
    await asyncio.sleep(0)
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert reads == 1


class CancelAt:
    """Cancels the caller at its *n*-th wait for a thread: before, during or after the work."""

    def __init__(self, threads: Threads, n: int, moment: str) -> None:
        self._run_until = threads.run_until
        self.left = n
        self.moment = moment
        threads.run_until = self  # type: ignore[method-assign,assignment]

    async def __call__(self, stop: Any, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self.left -= 1
        task = asyncio.current_task()
        assert task is not None
        if self.left == 0 and self.moment == "before":
            task.cancel()
        if self.left == 0 and self.moment == "during":
            loop = asyncio.get_running_loop()

            def cancelling(*args: Any, **kwargs: Any) -> Any:
                loop.call_soon_threadsafe(task.cancel)
                return work(*args, **kwargs)

            return await self._run_until(stop, cancelling, *args, **kwargs)
        answer = await self._run_until(stop, work, *args, **kwargs)
        if self.left == 0 and self.moment == "after":
            task.cancel()
            await asyncio.sleep(0)
        return answer


async def cancelled_everywhere(
    store: LocalStore, work: Callable[[], Awaitable[None]], check: Callable[[], Awaitable[None]]
) -> int:
    """Run *work*, cancelled at every wait and moment in turn, and *check* each time."""
    cancelled = 0
    for moment in ("before", "during", "after"):
        for n in range(1, 100):
            cancel = CancelAt(store._threads, n, moment)
            task = asyncio.ensure_future(work())
            with contextlib.suppress(asyncio.CancelledError):
                await task
            del store._threads.run_until  # type: ignore[method-assign]
            await check()
            if cancel.left > 0:
                break  # *work* waits less often than that
            cancelled += 1
    return cancelled


async def test_a_put_cancelled_at_every_wait_leaves_old_or_new(
    store: LocalStore, tmp_path: Path
) -> None:
    old, new = b"old", pattern(1_300_000)
    await put(store, b"key", old)
    files = open_files()

    async def work() -> None:
        await put(store, b"key", new)

    async def check() -> None:
        assert (tmp_path / "key").read_bytes() in (old, new)
        if (tmp_path / "key").read_bytes() == new:
            await put(store, b"key", old)
        assert open_files() <= files
        assert store._threads._lent == 0

    assert await cancelled_everywhere(store, work, check) >= 9
    await put(store, b"key", new)
    assert [p.name for p in tmp_path.iterdir()] == ["key"]  # nor did an attempt leave anything


async def test_an_upload_cancelled_at_every_wait_goes_on(store: LocalStore, tmp_path: Path) -> None:
    pieces = [pattern(700_000, 1), pattern(700_000, 2)]
    whole = b"".join(pieces)
    await put(store, b"key", b"old")
    files = open_files()
    ids: list[str] = []

    async def work() -> None:
        ids.append(await store.create_multipart_upload("", b"key", ATTRIBUTES, len(whole)))
        parts = [
            await store.upload_part("", b"key", ids[-1], n + 1, n * 700_000, body_of(piece, 65_536))
            for n, piece in enumerate(pieces)
        ]
        stored = await store.complete_multipart_upload("", b"key", ids[-1], parts)
        await store.settle([stored])

    async def check() -> None:
        assert (tmp_path / "key").read_bytes() in (b"old", whole)
        assert open_files() <= files
        uploads = await store.list_multipart_uploads("", b"")
        for upload in uploads:
            for part in await store.list_parts("", b"key", upload.upload_id):
                data = (tmp_path / f".s3flow-{upload.upload_id}").read_bytes()
                start = (part.number - 1) * 700_000
                assert data[start : start + 700_000] == pieces[part.number - 1]
            await store.abort_multipart_upload("", b"key", upload.upload_id)
        assert [p.name for p in tmp_path.iterdir()] == ["key"]
        await put(store, b"key", b"old")

    assert await cancelled_everywhere(store, work, check) >= 15


async def test_a_body_that_fails_at_any_read_leaves_nothing_open(
    store: LocalStore, tmp_path: Path
) -> None:
    source = MemoryStore("memory", chunk_size=20_000)
    etag = source.put("bucket", b"key", pattern(100_000)).etag
    files = open_files()
    for n in range(2, 8):
        failing = NthCallFails(source, n, ConnectionLost("the source went away"))
        body = await failing.get_object("bucket", b"key", etag=etag)
        with pytest.raises(ConnectionLost, match="the source went away"):
            await store.put_object("", b"key", body, ATTRIBUTES, md5=None)
        body.close()
    assert list(tmp_path.iterdir()) == []
    assert open_files() <= files
