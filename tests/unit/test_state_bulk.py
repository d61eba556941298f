"""Many rows in one statement: every row, once, in order, whatever their number and contents."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3flow.state import bulk
from s3flow.state.steps import Select

READ = Select(("id", "name", "note"), "FROM things ORDER BY name LIMIT ?", keys=(1,))


@contextlib.contextmanager
def things() -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        db.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, name BLOB, note TEXT)")
        yield db


@pytest.mark.parametrize("count", [0, 1, 2, 511, 512, 513, 1000, 1025])
def test_rows_of_any_number_are_all_written(count: int) -> None:
    rows = [(number, b"%06d" % number, "x") for number in range(count)]
    with things() as db:
        bulk.write(db, "INSERT INTO things (id, name, note) VALUES {rows}", rows)
        assert db.execute("SELECT id, name, note FROM things ORDER BY id").fetchall() == rows


def test_a_thousand_rows_are_a_handful_of_statements() -> None:
    seen: list[str] = []
    rows = [(number, b"", "") for number in range(1000)]
    with things() as db:
        db.set_trace_callback(lambda text: seen.append(text[:6]))
        bulk.write(db, "INSERT INTO things (id, name, note) VALUES {rows}", rows)
        bulk.read(db, READ, (1000,))
    assert seen == ["INSERT"] * 6 + ["SELECT"]


@given(st.lists(st.tuples(st.binary(max_size=40), st.text(max_size=20) | st.none()), max_size=40))
def test_what_is_written_is_read_back_in_order(items: list[tuple[bytes, str | None]]) -> None:
    rows = [(number, name, note) for number, (name, note) in enumerate(items)]
    storable = [row for row in rows if row[2] is None or "\0" not in row[2]]
    with things() as db:
        bulk.write(db, "INSERT INTO things (id, name, note) VALUES {rows}", storable)
        found = [tuple(row) for row in bulk.read(db, READ, (100,))]
        assert found == db.execute("SELECT id, name, note FROM things ORDER BY name").fetchall()
    assert len(found) == len(storable)
