"""What another client of the server sees: the old tool's names, whatever its session is set to."""

from __future__ import annotations

import contextlib
import datetime as dt

import pytest

from s3flow.model import Change, Discovered, Listed, PageChanges, State
from s3flow.state import sql
from s3flow.state.address import MySqlAddress
from s3flow.state.mysql import dialect, literals
from s3flow.state.opening import open_state
from tests import mariadb
from tests.contract.state_kit import FLOW

MOMENT = dt.datetime(2026, 11, 20, 23, 30, 5)  # noqa: DTZ001  as the server gives it: in UTC
KEYS = sorted([b"a", b"A", b"a ", "\u00e9".encode(), "e\u0301".encode(), b"k" * 1024])


@pytest.fixture
async def moved(mysql_schemas: mariadb.Schemas) -> MySqlAddress:
    """Give a schema with some moved objects and a failed one."""
    address = mysql_schemas.make()
    at = MOMENT.replace(tzinfo=dt.UTC).timestamp() + 0.75
    state = await open_state(address, clock=lambda: at)
    await state.open_flow(FLOW)
    scan, _ = await state.begin_scan("documents")
    new = [Discovered(Listed(key, 5, "e", 0, "STANDARD")) for key in [*KEYS, b"z"]]
    await state.apply_page(scan, PageChanges("bucket", b"zz", True, len(new), 5 * len(new), new))
    *arrived, lost = await state.claim("documents", 99)
    done = [Change(it, State.VERIFIED, method="put", proof="etag") for it in arrived]
    await state.save([*done, Change(lost, State.FAILED, "broken", "it broke")])
    await state.finish_scan(scan)
    await state.close()
    return address


@pytest.mark.parametrize("zone", ["+00:00", "-07:00", "+05:30"])
@pytest.mark.parametrize("collation", ["utf8mb4_general_ci", "utf8mb4_bin"])
async def test_times_are_utc_and_keys_are_text_in_any_session(
    mysql_schemas: mariadb.Schemas, moved: MySqlAddress, zone: str, collation: str
) -> None:
    with (
        contextlib.closing(mysql_schemas.connect(moved.database)) as connection,
        connection.cursor() as ask,
    ):
        ask.execute(f"SET time_zone = '{zone}'")
        ask.execute(f"SET NAMES utf8mb4 COLLATE {collation}")
        ask.execute(
            "SELECT file_key, status, moved_at FROM document_logs"
            " WHERE status = 'success' ORDER BY moved_at DESC LIMIT 10"
        )
        rows = ask.fetchall()
        assert sorted(key for key, _, _ in rows) == sorted(key.decode() for key in KEYS)
        assert {row[1:] for row in rows} == {("success", MOMENT)}
        ask.execute("SELECT status, COUNT(*) FROM document_logs GROUP BY status")
        assert dict(ask.fetchall()) == {"success": 6, "error": 1}
        ask.execute("SELECT DATE(moved_at), COUNT(*) FROM document_logs GROUP BY DATE(moved_at)")
        assert dict(ask.fetchall()) == {MOMENT.date(): 6, None: 1}
        for key in KEYS:
            ask.execute("SELECT file_key FROM document_logs WHERE file_key = %s", key.decode())
            assert ask.fetchall() == ((key.decode(),),)
        ask.execute("SELECT file_key, message FROM failed_migrations")
        assert ask.fetchall() == (("z", "it broke"),)
        ask.execute("SELECT COUNT(*) FROM recent_migrations WHERE moved_at > '2026-11-20'")
        assert ask.fetchone() == (6,)
        ask.execute(
            "SELECT flow, started, finished, listed, succeeded, failed FROM migration_batches"
        )
        assert ask.fetchall() == (("documents", MOMENT, MOMENT, 7, 6, 1),)
        ask.execute("SELECT fact, COUNT(*) FROM audit_trail GROUP BY fact")
        assert dict(ask.fetchall()) == {"verified": 6, "failed": 1}


async def test_long_walks_go_along_an_index(
    mysql_schemas: mariadb.Schemas, moved: MySqlAddress
) -> None:
    walks = {
        "objects_by_key": (sql.RECORDS, (1, 1, b"a", 500)),
        "PRIMARY": (sql.AUDIT, (1, 2, 500)),
    }
    for index, (statement, values) in walks.items():
        text = literals.filled(dialect.statement(statement), values)
        plan = mysql_schemas.explain(text, moved.database)
        (walk,) = [row for row in plan if row["table"] in {"objects", "a"}]
        assert walk["key"] == index
        assert "filesort" not in (walk["Extra"] or "")
