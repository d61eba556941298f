"""Folders that change, fill up, or take two names for one while files go there."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine import plan
from s3flow.errors import Conflict, NameRefused, PathConflict, TargetFull
from s3flow.model import GIB, MIB, Attributes, ObjectInfo
from s3flow.process import allow_open_files
from s3flow.stores.local import LocalStore, files
from s3flow.stores.memory_object import MemoryBody

PLAIN = Attributes({}, {}, "STANDARD", 0)


def body(data: bytes) -> MemoryBody:
    return MemoryBody(memoryview(data), ObjectInfo(len(data), ""), 1024)


@pytest.fixture
async def disk(tmp_path: Path) -> Iterator[LocalStore]:  # type: ignore[misc]
    store = LocalStore("disk", tmp_path)
    yield store
    await store.close()


@pytest.fixture
def few_files() -> Iterator[None]:
    """Allow what a login shell allows: 1,024 open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("few_files")
async def test_files_in_many_folders_can_wait_to_be_settled(
    disk: LocalStore, tmp_path: Path
) -> None:
    allow_open_files()
    stored = [
        await disk.put_object("", b"%d/file" % number, body(b"x"), PLAIN, md5=None)
        for number in range(2000)
    ]
    assert await disk.settle(stored) == [None] * 2000
    assert len(list(tmp_path.glob("*/file"))) == 2000


async def test_the_sweep_goes_on_past_files_that_get_their_names_meanwhile(
    disk: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (".s3flow-0", ".s3flow-1", ".s3flow-2"):
        (tmp_path / name).write_bytes(b"left")
    walk = files.walk_files

    def settling(*args: object, **kwargs: object) -> Iterator[tuple[bytes, os.DirEntry[bytes]]]:
        for below, entry in walk(*args, **kwargs):  # type: ignore[arg-type]
            if entry.name == b".s3flow-1":
                (tmp_path / ".s3flow-1").rename(tmp_path / "settled")
            yield below, entry

    monkeypatch.setattr(files, "walk_files", settling)
    assert await disk.sweep(2**40) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["settled"]


async def test_a_folder_that_only_root_may_read_hides_no_leftovers(
    disk: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / ".s3flow-0").write_bytes(b"left")
    scandir = os.scandir

    def guarded(path: bytes) -> object:
        if path.endswith(b"lost+found"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    upload_id = await disk.create_multipart_upload("", b"key", PLAIN, 10)
    monkeypatch.setattr(os, "scandir", guarded)
    assert [each.upload_id for each in await disk.list_multipart_uploads("", b"key")] == [upload_id]
    assert await disk.sweep(2**40) == 1


async def test_looking_for_the_uploads_of_a_key_walks_no_foreign_folder(
    disk: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("key.d", "other", "ke"):
        (tmp_path / name / "deep").mkdir(parents=True)
    wanted = [
        await disk.create_multipart_upload("", key, PLAIN, 10)
        for key in (b"key", b"key.d/deep/x", b"key2")
    ]
    await disk.create_multipart_upload("", b"other/deep/key", PLAIN, 10)
    visited = []
    scandir = os.scandir

    def watched(path: bytes) -> object:
        visited.append(os.fsdecode(path).removeprefix(str(tmp_path)).strip("/"))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", watched)
    found = await disk.list_multipart_uploads("", b"key")
    assert sorted(each.upload_id for each in found) == sorted(wanted)
    assert sorted(visited) == ["", "key.d", "key.d/deep"]


def test_the_parts_of_a_large_file_are_few_enough_to_be_kept_in_mind(tmp_path: Path) -> None:
    limits = LocalStore("disk", tmp_path).limits
    assert plan.fit_layout(50_000 * GIB, 32 * MIB, limits).parts <= 10_000


async def test_a_link_in_place_of_a_new_folder_is_an_answer_not_the_end(
    disk: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = await disk.put_object("", b"a/b/c", body(b"x"), PLAIN, md5=None)
    rename = os.rename

    def replacing(*args: Any, **kwargs: Any) -> None:
        rename(*args, **kwargs)
        disk._directories.close()
        rename(tmp_path / "a", tmp_path / "moved")
        (tmp_path / "a").symlink_to(tmp_path / "moved")

    monkeypatch.setattr(os, "rename", replacing)
    (answer,) = await disk.settle([stored])
    assert isinstance(answer, PathConflict)


async def test_an_upload_begins_again_where_somebody_removed_the_folder(
    disk: LocalStore, tmp_path: Path
) -> None:
    await disk.create_multipart_upload("", b"d/key", PLAIN, 10)
    shutil.rmtree(tmp_path / "d")
    with pytest.raises(Conflict):
        await disk.create_multipart_upload("", b"d/key", PLAIN, 10)
    upload_id = await disk.create_multipart_upload("", b"d/key", PLAIN, 2)
    part = await disk.upload_part("", b"d/key", upload_id, 1, 0, body(b"xy"))
    stored = await disk.complete_multipart_upload("", b"d/key", upload_id, [part])
    assert await disk.settle([stored]) == [None]


async def test_a_folder_that_another_machine_removed_blocks_no_flow(
    disk: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = [await disk.put_object("", b"d/one", body(b"x"), PLAIN, md5=None)]
    await disk.settle(stored)
    gone = (tmp_path / "d").stat().st_ino
    real = os.open

    def over_nfs(path: Any, *args: Any, dir_fd: int | None = None, **kwargs: Any) -> int:
        """Answer as NFS does for an open directory that was removed on the server."""
        if dir_fd is not None and os.fstat(dir_fd).st_ino == gone:
            raise OSError(errno.ESTALE, "Stale file handle")
        return real(path, *args, dir_fd=dir_fd, **kwargs)

    (tmp_path / "d").rename(tmp_path / "former")
    monkeypatch.setattr(os, "open", over_nfs)
    again = await disk.put_object("", b"d/two", body(b"x"), PLAIN, md5=None)
    assert await disk.settle([again]) == [None]
    assert (tmp_path / "d" / "two").read_bytes() == b"x"


async def test_a_disk_without_fsync_of_directories_is_used(
    disk: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync

    def of_files(fd: int) -> None:
        """Refuse as the kernel does where a file system has no fsync of directories (9p, vboxsf)."""
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(fd)

    monkeypatch.setattr(os, "fsync", of_files)
    stored = await disk.put_object("", b"d/key", body(b"x"), PLAIN, md5=None)
    assert await disk.settle([stored]) == [None]
    await disk.create_multipart_upload("", b"d/large", PLAIN, 10)


async def test_a_key_that_may_not_be_looked_at_hides_no_other(
    disk: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_bytes(b"x")
    (tmp_path / "theirs").mkdir()
    real = os.open

    def guarded(path: Any, *args: Any, **kwargs: Any) -> int:
        """Refuse as the kernel does whom the folder does not belong to."""
        if path == b"theirs":
            raise OSError(errno.EACCES, "Permission denied")
        return real(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", guarded)
    assert set(await disk.find("", [b"key", b"theirs/key"])) == {b"key"}


async def test_a_start_on_a_full_disk_waits_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def full(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        """Refuse new files as a disk without free inodes does."""
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, flags, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", full)
        disk = LocalStore("disk", tmp_path)
        with pytest.raises(TargetFull):
            await disk.put_object("", b"key", body(b"x"), PLAIN, md5=None)
    for data in (b"first", b"again"):
        stored = await disk.put_object("", b"key", body(data), PLAIN, md5=None)
        assert await disk.settle([stored]) == [None]
    assert (tmp_path / "key").read_bytes() == b"again"
    await disk.close()


@pytest.fixture
def looks_up(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[bytes], bytes]], None]:
    """Let the disk take names for one that a function makes the same."""

    def as_one(same: Callable[[bytes], bytes]) -> None:
        real_stat, real_rename = os.stat, os.rename

        def known(path: bytes, dir_fd: int) -> bytes:
            names = map(os.fsencode, os.listdir(dir_fd))
            return next((it for it in names if same(it) == same(path)), path)

        def folding(path: Any, *args: Any, dir_fd: int | None = None, **kwargs: Any) -> Any:
            path = path if dir_fd is None else known(path, dir_fd)
            return real_stat(path, *args, dir_fd=dir_fd, **kwargs)

        def onto(old: bytes, new: bytes, *, src_dir_fd: int, dst_dir_fd: int) -> None:
            new = known(new, dst_dir_fd)
            real_rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

        monkeypatch.setattr(os, "stat", folding)
        monkeypatch.setattr(os, "rename", onto)

    return as_one


async def test_what_only_the_disk_takes_for_one_name_overwrites_nothing(
    tmp_path: Path, looks_up: Callable[[Callable[[bytes], bytes]], None]
) -> None:
    # ext4 ignores among others U+FE0F, which emoji end in; FAT knows a long name by a short one too.
    looks_up(lambda name: name.lower().replace("\ufe0f".encode(), b""))
    disk = LocalStore("disk", tmp_path)
    stored = await disk.put_object("", "\u2764".encode(), body(b"first"), PLAIN, md5=None)
    assert await disk.settle([stored]) == [None]
    with pytest.raises(PathConflict, match="takes it for another name, which is there already"):
        await disk.put_object("", "\u2764\ufe0f".encode(), body(b"second"), PLAIN, md5=None)
    assert await disk.find("", ["\u2764\ufe0f".encode()]) == {}
    assert (tmp_path / "\u2764").read_bytes() == b"first"
    await disk.close()


@pytest.mark.parametrize("name", [b"a.", b"a ", b"a./b"])
async def test_a_name_whose_end_the_disk_drops_is_refused(
    tmp_path: Path, looks_up: Callable[[Callable[[bytes], bytes]], None], name: bytes
) -> None:
    looks_up(lambda name: name.lower().rstrip(b". "))
    disk = LocalStore("disk", tmp_path)
    with pytest.raises(NameRefused, match=r"drops '[. ]' at a name's end"):
        await disk.put_object("", name, body(b"x"), PLAIN, md5=None)
    stored = await disk.put_object("", b"a", body(b"x"), PLAIN, md5=None)
    assert await disk.settle([stored]) == [None]
    assert await disk.find("", [name]) == {}
    await disk.close()
