"""What moves ask of the state besides `due`: which sources are to be deleted after all, and what was listed.

All are steps of the caller's work.
"""

from __future__ import annotations

from s3flow.model import Proof
from s3flow.policies import LOST_METADATA, WEAK_PROOF
from s3flow.records import Fact
from s3flow.state.audit import Happened
from s3flow.state.changes import Current, bucket_names, current, etags
from s3flow.state.steps import Each, Fetch, Steps
from s3flow.state.totals import Deltas
from s3flow.state.trail import Trail

# Of a move: copies that were proven before anything was said of deleting their sources, and sources
# that were to stay. Both look at every row of the flow: to be asked where the totals know of some.
UNDUE_IDS = (
    "SELECT id FROM objects WHERE flow_id = ? AND state = 10 AND due_at = 0 AND id > ?"
    " AND reason IN ('', 'delete_failed', ?) ORDER BY id LIMIT 2000"
)
KEPT_IDS = (
    "SELECT id FROM objects WHERE flow_id = ? AND state = 10 AND due_at = 0 AND id > ?"
    " AND reason NOT IN ('', 'weak_proof', 'unreadable-metadata') AND (? IS NULL OR reason = ?)"
    " ORDER BY id LIMIT 2000"
)
KEPT_ROWS = (
    "SELECT b.name, o.object_key, o.reason, o.message FROM objects o JOIN buckets b ON b.id = o.bucket_id"
    " WHERE o.flow_id = ? AND o.state = 10 AND o.due_at = 0 AND o.reason <> '' ORDER BY o.id LIMIT ?"
)
COUNT_VERIFIED = (
    "SELECT reason, sum(objects) FROM totals WHERE flow_id = ? AND state = 10 AND objects <> 0"
    " GROUP BY reason"
)
COUNT_DUE = "SELECT count(*) FROM objects WHERE flow_id = ? AND state = 10 AND due_at > 0"
SET_DUE = "UPDATE objects SET due_at = ?, reason = ?, message = '' WHERE id = ?"
LAST_COUNTS = (
    "SELECT s.listed, coalesce(b.deleted, 0) FROM scans s LEFT JOIN batches b ON b.scan_id = s.id"
    " WHERE s.flow_id = ? AND s.finished IS NOT NULL ORDER BY s.finished DESC, s.id DESC LIMIT 2"
)
_TRIED_AGAIN = ("", "delete_failed")  # as in `UNDUE_IDS`, by every start


def undue(flow_id: int, more: str) -> Steps[bool]:
    """Say whether there are verified objects without a time, that `make_due` would give one."""
    counts = dict((yield Fetch(COUNT_VERIFIED, (flow_id,))))
    expected = sum(int(counts.get(reason, 0)) for reason in {*_TRIED_AGAIN, more})
    if not expected:
        return False
    [(due,)] = yield Fetch(COUNT_DUE, (flow_id,))
    return int(due) < expected


def make_due(flow_id: int, after: int, at: int, more: str) -> Steps[list[int]]:
    """Let the next slice of verified rows with ids over *after* be deleted at *at*; give their ids.

    Those that are proven by their size alone, or lack metadata, stay for good; of those that stay for
    a reason, the ones that every start tries again, and those with the reason *more*.
    """
    ids = [row_id for (row_id,) in (yield Fetch(UNDUE_IDS, (flow_id, after, more)))]
    deltas, updates = Deltas(), []
    for row in (yield from current(ids)).values():
        kept = row._replace(reason=_for_good(row))
        if kept.line != row.line:
            deltas.count(row.line, -1, -row.size)
            deltas.count(kept.line, 1, row.size)
        updates.append((0 if kept.reason else at, kept.reason, row.id))
    yield Each(SET_DUE, updates)
    yield from deltas.write()
    return ids


def _for_good(row: Current) -> str:
    """Say why a source stays for good, as a worker says it of what it moves; "" if it need not."""
    if row.proof in ("", Proof.SIZE):
        return WEAK_PROOF
    return LOST_METADATA if LOST_METADATA in row.dropped.split(",") else ""


def retry_kept(
    flow_id: int, flow: str, reason: str | None, after: int, trail: Trail, now: int
) -> Steps[list[int]]:
    """Let the next slice of rows whose sources had to stay be tried again; give their ids."""
    found = yield Fetch(KEPT_IDS, (flow_id, after, reason, reason))
    ids = [row_id for (row_id,) in found]
    names = yield from bucket_names(flow_id)
    etag_of = yield from etags(ids)
    deltas, updates = Deltas(), []
    for row in (yield from current(ids)).values():
        freed = row._replace(reason="")
        deltas.count(row.line, -1, -row.size)
        deltas.count(freed.line, 1, row.size)
        updates.append((now, "", row.id))
        place = (row.bucket_id, names[row.bucket_id], row.object_key)
        trail.note(
            flow, Happened(Fact.RETRIED, *place, row.size, etag_of[row.id], reason=row.reason)
        )
    yield Each(SET_DUE, updates)
    yield from deltas.write()
    yield from trail.write(now)
    return ids


def kept(flow_id: int) -> Steps[bool]:
    """Say whether sources had to stay that may be tried again."""
    counts = dict((yield Fetch(COUNT_VERIFIED, (flow_id,))))
    return any(reason not in ("", WEAK_PROOF, LOST_METADATA) for reason in counts)


def kept_rows(flow_id: int | None, limit: int) -> Steps[list[tuple[str, bytes, str, str]]]:
    """Give (bucket, key, reason, message) of sources that had to stay; looks only where there are some."""
    counts = dict((yield Fetch(COUNT_VERIFIED, (flow_id,))))
    if not any(counts) or limit <= 0:
        return []
    rows = yield Fetch(KEPT_ROWS, (flow_id, limit))
    return [(bucket, key, reason, message) for bucket, key, reason, message in rows]
