"""What there is at the source: objects by storage class, and buckets that could not be listed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from s3flow.records import ClassStates, ClassTotal, Unlisted
from s3flow.state import sql
from s3flow.state.flows import draining, find_flow, need_flow
from s3flow.state.pages import bucket_id
from s3flow.state.steps import Execute, Fetch, Insert, Steps, first

REASON_LIMIT = 1000  # characters

CLASSES = (
    "SELECT b.name, c.scan_id, c.bucket_id, c.storage_class, c.objects, c.bytes FROM classes c"
    " JOIN buckets b ON b.id = c.bucket_id JOIN scans s ON s.id = c.scan_id WHERE s.flow_id = ?"
    " ORDER BY b.name, c.storage_class, c.scan_id"
)
CLASS_STATES = (
    "SELECT storage_class, state, count(*), sum(size) FROM objects WHERE flow_id = ?"
    " GROUP BY storage_class, state ORDER BY storage_class, state"
)
OPEN_BUCKETS = "SELECT DISTINCT bucket_id FROM ranges WHERE scan_id = ? AND done = 0"
LAST_FINISHED = (
    "SELECT id FROM scans WHERE flow_id = ? AND finished IS NOT NULL"
    " ORDER BY finished DESC, id DESC LIMIT 1"
)
ADD_DONE_RANGE = (
    "INSERT INTO ranges (scan_id, bucket_id, start_key, last_key, end_key, done)"
    " VALUES (?, ?, ?, ?, NULL, 1)"
)
DROP_RANGES_OF = "DELETE FROM ranges WHERE scan_id = ? AND bucket_id = ?"
DROP_ALL_RANGES = "DELETE FROM ranges WHERE scan_id = ?"
COPY_CLASSES = (
    "INSERT INTO classes (scan_id, bucket_id, storage_class, objects, bytes)"
    " SELECT ?, bucket_id, storage_class, objects, bytes FROM classes AS c"
    " WHERE c.scan_id = ? AND c.bucket_id <> ?"
)
RECOUNT = (
    "UPDATE scans SET"
    " listed = (SELECT coalesce(sum(c.objects), 0) FROM classes c WHERE c.scan_id = scans.id),"
    " listed_bytes = (SELECT coalesce(sum(c.bytes), 0) FROM classes c WHERE c.scan_id = scans.id)"
    " WHERE id = ?"
)
UNLISTED = (
    "SELECT b.name, u.reason, u.message, u.since FROM unlisted u"
    " JOIN buckets b ON b.id = u.bucket_id WHERE u.flow_id = ? ORDER BY b.name"
)
RENAME_UNLISTED = "UPDATE unlisted SET reason = ?, message = ? WHERE flow_id = ? AND bucket_id = ?"
UNLISTED_SINCE = "SELECT since FROM unlisted WHERE flow_id = ? AND bucket_id = ?"
ADD_UNLISTED = (
    "INSERT INTO unlisted (flow_id, bucket_id, reason, message, since) VALUES (?, ?, ?, ?, ?)"
)
DROP_UNLISTED = "DELETE FROM unlisted WHERE flow_id = ? AND bucket_id = ?"


def classes(flow: str) -> Steps[list[ClassTotal]]:
    """Give what was listed by bucket and storage class.

    Of a bucket that the walk under way has listed to its end, by that; else by the last finished one.
    """
    flow_id = yield from find_flow(flow)
    rows: Sequence[Any] = yield Fetch(CLASSES, (flow_id,))
    unfinished = first((yield Fetch(sql.UNFINISHED_SCAN, (flow_id,))))
    under_way = set[int]()
    if unfinished is not None:
        under_way = {row[0] for row in (yield Fetch(OPEN_BUCKETS, (unfinished[0],)))}
    known: dict[int, set[int]] = {}
    for _, scan_id, number, *_ in rows:
        known.setdefault(number, set()).add(scan_id)
    best = {
        number: min(scans) if number in under_way else max(scans) for number, scans in known.items()
    }
    return [
        ClassTotal(name, storage_class, int(objects), int(size))
        for name, scan_id, number, storage_class, objects, size in rows
        if scan_id == best[number]
    ]


def class_states(flow: str) -> Steps[list[ClassStates]]:
    """Count the objects of each storage class and state: looks at every row of the flow."""
    flow_id = yield from find_flow(flow)
    return [
        ClassStates(storage_class, sql.STATES[state], int(objects), int(size))
        for storage_class, state, objects, size in (yield Fetch(CLASS_STATES, (flow_id,)))
    ]


def list_again(flow: str) -> Steps[None]:
    """Forget which buckets the unfinished scan has listed to their end."""
    flow_id = yield from find_flow(flow)
    row = first((yield Fetch(sql.UNFINISHED_SCAN, (flow_id,))))
    if row is not None:
        yield Execute(sql.DROP_DONE_RANGES, (row[0], row[0]))


def rescan(flow: str, bucket: str | None, now: float) -> Steps[None]:
    """Let the next start list *bucket* anew, or all, also where the last listing is being drained."""
    flow_id = yield from need_flow(flow)
    yield Execute(sql.DROP_META, (draining(flow_id),))
    unfinished = first((yield Fetch(sql.UNFINISHED_SCAN, (flow_id,))))
    if bucket is None:
        if unfinished is not None:  # else the next start begins a scan by itself
            yield Execute(DROP_ALL_RANGES, (unfinished[0],))
        return
    number = yield from bucket_id(bucket)
    if unfinished is None:
        yield from _scan_of_one(flow_id, number, now)
    else:
        yield Execute(DROP_RANGES_OF, (unfinished[0], number))


def _scan_of_one(flow_id: int, number: int, now: float) -> Steps[None]:
    """Begin a scan that has listed every other bucket already: as the last one has."""
    scan_id = yield Insert(sql.ADD_SCAN, (flow_id, now))
    last = first((yield Fetch(LAST_FINISHED, (flow_id,))))
    others = {int(found[0]) for found in (yield Fetch(sql.BUCKETS_OF, (flow_id,)))}
    if last is not None:
        yield Execute(COPY_CLASSES, (scan_id, last[0], number))
        rows = yield Fetch(CLASSES, (flow_id,))
        others |= {int(found[2]) for found in rows}
    for other in sorted(others - {number}):
        yield Execute(ADD_DONE_RANGE, (scan_id, other, b"", b""))
    yield Execute(RECOUNT, (scan_id,))


def note_unlisted(flow: str, found: Unlisted) -> Steps[None]:
    """Keep why a bucket could not be listed, and since when."""
    flow_id = yield from need_flow(flow)
    number = yield from bucket_id(found.bucket)
    message = found.message[:REASON_LIMIT]
    if (yield Fetch(UNLISTED_SINCE, (flow_id, number))):
        yield Execute(RENAME_UNLISTED, (found.reason, message, flow_id, number))
    else:
        yield Execute(ADD_UNLISTED, (flow_id, number, found.reason, message, found.since))


def listed(flow: str, buckets: Iterable[str]) -> Steps[None]:
    """Forget that *buckets* could not be listed."""
    flow_id = yield from find_flow(flow)
    for bucket in buckets:
        row = first((yield Fetch(sql.BUCKET_ID, (bucket,))))
        if row is not None:
            yield Execute(DROP_UNLISTED, (flow_id, row[0]))


def unlisted(flow: str) -> Steps[list[Unlisted]]:
    """Give the buckets that could not be listed."""
    flow_id = yield from find_flow(flow)
    return [Unlisted(*row) for row in (yield Fetch(UNLISTED, (flow_id,)))]
