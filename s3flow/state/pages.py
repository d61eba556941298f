"""A merged page of the listing goes into the state: new rows, new versions, and what is gone.

All are steps of the caller's transaction.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from s3flow.errors import SourceGone, StateError
from s3flow.model import Discovered, PageChanges, Scan, State
from s3flow.records import Fact
from s3flow.state import sql
from s3flow.state.audit import Happened
from s3flow.state.changes import MESSAGE_LIMIT, Current, abandon, current, etags, unknown_upload
from s3flow.state.steps import Add, Each, Execute, Fetch, Insert, Steps, first
from s3flow.state.totals import Deltas
from s3flow.state.trail import Trail, fact_of

CLASS_LIMIT = 100  # characters; the longest of S3 has 19
_TRANSFERRING = sql.CODES[State.TRANSFERRING]
_SKIPPED = sql.CODES[State.SKIPPED]


def apply_page(scan: Scan, page: PageChanges, merge: PageMerge) -> Steps[list[int]]:
    """Record a merged page with its cursor; give the ids of rows that got another version.

    A page that is recorded already changes nothing.
    """
    row = first((yield Fetch(sql.RANGE, (scan.id, merge.bucket_id, page.start))))
    last, end, done = row or (b"", None, False)
    # The caller of an earlier, identical call may have been cancelled after it was committed.
    if row is not None and (done or (page.cursor <= last and not page.done)):
        return []
    if not (yield Execute(sql.COUNT_LISTED, (page.listed, page.listed_bytes, scan.id))):
        raise StateError(f"scan {scan.id} of flow {scan.flow!r} is over or was forgotten")
    if row is None and page.start:
        raise StateError(f"scan {scan.id} of flow {scan.flow!r} has no range from {page.start!r}")
    changed = [*page.changed, *(yield from merge.insert(page.new))]
    yield from merge.supersede(changed)
    yield from merge.vanish(page.vanished)
    place = (scan.id, merge.bucket_id)
    if row is None:
        yield from _count_anew(place)
    if page.cut is not None:
        if page.done or page.cut <= page.cursor or (end is not None and page.cut >= end):
            raise StateError(f"a range of keys cannot be cut outside of what is left: {page.cut!r}")
        yield Execute(sql.SET_RANGE, (*place, page.cut, page.cut, end, False))
        end = page.cut
    yield Execute(sql.SET_RANGE, (*place, page.start, page.cursor, end, page.done))
    yield from _count_classes(place, page)
    yield from merge.write()
    return [row_id for row_id, _ in changed]


def _count_anew(place: tuple[int, int]) -> Steps[None]:
    """Take out what the same scan has listed of a bucket before, if it now lists it again."""
    [(objects, size)] = yield Fetch(sql.LISTED_BEFORE, place)
    if objects:
        yield Execute(sql.COUNT_LISTED, (-int(objects), -int(size), place[0]))
        yield Execute(sql.DROP_CLASSES, place)


def _count_classes(place: tuple[int, int], page: PageChanges) -> Steps[None]:
    """Count a page of a scan's bucket by storage class."""
    for name, (objects, size) in page.classes.items():
        values = (objects, size, *place, name[:CLASS_LIMIT])
        if not (yield Execute(sql.COUNT_CLASS, values)):
            yield Execute(sql.ADD_CLASS, values)


class PageMerge:
    """One bucket's changes within a transaction. New rows get ids from *first_id* on.

    *held* are the ids that workers have: one of these that vanished is left to its worker, who
    finds out by itself.
    """

    __slots__ = (
        "_flow",
        "_flow_id",
        "_held",
        "_name",
        "_next_id",
        "_now",
        "_trail",
        "bucket_id",
        "deltas",
    )

    def __init__(
        self,
        flow: tuple[str, int],
        bucket: tuple[str, int],
        trail: Trail,
        *,
        first_id: int,
        now: int,
        held: Container[int],
    ) -> None:
        self._flow, self._flow_id = flow
        self._name, self.bucket_id = bucket
        self._trail = trail
        self._next_id = first_id
        self._now = now
        self._held = held
        self.deltas = Deltas()

    def insert(self, items: Sequence[Discovered]) -> Steps[list[tuple[int, Discovered]]]:
        """Add rows; give those that are there already, with their id, if their version differs."""
        if not items:
            return []
        known: list[tuple[int, Discovered]] = []
        if not (yield Add(sql.ADD_OBJECT, self._new_rows(items))):
            known, items = yield from self._sort_out(items)
            if not (yield Add(sql.ADD_OBJECT, self._new_rows(items))):
                raise StateError(
                    "a page of the listing has one key twice: nothing of it is recorded"
                )
        self._count(items)
        return known

    def _new_rows(self, items: Sequence[Discovered]) -> list[tuple[object, ...]]:
        codes, flow_id, bucket, now = sql.CODES, self._flow_id, self.bucket_id, self._now
        rows: list[tuple[object, ...]] = []
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
        return rows

    def _count(self, items: Sequence[Discovered]) -> None:
        codes, flow_id, bucket, count = sql.CODES, self._flow_id, self.bucket_id, self.deltas.count
        for item in items:
            state = codes[item.state]
            count(
                (flow_id, bucket, state, item.reason, item.method, item.proof), 1, item.entry.size
            )
            if state >= sql.FIRST_FINAL:
                self._ended(item, state)

    def _sort_out(
        self, items: Sequence[Discovered]
    ) -> Steps[tuple[list[tuple[int, Discovered]], list[Discovered]]]:
        known, unknown = [], []
        for item in items:
            place = (self._flow_id, self.bucket_id, item.entry.key)
            row = first((yield Fetch(sql.ROW_BY_KEY, place)))
            if row is None:
                unknown.append(item)
            elif tuple(row[1:]) != (item.entry.size, item.entry.etag):
                known.append((row[0], item))
        return known, unknown

    def supersede(self, changed: Sequence[tuple[int, Discovered]]) -> Steps[None]:
        """Put new versions into their rows: a higher generation, and nothing of the old work left.

        Where the old version had begun an upload, the row says `TRANSFERRING` without an upload id:
        its next worker aborts what it finds at the key. A row that came to the listed version by
        itself since the page was compared stays as it is.
        """
        rows = yield from current(row_id for row_id, _ in changed)
        etag_of = yield from etags(list(rows))
        updates = []
        for row_id, item in changed:
            row = rows.get(row_id)
            if row is None or row.flow_id != self._flow_id:
                continue
            if not item.again and _is_at(row, etag_of[row.id], item):
                continue
            self._take_out(row)
            entry, state = item.entry, sql.CODES[item.state]
            if item.state is State.DISCOVERED and (row.upload_id or row.state == _TRANSFERRING):
                state = _TRANSFERRING
            elif row.state == _TRANSFERRING and not row.upload_id:
                # One was asked for, and may be open at the key; no worker will look for it.
                unknown = unknown_upload(row.id, row.generation)
                yield from abandon(row._replace(upload_id=unknown))
            else:
                yield from abandon(row)
            line = (row.flow_id, row.bucket_id, state, item.reason, item.method, item.proof)
            self.deltas.count(line, 1, entry.size)
            if row.state >= sql.FIRST_FINAL:
                was = f"was {sql.STATES[row.state]}, now {entry.size} bytes, ETag {entry.etag}"
                self._note(Fact.CHANGED, row, etag_of[row.id], detail=was)
            if state >= sql.FIRST_FINAL:
                self._ended(item, state)
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
        yield Each(sql.NEW_VERSION, updates)

    def vanish(self, ids: Sequence[int]) -> Steps[None]:
        """Skip what the source does not list any more, unless it arrived in the meantime."""
        gone = []
        rows = yield from current(it for it in ids if it not in self._held)
        etag_of = yield from etags(list(rows))
        for row in rows.values():
            if row.state == _TRANSFERRING and not row.upload_id:
                continue  # it may have an upload that nobody knows: its worker looks for that
            if row.state < sql.FIRST_FINAL or row.state == sql.FAILED:
                self._take_out(row)
                yield from abandon(row)
                skipped = sql.CODES[State.SKIPPED]
                line = (row.flow_id, row.bucket_id, skipped, SourceGone.reason, "", "")
                self.deltas.count(line, 1, row.size)
                reason = SourceGone.reason
                was = f"was {sql.STATES[row.state]}"
                self._note(Fact.VANISHED, row, etag_of[row.id], reason=reason, detail=was)
                gone.append((SourceGone.reason, self._now, row.id))
        yield Each(sql.VANISH, gone)

    def write(self) -> Steps[None]:
        """Put the sums into the totals, and the facts into the audit trail."""
        yield from self.deltas.write()
        yield from self._trail.write(self._now)

    def _ended(self, item: Discovered, state: int) -> None:
        """Note what becomes of a listed object at once."""
        method, proof, reason = str(item.method), str(item.proof), item.reason
        key, size, etag, _, _ = item.entry
        fact = Happened(
            fact_of(state, method, reason),
            self.bucket_id,
            self._name,
            key,
            size,
            etag,
            item.target_etag,
            method=method,
            proof=proof,
            reason=reason,
            detail=item.message,
        )
        self._trail.note(self._flow, fact)

    def _note(
        self, fact: Fact, row: Current, etag: str, *, reason: str = "", detail: str = ""
    ) -> None:
        """Note what happened to the version that a row had."""
        place = (row.bucket_id, self._name, row.object_key)
        version = (row.size, etag, row.target_etag)
        named = Happened(
            fact, *place, *version, "", row.method, row.proof, reason or row.reason, detail
        )
        self._trail.note(self._flow, named)

    def _take_out(self, row: Current) -> None:
        self.deltas.count(row.line, -1, -row.size)
        self.deltas.dropped(row.flow_id, row.dropped, "")


def _is_at(row: Current, etag: str, item: Discovered) -> bool:
    """Say whether a version that is to be moved is the one that its row is at work on, or done with."""
    if item.state is not State.DISCOVERED or row.state in (_SKIPPED, sql.FAILED):
        return False
    return (row.size, etag) == (item.entry.size, item.entry.etag)


def bucket_id(name: str) -> Steps[int]:
    """Give the bucket's id, which it gets now if it is new."""
    row = first((yield Fetch(sql.BUCKET_ID, (name,))))
    return int(row[0] if row else (yield Insert(sql.ADD_BUCKET, (name,))))


def _is_utf8(key: bytes) -> bool:
    try:
        key.decode()
    except UnicodeDecodeError:
        return False
    return True
