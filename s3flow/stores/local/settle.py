"""Make files durable, then visible: sync data, rename, sync directories, for many at once (B-71).

Runs in a thread. In this order a power loss leaves the old file, or the new one, whole.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress

from s3flow.crashpoints import passing
from s3flow.errors import Conflict, S3flowError, TargetUnavailable
from s3flow.stores.local.paths import Directories, Directory, is_file, remove
from s3flow.stores.local.translate import translate

# From here on one syncfs(2) is cheaper than an fsync each: both flush the disk's cache once a call.
SYNCFS_FROM = 4
_LIBC = ctypes.CDLL(None, use_errno=True)


class Disks:
    """The file systems that a store writes to, and how often writing one out has failed.

    Linux tells of failed writes once to each open descriptor, whoever's they were (errseq_t), and
    takes the pages for clean: a second try succeeds over lost bytes. So one descriptor is asked for
    each file system, open since before the first write, and what was under way at a failure counts
    for nothing.
    """

    def __init__(self) -> None:
        self._asked: dict[int, Directory] = {}  # by device
        self._failures: dict[int, int] = {}
        self._alone = threading.Lock()

    def failures(self, directory: Directory) -> int:
        """Say how often writing out has failed where *directory* is. Ask before the first write."""
        device = directory.device
        if device not in self._asked:
            self._failures.setdefault(device, 0)
            self._asked.setdefault(device, directory)
        return self._failures[device]

    def write_out(self, directory: Directory) -> None:
        """Write out all that is dirty where *directory* is, and wait."""
        self.failures(directory)
        with self._alone:  # who comes second must not find a failure told and not noted
            try:
                syncfs(self._asked[directory.device].fd)
            except OSError:
                self._failures[directory.device] += 1
                raise

    def flush(self, directory: Directory) -> None:
        """Write out the file system of *directory*, whatever the kernel says of failures."""
        if hasattr(_LIBC, "syncfs"):
            self.write_out(directory)
        else:
            os.sync()


class Note:
    """What is left to do for a stored object: kept in `Stored.settle`.

    *temp* None: a directory marker. *failures*: of its disk, when it was begun. *journal*: the
    upload's, removed last.
    """

    __slots__ = (
        "at",
        "directory",
        "done",
        "ended",
        "failures",
        "inode",
        "journal",
        "name",
        "place",
        "temp",
    )

    def __init__(
        self,
        directory: Directory,
        name: bytes,
        temp: bytes | None,
        place: tuple[str, bytes],
        at: str,
        failures: int,
    ) -> None:
        self.directory = directory
        self.name = name
        self.temp = temp
        self.place = place
        self.at = at
        self.failures = failures
        self.journal: bytes | None = None
        self.done = False  # the object is durable under its key
        self.ended = False  # it is, or it never will be
        self.inode = 0

    def discard(self) -> None:
        """Remove the unfinished file, and the journal with it; harmless twice."""
        self.ended = True
        for name in (self.journal, self.temp):
            if name is not None and not self.done:
                # What cannot be removed now (the disk is gone) is swept at the next start.
                with suppress(OSError):
                    remove(self.directory, name)

    def remove(self) -> None:
        """Remove the file wherever it is by now, but not one that took its place."""
        if not self.done:
            self.discard()
        elif self.temp is not None:
            status = is_file(self.directory, self.name)
            if status is not None and status.st_ino == self.inode:
                remove(self.directory, self.name)
                sync_names(self.directory)


class Settlement:
    """One batch of notes on its way to the disk."""

    def __init__(self, directories: Directories, disks: Disks, notes: Sequence[Note]) -> None:
        self._directories = directories
        self._disks = disks
        self._notes = notes
        self._errors: dict[int, S3flowError] = {}

    def run(self) -> list[Exception | None]:
        """Settle all; an item's error is its own. What failed is removed, to be sent again."""
        try:
            self._directories.check_root()
        except S3flowError as error:
            self._fail(range(len(self._notes)), error)
        todo = [index for index, note in enumerate(self._notes) if not note.done]
        self._sync_data(todo)
        passing("files.synced")
        self._rename(todo)
        self._sync_directories(todo)
        passing("folders.synced")
        for index in todo:
            self._end(index)
        return [self._errors.get(index) for index in range(len(self._notes))]

    def _sync_data(self, todo: Sequence[int]) -> None:
        by_device: defaultdict[int, list[int]] = defaultdict(list)
        for index in self._left(todo):
            if self._notes[index].temp is not None:
                by_device[self._notes[index].directory.device].append(index)
        for indexes in by_device.values():
            if len(indexes) >= SYNCFS_FROM and SYNCFS_REPORTS:
                try:
                    self._disks.write_out(self._notes[indexes[0]].directory)
                except OSError as error:
                    self._fail_with(indexes, error)
                continue
            for index in indexes:
                self._sync_file(index)
        self._distrust(todo)

    def _distrust(self, todo: Sequence[int]) -> None:
        """Fail what may have been lost when others' files were written out, who alone were told."""
        for index in self._left(todo):
            note = self._notes[index]
            if note.temp is not None and note.failures != self._disks.failures(note.directory):
                lost = (
                    f"{note.at}: its disk failed to write while it was under way; it is sent again"
                )
                self._errors[index] = TargetUnavailable(lost)

    def _sync_file(self, index: int) -> None:
        note = self._notes[index]
        try:
            fd = os.open(note.temp or b"", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=note.directory.fd)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        except OSError as error:
            self._fail_with((index,), error)

    def _rename(self, todo: Sequence[int]) -> None:
        in_place: dict[Directory, bool] = {}
        for index in self._left(todo):
            note = self._notes[index]
            directory = note.directory
            if directory not in in_place:
                in_place[directory] = self._directories.in_place(directory)
            if not in_place[directory]:
                moved = f"{note.at}: its directory was moved away meanwhile; it is tried again"
                self._errors[index] = Conflict(moved)
                self._directories.close()  # the next try walks anew
            elif note.temp is not None:
                self._rename_one(index, note.temp)

    def _rename_one(self, index: int, temp: bytes) -> None:
        note = self._notes[index]
        fd = note.directory.fd
        try:
            # Two spellings of a name must not pass the check side by side.
            with self._directories.alone():
                if self._directories.folds:
                    self._directories.check_spelling(note.directory, note.name)
                os.rename(temp, note.name, src_dir_fd=fd, dst_dir_fd=fd)
            passing("file.renamed")
        except OSError as error:
            self._fail_with((index,), error)
        except S3flowError as error:
            self._errors[index] = error

    def _sync_directories(self, todo: Sequence[int]) -> None:
        """Sync each directory that has a new entry: renamed files, and directories made for them."""
        users: defaultdict[bytes, list[int]] = defaultdict(list)
        made: dict[bytes, int] = {}
        opened: dict[bytes, Directory] = {}
        for index in self._left(todo):
            directory = self._notes[index].directory
            opened[directory.path] = directory
            above = self._directories.unsynced_above(directory.path)
            made |= above
            for path in (directory.path, *above):
                users[path].append(index)
        for path in users:
            if path not in opened:
                try:
                    opened[path] = self._directories.open(path)
                except OSError as error:
                    self._fail_with(users[path], error)
                except S3flowError as error:
                    self._fail(users[path], error)
        self._sync_opened(opened, users)
        for path, when in made.items():
            if not any(index in self._errors for index in users[path]):
                self._directories.synced(path, when)

    def _sync_opened(self, opened: dict[bytes, Directory], users: dict[bytes, list[int]]) -> None:
        by_device: defaultdict[int, list[Directory]] = defaultdict(list)
        for directory in opened.values():
            by_device[directory.device].append(directory)
        for directories in by_device.values():
            many = len(directories) >= SYNCFS_FROM and SYNCFS_REPORTS
            for directory in directories[:1] if many else directories:
                try:
                    if many:
                        self._disks.write_out(directory)
                    else:
                        sync_names(directory)
                except OSError as error:
                    affected = directories if many else [directory]
                    for failed in affected:
                        self._fail_with(users[failed.path], error)

    def _end(self, index: int) -> None:
        note = self._notes[index]
        if index in self._errors:
            note.discard()
            return
        if note.journal is not None:
            # The object is in place: a journal that stays behind is only swept later.
            with suppress(OSError):
                remove(note.directory, note.journal)
            passing("journal.removed")
        note.done = note.ended = True

    def _left(self, todo: Sequence[int]) -> list[int]:
        return [index for index in todo if index not in self._errors]

    def _fail(self, indexes: Iterable[int], error: S3flowError) -> None:
        for index in indexes:
            self._errors.setdefault(index, error)

    def _fail_with(self, indexes: Iterable[int], error: OSError) -> None:
        for index in indexes:
            self._errors.setdefault(index, translate(error, self._notes[index].at))


def syncfs(fd: int) -> None:
    """Write out the whole file system that *fd* is on, and wait."""
    if _LIBC.syncfs(fd) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def sync_names(directory: Directory) -> None:
    """Make durable what names a directory has."""
    try:
        os.fsync(directory.fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        # Directories of 9p and of VirtualBox's folders have no fsync, and Linux says so by this.
        if hasattr(_LIBC, "syncfs"):
            syncfs(directory.fd)
        else:
            os.sync()


def _syncfs_reports() -> bool:
    """Say whether syncfs(2) tells of failed writes: since Linux 5.8, says its manual page."""
    major, minor = (int(number) for number in os.uname().release.split(".")[:2])
    return (major, minor) >= (5, 8) and hasattr(_LIBC, "syncfs")


SYNCFS_REPORTS = _syncfs_reports()
