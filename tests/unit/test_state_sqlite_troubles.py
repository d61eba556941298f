"""Files of states that cannot be written, read, or are of somebody else."""

from __future__ import annotations

import asyncio
import resource
import sqlite3
from pathlib import Path

import pytest

from s3flow.errors import StateError
from s3flow.model import Change, Discovered, Listed, PageChanges, State
from s3flow.state import flows
from s3flow.state.sqlite import open_sqlite
from s3flow.state.store import SqlState
from tests.unit.sqlite_kit import FLOW, fill, page, path, query, state

__all__ = ["path", "state"]  # fixtures


async def test_a_full_database_loses_nothing_and_works_again_with_room(
    state: SqlState,
) -> None:
    scan = await fill(state, 500)
    claimed = await state.claim("documents", 500)
    before = await state.totals("documents")
    ((pages,),) = await query(state, "PRAGMA page_count")
    await query(state, f"PRAGMA max_page_count = {pages}")
    saved = [Change(it, State.FAILED, "refused", "m" * 900) for it in claimed]
    following = page([b"9%07d" % n for n in range(1000)])
    for _ in range(2):
        with pytest.raises(StateError, match="full; make room on its disk"):
            await state.save(saved)
        with pytest.raises(StateError, match="full; make room on its disk"):
            await state.apply_page(scan, following)
    assert await state.totals("documents") == before
    (reached,) = await state.ranges(scan, "bucket")
    assert (reached.cursor, reached.done) == (b"%08d" % 499, False)
    assert await state.claim("documents", 1) == []  # their workers still have them

    await query(state, f"PRAGMA max_page_count = {pages + 10_000}")
    await state.apply_page(scan, following)
    await state.save(saved)
    totals = {line.state: line.objects for line in await state.totals("documents")}
    assert totals == {State.DISCOVERED: 1000, State.FAILED: 500}


async def test_a_failed_write_to_disk_is_rolled_back(state: SqlState, path: Path) -> None:
    await fill(state, 500)
    claimed = await state.claim("documents", 500)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = path.with_name("state.db-wal").stat().st_size
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        with pytest.raises(StateError, match="nothing was half written"):
            await state.save([Change(it, State.FAILED, message="m" * 900) for it in claimed])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [line.state for line in await state.totals("documents")] == [State.DISCOVERED]
    await state.save([Change(it, State.VERIFIED) for it in claimed])
    assert [line.state for line in await state.totals("documents")] == [State.VERIFIED]
    assert await query(state, "PRAGMA integrity_check") == [("ok",)]


async def test_a_write_waits_for_another_programs_transaction(state: SqlState, path: Path) -> None:
    """A transaction that reads before it takes the write lock would fail instead of waiting."""
    await fill(state, 3)
    claimed = await state.claim("documents", 3)
    other = sqlite3.connect(path, isolation_level=None)
    try:
        other.execute("BEGIN IMMEDIATE")
        other.execute("INSERT INTO meta (name, value) VALUES ('other', '1')")
        save = asyncio.create_task(state.save([Change(it, State.VERIFIED) for it in claimed]))
        await asyncio.sleep(0.1)
        assert not save.done()
        other.execute("COMMIT")
        await save
    finally:
        other.close()
    assert [line.state for line in await state.totals("documents")] == [State.VERIFIED]


async def test_finished_scans_leave_no_ranges_and_old_ones_are_pruned(
    state: SqlState,
) -> None:
    for number in range(flows.KEPT_SCANS + 20):
        await state.finish_scan(await fill(state, 1, start=number))
    assert await query(state, "SELECT count(*) FROM ranges") == [(0,)]
    assert await query(state, "SELECT count(*) FROM scans") == [(flows.KEPT_SCANS + 1,)]


async def test_messages_are_kept_short(state: SqlState) -> None:
    await fill(state, 1)
    (transfer,) = await state.claim("documents", 1)
    await state.save([Change(transfer, State.FAILED, "refused", "m" * 100_000)])
    ((_, _, _, message),) = await state.failures("documents", 1)
    assert message == "m" * 1000


async def test_ids_are_not_used_again_by_the_process_that_forgot_them(state: SqlState) -> None:
    await fill(state, 10)
    highest = max(it.id for it in await state.claim("documents", 10))
    await state.forget("documents")
    await state.open_flow(FLOW)
    await fill(state, 10)
    assert min(it.id for it in await state.claim("documents", 10)) > highest


async def test_forgetting_is_finished_by_the_next_process(path: Path) -> None:
    state = await open_sqlite(path)
    await state.open_flow(FLOW)
    await fill(state, 10)
    await query(state, "UPDATE flows SET name = NULL")
    await state.close()
    again = await open_sqlite(path)
    try:
        assert await query(again, "SELECT count(*) FROM objects") == [(0,)]
        assert await query(again, "SELECT count(*) FROM flows") == [(0,)]
    finally:
        await again.close()


async def test_uploads_that_nobody_continues_can_be_found_until_they_are_removed(
    state: SqlState,
) -> None:
    scan = await fill(state, 4)
    changed, skipped, late, vanished = await state.claim("documents", 4)
    for transfer in (changed, skipped, vanished):
        await state.remember_upload(transfer, f"up-{transfer.key.decode()[-1]}", 5)
    await state.release([vanished])
    newer = Listed(b"x", 1, "e2", 0, "STANDARD")
    following = PageChanges("bucket", b"9", False, 0, 0)
    following.changed = [
        (changed.id, Discovered(newer)),
        (skipped.id, Discovered(newer, State.SKIPPED, "exclude")),
        (late.id, Discovered(newer)),
    ]
    following.vanished = [vanished.id]
    await state.apply_page(scan, following)
    await state.remember_upload(late, "up-late", 5)

    assert await state.uploads("documents") == set()
    # The changed one is not among them: its row tells the next worker to clear the key.
    assert await state.abandoned_uploads("documents") == [
        ("bucket", skipped.key, "up-1"),
        ("bucket", vanished.key, "up-3"),
        ("bucket", late.key, "up-late"),
    ]
    await state.uploads_removed("documents", ["up-1", "up-late", "unknown"])
    assert await state.abandoned_uploads("documents") == [("bucket", vanished.key, "up-3")]
