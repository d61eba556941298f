"""The disk when it is full, bodies that break off or lie, and how large ones are written."""

from __future__ import annotations

import asyncio
import base64
import ctypes
import errno
import gc
import hashlib
import os
import random
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3flow.errors import (
    AccessDenied,
    Conflict,
    Corrupted,
    NameRefused,
    NameTooLong,
    PathConflict,
    S3flowError,
    TargetFull,
    TargetUnavailable,
    TooLarge,
    Transient,
)
from s3flow.model import ObjectInfo
from s3flow.stores.local import LocalStore
from s3flow.stores.local.threads import _BUFFER_SIZE, _BUFFERS
from s3flow.stores.local.translate import translate
from s3flow.stores.memory import MemoryStore
from tests.contract.kit import ATTRIBUTES, body_of, pattern
from tests.faults import BitFlipping, Truncating

_LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    opened = LocalStore("disk", tmp_path)
    yield opened
    await opened.close()


async def put(store: LocalStore, key: bytes, data: bytes, chunk_size: int = 65_536) -> None:
    """Put and settle."""
    stored = await store.put_object("", key, body_of(data, chunk_size), ATTRIBUTES, md5=None)
    for error in await store.settle([stored]):
        if error is not None:
            raise error


# --- a full disk (B-70) --------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a directory with 1 MiB of room: a tmpfs, or writes that are refused beyond it."""
    root = tmp_path / "small"
    root.mkdir()
    if _LIBC.mount(b"none", os.fsencode(root), b"tmpfs", 0, b"size=1m") == 0:
        yield root
        gc.collect()
        assert _LIBC.umount2(os.fsencode(root), 2) == 0  # MNT_DETACH
        return
    room = 1_048_576
    pwrite, pwritev = os.pwrite, os.pwritev

    def check(size: int) -> None:
        used = sum(p.stat().st_blocks * 512 for p in root.rglob("*") if p.is_file())
        if used + size > room:
            raise OSError(errno.ENOSPC, "No space left on device")

    def bounded(fd: int, data: memoryview, offset: int) -> int:
        check(len(data))
        return pwrite(fd, data, offset)

    def bounded_pieces(fd: int, pieces: list[memoryview], offset: int) -> int:
        check(sum(map(len, pieces)))
        return pwritev(fd, pieces, offset)

    monkeypatch.setattr(os, "pwrite", bounded)
    monkeypatch.setattr(os, "pwritev", bounded_pieces)
    yield root


async def test_a_full_disk_blocks_and_leaves_no_trace_and_room_helps(small_disk: Path) -> None:
    store = LocalStore("small", small_disk)
    await put(store, b"key", b"former")
    await put(store, b"ballast", pattern(700_000))
    with pytest.raises(TargetFull, match=r"small:key.*No space left.*free space"):
        await put(store, b"key", pattern(500_000))
    assert sorted(p.name for p in small_disk.iterdir()) == ["ballast", "key"]
    assert (small_disk / "key").read_bytes() == b"former"
    (small_disk / "ballast").unlink()
    await put(store, b"key", pattern(500_000))
    assert (small_disk / "key").read_bytes() == pattern(500_000)
    await store.close()


async def test_a_disk_that_fills_during_an_upload_keeps_the_parts_that_are_there(
    small_disk: Path,
) -> None:
    store = LocalStore("small", small_disk)
    await put(store, b"ballast", pattern(500_000))
    upload_id = await store.create_multipart_upload("", b"key", ATTRIBUTES, 800_000)
    pieces = [pattern(400_000, 1), pattern(400_000, 2)]
    await store.upload_part("", b"key", upload_id, 1, 0, body_of(pieces[0], 65_536))
    with pytest.raises(TargetFull):
        await store.upload_part("", b"key", upload_id, 2, 400_000, body_of(pieces[1], 65_536))
    held = await store.list_parts("", b"key", upload_id)
    assert [part.number for part in held] == [1]
    (small_disk / "ballast").unlink()
    held.append(
        await store.upload_part("", b"key", upload_id, 2, 400_000, body_of(pieces[1], 65_536))
    )
    stored = await store.complete_multipart_upload("", b"key", upload_id, held)
    assert await store.settle([stored]) == [None]
    assert (small_disk / "key").read_bytes() == b"".join(pieces)
    await store.close()


async def test_a_disk_that_is_full_at_close_only_is_full(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = os.close

    def close_late(fd: int) -> None:
        name = Path(f"/proc/self/fd/{fd}").readlink().name
        close(fd)
        if name.startswith(".s3flow-"):
            raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr(os, "close", close_late)
    with pytest.raises(TargetFull, match="quota"):
        await store.put_object("", b"key", body_of(b"data"), ATTRIBUTES, md5=None)
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


async def test_a_write_that_is_cut_short_is_continued(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:1_000], at))
    for size in (5_001, 150_001):
        await put(store, b"key", pattern(size))
        assert (tmp_path / "key").read_bytes() == pattern(size)


@pytest.mark.parametrize("taken", [1, 1_000, 50_000, 60_000, 179_999])
async def test_a_write_of_several_pieces_that_is_cut_short_is_continued(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: int
) -> None:
    pwritev = os.pwritev
    pieces: list[int] = []

    def cut(fd: int, data: list[memoryview], offset: int) -> int:
        pieces.append(len(data))
        return pwritev(fd, [memoryview(b"".join(data))[:taken]], offset)

    monkeypatch.setattr(os, "pwritev", cut)
    data = pattern(400_000)
    body = Chunks(data, [50_000, 130_000, 1_000, 200_000, 19_000])
    stored = await store.put_object("", b"key", body, ATTRIBUTES, md5=hashlib.md5(data).digest())
    assert await store.settle([stored]) == [None]
    assert (tmp_path / "key").read_bytes() == data
    assert pieces == [2, 2, 1]


@pytest.mark.parametrize(
    ("number", "meaning"),
    [
        (errno.ENOSPC, TargetFull),
        (errno.EDQUOT, TargetFull),
        (errno.EROFS, TargetUnavailable),
        (errno.EIO, TargetUnavailable),
        (errno.ESTALE, TargetUnavailable),
        (errno.EMFILE, TargetUnavailable),
        (errno.ENAMETOOLONG, NameTooLong),
        (errno.EISDIR, PathConflict),
        (errno.ENOTDIR, PathConflict),
        (errno.EEXIST, PathConflict),
        (errno.EILSEQ, NameRefused),
        (errno.EACCES, AccessDenied),
        (errno.EFBIG, TooLarge),
        (errno.ENOENT, Conflict),
        (errno.EINTR, Transient),
    ],
)
def test_an_error_of_the_system_is_named_for_what_to_do(
    number: int, meaning: type[S3flowError]
) -> None:
    error = translate(OSError(number, os.strerror(number)), "disk:a/key")
    assert type(error) is meaning
    assert str(error).startswith(f"disk:a/key: {os.strerror(number)} ({errno.errorcode[number]});")


# --- wrong bytes (B-01, B-37) --------------------------------------------------------------------


@pytest.mark.parametrize("silent", [False, True])
@pytest.mark.parametrize("at", [0, 1, 40_000, 199_999])
async def test_a_cut_body_never_becomes_a_file(
    store: LocalStore, tmp_path: Path, at: int, silent: bool
) -> None:
    source = MemoryStore("memory")
    etag = source.put("bucket", b"key", pattern(200_000)).etag
    body = await Truncating(source, at, silent=silent).get_object("bucket", b"key", etag=etag)
    with pytest.raises(S3flowError, match="of 200000 bytes"):
        await store.put_object("", b"key", body, ATTRIBUTES, md5=None)
    body.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [10_000, 200_000])
async def test_a_flipped_bit_is_found_by_md5_and_by_digest(store: LocalStore, size: int) -> None:
    data = pattern(size)
    md5 = hashlib.md5(data).digest()
    flipping = BitFlipping(store, size - 1, times=2)
    with pytest.raises(Corrupted, match="disk:key"):
        await flipping.put_object("", b"key", body_of(data), ATTRIBUTES, md5=md5)
    stored = await flipping.put_object("", b"key", body_of(data), ATTRIBUTES, md5=None)
    assert await store.digest("", b"key", "md5", None) != md5
    await store.discard("", b"key", stored)
    assert await store.digest("", b"key", "md5", None) is None
    await put(store, b"key", data)
    assert await store.digest("", b"key", "md5", None) == md5


async def test_digests_come_from_the_disk_and_from_what_is_not_settled_yet(
    store: LocalStore,
) -> None:
    old, new = pattern(10_000, 1), pattern(2_500_000, 2)
    await put(store, b"key", old)
    stored = await store.put_object("", b"key", body_of(new, 65_536), ATTRIBUTES, md5=None)
    assert await store.digest("", b"key", "md5", None) == hashlib.md5(new).digest()
    await store.settle([stored])
    assert await store.digest("", b"key", "md5", None) == hashlib.md5(new).digest()
    pieces = (new[:2_000_000], new[2_000_000:])
    expected = hashlib.md5(b"".join(hashlib.md5(piece).digest() for piece in pieces)).digest()
    assert await store.digest("", b"key", "md5", 2_000_000) == expected
    crc = await store.digest("", b"key", "crc64nvme", None)
    memory = MemoryStore("memory", with_checksums=True).put("bucket", b"key", new)
    assert crc is not None
    assert memory.checksums["crc64nvme"] == base64.b64encode(crc).decode()


# --- large bodies in small chunks ----------------------------------------------------------------


class Chunks:
    """A body in chunks of given sizes."""

    def __init__(self, data: bytes, sizes: list[int]) -> None:
        self.info = ObjectInfo(len(data), "")
        self.size = len(data)
        self._data = memoryview(data)
        self._sizes = sizes
        self._read = 0

    async def read(self) -> memoryview:
        """Give the next chunk."""
        size = self._sizes[self._read % len(self._sizes)]
        self._read += 1
        chunk, self._data = self._data[:size], self._data[size:]
        return memoryview(bytearray(chunk))

    def close(self) -> None:
        """Nothing to close."""


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(_BUFFER_SIZE - 2, 2 * _BUFFER_SIZE + 2),
    sizes=st.lists(st.integers(1_000, _BUFFER_SIZE * 2), min_size=1, max_size=4),
)
def test_chunks_of_any_size_make_the_same_file(
    tmp_path_factory: pytest.TempPathFactory, size: int, sizes: list[int]
) -> None:
    data = random.Random(size).randbytes(size)
    root = tmp_path_factory.mktemp("root")

    async def run() -> None:
        store = LocalStore("disk", root)
        stored = await store.put_object("", b"key", Chunks(data, sizes), ATTRIBUTES, md5=None)
        await store.settle([stored])
        await store.close()

    asyncio.run(run())
    assert (root / "key").read_bytes() == data
    (root / "key").unlink()


async def test_more_large_bodies_than_buffers_arrive_as_well(store: LocalStore) -> None:
    contents = {b"key-%d" % n: pattern(70_000, n) for n in range(_BUFFERS + 10)}
    await asyncio.gather(*(put(store, key, data, 7_000) for key, data in contents.items()))
    for key, data in contents.items():
        assert await store.digest("", key, "md5", None) == hashlib.md5(data).digest()
    assert store._threads._lent == 0
    assert len(store._threads._free) <= _BUFFERS


async def test_small_bodies_need_no_thread(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread(*args: object) -> None:
        raise AssertionError("a thread was used")

    monkeypatch.setattr(store._threads, "_submit", no_thread)
    await store.put_object("", b"d/key", body_of(pattern(65_536)), ATTRIBUTES, md5=None)


async def test_large_bodies_are_not_written_on_the_loop(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[str] = set()
    pwritev = os.pwritev

    def watched(fd: int, data: list[memoryview], offset: int) -> int:
        threads.add(threading.current_thread().name)
        return pwritev(fd, data, offset)

    monkeypatch.setattr(os, "pwritev", watched)
    await put(store, b"key", pattern(300_000))
    assert threads
    assert all(name.startswith("s3flow-disk") for name in threads)
