"""A state as lines of JSON, to carry it from one database to another.

The first line names the format and the columns of each table; each other line is a table's name and a
row's values; the last one has the number of rows and the SHA-256 of all lines before it. States and
facts go by their names, whose codes are the schema's own affair. What is bytes is text where it is
UTF-8, and else {"hex": …}. Totals are not carried over but counted again, and compared.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from hashlib import sha256
from typing import Any, NamedTuple

from s3flow import __version__
from s3flow.errors import StateError
from s3flow.records import Hold
from s3flow.state import audit, sql
from s3flow.state.holds import as_text, from_text
from s3flow.state.queries import Database, fetch
from s3flow.state.reading import windows
from s3flow.state.steps import Bulk, Execute, Steps

FORMAT = "s3flow-state/1"
ROWS = 2_000  # in one transaction, or read at once
Row = Sequence[Any]


class Table(NamedTuple):
    """What is carried of a table. *binary*: columns of bytes.

    A long one is walked *by* its primary key, whose first column is one of *groups* where it has two,
    or through *windows* of the values of a column.
    """

    name: str
    columns: tuple[str, ...]
    binary: tuple[str, ...] = ()
    where: str = ""
    by: tuple[str, ...] = ()
    groups: str = ""
    windows: str = ""


HELD = "hold/"  # a flow's deletes: kept in meta by MySQL's states, and beside SQLite's
_HOLDS = "SELECT name, value FROM meta WHERE name LIKE ?"
_NAMED = (
    " WHERE flow_id IN (SELECT id FROM flows WHERE name IS NOT NULL)"  # the others are forgotten
)
_OF_SCANS = f" WHERE scan_id IN (SELECT id FROM scans{_NAMED})"  # noqa: S608
_SUMS = ("verified", "adopted", "skipped", "failed", "deleted", "verified_bytes")
_LINE = ("flow_id", "bucket_id", "state", "reason", "method", "proof")
TABLES = (
    Table(
        "meta",
        ("name", "value"),
        where=" WHERE name NOT IN ('version', 'clean', 'importing')",
    ),
    Table(
        "flows",
        ("id", "name", "fingerprint", "adopting", "created"),
        where=" WHERE name IS NOT NULL",
    ),
    Table("buckets", ("id", "name")),
    Table(
        "scans",
        ("id", "flow_id", "started", "finished", "listed", "listed_bytes"),
        where=_NAMED,
    ),
    Table("batches", ("scan_id", *_SUMS), where=_OF_SCANS),
    Table(
        "ranges",
        ("scan_id", "bucket_id", "start_key", "last_key", "end_key", "done"),
        ("start_key", "last_key", "end_key"),
        where=_OF_SCANS,
    ),
    Table(
        "classes",
        ("scan_id", "bucket_id", "storage_class", "objects", "bytes"),
        where=_OF_SCANS,
    ),
    Table("unlisted", ("flow_id", "bucket_id", "reason", "message", "since"), where=_NAMED),
    Table(
        "verdicts",
        ("flow_id", "bucket", "what", "way", "reason", "decided", "expires"),
        where=_NAMED,
    ),
    Table("dropped", ("flow_id", "field", "objects"), where=_NAMED),
    Table("samples", ("flow_id", "at", "objects", "bytes"), where=_NAMED),
    Table(
        "abandoned",
        ("flow_id", "upload_id", "bucket_id", "object_key"),
        ("object_key",),
        where=_NAMED,
    ),
    Table(
        "restores",
        ("flow_id", "object_id", "generation", "asked_at", "bytes"),
        windows="object_id",  # those of forgotten flows went with these
    ),
    Table("totals", (*_LINE, "objects", "bytes"), where=f"{_NAMED} AND objects <> 0"),
    Table(
        "objects",
        (
            *("id", "flow_id", "bucket_id", "object_key", "not_utf8", "size", "etag", "modified"),
            *("storage_class", "version_id", "state", "generation", "reason", "message", "method"),
            *("proof", "target_etag", "dropped", "attempts", "retry_at", "due_at", "upload_id"),
            *("part_size", "discovered_at", "updated_at"),
        ),
        ("object_key",),
        by=("id",),  # those of forgotten flows were removed when the state was opened
    ),
    Table("chains", ("id", "flow", "seq", "hash"), ("hash",)),
    Table(
        "audit",
        (
            *("chain_id", "seq", "at", "fact", "bucket_id", "object_key", "size", "etag"),
            *("target_etag", "version_id", "method", "proof", "reason", "detail", "worker"),
            "hash",
        ),
        ("object_key", "hash"),
        by=("chain_id", "seq"),
        groups="SELECT id FROM chains",
    ),
)
BY_NAME = {table.name: table for table in TABLES}
_CODES: dict[str, Mapping[str, int]] = {
    "state": {str(state): code for state, code in sql.CODES.items()},
    "fact": {str(fact): code for fact, code in audit.CODES.items()},
}
_NONSENSE = (
    *(ValueError, KeyError, TypeError, AttributeError),
    *(OverflowError, RecursionError),  # of numbers without end, and of brackets
)
_NAMES = {column: {code: name for name, code in codes.items()} for column, codes in _CODES.items()}


# --- out --------------------------------------------------------------------------------------


async def exported(database: Database, holds: Mapping[str, Hold]) -> AsyncIterator[str]:
    """Give the whole state in pieces of some lines, with the *holds* on flows' deletes."""
    digest, count = sha256(), 0
    tables = {table.name: table.columns for table in TABLES}
    head = {"format": FORMAT, "by": f"s3flow {__version__}", "tables": tables}
    text = _dumps(head) + "\n"
    digest.update(text.encode())
    yield text
    for table in TABLES:
        async for found in _pages(database, table):
            rows = _with_holds(found, holds) if table.name == "meta" else found
            shape = _shaper(table)
            text = "".join([f"{_dumps([table.name, *shape(row)])}\n" for row in rows])
            digest.update(text.encode())
            count += len(rows)
            yield text
    yield _dumps(["end", count, digest.hexdigest()]) + "\n"


def _with_holds(rows: Sequence[Row], holds: Mapping[str, Hold]) -> Sequence[Row]:
    kept = [row for row in rows if not row[0].startswith(HELD)]
    return [*kept, *((HELD + flow, as_text(hold)) for flow, hold in holds.items())]


async def _pages(database: Database, table: Table) -> AsyncIterator[Sequence[Row]]:
    columns = ", ".join(table.columns)
    statement = f"SELECT {columns} FROM {table.name}{table.where}"  # noqa: S608
    if table.windows:
        async for rows in windows(database, table.name, table.windows, statement, ROWS):
            yield rows
        return
    if not table.by:
        yield await database.read(lambda: fetch(statement))
        return
    *outer, last = table.by
    order = f" AND {last} > ? ORDER BY {last} LIMIT {ROWS}"
    statement += order if table.where else order.replace(" AND", " WHERE", 1)
    groups: Sequence[Row] = [()]
    if outer:  # of a pair in one comparison, MySQL walks the whole table for each page
        (column,) = outer
        groups = await database.read(lambda: fetch(table.groups))
        statement = statement.replace(f" {last} > ?", f" {column} = ? AND {last} > ?", 1)
    at = table.columns.index(last)
    for group in groups:
        after = 0
        while rows := await database.read(lambda: fetch(statement, *group, after)):  # noqa: B023
            yield rows
            after = rows[-1][at]


def _shaper(table: Table) -> Callable[[Row], list[object]]:
    """Give what makes JSON's values of a row."""
    plans: list[Callable[[Any], object]] = [
        _as_text if name in table.binary else _NAMES[name].__getitem__ if name in _NAMES else _plain
        for name in table.columns
    ]
    return lambda row: [plan(value) for plan, value in zip(plans, row, strict=True)]


def _plain(value: Any) -> object:
    return value.decode() if isinstance(value, bytes) else value


def _as_text(value: bytes | None) -> object:
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"hex": value.hex()}


def _dumps(content: object) -> str:
    return json.dumps(content, separators=(",", ":"))


# --- in ---------------------------------------------------------------------------------------


class BadExport(StateError):
    """A file is not what `exported` gave."""

    reason = "bad_export"


async def import_state(
    database: Database, lines: Iterator[str], hold: Callable[[str, Hold], Awaitable[None]]
) -> dict[str, int]:
    """Fill an empty state; give how many rows each table got. *hold* is told whose deletes are held.

    Until the last line was found right, the state is marked and nobody opens it; a later import starts
    over. Raises `BadExport`, and `StateError` where the state is not empty.
    """
    if not await is_marked(database):
        await _refuse_what_is_there(database)
        await database.write(lambda: _execute(sql.SET_META, "importing", "1"))
    await _clear(database)
    counts: Counter[str] = Counter()
    totals: Counter[Row] = Counter()
    sizes: Counter[Row] = Counter()
    for table, columns, rows in _read(lines):
        counts[table.name] += len(rows)
        if table.name == "objects":
            _count(columns, rows, totals, sizes)
        insert = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES {{rows}}"  # noqa: S608
        await database.write(lambda: _bulk(insert, rows))  # noqa: B023
    await _compare_totals(database, {line: (totals[line], sizes[line]) for line in totals})
    for name, text in await database.read(lambda: fetch(_HOLDS, f"{HELD}%")):
        await database.write(lambda: _execute(sql.DROP_META, name))  # noqa: B023
        flow = name.removeprefix(HELD)
        if not flow or not set(flow).isdisjoint("/\0"):  # it may become a file's name
            raise BadExport(f"it holds the deletes of {flow[:80]!r}, which is no flow's name")
        await hold(flow, from_text(text, "an export of a state"))
    await database.write(lambda: _execute(sql.DROP_META, "importing"))
    return dict(counts)


async def is_marked(database: Database) -> bool:
    """Say whether an import was begun and not finished."""
    return bool(await database.read(lambda: fetch(sql.GET_META, "importing")))


async def _compare_totals(database: Database, counted: Mapping[Row, Row]) -> None:
    statement = f"SELECT {', '.join(BY_NAME['totals'].columns)} FROM totals"  # noqa: S608
    rows = await database.read(lambda: fetch(statement))
    if counted != {tuple(line): (objects, size) for *line, objects, size in rows}:
        raise BadExport("the totals of the file are not those of its objects: export it again")


async def _refuse_what_is_there(database: Database) -> None:
    for name in ("flows", "objects", "chains"):
        found = f"SELECT 1 FROM {name} LIMIT 1"  # noqa: S608
        if await database.read(lambda: fetch(found)):  # noqa: B023
            raise StateError("the state is not empty: import into a new file, or a new schema")


def _count(
    columns: Sequence[str], rows: Iterable[Row], totals: Counter[Row], sizes: Counter[Row]
) -> None:
    at, size = [columns.index(name) for name in _LINE], columns.index("size")
    for row in rows:
        line = tuple(row[number] for number in at)
        totals[line] += 1
        if not isinstance(row[size], int):
            raise BadExport(f"an object of the file has no size, but {str(row[size])[:80]!r}")
        sizes[line] += row[size]


async def _clear(database: Database) -> None:
    """Take away what an import has left that was interrupted, in slices."""
    for table in reversed(TABLES):
        if not table.by:
            statement = f"DELETE FROM {table.name}{'' if table.name != 'meta' else table.where}"  # noqa: S608
            await database.write(lambda: _execute(statement))  # noqa: B023
            continue
        keys = ", ".join(table.by)
        found = f"SELECT {keys} FROM {table.name} ORDER BY {keys} LIMIT {ROWS}"  # noqa: S608
        same = " AND ".join([*(f"{key} = ?" for key in table.by[:-1]), f"{table.by[-1]} <= ?"])
        delete = f"DELETE FROM {table.name} WHERE {same}"  # noqa: S608
        while rows := await database.read(lambda: fetch(found)):  # noqa: B023
            await database.write(lambda: _execute(delete, *rows[-1]))  # noqa: B023


def _read(lines: Iterator[str]) -> Iterator[tuple[Table, Sequence[str], list[Row]]]:
    """Give rows of one table at a time, some at once; the end is checked before the last ones."""
    digest, ended = sha256(), False
    head = next(lines, "")
    digest.update(head.encode())
    columns = _columns(head)
    name, rows = "", list[Row]()
    reshape: Callable[[Row], list[object]] = list
    for count, line in enumerate(lines):
        try:
            this, *values = json.loads(line)
            if this == "end":
                ended = values == [count, digest.hexdigest()] and line.endswith("\n")
                break
            digest.update(line.encode())
            if this != name or len(rows) == ROWS:
                if rows:
                    yield BY_NAME[name], columns[name], rows
                if this != name:
                    name, reshape = this, _reshaper(BY_NAME[this], columns[this])
                rows = []
            rows.append(reshape(values))
        except _NONSENSE as error:
            raise BadExport(f"line {count + 2:,} is none of an export: {line[:80]!r}") from error
    if not ended or next(lines, ""):
        raise BadExport("its end is missing, or its lines are not those that were written")
    if rows:
        yield BY_NAME[name], columns[name], rows


def _columns(head: str) -> dict[str, Sequence[str]]:
    try:
        said = json.loads(head)
        form, tables = said["format"], {**said["tables"]}
        tables = {name: [str(column) for column in columns] for name, columns in tables.items()}
    except _NONSENSE as error:
        raise BadExport("it is no export of a state") from error
    if form != FORMAT:
        raise BadExport(f"it has the format {form!r}, and this s3flow reads {FORMAT!r}")
    for name, columns in tables.items():
        known = BY_NAME[name].columns if name in BY_NAME else ()
        if unknown := [column for column in columns if column not in known]:
            raise BadExport(
                f"it was made by a newer s3flow: {name} has {', '.join(unknown)}, unknown here"
            )
    found: dict[str, Sequence[str]] = tables
    return found


def _reshaper(table: Table, columns: Sequence[str]) -> Callable[[Row], list[object]]:
    plans: list[Callable[[Any], object]] = [
        _as_bytes
        if name in table.binary
        else _CODES[name].__getitem__
        if name in _CODES
        else _as_it_is
        for name in columns
    ]
    return lambda row: [plan(value) for plan, value in zip(plans, row, strict=True)]


def _as_it_is(value: Any) -> object:
    """Give a value that both databases can hold; of JSON's others they say nothing that helps."""
    kind = type(value)
    if kind is str:
        value.encode()  # halves of surrogates are no text
    elif kind is int:
        value.to_bytes(8, signed=True)
    elif (kind is float and not math.isfinite(value)) or kind in {list, dict}:
        raise ValueError("no value of a state")
    return value


def _as_bytes(value: Any) -> bytes | None:
    if value is None:
        return None
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value.encode()


def _execute(statement: str, *values: object) -> Steps[None]:
    yield Execute(statement, values)


def _bulk(statement: str, rows: Sequence[Row]) -> Steps[None]:
    yield Bulk(statement, rows)
