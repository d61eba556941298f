"""Folders for the files of a run, where the file system makes new files at its usual cost.

ext4 does not give an inode to a new file for minutes after another file had it, and looks at each
of those that are waiting whenever it makes a file: 20,000 files removed before a run made each new
one cost 400 us of CPU instead of 20 (Linux 6.18, recently_deleted in fs/ext4/ialloc.c), which is
nothing that a contender did. So nothing is removed before the end, and folders are made where
nobody else has just removed much.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import sys
import time
from pathlib import Path

# FS_IOC_GETFLAGS, FS_IOC_SETFLAGS and FS_TOPDIR_FL of linux/fs.h, on 64-bit machines
_GET_FLAGS, _SET_FLAGS, _TOP_OF_TREE = 0x80086601, 0x40086602, 0x00020000
_TRIES = 24
_PROBES = 200  # files
_USUAL = 40e-6  # seconds of CPU for an empty file


def fresh_folder(folder: Path) -> Path:
    """Make an empty folder below *folder*; the files of earlier runs are emptied, not removed."""
    _spread(folder)
    for path in folder.glob("place-*/files/**/*"):
        if path.is_file() and path.stat().st_size:
            os.truncate(path, 0)
    tries: list[tuple[float, Path]] = []
    for number in itertools.count(1):
        place = folder / f"place-{number}"
        if place.exists():
            continue
        place.mkdir()
        tries.append((_cost(place / "probe"), place))
        if tries[-1][0] < _USUAL or len(tries) == _TRIES:
            break
    files = min(tries)[1] / "files"
    files.mkdir()
    return files


def _spread(folder: Path) -> None:
    """Let the file system place each subfolder in a region of its own, where it can (`chattr +T`)."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every file system has such flags
            flags = bytearray(8)
            fcntl.ioctl(descriptor, _GET_FLAGS, flags)
            number = int.from_bytes(flags[:4], sys.byteorder) | _TOP_OF_TREE
            fcntl.ioctl(descriptor, _SET_FLAGS, number.to_bytes(8, sys.byteorder))
    finally:
        os.close(descriptor)


def _cost(folder: Path) -> float:
    """Give the CPU seconds that a file costs in a new *folder*."""
    folder.mkdir()
    began = time.thread_time()
    for number in range(_PROBES):
        os.close(os.open(folder / str(number), os.O_WRONLY | os.O_CREAT, 0o600))
    return (time.thread_time() - began) / _PROBES
