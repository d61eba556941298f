"""From keys to names on disk: the written rule, and a walk that cannot leave the root.

The rule. An object lies at `<root>/[bucket/]<key>`, byte for byte. Refused are: an empty key, a NUL
byte, a leading "/", an empty component ("a//b"), the components "." and "..", a component that begins
with ".s3flow-" (ours), and one over 255 bytes. A key that ends in "/" is a directory marker: it is the
directory itself and has no content. Nothing is escaped, folded or normalised; where the file system
itself takes two spellings for one name, the first stays and the other is refused.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
import stat
import threading
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from s3flow.errors import NameRefused, NameTooLong, PathConflict, TargetUnavailable
from s3flow.stores.local.translate import translate

TEMP_PREFIX = b".s3flow-"
ROOT_MARK = b".s3flow-root"  # says that s3flow wrote here: a bare mount point has none
MAX_COMPONENT = 255
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_REFUSED = frozenset({b"", b".", b".."})
_CHECKED = 0.02  # seconds that a look at the root holds for what is settled later
_CACHED = 256  # directories held open, far below the usual limit of 1,024 descriptors


def shown(name: bytes) -> str:
    """Spell a key or path for a message."""
    return name.decode(errors="backslashreplace")


@lru_cache(maxsize=1024)
def split(bucket: str, key: bytes) -> tuple[bytes, bytes]:
    """Give the directory below the root and the file's name; b"" as the name of a directory marker.

    Raises `NameRefused` or `NameTooLong` by the rule above. The last answers are kept: each object
    asks twice within its transfer, which would be 2 us more.
    """
    path = bucket.encode() + b"/" + key if bucket else key
    components = path.split(b"/")
    if b"\0" in path:
        raise NameRefused(f"key {shown(key)!r} has a NUL byte, which no file name can hold")
    if not key or key == b"/":
        raise NameRefused(f"key {shown(key)!r} names no file")
    name = components.pop()
    for component in components if not name else (*components, name):
        if component in _REFUSED:
            raise NameRefused(
                f"key {shown(key)!r} has the component {shown(component)!r}, which no path can keep"
            )
        if component.startswith(TEMP_PREFIX):
            raise NameRefused(
                f"key {shown(key)!r}: names that begin with {shown(TEMP_PREFIX)!r} are"
                " s3flow's unfinished files"
            )
        if len(component) > MAX_COMPONENT:
            raise NameTooLong(
                f"key {shown(key)!r} has a component of {len(component)} bytes;"
                f" a file name takes {MAX_COMPONENT}"
            )
    return path[: -len(name) - 1] if name else path[:-1], name


class Directory:
    """An open directory. Its descriptor closes with its last user: the cache and notes share it."""

    __slots__ = ("device", "fd", "inode", "path")

    def __init__(self, fd: int, path: bytes) -> None:
        self.fd = fd
        self.path = path  # below the root, b"" for the root itself
        status = os.fstat(fd)
        self.device = status.st_dev
        self.inode = status.st_ino

    def __del__(self) -> None:
        os.close(self.fd)


class Directories:
    """Open directories below a root, each found from its parent's descriptor and without links.

    Used by the loop and by threads. *fold_case*: whether two spellings are one name; None asks the
    file system. *shared*: other processes of ours make directories and files here too.
    """

    def __init__(self, root: Path, fold_case: bool | None, *, shared: bool = False) -> None:
        self.root_path = root
        self.root = _open_root(root)
        # A file system that folds finds the other spelling by itself: only then need it be listed.
        probed, self._dropped = _folds(self.root) if fold_case is None else (False, b"")
        self.folds = probed or bool(fold_case)
        self._looks_up_folded = probed
        self._lock = threading.Lock()
        self._alone = threading.Lock()
        self._shared = shared
        self._cached: OrderedDict[bytes, Directory] = OrderedDict()
        self._unsynced: dict[bytes, int] = {}
        self._made = 0
        self._check_again = 0.0  # time.monotonic()

    def open(self, path: bytes, *, make: bool = False) -> Directory:
        """Open a directory, and make it with *make*.

        Raises `FileNotFoundError` without *make*, and `PathConflict` if a file or link is in the way.
        """
        with self._lock:
            found = self._cached.get(path)
            if found is not None:
                self._cached.move_to_end(path)
                return found
            return self._walk(path, make=make)

    def forget(self) -> None:
        """Drop what is open, for somebody removed a directory under us; the root must be the same."""
        with self._lock:
            self._cached.clear()
            again = _open_root(self.root_path)
            if (again.device, again.inode) != (self.root.device, self.root.inode):
                raise self._replaced()
            self.root = again

    def close(self) -> None:
        """Let go of all directories but the root."""
        with self._lock:
            self._cached.clear()

    def recognise(self, flow: str, *, written: bool) -> None:
        """Find the mark of a root that was *written* to before, or leave it in a new one (B-73)."""
        mark = os.fsdecode(os.fsencode(self.root_path) + b"/" + ROOT_MARK)
        try:
            os.stat(ROOT_MARK, dir_fd=self.root.fd, follow_symlinks=False)
        except FileNotFoundError:
            if written:
                raise TargetUnavailable(
                    f"{self.root_path} is not the folder that flow {flow} had before: it has no "
                    f"{ROOT_MARK.decode()}. Mount what belongs there; or, if it is right as it is, "
                    f"run: touch {shlex.quote(mark)}"
                ) from None
        else:
            return
        fd = os.open(
            ROOT_MARK, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o644, dir_fd=self.root.fd
        )
        os.close(fd)

    def check_root(self) -> None:
        """Raise `TargetUnavailable` if the root is gone or something else is mounted there (B-73)."""
        try:
            status = os.stat(self.root_path)  # noqa: PTH116 - on every object: Path costs thrice as much
        except OSError as error:
            raise TargetUnavailable(
                f"the target root {self.root_path} is gone ({error.strerror}); mount it again"
            ) from error
        if status.st_ino != self.root.inode or status.st_dev != self.root.device:
            raise self._replaced()

    def check_root_at_times(self) -> None:
        """Call `check_root` unless that was just done: 2 us, which small objects notice.

        Only for what is settled later: what is written meanwhile goes to the directories that are
        open, and is not taken for stored if the root is another one by then.
        """
        now = time.monotonic()
        if now >= self._check_again:
            self.check_root()
            self._check_again = now + _CHECKED

    def in_place(self, directory: Directory) -> bool:
        """Say whether *directory* still is where it was opened, with no link on the way."""
        status = None
        below = b""
        for component in directory.path.split(b"/") if directory.path else ():
            below = below + b"/" + component if below else component
            try:
                status = os.stat(below, dir_fd=self.root.fd, follow_symlinks=False)
            except OSError:
                return False
            if not stat.S_ISDIR(status.st_mode):
                return False
        # Of the root itself check_root has said it.
        return status is None or (status.st_dev, status.st_ino) == (
            directory.device,
            directory.inode,
        )

    def unsynced_above(self, path: bytes) -> dict[bytes, int]:
        """Give the ancestors of *path* in which a directory was made and is not durable, and when."""
        above: dict[bytes, int] = {}
        while path and self._unsynced:
            path = path.rpartition(b"/")[0]
            if path in self._unsynced:
                above[path] = self._unsynced[path]
        return above

    def synced(self, path: bytes, made: int) -> None:
        """Note that *path* was made durable, unless another directory was made in it since."""
        with self._lock:
            if self._unsynced.get(path) == made:
                del self._unsynced[path]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep others, threads and processes of ours, from giving names meanwhile."""
        with self._alone:
            if not (self._shared and self.folds):
                yield
                return
            # An flock ends with its own opening of the directory.
            fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self.root.fd)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                yield
            finally:
                os.close(fd)

    def check_spelling(self, directory: Directory, name: bytes) -> None:
        """Raise `PathConflict` if the directory has *name* in another spelling.

        Where the file system itself says that it has it, it counts what is listed: what else it takes
        for one name (short names of FAT, characters that ext4 ignores) only it knows.
        """
        at = self.shown(directory.path, name)
        if name[-1:] in self._dropped:
            raise NameRefused(f"{at}: the file system drops {shown(name[-1:])!r} at a name's end")
        if self._looks_up_folded and not exists(directory, name):
            return
        folded = _fold(name)
        listed = [os.fsencode(it) for it in os.listdir(directory.fd)]  # noqa: PTH208 - by descriptor
        if self._looks_up_folded and name in listed:
            return
        same = [it for it in listed if _fold(it) == folded and it != name]
        # Asked again: whoever renamed or removed it meanwhile leaves nothing to overwrite.
        if same or (self._looks_up_folded and exists(directory, name)):
            other = repr(shown(same[0])) if same else "another name"
            raise PathConflict(
                f"{at}: the file system takes it for {other}, which is there already;"
                " rename one of the objects"
            )

    def shown(self, path: bytes, name: bytes = b"") -> str:
        """Spell a path below the root for a message."""
        below = b"/".join(part for part in (path, name) if part)
        return f"{self.root_path}/{shown(below)}"

    def _walk(self, path: bytes, *, make: bool) -> Directory:
        directory = self.root
        if not path:
            return directory
        below = b""
        for component in path.split(b"/"):
            below = below + b"/" + component if below else component
            found = self._cached.get(below)
            if found is None:
                found = self._step(directory, component, below, make=make)
                self._cached[below] = found
                if len(self._cached) > _CACHED:
                    self._cached.popitem(last=False)
            directory = found
        return directory

    def _step(self, parent: Directory, component: bytes, below: bytes, *, make: bool) -> Directory:
        if self.folds:
            self.check_spelling(parent, component)
        try:
            fd = os.open(component, _OPEN, dir_fd=parent.fd)
            if make and self._shared:
                # Perhaps another process made it a moment ago, and has not made it durable.
                self._note_made(parent)
        except FileNotFoundError:
            if not make:
                raise
            self._make(parent, component)
            fd = self._open_made(parent, component, below)
        except NotADirectoryError as error:
            raise self._in_the_way(below) from error
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._in_the_way(below) from error
            raise
        return Directory(fd, below)

    def _make(self, parent: Directory, component: bytes) -> None:
        try:
            os.mkdir(component, dir_fd=parent.fd)
        except FileExistsError:
            return  # somebody was faster; what it is shows when it is opened
        self._note_made(parent)

    def _note_made(self, parent: Directory) -> None:
        self._made += 1
        self._unsynced[parent.path] = self._made

    def _open_made(self, parent: Directory, component: bytes, below: bytes) -> int:
        try:
            return os.open(component, _OPEN, dir_fd=parent.fd)
        except OSError as error:
            if error.errno in (errno.ENOTDIR, errno.ELOOP):
                raise self._in_the_way(below) from error
            raise

    def _in_the_way(self, below: bytes) -> PathConflict:
        return PathConflict(
            f"{self.shown(below)} is a file or a symbolic link where a directory should be;"
            " remove it or give the flow another target"
        )

    def _replaced(self) -> TargetUnavailable:
        return TargetUnavailable(
            f"the target root {self.root_path} is not the directory it was at the start;"
            " mount it again, or restart if it was replaced on purpose"
        )


def exists(directory: Directory, name: bytes) -> bool:
    """Say whether the directory has *name*; of a link, not of what it points to."""
    try:
        os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def is_file(directory: Directory, name: bytes) -> os.stat_result | None:
    """Give the status of the regular file *name*, or None if there is none."""
    try:
        status = os.stat(name, dir_fd=directory.fd, follow_symlinks=False)
    except FileNotFoundError:
        return None
    return status if stat.S_ISREG(status.st_mode) else None


def remove(directory: Directory, name: bytes) -> bool:
    """Unlink *name*; False when it was gone already."""
    try:
        os.unlink(name, dir_fd=directory.fd)
    except FileNotFoundError:
        return False
    return True


def _open_root(root: Path) -> Directory:
    try:
        # The root itself may be a link: that is the operator's choice. Below it, none is followed.
        directory = Directory(os.open(root, os.O_RDONLY | os.O_DIRECTORY), b"")
    except OSError as error:
        raise TargetUnavailable(
            f"the target root {root} cannot be opened: {error.strerror};"
            " make the directory or mount it"
        ) from error
    if not os.access(root, os.W_OK | os.X_OK):
        raise TargetUnavailable(f"the target root {root} is not writable for this user")
    return directory


def _folds(root: Directory) -> tuple[bool, bytes]:
    """Ask the file system whether two spellings are one name to it, and what it drops at a name's end."""
    unique = os.urandom(6).hex()
    probe = TEMP_PREFIX + f"Case-\u00e9-{unique}".encode()
    others = (
        TEMP_PREFIX + f"cASE-\u00e9-{unique}".encode(),
        TEMP_PREFIX + f"Case-e\u0301-{unique}".encode(),
    )
    try:
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=root.fd))
        try:
            dropped = b"".join(end for end in (b".", b" ") if exists(root, probe + end))
            return bool(dropped) or any(exists(root, other) for other in others), dropped
        finally:
            remove(root, probe)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True, b""  # a full disk is waited for, not died of; this errs on the safe side
        raise translate(error, "the target root") from error


def _fold(name: bytes) -> str:
    text = os.fsdecode(name)
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
