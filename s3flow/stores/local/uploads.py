"""Unfinished uploads: a data file of full size and its journal, both beside the future object."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from s3flow.crashpoints import passing
from s3flow.errors import BadAnswer, NameRefused, NoSuchUpload, PathConflict
from s3flow.model import Attributes, Part, Upload
from s3flow.stores.local import files, journal
from s3flow.stores.local.journal import Header, Journal, Record
from s3flow.stores.local.paths import TEMP_PREFIX, Directories, Directory, remove, split
from s3flow.stores.local.settle import sync_names

if TYPE_CHECKING:
    from s3flow.ports import Body
    from s3flow.stores.local.threads import Threads

_ID = re.compile(r"[0-9a-f]{16}")
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW
_WRITE = os.O_WRONLY | os.O_NOFOLLOW


class Place(NamedTuple):
    """Where an upload's files are, and for which object."""

    directory: bytes
    bucket: str
    key: bytes
    upload_id: str
    at: str

    @property
    def data(self) -> bytes:
        """The data file's name."""
        return TEMP_PREFIX + self.upload_id.encode()

    @property
    def journal(self) -> bytes:
        """The journal's name."""
        return self.data + journal.SUFFIX

    def lost(self) -> NoSuchUpload:
        """Say that the upload is not there."""
        return NoSuchUpload(f"{self.at}: there is no upload {self.upload_id!r}; it begins again")


class Whole(NamedTuple):
    """A data file with all of its parts."""

    directory: Directory
    inode: int
    size: int


class Uploads:
    """The unfinished uploads below a root."""

    def __init__(self, directories: Directories, threads: Threads) -> None:
        self._directories = directories
        self._threads = threads
        self._known: dict[str, Journal] = {}

    async def create(
        self, directory: Directory, place: Place, attributes: Attributes, size: int
    ) -> None:
        """Make the files of an upload whose id is `new_id`'s."""
        header = Header(
            place.bucket,
            place.key,
            size,
            attributes.modified,
            attributes.token,
            int(time.time() * 1000),
        )
        try:
            await self._threads.run(_make, directory, place, header)
        except BaseException:
            _unlink(directory, place)
            raise
        self._known[place.upload_id] = Journal(header)

    async def add(self, place: Place, number: int, offset: int, body: Body) -> Part:
        """Write a part and note it. Until then its former self, if there was one, is void."""
        directory = self._open(place)
        known = self._known.get(place.upload_id)
        if known is None:
            known = await self._threads.run(_read, directory, place)
            known = self._known.setdefault(place.upload_id, known)
        if offset < 0 or offset + body.size > known.header.size:
            raise BadAnswer(
                f"{place.at}: part {number} with {body.size} bytes at {offset} is outside of"
                f" the object's {known.header.size}"
            )
        with (
            _opened(directory, place.data, _WRITE, place) as data,
            _opened(directory, place.journal, _APPEND, place) as log,
        ):
            if number in known.parts:
                # Neither a crash nor a failure may leave half-replaced bytes that count as a part.
                await self._threads.run(journal.append, log, journal.void_line(number))
            known.parts[number] = Record(offset, body.size)
            await files.fill(data, offset, body, place.at, self._threads)
            line = journal.part_line(number, offset, body.size)
            await self._threads.run(_commit, data, log, line)
        return Part(number, body.size, "")

    async def parts(self, place: Place) -> list[Part]:
        """Give the parts that are on disk."""
        known = await self._threads.run(_read, self._open(place), place)
        return [
            Part(number, record.size, "")
            for number, record in sorted(known.parts.items())
            if record.offset + record.size <= known.header.size
        ]

    async def complete(self, place: Place, parts: Sequence[Part]) -> Whole:
        """Check that *parts* are all there and make the whole."""
        directory = self._open(place)
        known = await self._threads.run(_read, directory, place)
        stop = 0
        for part in parts:
            record = known.parts.get(part.number)
            if record is None or record != (stop, part.size):
                raise BadAnswer(
                    f"{place.at}: part {part.number} of {part.size} bytes at {stop} is not on disk"
                    f" (the journal has {record}); missing parts are sent again"
                )
            stop += part.size
        if stop != known.header.size:
            raise BadAnswer(
                f"{place.at}: the parts make {stop} bytes of {known.header.size};"
                " missing parts are sent again"
            )
        with _opened(directory, place.data, _WRITE, place) as data:
            files.set_modified(data, known.header.modified)
            inode = os.fstat(data).st_ino
        self._known.pop(place.upload_id, None)
        return Whole(directory, inode, stop)

    async def abort(self, place: Place) -> None:
        """Remove the files; absent ones are fine."""
        self._known.pop(place.upload_id, None)
        with suppress(FileNotFoundError, NoSuchUpload):
            _unlink(self._open(place), place)

    def unfinished(self, bucket: str, prefix: bytes) -> list[Upload]:
        """Walk for journals of keys that start with *prefix*. Blocks."""
        try:
            start, name = split(bucket, prefix + b"x")
            self._directories.open(start)
        except (NameRefused, FileNotFoundError, PathConflict):
            return []  # no key of ours can lie there
        found = []
        root = self._directories.root_path
        for below, entry in files.walk_files(root, start, names=name[:-1]):
            if not entry.name.endswith(journal.SUFFIX):
                continue
            known = journal.read(self._directories.open(below), entry.name)
            if known is None or known.header.bucket != bucket:
                continue
            if known.header.key.startswith(prefix):
                name = entry.name.removeprefix(TEMP_PREFIX).removesuffix(journal.SUFFIX)
                found.append(Upload(known.header.key, name.decode(), known.header.initiated))
        return sorted(found)

    def _open(self, place: Place) -> Directory:
        if not _ID.fullmatch(place.upload_id):
            raise place.lost()  # another store's, and no name to look for on disk
        try:
            return self._directories.open(place.directory)
        except FileNotFoundError as error:
            raise place.lost() from error


def new_id() -> str:
    """Choose an upload id."""
    return secrets.token_hex(8)


def _make(directory: Directory, place: Place, header: Header) -> None:
    # The journal first: data without one is taken for a crash's leftover.
    log = os.open(place.journal, _CREATE | os.O_APPEND, 0o666, dir_fd=directory.fd)
    try:
        journal.append(log, journal.header_line(header))
    finally:
        os.close(log)
    passing("journal.begun")
    data = os.open(place.data, _CREATE, 0o666, dir_fd=directory.fd)
    try:
        os.ftruncate(data, header.size)
        with suppress(OSError):
            # Not every file system has attributes. Where it has, the finished file tells a restart
            # that it is this upload's; elsewhere the object is sent again.
            os.setxattr(data, files.TOKEN_ATTRIBUTE, header.token.encode())
        os.fsync(data)
    finally:
        os.close(data)
    sync_names(directory)


def _commit(data: int, log: int, line: bytes) -> None:
    os.fdatasync(data)
    passing("part.synced")
    journal.append(log, line)
    passing("part.noted")


def _read(directory: Directory, place: Place) -> Journal:
    known = journal.read(directory, place.journal)
    if known is None or (known.header.bucket, known.header.key) != (place.bucket, place.key):
        raise place.lost()
    with _opened(directory, place.data, _WRITE, place) as data:
        if os.fstat(data).st_size != known.header.size:
            raise place.lost()
    return known


def _unlink(directory: Directory, place: Place) -> None:
    remove(directory, place.journal)
    remove(directory, place.data)


@contextmanager
def _opened(directory: Directory, name: bytes, flags: int, place: Place) -> Iterator[int]:
    try:
        fd = os.open(name, flags, dir_fd=directory.fd)
    except FileNotFoundError as error:
        raise place.lost() from error
    try:
        yield fd
    finally:
        os.close(fd)
