"""Watches what this process does to the files below a folder: Python's calls, and SQLite's.

Nothing is really synced: that it was asked for is what is noted. What SQLite does shows at the border to
its VFS (https://www.sqlite.org/vfs.html), whose functions are wrapped for as long as the watch goes on.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from s3flow.stores.local import settle
from tests.torture.disk import ROOT, Cut, Disk, Made, Op, Removed, Renamed, Synced, Told, Wrote
from tests.torture.disk_sqlite import Vfs, wrapped

Tell = Callable[[Op], None]
_REAL: dict[str, Any] = {
    name: getattr(os, name)
    for name in (
        *("open", "close", "write", "pwrite", "pwritev", "ftruncate", "rename", "unlink"),
        *("mkdir", "fsync", "fdatasync", "utime", "setxattr", "sync"),
    )
}
# What s3flow does not use: a use that nobody watches would make a watch that proves nothing.
_UNKNOWN = (
    "replace",
    "link",
    "symlink",
    "rmdir",
    "writev",
    "truncate",
    "posix_fallocate",
    "sendfile",
)


class Calls:
    """The calls of `os`, with the same meaning, and told of where they change something below *top*."""

    def __init__(self, top: Path, disk: Disk, tell: Tell) -> None:
        self.top = os.fsencode(top)
        self.disk = disk
        self._tell_of = tell
        self._open: dict[int, int] = {}  # descriptors, and the nodes behind them
        self._lock = threading.RLock()

    def tell(self, op: Op) -> None:
        """Let it happen on the disk as it is known here, and pass it on."""
        self.disk.apply(op)
        self._tell_of(op)

    def locate(self, path: Any, dir_fd: int | None = None) -> tuple[int, bytes] | None:
        """Give the directory and the name that a path means; None for what is not watched."""
        if isinstance(path, int):
            return None
        spelled = os.fsencode(path)
        if dir_fd is not None and not spelled.startswith(b"/"):
            start = self._open.get(dir_fd)
            if start is None:
                return None
        elif spelled == self.top or spelled.startswith(self.top + b"/"):
            spelled, start = spelled[len(self.top) :], ROOT
        else:
            return None
        *above, name = [part for part in spelled.split(b"/") if part not in (b"", b".")] or [b""]
        folder = self.disk.find(above, start)
        return None if folder is None else (folder, name)

    def node_at(self, at: tuple[int, bytes] | None) -> int | None:
        """Give what has this name."""
        if at is None:
            return None
        return self.disk.find([at[1]], at[0]) if at[1] else at[0]

    def make(self, at: tuple[int, bytes], *, is_folder: bool = False) -> int:
        """Tell of a new node."""
        node = self.disk.last + 1
        self.tell(Made(*at, node, is_folder))
        return node

    # --- os ----------------------------------------------------------------------------------------

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        with self._lock:
            fd: int = _REAL["open"](path, flags, mode, dir_fd=dir_fd)
            at = self.locate(path, dir_fd)
            if at is not None:
                node = self.node_at(at)
                if node is None:
                    node = self.make(at)
                elif flags & os.O_TRUNC:
                    self.tell(Cut(node, 0))
                self._open[fd] = node
            return fd

    def close(self, fd: int) -> None:
        with self._lock:
            self._open.pop(fd, None)
            _REAL["close"](fd)

    def write(self, fd: int, data: Any) -> int:
        with self._lock:
            done: int = _REAL["write"](fd, data)
            if fd in self._open:
                at = os.lseek(fd, 0, os.SEEK_CUR) - done  # with O_APPEND as well
                self.tell(Wrote(self._open[fd], at, bytes(data[:done])))
            return done

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        with self._lock:
            done: int = _REAL["pwrite"](fd, data, offset)
            if fd in self._open:
                self.tell(Wrote(self._open[fd], offset, bytes(data[:done])))
            return done

    def pwritev(self, fd: int, pieces: Any, offset: int, flags: int = 0) -> int:
        with self._lock:
            done: int = _REAL["pwritev"](fd, pieces, offset, flags)
            if fd in self._open:
                data = b"".join(bytes(piece) for piece in pieces)
                self.tell(Wrote(self._open[fd], offset, data[:done]))
            return done

    def ftruncate(self, fd: int, size: int) -> None:
        with self._lock:
            _REAL["ftruncate"](fd, size)
            if fd in self._open:
                self.tell(Cut(self._open[fd], size))

    def rename(
        self, old: Any, new: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        with self._lock:
            _REAL["rename"](old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            here, there = self.locate(old, src_dir_fd), self.locate(new, dst_dir_fd)
            node = self.node_at(here)
            if here is not None and there is not None and node is not None:
                self.tell(Renamed(node, *here, *there))

    def unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        with self._lock:
            _REAL["unlink"](path, dir_fd=dir_fd)
            self.removed(self.locate(path, dir_fd))

    def removed(self, at: tuple[int, bytes] | None) -> None:
        """Tell of a name that is gone."""
        node = self.node_at(at)
        if at is not None and node is not None:
            self.tell(Removed(node, *at))

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        with self._lock:
            _REAL["mkdir"](path, mode, dir_fd=dir_fd)
            at = self.locate(path, dir_fd)
            if at is not None:
                self.make(at, is_folder=True)

    def fsync(self, fd: int) -> None:
        with self._lock:
            if fd not in self._open:
                _REAL["fsync"](fd)
                return
            self.tell(Synced(self._open[fd]))

    def fdatasync(self, fd: int) -> None:
        with self._lock:
            if fd not in self._open:
                _REAL["fdatasync"](fd)
                return
            self.tell(Synced(self._open[fd], only_data=True))

    def sync(self) -> None:
        with self._lock:
            self.tell(Synced(None))

    def syncfs(self, fd: int) -> None:
        """Stand for `settle.syncfs`: everything watched is on one file system."""
        with self._lock:
            os.fstat(fd)
            self.tell(Synced(None))

    def utime(self, path: Any, times: Any = None, **more: Any) -> None:
        with self._lock:
            _REAL["utime"](path, times, **more)
            if isinstance(path, int) and path in self._open:
                self.tell(Told(self._open[path], "mtime", more["ns"][1]))

    def setxattr(self, path: Any, name: Any, value: bytes, *more: Any, **others: Any) -> None:
        with self._lock:
            _REAL["setxattr"](path, name, value, *more, **others)
            if isinstance(path, int) and path in self._open:
                self.tell(Told(self._open[path], os.fsdecode(name), value))

    def watched(self, fd: int) -> bool:
        """Say whether a descriptor is one of a file that is watched."""
        return fd in self._open


class _Files(Vfs):
    """What SQLite does to its files."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._new: set[int] = set()

    def opened(self, path: bytes, *, is_log: bool) -> int | None:
        at = self._calls.locate(path)
        node = self._calls.node_at(at)
        if at is not None and node is None:
            node = self._calls.make(at)
            if is_log:
                self._new.add(node)
        return node

    def wrote(self, node: int, offset: int, data: bytes) -> None:
        self._calls.tell(Wrote(node, offset, data))

    def cut(self, node: int, size: int) -> None:
        self._calls.tell(Cut(node, size))

    def synced(self, node: int, folder: bytes) -> None:
        self._calls.tell(Synced(node))
        if (
            node in self._new
        ):  # unixSync(): the first sync of a new journal or WAL is one of its folder
            self._new.discard(node)
            self._sync_folder(folder)

    def removed(self, path: bytes, *, sync: bool) -> None:
        self._calls.removed(self._calls.locate(path))
        if sync:
            self._sync_folder(os.path.dirname(path))  # noqa: PTH120 - of bytes

    def _sync_folder(self, folder: bytes) -> None:
        node = self._calls.node_at(self._calls.locate(folder))
        if node is not None:
            self._calls.tell(Synced(node))


@contextlib.contextmanager
def watched(top: Path, disk: Disk, tell: Tell) -> Iterator[Calls]:
    """Tell of all that happens below *top* while the block runs; *disk* is what is there, and follows."""
    calls = Calls(top, disk, tell)
    with contextlib.ExitStack() as stack:
        for name in _REAL:
            stack.enter_context(mock.patch.object(os, name, getattr(calls, name)))
        for name in _UNKNOWN:
            stack.enter_context(mock.patch.object(os, name, _refusing(name, calls)))
        stack.enter_context(mock.patch.object(settle, "syncfs", calls.syncfs))
        stack.enter_context(wrapped(_Files(calls)))
        yield calls


def _refusing(name: str, calls: Calls) -> Callable[..., Any]:
    real = getattr(os, name)

    def call(first: Any, *args: Any, **kwargs: Any) -> Any:
        known = (
            calls.watched(first)
            if isinstance(first, int)
            else calls.locate(first, kwargs.get("src_dir_fd", kwargs.get("dir_fd")))
        )
        assert not known, f"os.{name} changes a file, and the watch knows nothing of it"
        return real(first, *args, **kwargs)

    return call
