"""The root of a folder, and the directories below it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from s3flow.errors import Conflict, TargetUnavailable
from s3flow.stores.local import LocalStore, paths
from tests.contract.kit import ATTRIBUTES, body_of
from tests.unit.local_kit import put, store

__all__ = ["store"]  # a fixture


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_root_that_is_no_directory_is_refused(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "root"
    if kind == "file":
        root.write_bytes(b"")
    with pytest.raises(TargetUnavailable, match=r"cannot be opened.*make the directory or mount"):
        LocalStore("disk", root)


def test_a_root_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(TargetUnavailable, match="not writable"):
        LocalStore("disk", tmp_path)


def gone(root: Path) -> None:
    """As after an unmount of what the root was in."""
    root.rename(root.with_name("away"))


def replaced(root: Path) -> None:
    """As after an unmount: the bare mount point."""
    gone(root)
    root.mkdir()


@pytest.mark.parametrize("lose", [gone, replaced])
async def test_a_lost_root_blocks_everything_and_its_return_helps(
    store: LocalStore, tmp_path: Path, lose: Callable[[Path], None]
) -> None:
    root = tmp_path / "root"
    await put(store, b"d/before", b"1")
    upload_id = await store.create_multipart_upload("", b"d/big", ATTRIBUTES, 4)
    stored = await store.put_object("", b"d/pending", body_of(b"2"), ATTRIBUTES, md5=None)
    lose(root)
    for call in (
        lambda: put(store, b"d/new", b"3"),
        lambda: store.find("", [b"d/before"]),
        lambda: store.head_object("", b"d/before"),
        lambda: store.create_multipart_upload("", b"x", ATTRIBUTES, 4),
        lambda: store.upload_part("", b"d/big", upload_id, 1, 0, body_of(b"data")),
        lambda: store.list_parts("", b"d/big", upload_id),
        lambda: store.list_multipart_uploads("", b""),
        lambda: store.sweep(0),
    ):
        with pytest.raises(TargetUnavailable, match="mount it again"):
            await call()
    (error,) = await store.settle([stored])
    assert isinstance(error, TargetUnavailable)
    if root.exists():
        assert list(root.iterdir()) == []
        root.rmdir()
    (tmp_path / "away").rename(root)
    await put(store, b"d/new", b"3")
    assert set(await store.find("", [b"d/before", b"d/new"])) == {b"d/before", b"d/new"}
    assert sorted(p.name for p in (root / "d").iterdir() if p.suffix != ".parts") == [
        f".s3flow-{upload_id}",
        "before",
        "new",
    ]


async def test_directories_removed_by_somebody_are_made_again(
    store: LocalStore, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    await put(store, b"a/b/c/one", b"1")
    for path in (root / "a/b/c/one", root / "a/b/c", root / "a/b"):
        path.unlink() if path.is_file() else path.rmdir()
    await put(store, b"a/b/c/two", b"2")
    assert (root / "a/b/c/two").read_bytes() == b"2"


async def test_a_directory_moved_away_meanwhile_takes_nothing_along(
    store: LocalStore, tmp_path: Path
) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    stored = await store.put_object("", b"d/key", body_of(b"data"), ATTRIBUTES, md5=None)
    (root / "d").rename(outside)
    (error,) = await store.settle([stored])
    assert isinstance(error, Conflict)
    assert list(outside.iterdir()) == []
    assert await store.find("", [b"d/key"]) == {}


def open_files() -> int:
    """Count this process's descriptors."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_open_directories_are_bounded(store: LocalStore) -> None:
    before = open_files()
    for number in range(paths._CACHED + 100):
        await put(store, b"d%d/e/key" % number, b"1")
    assert open_files() <= before + paths._CACHED + 20
    await store.close()
    assert open_files() <= before + 2


async def test_a_key_of_512_components_arrives(store: LocalStore) -> None:
    key = b"/".join([b"d"] * 512)
    await put(store, key, b"deep")
    assert set(await store.find("", [key])) == {key}
    assert await asyncio.to_thread(store._uploads.unfinished, "", b"") == []


async def test_a_directory_that_was_moved_away_is_not_looked_into(
    store: LocalStore, tmp_path: Path
) -> None:
    await put(store, b"d/key", b"data")
    (tmp_path / "root/d").rename(tmp_path / "elsewhere")
    (tmp_path / "root/d").mkdir()
    assert await store.find("", [b"d/key"]) == {}


def test_a_directory_made_while_its_parent_is_synced_is_still_to_be_synced(tmp_path: Path) -> None:
    directories = paths.Directories(tmp_path, fold_case=False)
    directories.open(b"one/x", make=True)
    before = directories.unsynced_above(b"one/x")
    assert set(before) == {b"", b"one"}
    directories.open(b"two", make=True)  # after the sync of the root, before it was noted
    for path, made in before.items():
        directories.synced(path, made)
    assert set(directories.unsynced_above(b"one/x")) == {b""}
    directories.close()
