"""Who works on what, in memory: one daemon has the whole state, so its lease is that of all rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from s3flow.model import Transfer
from s3flow.state import sql
from s3flow.state.steps import Fetch, FetchMany, Steps

# Nothing is told to wait for so long: the clock was ahead when it was, and has been put back.
FURTHEST = 3_600_000  # milliseconds


class Taken(NamedTuple):
    """Transfers that may be handed out, and the id up to which fresh rows were looked at."""

    transfers: list[Transfer]
    reached: int


class Claims:
    """What workers and deleters of this daemon hold, by id with its generation, and how far fresh rows
    were handed out.

    Others record changes as well, of rows that they do not hold. One that a newer version has
    overtaken says nothing of the claim of that version: its row would be handed out a second time.

    Changed only between the reads and transactions of the database, never during one: a transaction
    may be repeated.
    """

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        self._reached: dict[str, int] = {}  # ids up to here are final, waiting or held
        self._due: dict[int, Transfer] = {}  # those of the held that deleters hold
        self._buckets: dict[int, str] = {}

    def find(self, flow: str, flow_id: int, limit: int, now: int) -> Steps[Taken]:
        """Find up to *limit* rows that may be worked on at *now* (milliseconds).

        Interrupted ones come first; then those whose wait is over, which were discovered before
        whatever nobody has touched; then the rest.
        """
        taken: dict[int, Transfer] = {}
        reached = self._reached.get(flow, 0)
        for statement, time in (
            (sql.CLAIM_INTERRUPTED, now),
            (sql.CLAIM_WAITING, now),
            (sql.CLAIM_STRAYED, now + FURTHEST),
        ):
            if len(taken) < limit:
                enough = limit + len(self.held)
                rows = yield FetchMany(statement, (flow_id, time, enough))
                yield from self._collect(rows, flow, limit, taken)
        while (missing := limit - len(taken)) > 0:
            rows = yield FetchMany(sql.CLAIM_FRESH, (flow_id, reached, missing))
            yield from self._collect(rows, flow, limit, taken)
            if rows:
                reached = rows[-1][0]
            if len(rows) < missing:
                break
        return Taken(list(taken.values()), reached)

    def hold(self, flow: str, taken: Taken) -> None:
        """Note what `find` found as handed out."""
        self._reached[flow] = taken.reached
        self._hold(taken.transfers)

    def hold_due(self, flow: str, transfers: list[Transfer]) -> None:
        """Note that these are being deleted. A flow has one deleter, and it asks when it holds nothing.

        What it seems to hold still is an answer that it never got, and nobody else would give it back.
        """
        self.give_back([it for it in self._due.values() if it.flow == flow])
        self._due.update((it.id, it) for it in transfers)
        self._hold(transfers)

    def _hold(self, transfers: Iterable[Transfer]) -> None:
        self.held.update((it.id, it.generation) for it in transfers)

    def _collect(
        self, rows: Sequence[Sequence[Any]], flow: str, limit: int, taken: dict[int, Transfer]
    ) -> Steps[None]:
        """Add free rows to *taken* until it has *limit*."""
        held, states, buckets = self.held, sql.STATES, self._buckets
        for row in rows:
            # The columns are in the order of the fields: see `sql._CLAIMED`.
            row_id, bucket_id, key, size, etag, modified, storage_class, state, *rest = row
            if row_id in held or row_id in taken:
                continue
            if bucket_id not in buckets:
                [(buckets[bucket_id],)] = yield Fetch(sql.BUCKET_NAME, (bucket_id,))
            version = (key, size, etag, modified, storage_class)
            place = (row_id, flow, buckets[bucket_id])
            taken[row_id] = Transfer._make((*place, *version, states[state], *rest))
            if len(taken) == limit:
                break

    def end(self, ended: Iterable[Transfer], pending: Iterable[Transfer]) -> None:
        """Give up the claims of *ended*; *pending* are those of them that can be claimed again."""
        held, due = self.held, self._due
        for transfer in ended:
            if held.get(transfer.id) == transfer.generation:
                del held[transfer.id]
                if due:
                    due.pop(transfer.id, None)
        for transfer in pending:
            self.look_again(transfer.flow, transfer.id)

    def give_back(self, transfers: Sequence[Transfer]) -> None:
        """Give transfers up as they were."""
        self.end(transfers, transfers)

    def free(self, waiting: Iterable[tuple[int, int]]) -> Iterator[int]:
        """Give the times of those (id, time) that nobody holds."""
        return (time for row_id, time in waiting if row_id not in self.held)

    def look_again(self, flow: str, row_id: int) -> None:
        """Say that a row became claimable (again)."""
        if row_id <= self._reached.get(flow, 0):
            self._reached[flow] = row_id - 1

    def forget(self, flow: str) -> None:
        """Start from the first row again."""
        self._reached.pop(flow, None)
