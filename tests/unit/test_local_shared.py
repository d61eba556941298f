"""One folder, several processes: each has a store of its own, and what one makes another relies upon."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from s3flow.errors import PathConflict
from s3flow.stores.local import LocalStore
from tests.contract.kit import ATTRIBUTES
from tests.unit.test_local_settle import put


@asynccontextmanager
async def two(
    root: Path, *, shared: bool = True, fold_case: bool | None = None
) -> AsyncIterator[tuple[LocalStore, LocalStore]]:
    """Open the same folder twice, as two processes do."""
    stores = [LocalStore("disk", root, shared=shared, fold_case=fold_case) for _ in range(2)]
    async with contextlib.AsyncExitStack() as stack:
        for store in stores:
            stack.push_async_callback(store.close)
        yield stores[0], stores[1]


@pytest.mark.parametrize("shared", [True, False])
async def test_what_another_made_and_did_not_sync_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: bool
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def record(fd: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink().relative_to(tmp_path)))
        fsync(fd)

    async with two(tmp_path, shared=shared) as (first, second):
        await put(first, b"a/b/one")  # it made the folders, and is slow to settle
        stored = await put(second, b"a/b/two")
        monkeypatch.setattr(os, "fsync", record)
        assert await second.settle([stored]) == [None]
        above = {".", "a"} if shared else set()
        assert {path for path in synced if ".s3flow-" not in path} == {"a/b"} | above
        synced.clear()
        assert await second.settle([await put(second, b"a/b/three")]) == [None]
        assert {path for path in synced if ".s3flow-" not in path} == {"a/b"}  # once is enough


async def test_two_spellings_meet_at_one_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def slowly(old: bytes, new: bytes, **kwargs: int) -> None:
        time.sleep(0.1)  # long enough for the other to look, if nothing kept it from it
        rename(old, new, **kwargs)

    monkeypatch.setattr(os, "rename", slowly)
    async with two(tmp_path, fold_case=True) as (first, second):
        stored = await asyncio.gather(put(first, b"key"), put(second, b"KEY"))
        answers = await asyncio.gather(first.settle([stored[0]]), second.settle([stored[1]]))
    errors = [error for (error,) in answers if error is not None]
    assert [type(error) for error in errors] == [PathConflict]
    assert len(list(tmp_path.iterdir())) == 1


async def test_what_a_dead_process_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    async with two(tmp_path) as (dead, living):
        await dead.settle([await put(dead, b"a/there")])
        for key in (b"a/one", b"b/c/two"):
            await put(dead, key)
        await dead.create_multipart_upload("", b"a/large", ATTRIBUTES, 100)
        kept = await put(living, b"a/three")
        before = {path for path in tmp_path.rglob("*") if path.is_file()}
        await living.clear(dead.mark, [("", b"a/one"), ("", b"b/c/two"), ("", b"gone/four")])
        after = {path for path in tmp_path.rglob("*") if path.is_file()}
        assert len(before - after) == 2
        assert {path.parent for path in before - after} == {tmp_path / "a", tmp_path / "b/c"}
        assert await living.settle([kept]) == [None]
        assert (tmp_path / "a/three").exists()
        assert (tmp_path / "a/there").exists()
        assert len(await living.list_multipart_uploads("", b"")) == 1
