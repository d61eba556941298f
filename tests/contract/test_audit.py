"""What every state store tells of the past: its audit trail, its records, and by the old tool's names."""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from s3flow.model import Change, Method, PageChanges, Proof, State, Transfer
from s3flow.ports import StateStore
from s3flow.records import Audited
from s3flow.state import audit
from s3flow.state.audit import Check
from s3flow.state.queries import fetch
from s3flow.state.store import SqlState
from tests.contract.state_kit import (
    FLOW,
    ODD_KEYS,
    Home,
    claim_keys,
    fail,
    found,
    home,
    merge,
    row_id,
    state,
)

__all__ = ["home", "state"]  # fixtures


async def query(state: StateStore, statement: str) -> list[tuple[Any, ...]]:
    """Ask the database as a person would."""
    assert isinstance(state, SqlState)
    return [tuple(row) for row in await state._database.read(lambda: fetch(statement))]


async def trail(state: StateStore, flow: str = "documents") -> list[Audited]:
    rows = await state.audit(flow)
    check = Check()
    check.rows(rows)
    assert isinstance(state, SqlState)
    assert check.end((await state.audited()).get(flow)) is None
    return rows


async def facts(state: StateStore) -> list[tuple[str, bytes]]:
    return [(row.fact, row.key) for row in await trail(state)]


def verified(transfer: Transfer, **more: Any) -> Change:
    given = {"method": Method.SERVER_COPY, "proof": Proof.ETAG, "target_etag": "t1", **more}
    return Change(transfer, State.VERIFIED, **given)


# --- facts -----------------------------------------------------------------------------------


async def test_an_outcome_is_a_fact_with_all_that_shows_it(home: Home, state: StateStore) -> None:
    await merge(state, found(b"a", size=11), found(b"b"))
    assert await trail(state) == []  # that something is to do is no fact
    one, two = await state.claim("documents", 9)
    home.clock.now += 5
    await state.save([verified(one, version_id="v7", worker=3), verified(two)])
    first, second = await trail(state)
    assert isinstance(state, SqlState)
    assert first == Audited(
        flow="documents",
        seq=1,
        at=1_700_000_005_000,
        fact="verified",
        bucket="bucket",
        key=b"a",
        size=11,
        etag="e1",
        target_etag="t1",
        version_id="v7",
        method="server_copy",
        proof="etag",
        reason="",
        detail="",
        worker=f"{state._process}/3",
        hash=first.hash,
    )
    assert (second.seq, second.worker) == (2, state._process)


async def test_failures_and_what_a_person_does_about_them_are_facts(state: StateStore) -> None:
    await merge(state, found(b"a"), found(b"b"))
    for transfer in await state.claim("documents", 9):
        await fail(state, transfer, "access_denied")
    assert await state.retry("documents", None) == 2
    (transfer, _) = await state.claim("documents", 9)
    await state.save([verified(transfer)])
    assert await facts(state) == [
        ("failed", b"a"),
        ("failed", b"b"),
        ("retried", b"a"),
        ("retried", b"b"),
        ("verified", b"a"),
    ]
    rows = await trail(state)
    assert (rows[0].reason, rows[0].detail) == ("access_denied", "access_denied happened")
    assert (rows[2].reason, rows[2].etag, rows[2].bucket) == ("access_denied", "e1", "bucket")


async def test_what_a_scan_decides_is_a_fact(state: StateStore) -> None:
    await merge(
        state,
        found(b"a", State.SKIPPED, reason="filtered"),
        found(b"b", State.VERIFIED, method=Method.ADOPTED, proof=Proof.ETAG, target_etag="t"),
        found(b"c"),
        found(b"d"),
    )
    await merge(state, vanished=[await row_id(state, b"d")])
    changed = await row_id(state, b"b")
    await merge(state, changed=[(changed, found(b"b", size=12))])
    pending = await row_id(state, b"c")
    await merge(state, changed=[(pending, found(b"c", size=12))])  # nothing was done of it yet
    rows = await trail(state)
    assert [(row.fact, row.key) for row in rows] == [
        ("skipped", b"a"),
        ("adopted", b"b"),
        ("vanished", b"d"),
        ("changed", b"b"),
    ]
    assert (rows[1].target_etag, rows[1].proof) == ("t", "etag")
    assert (rows[3].size, rows[3].target_etag) == (10, "t")  # of the version that was done
    assert "12 bytes" in rows[3].detail


async def test_what_changes_nothing_is_no_fact(state: StateStore) -> None:
    await merge(state, found(b"a"), found(b"b"))
    one, two = await state.claim("documents", 9)
    waiting = Change(one, State.DISCOVERED, reason="throttled", attempts=1, retry_at=5)
    begun = Change(one, State.TRANSFERRING, upload_id="u", part_size=5)
    await state.save([waiting, begun])
    await state.remember_upload(one, "other", 5)
    assert await trail(state) == []
    await state.save([verified(one), verified(one)])
    await state.save([verified(one)])
    await state.save([verified(two._replace(generation=77)), verified(two._replace(id=99))])
    assert await facts(state) == [("verified", b"a")]


async def test_a_page_that_is_applied_again_is_told_of_once(state: StateStore) -> None:
    scan, _ = await state.begin_scan("documents")
    new = [found(b"a", State.SKIPPED, reason="filtered")]
    page = PageChanges("bucket", b"a", False, 1, 10, new)
    await state.apply_page(scan, page)
    await state.apply_page(scan, page)
    assert await facts(state) == [("skipped", b"a")]


async def test_a_deletion_says_what_made_it_right(state: StateStore) -> None:
    await merge(state, found(b"a"))
    (transfer,) = await state.claim("documents", 9)
    await state.save([verified(transfer, version_id="v1")])
    gone = Change(transfer, State.DELETED, message="if its ETag is e1", target_etag="t1")
    await state.save([gone])
    row = (await trail(state))[-1]
    assert (row.fact, row.method, row.proof, row.detail) == (
        "deleted",
        "server_copy",
        "etag",
        "if its ETag is e1",
    )
    (record,) = await state.records("documents", "bucket")
    assert record.version_id == "v1"


async def test_the_trail_outlives_its_flow_and_goes_on(home: Home, state: StateStore) -> None:
    await merge(state, found(b"a"))
    (transfer,) = await state.claim("documents", 9)
    await state.save([verified(transfer)])
    assert await state.forget("documents")
    assert await facts(state) == [("verified", b"a"), ("forgotten", b"")]
    again = await home.open()
    await again.open_flow(FLOW)
    await merge(again, found(b"z", State.SKIPPED, reason="filtered"))
    rows = await trail(again)
    assert [(row.seq, row.fact) for row in rows] == [
        (1, "verified"),
        (2, "forgotten"),
        (3, "skipped"),
    ]


async def test_each_flow_has_its_own_chain(state: StateStore) -> None:
    await state.open_flow(replace(FLOW, name="other"))
    for flow in ("documents", "other", "documents"):
        key = b"%d" % len(await state.audit(flow))
        await merge(state, found(key, State.SKIPPED, reason="filtered"), flow=flow)
    assert [row.seq for row in await trail(state)] == [1, 2]
    assert [row.seq for row in await trail(state, "other")] == [1]
    assert await state.audit("never") == []


async def test_odd_keys_and_long_texts_stay_what_they_are(state: StateStore) -> None:
    await merge(state, *[found(key) for key in ODD_KEYS])
    transfers = await state.claim("documents", 99)
    text = "\u00fc'\"\\\x00\n\U0001f4a9 " * 300
    await state.save([Change(it, State.FAILED, "odd", text) for it in transfers])
    rows = await trail(state)
    assert [row.key for row in rows] == ODD_KEYS
    assert {row.detail for row in rows} == {text[:1000]}
    pages = [await state.audit("documents", after, 5) for after in range(0, len(rows), 5)]
    assert [row for page in pages for row in page] == rows


# --- records ---------------------------------------------------------------------------------


async def test_records_tell_all_that_is_known_page_by_page(home: Home, state: StateStore) -> None:
    await merge(state, *[found(key) for key in ODD_KEYS])
    await merge(state, found(b"k"), bucket="another")
    home.clock.now += 7
    (transfer, *_) = await state.claim("documents", 1)
    await state.save([verified(transfer, version_id="v", attempts=2, dropped=("tags",))])
    assert await state.buckets("documents") == ["another", "bucket"]
    assert await state.buckets("never") == []
    seen, after = [], b""
    while page := await state.records("documents", "bucket", after, 4):
        seen += page
        after = page[-1].key
    assert [record.key for record in seen] == ODD_KEYS
    (record,) = [it for it in seen if it.key == transfer.key]
    assert record._asdict() == {
        "bucket": "bucket",
        "key": transfer.key,
        "size": 10,
        "etag": "e1",
        "version_id": "v",
        "modified": 1_600_000_000_123,
        "storage_class": "STANDARD",
        "state": State.VERIFIED,
        "reason": "",
        "message": "",
        "method": "server_copy",
        "proof": "etag",
        "target_etag": "t1",
        "dropped": "tags",
        "attempts": 2,
        "discovered": 1_700_000_000_000,
        "updated": 1_700_000_007_000,
    }


async def test_a_new_version_has_not_the_id_of_the_old_one(state: StateStore) -> None:
    await merge(state, found(b"a"))
    (transfer,) = await state.claim("documents", 9)
    await state.save([verified(transfer, version_id="v1")])
    await merge(state, changed=[(transfer.id, found(b"a", size=12))])
    (record,) = await state.records("documents", "bucket")
    assert (record.version_id, record.state) == ("", State.DISCOVERED)


# --- the old tool's names --------------------------------------------------------------------


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


def text(rows: Sequence[tuple[Any, ...]]) -> list[tuple[str, ...]]:
    return [tuple(str(value) for value in row) for row in rows]


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
