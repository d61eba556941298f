"""What is asked of the state: nothing here changes it, so it also works beside a running daemon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from s3flow.model import (
    Flow,
    KeyRange,
    Row,
    Sample,
    Scan,
    ScanSummary,
    State,
    Total,
    Transfer,
    Verdict,
)
from s3flow.ports import ROWS_AT_ONCE
from s3flow.records import (
    Audited,
    ClassStates,
    ClassTotal,
    Due,
    Record,
    Scrubbed,
    Spending,
    Spent,
    Unlisted,
)
from s3flow.state import audit, flows, inventory, moves, proven, routes, sql
from s3flow.state.changes import bucket_names
from s3flow.state.steps import Fetch, FetchMany, Steps, Work, first

T = TypeVar("T")
Found = Sequence[Sequence[Any]]
KEYS_AT_ONCE = 500


class Database(Protocol):
    """Runs steps, one work after the other, whatever becomes of who asked for it.

    *after* is called with the result before the next one begins. Raises `StateError`. *lease*:
    descriptors that other processes inherit so that the right to write outlives this one with them.
    *trouble*: what is waited for before anything is written again, in words; "" when all is well.
    """

    read_only: bool

    @property
    def trouble(self) -> str: ...

    @property
    def lease(self) -> tuple[int, ...]: ...

    async def read(self, work: Work[T], after: Callable[[T], object] | None = None) -> T:
        """Run *work* outside a transaction: each statement sees what is committed."""
        ...

    async def write(self, work: Work[T], after: Callable[[T], object] | None = None) -> T:
        """Run *work* in one transaction, then *after*, only if that is durable."""
        ...

    def hurry(self) -> None:
        """Wait for nothing any more: what cannot be had at once is an error."""
        ...

    async def close(self) -> None: ...


class Queries:
    """The part of `StateStore` that reads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def flow_names(self) -> list[str]:
        """Name the flows that are known."""
        rows = await self._database.read(lambda: fetch(sql.FLOW_NAMES))
        return [name for (name,) in rows]

    async def ranges(self, scan: Scan, bucket: str) -> list[KeyRange]:
        """Give the ranges that the bucket's keys are listed in, in byte order; none at first."""
        rows = await self._database.read(lambda: fetch(sql.RANGES, scan.id, bucket))
        return [KeyRange(start, last, end, bool(done)) for start, last, end, done in rows]

    async def rows(
        self, flow: str, bucket: str, after: bytes, upto: bytes | None, limit: int = ROWS_AT_ONCE
    ) -> list[Row]:
        """Give the first rows with after < key <= upto (None: to the end), in byte order."""

        def work() -> Steps[Found]:
            place = yield from _place(flow, bucket)
            if place is None:
                return ()
            found: Found
            if upto is None:
                found = yield FetchMany(sql.ROWS_TO_THE_END, (*place, after, limit))
            else:
                found = yield FetchMany(sql.ROWS, (*place, after, upto, limit))
            return found

        states = sql.STATES
        return [
            Row(row_id, key, size, etag, states[state], reason)
            for row_id, key, size, etag, state, reason in await self._database.read(work)
        ]

    async def known(self, flow: str, bucket: str, keys: Sequence[bytes]) -> set[bytes]:
        """Say which of *keys* have a row (skipped and failed ones left out)."""

        def work() -> Steps[set[bytes]]:
            place = yield from _place(flow, bucket)
            found: set[bytes] = set()
            for start in range(0, len(keys) if place else 0, KEYS_AT_ONCE):
                some = keys[start : start + KEYS_AT_ONCE]
                statement = sql.in_list(sql.KNOWN, len(some))
                rows = yield Fetch(statement, (*(place or ()), *some))
                found.update(key for (key,) in rows)
            return found

        return await self._database.read(work)

    async def last_scan(self, flow: str) -> ScanSummary:
        """Sum up the flow's last finished scan."""
        return await self._database.read(lambda: flows.last_scan(flow))

    async def uploads(self, flow: str) -> set[str]:
        """Give the upload ids that unfinished transfers of the flow will continue."""
        return {upload_id for (upload_id,) in await self._select(sql.UPLOADS, flow)}

    async def abandoned_uploads(self, flow: str) -> list[tuple[str, bytes, str]]:
        """Give (bucket, source key, upload id) of uploads that no transfer will continue."""
        rows = await self._select(sql.ABANDONED, flow)
        return [(bucket, key, upload_id) for bucket, key, upload_id in rows]

    async def totals(self, flow: str) -> list[Total]:
        """Give the lines of the totals that are not zero."""
        return [
            Total(bucket, sql.STATES[state], reason, method, proof, objects, size)
            for bucket, state, reason, method, proof, objects, size in await self._select(
                sql.TOTALS, flow
            )
        ]

    async def classes(self, flow: str) -> list[ClassTotal]:
        """Give what was listed by bucket and storage class."""
        return await self._database.read(lambda: inventory.classes(flow))

    async def class_states(self, flow: str) -> list[ClassStates]:
        """Count the objects of each storage class and state, row by row."""
        return await self._database.read(lambda: inventory.class_states(flow))

    async def unlisted(self, flow: str) -> list[Unlisted]:
        """Give the source buckets that could not be listed, in the order of their names."""
        return await self._database.read(lambda: inventory.unlisted(flow))

    async def dropped(self, flow: str) -> dict[str, int]:
        """Say of how many verified objects the target could not carry a field, by field."""
        rows: Sequence[Any] = await self._select(sql.DROPPED, flow)
        return dict(rows)

    async def check_flow(self, flow: Flow) -> None:
        """Raise `FlowChanged` when the flow's source, target or mapping are not those on record."""
        await self._database.read(lambda: flows.check_flow(flow))

    async def failures(self, flow: str, limit: int) -> list[tuple[str, bytes, str, str]]:
        """Give (bucket, key, reason, message) of failed objects, in the order of discovery.

        Then those of objects that were copied, and whose sources had to stay.
        """

        def work() -> Steps[list[tuple[str, bytes, str, str]]]:
            flow_id = yield from flows.find_flow(flow)
            rows = yield Fetch(sql.FAILURES, (flow_id, limit))
            failed = [(bucket, key, reason, message) for bucket, key, reason, message in rows]
            return failed + (yield from moves.kept_rows(flow_id, limit - len(failed)))

        return await self._database.read(work)

    async def verdicts(self, flow: str) -> list[Verdict]:
        """Give what is known of the ways that the flow's objects go, by bucket."""
        return await self._database.read(lambda: routes.verdicts(flow))

    async def samples(self, flow: str) -> list[Sample]:
        """Give the samples that are kept, in the order of time."""
        return [Sample._make(row) for row in await self._select(sql.SAMPLES, flow)]

    async def buckets(self, flow: str) -> list[str]:
        """Name the buckets that the flow has objects in, in the order of their names."""

        def work() -> Steps[list[str]]:
            flow_id = yield from flows.find_flow(flow)
            return [] if flow_id is None else list((yield from bucket_names(flow_id)).values())

        return await self._database.read(work)

    async def records(
        self, flow: str, bucket: str, after: bytes = b"", limit: int = ROWS_AT_ONCE
    ) -> list[Record]:
        """Give all that is known of the first *limit* objects with keys over *after*."""

        def work() -> Steps[Found]:
            place = yield from _place(flow, bucket)
            if place is None:
                return ()
            found: Found = yield Fetch(sql.RECORDS, (*place, after, limit))
            return found

        return [_record(bucket, row) for row in await self._database.read(work)]

    async def due(self, flow: str, state: State, before: int, limit: int) -> list[Due]:
        """Give the first *limit* objects in *state* whose time is not after *before* (milliseconds)."""
        return await self._database.read(lambda: find_due(flow, state, before, limit))

    async def transfers(
        self, flow: str, bucket: str, start: bytes, limit: int = ROWS_AT_ONCE
    ) -> list[Due]:
        """Give the first *limit* objects with keys from *start* on, in byte order."""

        def work() -> Steps[Found]:
            place = yield from _place(flow, bucket)
            if place is None:
                return ()
            found: Found = yield FetchMany(proven.TRANSFERS, (*place, start, limit))
            return found

        return [_due(flow, bucket, row) for row in await self._database.read(work)]

    async def scrubbed(self, flow: str) -> Scrubbed | None:
        """Say how far the flow's copies were proven again; None before the first."""
        return await self._database.read(lambda: proven.scrubbed(flow))

    async def spending(self, flow: str) -> Spending | None:
        """Say what the flow has spent; None where nothing counts it."""
        return await self._database.read(lambda: flows.spent(flow))

    async def next_due(self, flow: str, state: State) -> int | None:
        """Say when the first object in *state* is due (milliseconds), None if none is."""
        [(due_at,)] = await self._select(sql.NEXT_DUE, flow, sql.CODES[state])
        return None if due_at is None else int(due_at)

    async def last_counts(self, flow: str) -> list[tuple[int, int]]:
        """Give of the last two finished scans, the newest first: listed, and deleted since it began."""
        rows = await self._select(moves.LAST_COUNTS, flow)
        return [(int(listed), int(deleted)) for listed, deleted in rows]

    async def last_due(self, flow: str, state: State) -> int | None:
        """Say when the last object in *state* is due (milliseconds), None if none is."""
        [(due_at,)] = await self._select(sql.LAST_DUE, flow, sql.CODES[state])
        return None if due_at is None else int(due_at)

    async def restores_since(self, flow: str, since: int) -> Spent:
        """Say what was asked for after *since* (milliseconds)."""
        [(objects, size, first_at)] = await self._select(sql.RESTORES_SINCE, flow, since)
        return Spent(int(objects), int(size), int(first_at or 0))

    async def audited(self) -> dict[str, audit.Head]:
        """Name the flows that have an audit trail, with its head; forgotten ones among them."""
        rows = await self._database.read(lambda: fetch(sql.CHAINS))
        return {flow: audit.Head(int(seq), bytes(digest).hex()) for flow, seq, digest in rows}

    async def audit(self, flow: str, after: int = 0, limit: int = ROWS_AT_ONCE) -> list[Audited]:
        """Give the first *limit* rows of the flow's audit trail with numbers over *after*."""

        def work() -> Steps[Found]:
            chain = first((yield Fetch(sql.CHAIN, (flow,))))
            if chain is None:
                return ()
            found: Found = yield Fetch(sql.AUDIT, (chain[0], after, limit))
            return found

        return [audit.as_fields(row) for row in await self._database.read(work)]

    async def _select(self, statement: str, flow: str, *more: object) -> Found:
        def work() -> Steps[Found]:
            flow_id = yield from flows.find_flow(flow)
            found: Found = yield Fetch(statement, (flow_id, *more))
            return found

        return await self._database.read(work)


def fetch(statement: str, *values: object) -> Steps[Found]:
    """Give all rows of one statement."""
    found: Found = yield Fetch(statement, values)
    return found


def find_due(flow: str, state: State, before: int, limit: int) -> Steps[list[Due]]:
    """Find the first *limit* objects in *state* whose time is not after *before* (milliseconds)."""
    flow_id = yield from flows.find_flow(flow)
    rows = yield FetchMany(sql.DUE, (flow_id, sql.CODES[state], before, limit))
    names: dict[int, str] = {}
    for bucket_id in {row[1] for row in rows}:
        [(names[bucket_id],)] = yield Fetch(sql.BUCKET_NAME, (bucket_id,))
    return [_due(flow, names[row[1]], row) for row in rows]


def _due(flow: str, bucket: str, row: Sequence[Any]) -> Due:
    row_id, _, key, size, etag, modified, storage_class, state, *rest = row
    version = (key, size, etag, modified, storage_class, sql.STATES[state])
    claimed, (due_at, method, proof, target_etag, version_id, reason) = rest[:-6], rest[-6:]
    transfer = Transfer._make((row_id, flow, bucket, *version, *claimed))
    return Due(transfer, due_at, method, proof, target_etag, version_id or "", reason)


def _record(bucket: str, row: Sequence[Any]) -> Record:
    key, size, etag, version_id, modified, storage_class, state, *rest = row
    version = (size, etag, version_id or "", modified, storage_class)
    return Record._make((bucket, key, *version, sql.STATES[state], *rest))


def _place(flow: str, bucket: str) -> Steps[tuple[int, int] | None]:
    """Give the ids of a flow and a bucket, None if one of them is unknown."""
    flow_id = yield from flows.find_flow(flow)
    row = first((yield Fetch(sql.BUCKET_ID, (bucket,))))
    return None if flow_id is None or row is None else (flow_id, int(row[0]))
