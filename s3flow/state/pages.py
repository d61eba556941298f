"""A merged page of the listing goes into the state: new rows, new versions, and what is gone.

Runs inside the caller's transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from s3flow.errors import SourceGone, StateError
from s3flow.model import Discovered, PageChanges, Scan, State
from s3flow.state import bulk, sql
from s3flow.state.changes import MESSAGE_LIMIT, Current, abandon, current
from s3flow.state.totals import Deltas

_TRANSFERRING = sql.CODES[State.TRANSFERRING]


def apply_page(
    db: sqlite3.Connection, scan: Scan, page: PageChanges, merge: PageMerge
) -> list[int]:
    """Record a merged page with its cursor; give the ids of rows that got another version.

    A page that is recorded already changes nothing.
    """
    row = db.execute(sql.RANGE, (scan.id, merge.bucket_id, page.start)).fetchone()
    last, end, done = row or (b"", None, False)
    # The caller of an earlier, identical call may have been cancelled after it was committed.
    if row is not None and (done or (page.cursor <= last and not page.done)):
        return []
    if not db.execute(sql.COUNT_LISTED, (page.listed, page.listed_bytes, scan.id)).rowcount:
        raise StateError(f"scan {scan.id} of flow {scan.flow!r} is over or was forgotten")
    if row is None and page.start:
        raise StateError(f"scan {scan.id} of flow {scan.flow!r} has no range from {page.start!r}")
    changed = [*page.changed, *merge.insert(page.new)]
    merge.supersede(changed)
    merge.vanish(page.vanished)
    place = (scan.id, merge.bucket_id)
    if page.cut is not None:
        if page.done or page.cut <= page.cursor or (end is not None and page.cut >= end):
            raise StateError(f"a range of keys cannot be cut outside of what is left: {page.cut!r}")
        db.execute(sql.SET_RANGE, (*place, page.cut, page.cut, end, False))
        end = page.cut
    db.execute(sql.SET_RANGE, (*place, page.start, page.cursor, end, page.done))
    merge.deltas.write(db)
    return [row_id for row_id, _ in changed]


class PageMerge:
    """One bucket's changes within a transaction. New rows get ids from *first_id* on.

    *held* are the ids that workers have: one of these that vanished is left to its worker, who
    finds out by itself.
    """

    __slots__ = ("_db", "_flow_id", "_held", "_next_id", "_now", "bucket_id", "deltas")

    def __init__(
        self,
        db: sqlite3.Connection,
        flow_id: int,
        bucket: str,
        *,
        first_id: int,
        now: int,
        held: set[int],
    ) -> None:
        self._db = db
        self._flow_id = flow_id
        self._next_id = first_id
        self._now = now
        self._held = held
        self.bucket_id = _bucket_id(db, bucket)
        self.deltas = Deltas()

    def insert(self, items: Sequence[Discovered]) -> list[tuple[int, Discovered]]:
        """Add rows; give those that are there already, with their id, if their version differs."""
        if not items:
            return []
        known: list[tuple[int, Discovered]] = []
        self._db.execute("SAVEPOINT page")
        try:
            self._add(items)
        except sqlite3.IntegrityError:
            self._db.execute("ROLLBACK TO page")
            known, unknown = self._sort_out(items)
            if len(unknown) == len(items):
                raise  # not a key that is there already: the same key twice in one page
            self._add(unknown)
            items = unknown
        self._db.execute("RELEASE page")
        self._count(items)
        return known

    def _add(self, items: Sequence[Discovered]) -> None:
        codes, flow_id, bucket, now = sql.CODES, self._flow_id, self.bucket_id, self._now
        rows = []
        for row_id, item in enumerate(items, self._next_id):
            key, size, etag, modified, storage_class = item.entry
            odd = not key.isascii() and not _is_utf8(key)
            rows.append(
                (
                    row_id,
                    flow_id,
                    bucket,
                    key,
                    odd,
                    size,
                    etag,
                    modified,
                    storage_class,
                    codes[item.state],
                    item.reason,
                    item.message[:MESSAGE_LIMIT],
                    item.method,
                    item.proof,
                    item.target_etag,
                    now,
                    now,
                )
            )
        bulk.write(self._db, sql.ADD_OBJECT, rows)

    def _count(self, items: Sequence[Discovered]) -> None:
        codes, flow_id, bucket, count = sql.CODES, self._flow_id, self.bucket_id, self.deltas.count
        for item in items:
            line = (flow_id, bucket, codes[item.state], item.reason, item.method, item.proof)
            count(line, 1, item.entry.size)

    def _sort_out(
        self, items: Sequence[Discovered]
    ) -> tuple[list[tuple[int, Discovered]], list[Discovered]]:
        known, unknown = [], []
        for item in items:
            place = (self._flow_id, self.bucket_id, item.entry.key)
            row = self._db.execute(sql.ROW_BY_KEY, place).fetchone()
            if row is None:
                unknown.append(item)
            elif row[1:] != (item.entry.size, item.entry.etag):
                known.append((row[0], item))
        return known, unknown

    def supersede(self, changed: Sequence[tuple[int, Discovered]]) -> None:
        """Put new versions into their rows: a higher generation, and nothing of the old work left.

        Where the old version had begun an upload, the row says `TRANSFERRING` without an upload id:
        its next worker aborts what it finds at the key.
        """
        rows = current(self._db, (row_id for row_id, _ in changed))
        updates = []
        for row_id, item in changed:
            row = rows.get(row_id)
            if row is None or row.flow_id != self._flow_id:
                continue
            self._take_out(row)
            entry, state = item.entry, sql.CODES[item.state]
            if item.state is State.DISCOVERED and (row.upload_id or row.state == _TRANSFERRING):
                state = _TRANSFERRING
            else:
                abandon(self._db, row)
            line = (row.flow_id, row.bucket_id, state, item.reason, item.method, item.proof)
            self.deltas.count(line, 1, entry.size)
            updates.append(
                (
                    entry.size,
                    entry.etag,
                    entry.modified,
                    entry.storage_class,
                    state,
                    item.reason,
                    item.message[:MESSAGE_LIMIT],
                    item.method,
                    item.proof,
                    item.target_etag,
                    self._now,
                    row_id,
                )
            )
        self._db.executemany(sql.NEW_VERSION, updates)

    def vanish(self, ids: Sequence[int]) -> None:
        """Skip what the source does not list any more, unless it arrived in the meantime."""
        gone = []
        for row in current(self._db, (it for it in ids if it not in self._held)).values():
            if row.state < sql.FIRST_FINAL or row.state == sql.FAILED:
                self._take_out(row)
                abandon(self._db, row)
                skipped = sql.CODES[State.SKIPPED]
                line = (row.flow_id, row.bucket_id, skipped, SourceGone.reason, "", "")
                self.deltas.count(line, 1, row.size)
                gone.append((SourceGone.reason, self._now, row.id))
        self._db.executemany(sql.VANISH, gone)

    def _take_out(self, row: Current) -> None:
        self.deltas.count(row.line, -1, -row.size)
        self.deltas.dropped(row.flow_id, row.dropped, "")


def _bucket_id(db: sqlite3.Connection, name: str) -> int:
    row = db.execute(sql.BUCKET_ID, (name,)).fetchone()
    return int(row[0]) if row else int(db.execute(sql.ADD_BUCKET, (name,)).lastrowid or 0)


def _is_utf8(key: bytes) -> bool:
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True
