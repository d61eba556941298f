"""Read and write the bytes of files: bodies in, digests out, and the walk over what was left behind."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from awscrt import checksums

from s3flow.errors import BadAnswer, PathConflict, Truncated
from s3flow.model import MIB
from s3flow.stores.local.journal import SUFFIX
from s3flow.stores.local.paths import ROOT_MARK, TEMP_PREFIX, Directories, Directory, remove

if TYPE_CHECKING:
    from s3flow.ports import Body, Digest
    from s3flow.stores.local.threads import Threads

INLINE = 64 * 1024  # bytes: up to here a thread costs more than the write
TOKEN_ATTRIBUTE = "user.s3flow.transfer"  # noqa: S105 - the name of an extended attribute
ALGORITHMS = frozenset({"md5", "crc64nvme"})


class Crc64Nvme:
    """CRC64NVME with hashlib's manner."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: memoryview, /) -> None:
        """Add bytes."""
        self._value = checksums.crc64nvme(data, self._value)

    def digest(self) -> bytes:
        """Give the value as S3 does, big-endian."""
        return self._value.to_bytes(8, "big")


def write_at(fd: int, chunk: memoryview, offset: int, digest: Digest | None) -> None:
    """Write a whole chunk, and hash it."""
    if digest is not None:
        digest.update(chunk)
    written = os.pwrite(fd, chunk, offset)
    while written < len(chunk):  # interrupted, or nearly full: the next call says which
        written += os.pwrite(fd, chunk[written:], offset + written)


def write_pieces(fd: int, pieces: Sequence[memoryview], offset: int, digest: Digest | None) -> None:
    """Write pieces one after the other, and hash them."""
    if digest is not None:
        for piece in pieces:
            digest.update(piece)
    written = os.pwritev(fd, pieces, offset)
    for piece in pieces:  # interrupted, or nearly full: the next call says which
        if written < len(piece):
            write_at(fd, piece[written:], offset + written, None)
        offset += len(piece)
        written = max(written - len(piece), 0)


class _Writer:
    """Writes a large body from threads: small chunks are gathered and go with the next large one.

    A chunk of 64 KiB costs a thread more to be told of than to write; one of 256 KiB, as most of
    them are, costs more to be copied than to be told of.
    """

    def __init__(self, fd: int, offset: int, threads: Threads, digest: Digest | None) -> None:
        self._fd = fd
        self._offset = offset
        self._threads = threads
        self._digest = digest
        self._stage = threads.borrow()
        self._held = 0

    async def write(self, chunk: memoryview) -> None:
        """Take a chunk; it may be overwritten afterwards."""
        stage, held = self._stage, self._held
        if stage is None or held + len(chunk) > len(stage):
            await self._write(chunk)
            return
        self._held += len(chunk)
        stage[held : self._held] = chunk

    async def flush(self) -> None:
        """Write what is held."""
        if self._held:
            await self._write(None)

    def close(self) -> None:
        """Give the buffer back: no thread uses it any more."""
        if self._stage is not None:
            self._threads.give_back(self._stage)
            self._stage = None

    async def _write(self, chunk: memoryview | None) -> None:
        pieces = [chunk] if chunk is not None else []
        if self._stage is not None and self._held:
            pieces.insert(0, self._stage[: self._held])
        await self._threads.run(write_pieces, self._fd, pieces, self._offset, self._digest)
        self._offset += sum(map(len, pieces))
        self._held = 0


async def fill(
    fd: int, offset: int, body: Body, at: str, threads: Threads, digest: Digest | None = None
) -> None:
    """Write a body at *offset*: never a byte beyond its size, and all of them, or an error."""
    writer = _Writer(fd, offset, threads, digest) if body.size > INLINE else None
    done = 0
    try:
        while chunk := await body.read():
            if done + len(chunk) > body.size:
                raise BadAnswer(f"{at}: more than the announced {body.size} bytes arrived")
            if writer is None:
                write_at(fd, chunk, offset + done, digest)
            else:
                await writer.write(chunk)
            done += len(chunk)
        if writer is not None:
            await writer.flush()
    finally:
        if writer is not None:
            writer.close()
    if done < body.size:
        raise Truncated(f"{at}: {done} of {body.size} bytes arrived")


def digest_name(
    directory: Directory,
    name: bytes,
    algorithm: str,
    part_size: int | None,
    stop: threading.Event,
) -> bytes | None:
    """Hash the file *name*; None when there is none, or when stopped."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory.fd)
    except FileNotFoundError:
        return None
    try:
        return digest_file(fd, algorithm, part_size, stop)
    finally:
        os.close(fd)


def digest_empty(algorithm: str, part_size: int | None) -> bytes:
    """Hash no bytes at all."""
    digest = new_digest(algorithm).digest()
    return digest if part_size is None else hashlib.md5(digest, usedforsecurity=False).digest()


def new_digest(algorithm: str) -> Digest:
    """Start a digest of `ALGORITHMS`."""
    return hashlib.md5(usedforsecurity=False) if algorithm == "md5" else Crc64Nvme()


def digest_file(
    fd: int, algorithm: str, part_size: int | None, stop: threading.Event
) -> bytes | None:
    """Hash an open file; *part_size*: MD5 over the MD5s of its parts. None when stopped."""
    if part_size is None:
        return _digest_span(fd, 0, None, algorithm, stop)
    size = os.fstat(fd).st_size
    md5s = hashlib.md5(usedforsecurity=False)
    for start in range(0, max(size, 1), part_size):
        digest = _digest_span(fd, start, part_size, "md5", stop)
        if digest is None:
            return None
        md5s.update(digest)
    return md5s.digest()


def set_modified(fd: int, modified: int) -> None:
    """Give the file the object's time (milliseconds since the epoch), if it has one."""
    if modified:
        os.utime(fd, ns=(modified * 1_000_000, modified * 1_000_000))


def walk_files(
    root: Path, start: bytes = b"", stop: threading.Event | None = None, *, names: bytes = b""
) -> Iterator[tuple[bytes, os.DirEntry[bytes]]]:
    """Give our own unfinished files and journals from *start* below *root* on, until *stop* is set.

    Each comes with its directory's path below *root*. Of the directories in *start*, those are
    entered whose names begin with *names*. Links are not followed; directories that vanish are
    passed over, and those that may not be read (lost+found): nothing in them is ours.
    """
    pending = [start]
    while pending and not (stop and stop.is_set()):
        below = pending.pop()
        try:
            entries = os.scandir(os.fsencode(root) + b"/" + below)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if below == start and not entry.name.startswith(names):
                        continue
                    pending.append(below + b"/" + entry.name if below else entry.name)
                elif entry.name.startswith(TEMP_PREFIX) and entry.name != ROOT_MARK:
                    yield below, entry


def sweep(directories: Directories, older_than: float, stop: threading.Event) -> int:
    """Remove what crashes left behind before *older_than* (seconds since the epoch): B-72.

    Kept are uploads that can go on: data with a journal, and a journal with data. *stop* ends the
    walk early, with nothing removed.
    """
    found: dict[bytes, dict[bytes, float]] = {}
    for below, entry in walk_files(directories.root_path, stop=stop):
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue  # work goes on beside the walk: it has got its name meanwhile
        if stat.S_ISREG(status.st_mode):
            # Not st_mtime: that is the object's time already.
            found.setdefault(below, {})[entry.name] = status.st_ctime
    removed = 0
    if stop.is_set():
        return removed
    for below, names in found.items():
        try:
            directory = directories.open(below)
        except (FileNotFoundError, PathConflict):
            continue  # somebody removed it meanwhile, and what was in it
        for name, changed in names.items():
            other = name.removesuffix(SUFFIX) if name.endswith(SUFFIX) else name + SUFFIX
            if other not in names and changed < older_than:
                removed += remove(directory, name)
    return removed


def _digest_span(
    fd: int, start: int, size: int | None, algorithm: str, stop: threading.Event
) -> bytes | None:
    digest = new_digest(algorithm)
    buffer = memoryview(bytearray(MIB))
    end = None if size is None else start + size
    os.posix_fadvise(fd, start, size or 0, os.POSIX_FADV_SEQUENTIAL)
    while not stop.is_set():
        room = buffer if end is None else buffer[: end - start]
        got = os.preadv(fd, [room], start) if room else 0
        if not got:
            return digest.digest()
        digest.update(buffer[:got])
        start += got
    return None
