"""What workers report goes into the state: outcomes, uploads that were begun, retries.

All functions are steps of the caller's transaction. A row is read before it is changed, in the same
transaction: that is the fence, and what makes the totals exact.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from s3flow.errors import PathConflict
from s3flow.model import UNKNOWN_UPLOAD, Change, State, Transfer
from s3flow.records import Fact
from s3flow.state import sql
from s3flow.state.audit import Happened
from s3flow.state.steps import Bulk, Each, Execute, Fetch, FetchMany, Steps
from s3flow.state.totals import Deltas, Line
from s3flow.state.trail import Trail

MESSAGE_LIMIT = 1000  # characters; some servers answer with whole pages
_BATCH = 500  # ids in one IN (…)
_DELETED = sql.CODES[State.DELETED]
_VERIFIED = sql.CODES[State.VERIFIED]
_TRANSFERRING = sql.CODES[State.TRANSFERRING]


class Current(NamedTuple):
    """A row as `sql.CURRENT` reads it."""

    id: int
    flow_id: int
    bucket_id: int
    size: int
    generation: int
    state: int
    reason: str
    method: str
    proof: str
    target_etag: str
    dropped: str
    upload_id: str | None
    object_key: bytes

    @property
    def line(self) -> Line:
        """The line of the totals that counts this row."""
        return self.flow_id, self.bucket_id, self.state, self.reason, self.method, self.proof


def current(ids: Iterable[int]) -> Steps[dict[int, Current]]:
    """Read rows by id; those that do not exist are left out."""
    found: dict[int, Current] = {}
    rest = iter(ids)
    while batch := list(islice(rest, _BATCH)):
        for row in (yield FetchMany(sql.any_of(sql.CURRENT, len(batch)), batch)):
            found[row[0]] = Current._make(row)
    return found


def abandon(row: Current) -> Steps[None]:
    """Keep the row's upload id for a sweep: the row is not going to name it any more."""
    if row.upload_id:
        yield Execute(sql.ABANDON, (row.flow_id, row.upload_id, row.bucket_id, row.object_key))


def unknown_upload(row_id: int, generation: int) -> str:
    """Name what was asked for by a claim that nobody goes on with, and may be open at its key."""
    return f"{UNKNOWN_UPLOAD}{row_id}/{generation}"


def save(changes: Sequence[Change], trail: Trail, now: int) -> Steps[list[Transfer]]:
    """Record *changes* in their order; give the transfers whose rows are pending or were fenced."""
    rows = yield from current({change.transfer.id for change in changes})
    deltas, versions = Deltas(), []
    updates: dict[int, tuple[object, ...]] = {}  # by row, of which a batch may change one twice
    open_again: list[Transfer] = []
    for change in changes:
        row = rows.get(change.transfer.id)
        if row is None or row.generation != change.transfer.generation:
            _tell_of_late(row, change, trail)
            open_again.append(change.transfer)
            continue
        after = _after(row, change)
        if change.version is not None and after.state == _TRANSFERRING:
            yield from abandon(row)  # it could not be removed, and is none of the new version's
        if after.upload_id and after.state >= sql.FIRST_FINAL:
            yield from abandon(after)
            after = after._replace(upload_id=None)
        old_line, line = row.line, after.line
        if line != old_line or after.size != row.size:
            deltas.count(old_line, -1, -row.size)
            deltas.count(line, 1, after.size)
            _tell(row, after, change, trail)
        if after.dropped != row.dropped:
            deltas.dropped(row.flow_id, row.dropped, after.dropped)
        if (version := change.version) is not None:
            versions.append((*version[1:], after.generation, row.id))
        if after.state < sql.FIRST_FINAL:
            open_again.append(change.transfer)
        rows[row.id] = after
        updates[row.id] = (
            row.id,
            after.state,
            after.reason,
            change.message[:MESSAGE_LIMIT],
            after.method,
            after.proof,
            after.target_etag,
            after.dropped,
            change.attempts,
            change.retry_at,
            after.upload_id or None,
            change.part_size,
            now,
            change.version_id or None,
            change.due_at,
        )
    yield Bulk(sql.SAVE, list(updates.values()))
    if versions:
        yield Each(sql.SET_VERSION, versions)
    yield from deltas.write()
    yield from trail.write(now)
    return open_again


def _tell(row: Current, after: Current, change: Change, trail: Trail) -> None:
    """Note an outcome; and of what was proven, that it holds no more, or that its source stays."""
    if row.state != _VERIFIED or after.state > _VERIFIED:
        if after.state >= sql.FIRST_FINAL:
            _, bucket_id, state, _, method, proof = after.line
            trail.ended(change, bucket_id, state, after.size, method, proof)
        return
    it = change.transfer
    fact = Happened(
        Fact.KEPT if after.state == _VERIFIED else Fact.CHANGED,
        row.bucket_id,
        it.bucket,
        row.object_key,
        row.size,
        it.etag,
        row.target_etag,
        change.version_id,
        row.method,
        row.proof,
        change.reason,
        change.message,
    )
    trail.note(it.flow, fact)


def _tell_of_late(row: Current | None, change: Change, trail: Trail) -> None:
    """Note that a version was deleted, though the row is of another one by now.

    People wrote that, it was listed, and they put back what was there before: the condition of the
    delete held. Nothing else will ever tell of it.
    """
    if row is not None and change.state is State.DELETED:
        method, proof = str(change.method), str(change.proof)
        trail.ended(change, row.bucket_id, _DELETED, change.transfer.size, method, proof)


def _after(row: Current, change: Change) -> Current:
    """Give the row as the change leaves it."""
    state = sql.CODES[change.state]
    method, proof, target_etag = str(change.method), str(change.proof), change.target_etag
    dropped = ",".join(change.dropped) if state == _VERIFIED and change.dropped else ""
    if state == _DELETED or (state == _VERIFIED and row.state == _VERIFIED):
        # Why it is right to delete stays on record.
        method, proof = method or row.method, proof or row.proof
        target_etag, dropped = target_etag or row.target_etag, dropped or row.dropped
    size, generation = row.size, row.generation
    if change.version is not None:
        size, generation = change.version.size, generation + 1
    return Current(
        row.id,
        row.flow_id,
        row.bucket_id,
        size,
        generation,
        state,
        change.reason,
        method,
        proof,
        target_etag,
        dropped,
        change.upload_id,
        row.object_key,
    )


def remember_upload(transfer: Transfer, upload_id: str, part_size: int, now: int) -> Steps[None]:
    """Write the upload id into the transfer's row, or among the abandoned ones if fenced off."""
    row = (yield from current((transfer.id,))).get(transfer.id)
    if row is None:
        return
    if row.generation != transfer.generation:
        unknown = unknown_upload(row.id, transfer.generation)
        if upload_id:
            yield Execute(sql.DROP_ABANDONED, (row.flow_id, unknown))
        yield from abandon(row._replace(upload_id=upload_id or unknown))
        return
    if row.upload_id != upload_id:
        yield from abandon(row)
    after = row._replace(state=_TRANSFERRING)
    deltas = Deltas()
    deltas.count(row.line, -1, -row.size)
    deltas.count(after.line, 1, row.size)
    yield from deltas.write()
    yield Execute(sql.SET_UPLOAD, (_TRANSFERRING, upload_id or None, part_size, now, row.id))


def bucket_names(flow_id: int) -> Steps[dict[int, str]]:
    """Name the buckets in which the flow has objects, by id and in the order of their names."""
    return {int(number): name for number, name in (yield Fetch(sql.BUCKETS_OF, (flow_id,)))}


def etags(ids: Sequence[int]) -> Steps[dict[int, str]]:
    """Give the ETags of rows."""
    found: dict[int, str] = {}
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        found.update((yield FetchMany(sql.any_of(sql.VERSIONS, len(batch)), batch)))
    return found


def retry(
    flow: str, flow_id: int, reason: str | None, after: int, trail: Trail, now: int
) -> Steps[list[int]]:
    """Send the next slice of failed rows with ids over *after* back to work; give their ids.

    Whose place at the target belongs to another is for the next scan to decide again: a worker
    would write over the other's copy.
    """
    found = yield Fetch(sql.FAILED_IDS, (flow_id, after, reason, reason))
    ids = [row_id for (row_id,) in found]
    deltas, updates = Deltas(), []
    names = yield from bucket_names(flow_id)
    etag_of = yield from etags(ids)
    for row in (yield from current(ids)).values():
        state, why = State.DISCOVERED, ""
        if row.reason == PathConflict.reason:
            state, why = State.SKIPPED, row.reason
        deltas.count(row.line, -1, -row.size)
        deltas.count((flow_id, row.bucket_id, sql.CODES[state], why, "", ""), 1, row.size)
        updates.append((sql.CODES[state], why, now, row.id))
        place = (row.bucket_id, names[row.bucket_id], row.object_key)
        fact = Happened(Fact.RETRIED, *place, row.size, etag_of[row.id], reason=row.reason)
        trail.note(flow, fact)
    yield Each(sql.TRY_AGAIN, updates)
    yield from deltas.write()
    yield from trail.write(now)
    return ids
