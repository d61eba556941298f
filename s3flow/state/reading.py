"""Long walks over the state, a page at a time: flat memory, whatever the number of rows."""

from __future__ import annotations

from collections.abc import AsyncIterator

from s3flow.ports import ROWS_AT_ONCE, StateStore
from s3flow.records import Audited, Record


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
