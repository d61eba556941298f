"""Many rows in one statement, for sqlite3 gives Python's lock away with every row.

Each step of a statement releases the lock and must win it back from the event loop's thread. Beside
a busy loop a row that is inserted, read and updated by itself cost 80 us of CPU on both threads
together, and 5 us in statements of hundreds.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

from s3flow.state.steps import Select, Values

ROWS = 512  # in one statement at most: 17 columns each stay far below SQLite's 32,766 parameters


def write(db: sqlite3.Connection, statement: str, rows: Sequence[Values]) -> None:
    """Run *statement*, which has {rows} in the place of its VALUES, for all of *rows*."""
    start, left, size = 0, len(rows), ROWS
    while left:
        while size > left:  # powers of two: few statements, so sqlite3 keeps them prepared
            size //= 2
        values = list(chain.from_iterable(rows[start : start + size]))
        db.execute(_filled(statement, size, len(rows[0])), values)
        start += size
        left -= size


def read(db: sqlite3.Connection, select: Select, values: Values) -> list[list[Any]]:
    """Give all rows of *select*, which come as one JSON text."""
    (text,) = db.execute(as_one(select), values).fetchone()
    rows: list[list[Any]] = json.loads(text)
    decode = bytes.fromhex
    for column in select.keys:
        for row in rows:
            row[column] = decode(row[column])
    return rows


@lru_cache(maxsize=512)
def as_one(select: Select) -> str:
    """Make a SELECT that answers with one JSON array. JSON knows no bytes: keys go as hex."""
    columns = ", ".join(
        f"hex({name})" if number in select.keys else name
        for number, name in enumerate(select.columns)
    )
    return f"SELECT json_group_array(json_array({columns})) FROM (SELECT * {select.rest})"  # noqa: S608


@lru_cache(maxsize=128)
def _filled(statement: str, size: int, width: int) -> str:
    row = f"({','.join('?' * width)})"
    return statement.format(rows=",".join([row] * size))
