"""Long walks over the state, a page at a time: flat memory, whatever the number of rows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from s3flow.ports import ROWS_AT_ONCE, StateStore
from s3flow.records import Audited, Record
from s3flow.state.queries import Database, fetch


async def audit_pages(
    state: StateStore, flow: str, after: int, upto: int
) -> AsyncIterator[list[Audited]]:
    """Give the rows of a flow's trail with after < seq <= upto."""
    while after < upto and (
        rows := await state.audit(flow, after, min(ROWS_AT_ONCE, upto - after))
    ):
        yield rows
        after = rows[-1].seq


async def record_pages(state: StateStore, flow: str) -> AsyncIterator[list[Record]]:
    """Give all objects of a flow, bucket by bucket and in the order of their keys."""
    for bucket in await state.buckets(flow):
        after, limit = b"", ROWS_AT_ONCE
        while rows := await state.records(flow, bucket, after, limit):
            yield rows
            after = rows[-1].key


async def windows(
    database: Database, table: str, column: str, statement: str, width: int
) -> AsyncIterator[Sequence[Sequence[Any]]]:
    """Give the rows of *statement*, which has no WHERE, by *width* values of *column* at a time.

    For numbers over 0 that are not unique, of which each has a row or a few.
    """
    least = f"SELECT min({column}) FROM {table} WHERE {column} > ?"  # noqa: S608
    some = f"{statement} WHERE {column} >= ? AND {column} <= ?"
    [(start,)] = await database.read(lambda: fetch(least, 0))
    while start is not None:
        upto = int(start) + width - 1
        yield await database.read(lambda: fetch(some, start, upto))  # noqa: B023
        [(start,)] = await database.read(lambda: fetch(least, upto))  # noqa: B023
