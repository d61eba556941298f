"""What only the SQLite state promises: its file, its errors, its plans, its upgrades."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import stat
from pathlib import Path

import pytest

from s3flow.errors import StateEmpty, StateError, StateLocked
from s3flow.model import OUTCOMES, Change, Sample, State
from s3flow.state import bulk, sql
from s3flow.state.database import APPLICATION_ID, SqliteDatabase, recorded_version, split
from s3flow.state.sqlite import open_sqlite
from s3flow.state.steps import Select
from s3flow.state.store import SqlState
from tests.unit.sqlite_kit import FLOW, fill, page, path, query, state

__all__ = ["path", "state"]  # fixtures


# --- the file -------------------------------------------------------------------------------------


async def test_the_files_are_for_their_owner_only(path: Path) -> None:
    before = os.umask(0)
    try:
        state = await open_sqlite(path)
        try:
            await state.open_flow(FLOW)
            found = {item.name: stat.S_IMODE(item.stat().st_mode) for item in path.parent.iterdir()}
        finally:
            await state.close()
    finally:
        os.umask(before)
    assert found == {
        "state.db": 0o600,
        "state.db-wal": 0o600,
        "state.db-shm": 0o600,
        "state.db.lock": 0o600,
    }


async def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"nowhere is no folder; create it"):
        await open_sqlite(tmp_path / "nowhere" / "state.db")


async def test_commits_are_synced_and_the_journal_is_a_wal(state: SqlState) -> None:
    assert await query(state, "PRAGMA synchronous") == [(2,)]
    assert await query(state, "PRAGMA journal_mode") == [("wal",)]


async def test_two_names_of_one_file_are_one_state(path: Path, state: SqlState) -> None:
    other = path.with_name("other.db")
    other.symlink_to(path)
    with pytest.raises(StateLocked, match=rf"pid {os.getpid()} on .*state\.db\.lock"):
        await open_sqlite(other)


async def test_the_lock_ends_with_close_and_with_a_failed_open(path: Path) -> None:
    path.write_bytes(b"this is not a database, whatever its name says" * 100)
    for _ in range(2):
        with pytest.raises(StateError, match="no database or is damaged: delete it") as told:
            await open_sqlite(path)
        assert not isinstance(told.value, StateLocked)
    path.unlink()
    for _ in range(2):
        await (await open_sqlite(path)).close()


async def test_a_cancelled_open_leaves_the_state_free(path: Path) -> None:
    for steps in range(12):
        task = asyncio.create_task(open_sqlite(path))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await task.result().close()
        await (await open_sqlite(path)).close()


async def test_a_full_disk_does_not_keep_the_state_from_closing(path: Path) -> None:
    state = await open_sqlite(path)
    await state.open_flow(FLOW)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        await state.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    again = await open_sqlite(path)
    try:
        scan, _ = await again.begin_scan("documents")
        assert scan.adopting
    finally:
        await again.close()


async def test_damage_found_after_a_crash_is_told_with_the_remedy(path: Path) -> None:
    state = await open_sqlite(path)
    await state.open_flow(FLOW)
    await fill(state, 2000)
    await state.close()
    db = sqlite3.connect(path)
    db.execute("UPDATE meta SET value = '0' WHERE name = 'clean'")
    (root,) = db.execute(
        "SELECT rootpage FROM sqlite_master WHERE name = 'objects_failed'"
    ).fetchone()
    (table,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'objects'").fetchone()
    db.commit()
    db.close()
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\x05" + b"\xff" * 63)
        file.seek((table - 1) * 4096 + 12)
        file.write(b"\xfe" * 500)
    with pytest.raises(StateError, match=r"damaged.*adopted, not copied again"):
        await open_sqlite(path)


@pytest.mark.parametrize("damage", ["DELETE FROM meta", "UPDATE meta SET value = 'x'"])
async def test_a_file_that_does_not_say_its_version_is_damaged(path: Path, damage: str) -> None:
    await (await open_sqlite(path)).close()
    db = sqlite3.connect(path)
    db.execute(damage)
    db.commit()
    db.close()
    for read_only in (True, False):
        with pytest.raises(StateError, match=r"damaged.*adopted, not copied again"):
            await open_sqlite(path, read_only=read_only)
    with pytest.raises(StateError, match=r"damaged.*adopted, not copied again"):
        recorded_version(path)


async def test_another_programs_database_is_left_alone(path: Path) -> None:
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE files (name TEXT)")
    db.close()
    before = path.read_bytes()
    for read_only in (False, True):
        with pytest.raises(StateError, match="another program's database"):
            await open_sqlite(path, read_only=read_only)
    assert path.read_bytes() == before


async def test_a_newer_schema_is_refused_and_not_touched(path: Path) -> None:
    await (await open_sqlite(path)).close()
    db = sqlite3.connect(path)
    db.execute("UPDATE meta SET value = '999' WHERE name = 'version'")
    db.commit()
    db.close()
    for read_only in (False, True):
        with pytest.raises(StateError, match=r"newer s3flow \(schema 999"):
            await open_sqlite(path, read_only=read_only)


async def test_an_upgrade_that_fails_half_way_leaves_the_old_schema(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = await open_sqlite(path)
    await state.open_flow(FLOW)
    await fill(state, 3)
    await state.close()
    scripts = sql.migrations("sqlite")
    broken = [*scripts, "CREATE TABLE extra (a);\nCREATE TABLE extra (a);\n"]
    monkeypatch.setattr(sql, "migrations", lambda dialect: broken)
    with pytest.raises(StateError, match="already exists"):
        await open_sqlite(path)
    with pytest.raises(StateError, match="older schema"):
        await open_sqlite(path, read_only=True)
    monkeypatch.setattr(
        sql, "migrations", lambda dialect: [*scripts, "CREATE TABLE extra (a);\n-- done\n"]
    )
    upgraded = await open_sqlite(path)
    try:
        assert await query(upgraded, "SELECT count(*) FROM extra") == [(0,)]
        assert await query(upgraded, "SELECT value FROM meta WHERE name = 'version'") == [
            (str(len(scripts) + 1),)
        ]
        assert len(await upgraded.claim("documents", 9)) == 3
    finally:
        await upgraded.close()


def test_a_script_is_split_at_statements_and_not_at_every_semicolon() -> None:
    script = "-- a; b\nCREATE TABLE t (a TEXT DEFAULT ';');\nINSERT INTO t\nVALUES ('x;');\n"
    assert [part.strip().splitlines()[-1] for part in split(script)] == [
        "CREATE TABLE t (a TEXT DEFAULT ';');",
        "VALUES ('x;');",
    ]


# --- beside a running daemon ----------------------------------------------------------------------


async def test_readers_work_beside_the_daemon_and_write_nothing(
    state: SqlState, path: Path
) -> None:
    await fill(state, 3)
    await state.sample("documents", Sample(1.0, 1, 1))
    reader = await open_sqlite(path, read_only=True)
    try:
        assert await reader.totals("documents") == await state.totals("documents")
        await fill(state, 3, start=10)
        assert [line.objects for line in await reader.totals("documents")] == [6]
        assert await reader.samples("documents") == [Sample(1.0, 1, 1)]
        assert (await reader.last_scan("documents")).unfinished
        with pytest.raises(StateError, match="reading only"):
            await reader.retry("documents", None)
        with pytest.raises(StateError, match="reading only"):
            await reader.claim("documents", 1)
    finally:
        await reader.close()
    assert path.with_name("state.db-wal").stat().st_size > 0  # the reader checkpointed nothing
    assert len(await state.claim("documents", 10)) == 6


async def test_a_reader_works_when_no_daemon_runs_and_creates_no_state(path: Path) -> None:
    with pytest.raises(StateError, match="there is no state at"):
        await open_sqlite(path, read_only=True)
    assert list(path.parent.iterdir()) == []
    state = await open_sqlite(path)
    await state.open_flow(FLOW)
    await fill(state, 2)
    await state.close()
    reader = await open_sqlite(path, read_only=True)
    try:
        assert [line.objects for line in await reader.totals("documents")] == [2]
    finally:
        await reader.close()


async def test_the_views_show_names_and_readable_keys(state: SqlState) -> None:
    scan, _ = await state.begin_scan("documents")
    keys = [b"\xff\x00", "caf\u00e9".encode(), b"plain"]
    await state.apply_page(scan, page(sorted(keys)))
    claimed = {it.key: it for it in await state.claim("documents", 3)}
    await state.save([Change(claimed[b"plain"], State.FAILED, "refused", "no")])
    shown = await query(state, "SELECT bucket, key, state, size, etag FROM inventory ORDER BY key")
    assert shown == [
        ("bucket", "caf\u00e9", "discovered", 10, "e"),
        ("bucket", "hex:FF00", "discovered", 10, "e"),
        ("bucket", "plain", "failed", 10, "e"),
    ]
    assert await query(state, "SELECT * FROM outcomes ORDER BY outcome") == [
        ("documents", "failed", "refused", 1, 10),
        ("documents", "pending", "", 2, 20),
    ]


async def test_the_codes_in_the_schema_are_those_of_the_program(state: SqlState) -> None:
    stored = await query(state, "SELECT name, code, outcome FROM states")
    assert {(name, code) for name, code, _ in stored} == {
        (str(it), code) for it, code in sql.CODES.items()
    }
    assert {(name, outcome) for name, _, outcome in stored} == {
        (str(it), str(outcome)) for it, outcome in OUTCOMES.items()
    }
    assert set(sql.CODES) == set(State)
    assert await query(state, "PRAGMA application_id") == [(APPLICATION_ID,)]


# --- plans ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "index"),
    [
        ("CLAIM_INTERRUPTED", "objects_interrupted"),
        ("CLAIM_WAITING", "objects_waiting"),
        ("CLAIM_FRESH", "objects_fresh"),
        ("UPLOADS", "objects_interrupted"),
        ("WAITING", "objects_waiting"),
        ("FAILURES", "objects_failed"),
        ("FAILED_IDS", "objects_failed"),
        ("ROWS", "sqlite_autoindex_objects_1"),
        ("ROWS_TO_THE_END", "sqlite_autoindex_objects_1"),
        ("DROP_OBJECTS", "sqlite_autoindex_objects_1"),
    ],
)
async def test_lookups_go_by_their_index_and_sort_nothing(
    state: SqlState, statement: str, index: str
) -> None:
    text = getattr(sql, statement)
    if isinstance(text, Select):
        text = bulk.as_one(text)
    plan = await query(state, f"EXPLAIN QUERY PLAN {text}", *[1] * text.count("?"))
    steps = [str(step[3]) for step in plan]
    assert any(f"INDEX {index} (flow_id=?" in step for step in steps), steps
    found = [step for step in steps if "subquery" not in step.lower()]  # see bulk.as_one
    assert not any(step.startswith("SCAN") or "TEMP B-TREE" in step for step in found), steps


async def test_a_claim_after_a_restart_looks_at_pending_rows_only(path: Path) -> None:
    """200,000 rows are done and 10 are not: the virtual machine's steps say what was looked at."""
    state = await open_sqlite(path)
    await state.open_flow(FLOW)
    scan, _ = await state.begin_scan("documents")
    for start in range(0, 200_000, 20_000):
        done = page([b"%08d" % n for n in range(start, start + 20_000)])
        for item in done.new:
            item.state = State.VERIFIED
        await state.apply_page(scan, done)
    await fill(state, 10, start=200_000)
    await state.close()

    again = await open_sqlite(path)
    try:
        ticks = 0

        def tick() -> int:
            nonlocal ticks
            ticks += 1
            return 0

        database = again._database
        assert isinstance(database, SqliteDatabase)
        await database._thread.run(lambda: database._db.set_progress_handler(tick, 100))
        assert len(await again.claim("documents", 1000)) == 10
        assert await again.next_retry("documents") is None
        assert await again.uploads("documents") == set()
        assert ticks * 100 < 5000
        totals = {line.state: line.objects for line in await again.totals("documents")}
        assert totals == {State.VERIFIED: 200_000, State.DISCOVERED: 10}
        assert ticks * 100 < 5000
    finally:
        await again.close()


async def test_a_state_that_is_just_being_made_is_empty_not_broken(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.touch()
    with pytest.raises(StateEmpty):
        await open_sqlite(path, read_only=True)
