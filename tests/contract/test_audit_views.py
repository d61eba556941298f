"""Views that show the trail under an old tool's names."""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from pathlib import Path

from s3flow.model import Change, Method, Proof, State
from s3flow.ports import StateStore
from s3flow.state import audit
from s3flow.state.store import SqlState
from tests.contract.audit_kit import query, text, trail, verified
from tests.contract.state_kit import Home, claim_keys, found, home, merge, state

__all__ = ["home", "state"]  # fixtures


async def _three_days(home: Home, state: StateStore) -> None:
    """Move 4, 3 and 0 objects on three days; 0, 1 and 2 fail; one is never tried, one not taken."""
    keys = [b"%02d" % number for number in range(11)]
    await merge(state, *[found(key) for key in keys])
    await merge(state, found(b"99", State.SKIPPED, reason="filtered"))
    transfers = await state.claim("documents", 10)
    for day, (moved, failed) in enumerate([(4, 0), (3, 1), (0, 2)]):
        home.clock.now = dt.datetime(2026, 11, 20 + day, 23, 59, 50, tzinfo=dt.UTC).timestamp()
        mine, transfers = transfers[: moved + failed], transfers[moved + failed :]
        changes = [verified(it) for it in mine[:moved]]
        changes += [Change(it, State.FAILED, "broken", "it broke") for it in mine[moved:]]
        for number, change in enumerate(changes):
            home.clock.now += number
            await state.save([change])


async def test_the_old_tools_queries_run_unchanged(home: Home, state: StateStore) -> None:
    await _three_days(home, state)
    newest = await query(
        state,
        "SELECT file_key, status, moved_at FROM document_logs WHERE status = 'success'"
        " ORDER BY moved_at DESC LIMIT 10",
    )
    assert text(newest)[:2] == [
        ("06", "success", "2026-11-21 23:59:53"),
        ("05", "success", "2026-11-21 23:59:51"),
    ]
    assert len(newest) == 7
    by_status = await query(state, "SELECT status, COUNT(*) FROM document_logs GROUP BY status")
    assert {status: int(count) for status, count in by_status} == {
        "success": 7,
        "error": 3,
        "pending": 1,
    }
    daily = await query(
        state,
        "SELECT DATE(moved_at) AS date, COUNT(*) AS total,"
        " SUM(CASE WHEN status = 'success' THEN 1 ELSE 0 END) AS successful,"
        " ROUND(SUM(CASE WHEN status = 'success' THEN 1 ELSE 0 END) * 100.0 / COUNT(*), 2)"
        " AS success_rate"
        " FROM document_logs GROUP BY DATE(moved_at) ORDER BY date DESC",
    )
    assert [(str(day), int(total), int(done), float(rate)) for day, total, done, rate in daily] == [
        ("2026-11-21", 3, 3, 100.0),
        ("2026-11-20", 4, 4, 100.0),
        ("None", 4, 0, 0.0),
    ]
    tried = await query(
        state,
        "SELECT DATE(updated_at) AS date, COUNT(*) AS total,"
        " SUM(CASE WHEN status = 'success' THEN 1 ELSE 0 END) AS successful,"
        " ROUND(SUM(CASE WHEN status = 'success' THEN 1 ELSE 0 END) / COUNT(*) * 100.0, 2) AS rate"
        " FROM document_logs WHERE status <> 'pending' GROUP BY DATE(updated_at)"
        " ORDER BY date DESC",
    )
    assert [(str(day), int(total), int(done)) for day, total, done, _ in tried] == [
        ("2026-11-22", 2, 0),
        ("2026-11-21", 4, 3),
        ("2026-11-20", 4, 4),
    ]
    readme = " ".join((Path(__file__).parents[2] / "README.md").read_text().split())
    (printed,) = re.findall(r"`(SELECT DATE\(updated_at\) AS date.*?)`", readme)
    rates = [(str(row[0]), float(row[3])) for row in await query(state, printed)]
    assert rates == [("2026-11-22", 0.0), ("2026-11-21", 75.0), ("2026-11-20", 100.0)]


async def test_rows_say_what_the_old_ones_did(home: Home, state: StateStore) -> None:
    await _three_days(home, state)
    columns = "id, file_key, status, message, moved_at, created_at, updated_at"
    rows = text(await query(state, f"SELECT {columns} FROM document_logs ORDER BY file_key"))
    ids = [row[0] for row in rows]
    assert len(set(ids)) == 11
    assert rows[0][1:5] == ("00", "success", "server_copy, proven by etag", "2026-11-20 23:59:50")
    assert rows[7][1:5] == ("07", "error", "it broke", "None")
    assert rows[10][1:5] == ("10", "pending", "", "None")
    assert {row[5] for row in rows} == {"2023-11-14 22:13:20"}
    failed = await query(state, "SELECT file_key, message FROM failed_migrations")
    assert sorted(failed) == [("07", "it broke"), ("08", "it broke"), ("09", "it broke")]
    recent = await query(state, "SELECT file_key FROM recent_migrations")
    assert len(recent) == 7


async def test_each_scan_is_a_batch(home: Home, state: StateStore) -> None:
    await _three_days(home, state)
    scan, _ = await state.begin_scan("documents")
    await merge(state, done=True)
    home.clock.now += 10
    await state.finish_scan(scan)
    (last,) = await state.claim("documents", 9)
    await state.save([verified(last)])
    counted = "listed, listed_bytes, succeeded, moved, adopted, skipped, failed, deleted, bytes"
    statement = f"SELECT id, flow, started, finished, {counted} FROM migration_batches ORDER BY id"
    assert text(await query(state, statement)) == [
        (
            str(scan.id),
            "documents",
            "2023-11-14 22:13:20",
            "2026-11-23 00:00:01",
            *("12", "120", "8", "8", "0", "1", "3", "0", "80"),
        )
    ]
    again, _ = await state.begin_scan("documents")
    await merge(state, found(b"new", State.VERIFIED, method=Method.ADOPTED, proof=Proof.ETAG))
    (_, second) = text(await query(state, statement))
    assert second[0] == str(again.id)
    assert second[3:] == ("None", *("1", "10", "1", "0", "1", "0", "0", "0", "0"))
    assert await state.forget("documents")
    assert await query(state, "SELECT * FROM migration_batches") == []
    assert await query(state, "SELECT * FROM batches") == []


async def test_keys_that_look_alike_stay_apart_by_the_old_names(state: StateStore) -> None:
    long = b"k" * 1024
    accents = [unicodedata.normalize(form, "\u00e9").encode() for form in ("NFC", "NFD")]
    keys = sorted([b"a", b"A", b"a ", *accents, long, b"\xff"])
    await merge(state, *[found(key) for key in keys])
    await state.save([verified(it) for it in await state.claim("documents", 9)])
    rows = await query(state, "SELECT file_key, status FROM document_logs ORDER BY id")
    shown = [key.decode() if key != b"\xff" else "hex:FF" for key in keys]
    assert rows == [(key, "success") for key in shown]
    grouped = await query(state, "SELECT file_key, COUNT(*) FROM document_logs GROUP BY file_key")
    assert sorted((str(key), int(count)) for key, count in grouped) == sorted(
        (key, 1) for key in shown
    )
    for key in ("a", "A", "a ", "k" * 1024):
        one = await query(state, f"SELECT id FROM document_logs WHERE file_key = '{key}'")
        assert len(one) == 1, key


async def test_facts_have_the_same_numbers_in_the_schema(state: StateStore) -> None:
    rows = await query(state, "SELECT code, name FROM facts")
    assert {int(code): name for code, name in rows} == audit.FACTS
    await merge(state, found(b"a", State.SKIPPED, reason="filtered"))
    await state.forget("documents")
    shown = await query(state, "SELECT seq, fact, at, hash FROM audit_trail ORDER BY seq")
    assert text(shown) == [
        (str(row.seq), row.fact, "2023-11-14 22:13:20", row.hash) for row in await trail(state)
    ]


async def test_without_an_audit_only_counts_are_kept(state: StateStore) -> None:
    assert isinstance(state, SqlState)
    state._process = ""
    await merge(state, found(b"a"))
    await state.save([verified(it) for it in await state.claim("documents", 9)])
    assert await state.audit("documents") == []
    assert text(await query(state, "SELECT succeeded FROM migration_batches")) == [("1",)]
    assert await claim_keys(state) == []
