"""Defects that a reading of the local store found: each of these failed once."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine import plan
from s3flow.errors import PathConflict
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
