"""One writer at a time, and no state where locks mean nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from s3flow.errors import StateError, StateLocked
from s3flow.state import lock
from s3flow.state.lock import StateLock, filesystem_of, refuse_network
from s3flow.state.sqlite import open_sqlite

HOLDER = """
import sys
from pathlib import Path
from s3flow.state.lock import StateLock
held = StateLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""

MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/nas rw shared:2 - nfs4 nas:/export rw
31 22 0:41 / /mnt/my\\040disk rw - fuse.sshfs me@host:/ rw
32 22 0:42 / /mnt/over rw master:1 - ext4 /dev/sdb1 rw
33 32 0:43 / /mnt/over rw master:1 - cifs //host/share rw
34 30 0:44 / /mnt/nas/local rw - xfs /dev/sdc1 rw
35 22 0:45 / /var/lib/docker/overlay rw - overlay overlay rw
garbled line
"""


def hold(path: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


async def test_a_second_process_is_told_who_holds_the_state(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with hold(path) as process:
        with pytest.raises(StateLocked) as told:
            await open_sqlite(path)
        process.send_signal(signal.SIGKILL)
    for part in (f"pid {process.pid} on ", str(path), f"{path}.lock", "stop it first"):
        assert part in str(told.value)
    # The lock died with its process.
    await (await open_sqlite(path)).close()


def test_the_lock_can_be_taken_again_after_release(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    first = StateLock(path)
    with pytest.raises(StateLocked, match=f"pid {os.getpid()} "):
        StateLock(path)
    first.release()
    first.release()
    StateLock(path).release()
    assert (tmp_path / "state.db.lock").exists()


def test_a_lock_on_a_file_that_was_tidied_away_is_taken_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.db"
    opened: list[int] = []
    real = lock._open

    def open_and_lose(name: Path) -> int:
        fd = real(name)
        if not opened:
            name.unlink()
        opened.append(fd)
        return fd

    monkeypatch.setattr(lock, "_open", open_and_lose)
    held = StateLock(path)
    assert len(opened) == 2
    with pytest.raises(StateLocked):
        StateLock(path)
    held.release()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"cannot open .*the state's folder must be writable"):
        StateLock(tmp_path / "missing" / "state.db")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/s3flow/state.db", "ext4"),
        ("/mnt/nas/state.db", "nfs4"),
        ("/mnt/nasty/state.db", "ext4"),
        ("/mnt/nas/local/state.db", "xfs"),
        ("/mnt/my disk/state.db", "fuse.sshfs"),
        ("/mnt/over/state.db", "cifs"),
        ("/var/lib/docker/overlay/state.db", "overlay"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_the_last_and_deepest_mount(
    path: str, kind: str
) -> None:
    assert filesystem_of(Path(path), MOUNTS) == kind
    assert filesystem_of(Path(path), "") == ""


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        ("nfs", True),
        ("nfs4", True),
        ("cifs", True),
        ("smb3", True),
        ("9p", True),
        ("fuse.sshfs", True),
        ("fuse.rclone", True),
        ("fuse.mountpoint-s3", True),
        ("ext4", False),
        ("overlay", False),
        ("tmpfs", False),
        ("fuseblk", False),
        ("fuse.gocryptfs", False),
        ("", False),
    ],
)
def test_network_file_systems_are_refused(
    kind: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "filesystem_of", lambda path, mountinfo: kind)
    path = Path("/srv/state.db")
    if refused:
        with pytest.raises(StateError, match=rf"network file system \({kind}\).*a local disk"):
            refuse_network(path)
    else:
        refuse_network(path)
