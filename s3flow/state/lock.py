"""The right to write to a state file: one process has it, where locks mean something."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from pathlib import Path

from s3flow.errors import StateError, StateLocked

# WAL keeps its index in shared memory, which does not exist between machines, and locks are often
# not real there: https://www.sqlite.org/wal.html "all processes must be on the same host computer".
_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\d?|smbfs|9p|afs|ceph|lustre|gpfs|beegfs|glusterfs|coda|ncpfs|davfs2?"
    r"|fuse\.(sshfs|s3fs|goofys|mount-?s3|mountpoint-?s3|gcsfuse|rclone|juicefs|glusterfs|ceph.*"
    r"|seaweedfs|mfs|moosefs|davfs2?|curlftpfs|smbnetfs|blobfuse\d?|nfs.*|vmhgfs-fuse)"
)
# Worker processes inherit the lock and die at once when who took it dies: seconds that this may take,
# where one of them waits for a disk.
ORPHANS = 5.0
_HOLDER = re.compile(r"pid ([0-9]{1,9}) on (.*)")
_OCTAL = re.compile(r"\\([0-7]{3})")


def filesystem_of(path: Path, mountinfo: str) -> str:
    """Name the type of the file system that holds the absolute *path*, "" when unknown.

    *mountinfo* is the text of /proc/self/mountinfo: statfs has numbers only, the same one for every
    FUSE file system.
    """
    found, depth = "", -1
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:
            continue
        # Blanks in mount points are written as \040.
        mount = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[4]))
        # The last of equals was mounted over the others.
        if len(mount.parts) >= depth and path.is_relative_to(mount):
            found, depth = after.split(" ")[0], len(mount.parts)
    return found


def refuse_network(path: Path) -> None:
    """Raise `StateError` when *path* is on a network file system."""
    try:
        mountinfo = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return  # not Linux: nothing to go by
    kind = filesystem_of(path, mountinfo)
    if _NETWORK.fullmatch(kind):
        raise StateError(
            f"state {path} is on a network file system ({kind}), where SQLite can lose or corrupt"
            " data: put it on a local disk, or use MySQL for shared state"
        )


class StateLock:
    """An flock on "<state>.lock" that says who holds it. It ends with the process at the latest."""

    __slots__ = ("_fd",)

    def __init__(self, state: Path) -> None:
        """Take the lock of the file *state*, or raise `StateLocked` at once."""
        path = state.with_name(state.name + ".lock")
        patience = time.monotonic() + ORPHANS
        while True:
            self._fd = _open(path)
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever tidied the file away left us holding a lock that nobody else will see.
                if _is_at(self._fd, path):
                    break
            except BlockingIOError:
                holder = os.pread(self._fd, 300, 0).decode(errors="replace").strip()
                self.release()
                if is_dead(holder) and time.monotonic() < patience:
                    time.sleep(0.02)
                    continue
                raise StateLocked(
                    f"state {state} is in use by {holder or 'another process'} (lock {path}): the"
                    " daemon is running; stop it first, or give this one a state of its own"
                ) from None
            except BaseException:
                self.release()
                raise
            self.release()
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"pid {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def fileno(self) -> int:
        """Give the descriptor: the lock holds as long as any process has it open."""
        return self._fd

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would race with the next holder."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StateError(
            f"cannot open {path}: {error.strerror}; the state's folder must be writable for the"
            " user that runs s3flow"
        ) from error


def is_dead(holder: str) -> bool:
    """Say whether the process that a lock names is gone, so that only orphans of it hold the lock."""
    named = _HOLDER.fullmatch(holder)
    if named is None or named[2] != socket.gethostname():
        return False
    try:
        os.kill(int(named[1]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False  # another user's, and alive
    return False


def _is_at(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
