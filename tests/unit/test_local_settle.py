"""Durability: the order of sync and rename, what failures leave, what a crash leaves."""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.errors import Conflict, S3flowError, TargetFull, TargetUnavailable
from s3flow.model import Stored
from s3flow.stores.local import LocalStore, settle
from tests.contract.kit import ATTRIBUTES, MODIFIED, body_of, pattern


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    opened = LocalStore("disk", tmp_path)
    yield opened
    await opened.close()


async def put(store: LocalStore, key: bytes, data: bytes = b"data") -> Stored:
    """Put, and leave it unsettled."""
    return await store.put_object("", key, body_of(data), ATTRIBUTES, md5=None)


def name_of(fd: int, root: Path) -> str:
    """Say below *root* what a descriptor is open on; temporary names as TEMP."""
    path = Path(f"/proc/self/fd/{fd}").readlink().relative_to(root)
    return "TEMP" if path.name.startswith(".s3flow-") else str(path)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record what goes to the disk, in order."""
    log: list[str] = []
    fsync, rename, syncfs = os.fsync, os.rename, settle.syncfs

    def record_fsync(fd: int) -> None:
        log.append(f"fsync {name_of(fd, tmp_path)}")
        fsync(fd)

    def record_syncfs(fd: int) -> None:
        log.append("syncfs")
        syncfs(fd)

    def record_rename(old: bytes, new: bytes, **kwargs: int) -> None:
        log.append(f"rename {os.fsdecode(new)}")
        rename(old, new, **kwargs)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    monkeypatch.setattr(settle, "syncfs", record_syncfs)
    return log


# --- the order (B-71) ----------------------------------------------------------------------------


async def test_data_is_durable_before_its_name_and_the_name_before_the_answer(
    store: LocalStore, calls: list[str]
) -> None:
    stored = await put(store, b"a/b/key")
    assert calls == []
    assert await store.settle([stored]) == [None]
    assert calls[:2] == ["fsync TEMP", "rename key"]
    # The directory itself, and those in which a directory was made for it.
    assert sorted(calls[2:]) == ["fsync .", "fsync a", "fsync a/b"]


async def test_directories_made_once_are_synced_once(store: LocalStore, calls: list[str]) -> None:
    await store.settle([await put(store, b"a/b/one")])
    calls.clear()
    await store.settle([await put(store, b"a/b/two")])
    assert calls == ["fsync TEMP", "rename two", "fsync a/b"]


async def test_many_share_one_sync_of_the_file_system(store: LocalStore, calls: list[str]) -> None:
    stored = [await put(store, b"d%d/key" % number) for number in range(9)]
    assert await store.settle(stored) == [None] * 9
    assert calls == ["syncfs", *["rename key"] * 9, "syncfs"]


async def test_without_a_syncfs_that_reports_each_is_synced(
    store: LocalStore, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settle, "SYNCFS_REPORTS", False)
    stored = [await put(store, b"d/key-%d" % number) for number in range(9)]
    assert await store.settle(stored) == [None] * 9
    assert calls.count("fsync TEMP") == 9
    assert calls[9].startswith("rename")
    assert sorted(calls[-2:]) == ["fsync .", "fsync d"]


async def test_a_marker_is_durable_as_well(store: LocalStore, calls: list[str]) -> None:
    stored = await store.put_object("", b"a/b/", body_of(b""), ATTRIBUTES, md5=None)
    assert await store.settle([stored]) == [None]
    assert sorted(calls) == ["fsync .", "fsync a", "fsync a/b"]


async def test_a_multipart_object_is_durable_before_its_journal_goes(
    store: LocalStore, tmp_path: Path, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = os.unlink

    def record_unlink(name: bytes, **kwargs: int) -> None:
        calls.append("unlink JOURNAL" if name.endswith(b".parts") else "unlink TEMP")
        unlink(name, **kwargs)

    upload_id = await store.create_multipart_upload("", b"d/key", ATTRIBUTES, 4)
    part = await store.upload_part("", b"d/key", upload_id, 1, 0, body_of(b"data"))
    stored = await store.complete_multipart_upload("", b"d/key", upload_id, [part])
    calls.clear()
    monkeypatch.setattr(os, "unlink", record_unlink)
    assert await store.settle([stored]) == [None]
    assert calls[:2] == ["fsync TEMP", "rename key"]
    assert calls[-1] == "unlink JOURNAL"
    assert {"fsync d", "fsync ."} <= set(calls)
    assert [p.name for p in (tmp_path / "d").iterdir()] == ["key"]


# --- what failures leave (B-70) ------------------------------------------------------------------


def fails_at(call: int, error: int) -> Callable[..., None]:
    """Give a system call that fails the n-th time it is asked."""
    count = 0

    def fail(*args: Any, **kwargs: Any) -> None:
        nonlocal count
        count += 1
        if count == call:
            raise OSError(error, os.strerror(error))

    return fail


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (errno.ENOSPC, TargetFull),
        (errno.EDQUOT, TargetFull),
        (errno.EIO, TargetUnavailable),
        (errno.EROFS, TargetUnavailable),
        (errno.ESTALE, TargetUnavailable),
    ],
)
async def test_a_failed_fsync_fails_its_own_object_only(
    store: LocalStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: int,
    meaning: type[S3flowError],
) -> None:
    await store.settle([await put(store, b"two", b"former")])
    stored = [await put(store, key) for key in (b"one", b"two", b"three")]
    monkeypatch.setattr(os, "fsync", fails_at(2, error))
    first, second, third = await store.settle(stored)
    assert first is None
    assert third is None
    assert isinstance(second, meaning)
    assert "disk:two" in str(second)
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "three", "two"]
    assert (tmp_path / "two").read_bytes() == b"former"
    (again,) = await store.settle([stored[1]])
    assert isinstance(again, Conflict)  # its file is gone: it must be sent again


async def test_a_failed_syncfs_fails_all_that_it_was_for(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = [await put(store, b"key-%d" % number) for number in range(5)]
    monkeypatch.setattr(settle, "syncfs", fails_at(1, errno.EIO))
    errors = await store.settle(stored)
    assert [type(error) for error in errors] == [TargetUnavailable] * 5
    assert list(tmp_path.iterdir()) == []


async def test_what_was_under_way_when_a_disk_failed_is_not_called_durable(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The kernel tells a failure once, and that may have been of the second batch's bytes.
    former = [await put(store, b"former-%d" % number) for number in range(5)]
    beside = [await put(store, b"beside-%d" % number) for number in range(5)]
    alone = await put(store, b"alone")
    with monkeypatch.context() as failing:
        failing.setattr(settle, "syncfs", fails_at(1, errno.EIO))
        assert all(await store.settle(former))
    for batch in (beside, [alone]):
        errors = await store.settle(batch)
        assert [type(error) for error in errors] == [TargetUnavailable] * len(batch)
    assert list(tmp_path.iterdir()) == []
    again = [await put(store, b"again-%d" % number) for number in range(5)]
    assert await store.settle(again) == [None] * 5


async def test_a_disk_is_asked_by_what_was_open_before_the_first_write(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One opened later may have missed what failed, if another process was told of it.
    asked: set[int] = set()
    monkeypatch.setattr(settle, "syncfs", asked.add)
    for folder in (b"a", b"b", b"c"):
        stored = [await put(store, folder + b"/key-%d" % number) for number in range(5)]
        assert await store.settle(stored) == [None] * 5
    assert len(asked) == 1


async def test_a_directory_that_cannot_be_synced_is_not_called_durable(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = await put(store, b"a/key")
    monkeypatch.setattr(os, "fsync", fails_at(2, errno.EIO))
    (error,) = await store.settle([stored])
    assert isinstance(error, TargetUnavailable)
    monkeypatch.undo()
    log: list[str] = []
    fsync = os.fsync

    def record(fd: int) -> None:
        log.append(name_of(fd, store._directories.root_path))
        fsync(fd)

    monkeypatch.setattr(os, "fsync", record)
    assert await store.settle([await put(store, b"a/key")]) == [None]
    assert "." in log  # where `a` was made: still to be made durable


async def test_a_rename_that_fails_leaves_no_temporary_file(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = await put(store, b"key")
    monkeypatch.setattr(os, "rename", fails_at(1, errno.EDQUOT))
    (error,) = await store.settle([stored])
    assert isinstance(error, TargetFull)
    assert list(tmp_path.iterdir()) == []


# --- what a crash leaves (B-72) ------------------------------------------------------------------


async def test_before_settling_a_crash_leaves_only_our_own_names(
    store: LocalStore, tmp_path: Path
) -> None:
    await put(store, b"key", pattern(200_000))
    upload_id = await store.create_multipart_upload("", b"big", ATTRIBUTES, 4)
    part = await store.upload_part("", b"big", upload_id, 1, 0, body_of(b"data"))
    await store.complete_multipart_upload("", b"big", upload_id, [part])
    assert all(p.name.startswith(".s3flow-") for p in tmp_path.iterdir())
    assert await store.head_object("", b"key") is None
    assert await store.find("", [b"big", b"key"]) == {}


async def test_the_sweep_removes_leftovers_and_keeps_what_can_go_on(
    store: LocalStore, tmp_path: Path
) -> None:
    await store.settle([await put(store, b"d/key")])
    await put(store, b"d/lost")
    upload_id = await store.create_multipart_upload("", b"d/big", ATTRIBUTES, 8)
    await store.upload_part("", b"d/big", upload_id, 1, 0, body_of(b"data"))
    (tmp_path / "d/.s3flow-00000000deadbeef.parts").write_bytes(b"no data beside it")
    (tmp_path / "d/.s3flow-directory").mkdir()
    (tmp_path / ".s3flow-Case-probe").write_bytes(b"")
    (tmp_path / "elsewhere").symlink_to("d")
    await store.close()

    again = LocalStore("disk", tmp_path)
    assert await again.sweep(0) == 0  # nothing is that old
    assert await again.sweep(time.time() + 60) == 3
    names = {p.name for p in (tmp_path / "d").iterdir()}
    uploads = {f".s3flow-{upload_id}", f".s3flow-{upload_id}.parts"}
    assert names == {"key", ".s3flow-directory", *uploads}
    assert {p.name for p in tmp_path.iterdir()} == {"d", "elsewhere"}
    assert [part.number for part in await again.list_parts("", b"d/big", upload_id)] == [1]
    await again.close()


async def test_the_sweep_asks_when_a_file_was_made_not_for_the_object_s_time(
    store: LocalStore,
) -> None:
    stored = await put(store, b"key")  # its modification time is the object's, years ago
    assert await store.sweep(time.time() - 3600) == 0
    assert await store.settle([stored]) == [None]


async def test_an_attempt_that_is_repeated_removes_the_former_file(
    store: LocalStore, tmp_path: Path
) -> None:
    former = await put(store, b"key", b"former")
    latest = await put(store, b"key", b"latest")
    assert len(list(tmp_path.iterdir())) == 1
    first, second = await store.settle([former, latest])
    assert isinstance(first, Conflict)
    assert second is None
    assert (tmp_path / "key").read_bytes() == b"latest"


# --- what a file looks like ----------------------------------------------------------------------


async def test_a_file_has_the_object_s_time_and_the_umask_s_mode(
    store: LocalStore, tmp_path: Path
) -> None:
    mask = os.umask(0o027)
    try:
        await store.settle([await put(store, b"key")])
    finally:
        os.umask(mask)
    status = (tmp_path / "key").stat()
    assert stat.S_IMODE(status.st_mode) == 0o640
    assert status.st_mtime_ns == MODIFIED * 1_000_000
    listed = (await store.find("", [b"key"]))[b"key"]
    assert (listed.modified, listed.etag) == (MODIFIED, "")


async def test_a_discarded_object_cannot_be_settled(store: LocalStore, tmp_path: Path) -> None:
    stored = await put(store, b"key")
    await store.discard("", b"key", stored)
    (error,) = await store.settle([stored])
    assert isinstance(error, Conflict)
    assert list(tmp_path.iterdir()) == []
