"""SQLite's border to the operating system, watched: a VFS that tells what it writes and syncs.

The default VFS's own functions go on doing the work; four of them are wrapped
(https://www.sqlite.org/c3ref/io_methods.html). Syncs are told of and not done.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sqlite3
from collections.abc import Iterator
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_int64, c_void_p
from typing import Any, Protocol

_LOGS = 0x00000800 | 0x00004000 | 0x00080000  # MAIN_JOURNAL, SUPER_JOURNAL, WAL
_FIELDS = 19  # pointers of a table of io_methods, version 3, the version itself counted as one
_OK = 0

# Paths as pointers: SQLite keeps them, and looks behind their ends.
_Open = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, POINTER(c_int))
_Delete = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_Close = CFUNCTYPE(c_int, c_void_p)
_Write = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_Truncate = CFUNCTYPE(c_int, c_void_p, c_int64)
_Sync = CFUNCTYPE(c_int, c_void_p, c_int)


class Vfs(Protocol):
    """Is told what SQLite does."""

    def opened(self, path: bytes, *, is_log: bool) -> int | None:
        """Give a number for a file that is to be watched."""

    def wrote(self, node: int, offset: int, data: bytes) -> None:
        """Take note of bytes."""

    def cut(self, node: int, size: int) -> None:
        """Take note of a new size."""

    def synced(self, node: int, folder: bytes) -> None:
        """Take note of a sync."""

    def removed(self, path: bytes, *, sync: bool) -> None:
        """Take note of a file that was deleted, and whether its folder was synced."""


class _Struct(ctypes.Structure):
    """sqlite3_vfs, https://www.sqlite.org/c3ref/vfs.html"""

    _fields_ = [
        *(("iVersion", c_int), ("szOsFile", c_int), ("mxPathname", c_int)),
        *(("pNext", c_void_p), ("zName", c_char_p), ("pAppData", c_void_p)),
        *(("xOpen", c_void_p), ("xDelete", c_void_p)),
        ("rest", c_void_p * 14),  # xAccess to xNextSystemCall: left as they are
    ]


class _Wrapping:
    """The functions, and what they have to remember."""

    def __init__(self, told: Vfs, library: ctypes.CDLL) -> None:
        self._told = told
        library.sqlite3_vfs_find.restype = POINTER(_Struct)
        self.usual = library.sqlite3_vfs_find(None)
        self.vfs = _Struct.from_buffer_copy(self.usual.contents)
        self.vfs.zName = b"s3flow-watched"
        self.vfs.pNext = None
        self._really_open = _Open(self.vfs.xOpen or 0)
        self._really_delete = _Delete(self.vfs.xDelete or 0)
        self._kept: list[Any] = [_Open(self._open), _Delete(self._delete)]
        self.vfs.xOpen, self.vfs.xDelete = (
            ctypes.cast(each, c_void_p).value for each in self._kept
        )
        self._tables: dict[int, Any] = {}
        self._files: dict[int, tuple[int, bytes]] = {}

    def _open(self, vfs: Any, name: int | None, file: int, flags: int, out: Any) -> int:
        done: int = self._really_open(ctypes.addressof(self.usual.contents), name, file, flags, out)
        if done == _OK and name is not None:
            path = ctypes.string_at(name)
            node = self._told.opened(path, is_log=bool(flags & _LOGS))
            if node is not None:
                methods = c_void_p.from_address(file)
                assert methods.value is not None
                self._files[file] = (node, os.path.dirname(path))  # noqa: PTH120 - of bytes
                methods.value = ctypes.addressof(self._table(methods.value))
        return done

    def _delete(self, vfs: Any, name: int, sync: int) -> int:
        done: int = self._really_delete(ctypes.addressof(self.usual.contents), name, 0)
        if done == _OK:
            self._told.removed(ctypes.string_at(name), sync=bool(sync))
        return done

    def _table(self, usual: int) -> Any:
        """Give the wrapped form of a table of functions: version, close, read, write, truncate, sync."""
        found = self._tables.get(usual)
        if found is None:
            found = (c_void_p * _FIELDS).from_buffer_copy((c_void_p * _FIELDS).from_address(usual))
            really = _Close(found[1] or 0), _Write(found[3] or 0), _Truncate(found[4] or 0)
            ours = self._functions(*really)
            self._kept += [*ours, *really]
            for place, function in zip((1, 3, 4, 5), ours, strict=True):
                found[place] = ctypes.cast(function, c_void_p).value
            self._tables[usual] = found
        return found

    def _functions(self, really_close: Any, really_write: Any, really_truncate: Any) -> list[Any]:
        def close(file: int) -> int:
            self._files.pop(file, None)
            done: int = really_close(file)
            return done

        def write(file: int, data: int, size: int, offset: int) -> int:
            done: int = really_write(file, data, size, offset)
            if done == _OK:
                self._told.wrote(self._files[file][0], offset, ctypes.string_at(data, size))
            return done

        def truncate(file: int, size: int) -> int:
            done: int = really_truncate(file, size)
            if done == _OK:
                self._told.cut(self._files[file][0], size)
            return done

        def sync(file: int, flags: int) -> int:
            self._told.synced(*self._files[file])
            return _OK

        return [_Close(close), _Write(write), _Truncate(truncate), _Sync(sync)]


@contextlib.contextmanager
def wrapped(told: Vfs) -> Iterator[None]:
    """Open all files of SQLite that are opened in the block through the watch."""
    library = _library()
    wrapping = _Wrapping(told, library)
    library.sqlite3_vfs_register(ctypes.byref(wrapping.vfs), 1)
    try:
        yield
    finally:
        library.sqlite3_vfs_unregister(ctypes.byref(wrapping.vfs))
        library.sqlite3_vfs_register(wrapping.usual, 1)


def _library() -> ctypes.CDLL:
    """Give the SQLite that Python's module has loaded, or has in it."""
    import _sqlite3

    for place in (getattr(_sqlite3, "__file__", None), None):
        library = ctypes.CDLL(place)
        if hasattr(library, "sqlite3_vfs_register"):
            library.sqlite3_libversion.restype = c_char_p
            assert library.sqlite3_libversion().decode() == sqlite3.sqlite_version
            return library
    raise AssertionError("this Python hides its SQLite: what it makes durable cannot be watched")
