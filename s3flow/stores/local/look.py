"""Look at settled objects: what is under a key, its digest, its token."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence

from s3flow.errors import NameRefused
from s3flow.model import Listed
from s3flow.stores.local import files
from s3flow.stores.local.paths import Directories, Directory, is_file, split

# One such key must not hide the others: what it is about, its own transfer says.
_OF_ONE_KEY = frozenset({errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ})


def find(directories: Directories, bucket: str, keys: Sequence[bytes]) -> dict[bytes, Listed]:
    """Look keys up; those that may not be looked at, or that no file can have, are not there."""
    found: dict[bytes, Listed] = {}
    for key in keys:
        try:
            listed = look_up(directories, bucket, key)
        except OSError as error:
            if error.errno not in _OF_ONE_KEY:
                raise
            continue
        if listed is not None:
            found[key] = listed
    return found


def look_up(directories: Directories, bucket: str, key: bytes) -> Listed | None:
    """Say what is under a key: a regular file, or a directory for a marker; else None."""
    try:
        path, name = split(bucket, key)
        directory = _open(directories, path)
    except (FileNotFoundError, NameRefused):
        return None  # refused by its name, or something else is in its way
    if directory is None:
        return None
    status = is_file(directory, name) if name else os.fstat(directory.fd)
    if status is None:
        return None
    if name and directories.folds and not _spelled(directories, directory, name):
        return None
    size = status.st_size if name else 0
    return Listed(key, size, "", status.st_mtime_ns // 1_000_000, "STANDARD")


def digest_settled(
    directories: Directories,
    place: tuple[str, bytes],
    algorithm: str,
    part_size: int | None,
    stop: threading.Event,
) -> bytes | None:
    """Hash the file under a key, a marker as the empty object it is; None when there is none."""
    if look_up(directories, *place) is None:
        return None
    path, name = split(*place)
    if not name:
        return files.digest_empty(algorithm, part_size)
    return files.digest_name(directories.open(path), name, algorithm, part_size, stop)


def token_of(directories: Directories, bucket: str, key: bytes) -> str:
    """Give the transfer token that the file under a key carries, "" if it has none."""
    path, name = split(bucket, key)
    if not name:
        return ""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directories.open(path).fd)
    except FileNotFoundError:
        return ""
    try:
        return os.getxattr(fd, files.TOKEN_ATTRIBUTE).decode()
    except OSError:
        return ""  # none, or the file system has no attributes
    finally:
        os.close(fd)


def _open(directories: Directories, path: bytes) -> Directory | None:
    """Open a directory that is where it was, not one that somebody moved away while we had it."""
    directory = directories.open(path)
    if not directories.in_place(directory):
        directories.forget()
        directory = directories.open(path)
    return directory


def _spelled(directories: Directories, directory: Directory, name: bytes) -> bool:
    try:
        directories.check_spelling(directory, name)
    except NameRefused:
        return False
    return True
