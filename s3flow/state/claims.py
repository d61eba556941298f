"""Who works on what, in memory: with SQLite the lock on the file is the lease of all its rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any

from s3flow.model import Transfer
from s3flow.state import bulk, sql

# Nothing is told to wait for so long: the clock was ahead when it was, and has been put back.
FURTHEST = 3_600_000  # milliseconds


class Claims:
    """The ids that workers of this process hold, and how far fresh rows were handed out.

    Used on the database's thread only, after the transaction that it follows is durable.
    """

    def __init__(self) -> None:
        self.held: set[int] = set()
        self._reached: dict[str, int] = {}  # ids up to here are final, waiting or held
        self._buckets: dict[int, str] = {}

    def take(
        self, db: sqlite3.Connection, flow: str, flow_id: int, limit: int, now: int
    ) -> list[Transfer]:
        """Claim up to *limit* rows that may be worked on at *now* (milliseconds).

        Interrupted ones come first; then those whose wait is over, which were discovered before
        whatever nobody has touched; then the rest.
        """
        taken: list[Transfer] = []
        for statement, time in (
            (sql.CLAIM_INTERRUPTED, now),
            (sql.CLAIM_WAITING, now),
            (sql.CLAIM_STRAYED, now + FURTHEST),
        ):
            if len(taken) < limit:
                enough = limit + len(self.held)
                rows = bulk.read(db, statement, (flow_id, time, enough))
                self._collect(db, rows, flow, limit, taken)
        while (missing := limit - len(taken)) > 0:
            rows = bulk.read(db, sql.CLAIM_FRESH, (flow_id, self._reached.get(flow, 0), missing))
            self._collect(db, rows, flow, limit, taken)
            if rows:
                self._reached[flow] = rows[-1][0]
            if len(rows) < missing:
                break
        return taken

    def _collect(
        self,
        db: sqlite3.Connection,
        rows: list[list[Any]],
        flow: str,
        limit: int,
        taken: list[Transfer],
    ) -> None:
        """Add free rows to *taken* until it has *limit*."""
        held, states, buckets = self.held, sql.STATES, self._buckets
        for row in rows:
            # The columns are in the order of the fields: see `sql._CLAIMED`.
            row_id, bucket_id, key, size, etag, modified, storage_class, state, *rest = row
            if row_id in held:
                continue
            bucket = buckets.get(bucket_id) or self._bucket(db, bucket_id)
            version = (bytes.fromhex(key), size, etag, modified, storage_class)
            taken.append(Transfer._make((row_id, flow, bucket, *version, states[state], *rest)))
            held.add(row_id)
            if len(taken) == limit:
                break

    def end(self, ids: Iterable[int], pending: Iterable[Transfer]) -> None:
        """Give up *ids*; *pending* are those of them that can be claimed again."""
        self.held.difference_update(ids)
        for transfer in pending:
            self.look_again(transfer.flow, transfer.id)

    def give_back(self, transfers: Sequence[Transfer]) -> None:
        """Give transfers up as they were."""
        self.end((transfer.id for transfer in transfers), transfers)

    def look_again(self, flow: str, row_id: int) -> None:
        """Say that a row became claimable (again)."""
        if row_id <= self._reached.get(flow, 0):
            self._reached[flow] = row_id - 1

    def forget(self, flow: str) -> None:
        """Start from the first row again."""
        self._reached.pop(flow, None)

    def _bucket(self, db: sqlite3.Connection, bucket_id: int) -> str:
        (name,) = db.execute(sql.BUCKET_NAME, (bucket_id,)).fetchone()
        self._buckets[bucket_id] = str(name)
        return str(name)
