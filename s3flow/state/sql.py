"""The statements of the state by name, and the codes that stand for states in its tables.

Parameters are "?" throughout; {rows} and {ids} stand for as many as there are. All are written for
SQLite; what other databases understand as well is above the last section.
"""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

from s3flow.model import State
from s3flow.state.steps import Select

CODES: dict[State, int] = {
    State.DISCOVERED: 0,
    State.TRANSFERRING: 3,
    State.TRANSFERRED: 4,
    State.RESTORE_REQUESTED: 5,
    State.RESTORING: 6,
    State.VERIFIED: 10,
    State.DELETED: 11,
    State.SKIPPED: 12,
    State.FAILED: 13,
}
STATES: dict[int, State] = {code: state for state, code in CODES.items()}
FIRST_FINAL = 10  # codes below are pending, and those below 5 workers may take: see the indexes
FAILED = CODES[State.FAILED]


def in_list(statement: str, count: int) -> str:
    """Put *count* placeholders where *statement* says {ids}."""
    return statement.format(ids=",".join("?" * count))


@lru_cache(maxsize=512)
def any_of(select: Select, count: int) -> Select:
    """Put *count* placeholders where *select* says {ids}."""
    return select._replace(rest=in_list(select.rest, count))


def migrations(dialect: str) -> list[str]:
    """Give the schema's scripts in order; the n-th leads to version n."""
    folder = resources.files("s3flow.state") / "schema"
    names = sorted(item.name for item in folder.iterdir() if item.name.startswith(f"{dialect}-"))
    return [(folder / name).read_text("utf-8") for name in names]


# --- meta, flows, scans ----------------------------------------------------------------------

GET_META = "SELECT value FROM meta WHERE name = ?"
FLOW_ID = "SELECT id FROM flows WHERE name = ?"
FLOW = "SELECT id, fingerprint, adopting FROM flows WHERE name = ?"
ADD_FLOW = "INSERT INTO flows (name, fingerprint, adopting, created) VALUES (?, ?, 1, ?)"
SET_ADOPTED = "UPDATE flows SET adopting = 0 WHERE id = ?"
UNNAME_FLOW = "UPDATE flows SET name = NULL WHERE id = ?"
FLOW_NAMES = "SELECT name FROM flows WHERE name IS NOT NULL ORDER BY name"
UNNAMED_FLOWS = "SELECT id FROM flows WHERE name IS NULL"
DROP_FLOW = "DELETE FROM flows WHERE id = ?"
DROP_RANGES = "DELETE FROM ranges WHERE scan_id IN (SELECT id FROM scans WHERE flow_id = ?)"
DROP_OF_FLOW = (
    "DELETE FROM classes WHERE scan_id IN (SELECT id FROM scans WHERE flow_id = ?)",
    "DELETE FROM unlisted WHERE flow_id = ?",
    "DELETE FROM batches WHERE scan_id IN (SELECT id FROM scans WHERE flow_id = ?)",
    "DELETE FROM scans WHERE flow_id = ?",
    "DELETE FROM totals WHERE flow_id = ?",
    "DELETE FROM dropped WHERE flow_id = ?",
    "DELETE FROM samples WHERE flow_id = ?",
    "DELETE FROM abandoned WHERE flow_id = ?",
    "DELETE FROM restores WHERE flow_id = ?",
)

VERDICTS = (
    "SELECT bucket, what, way, reason, decided, expires FROM verdicts WHERE flow_id = ?"
    " ORDER BY bucket, what"
)
ADD_VERDICT = (
    "INSERT INTO verdicts (flow_id, bucket, what, way, reason, decided, expires)"
    " VALUES (?, ?, ?, ?, ?, ?, ?)"
)
DROP_VERDICT = "DELETE FROM verdicts WHERE flow_id = ? AND bucket = ? AND what = ?"
DROP_VERDICTS = "DELETE FROM verdicts WHERE flow_id = ?"

BUCKET_ID = "SELECT id FROM buckets WHERE name = ?"
BUCKET_NAME = "SELECT name FROM buckets WHERE id = ?"
ADD_BUCKET = "INSERT INTO buckets (name) VALUES (?)"

UNFINISHED_SCAN = (
    "SELECT id, started FROM scans WHERE flow_id = ? AND finished IS NULL ORDER BY id DESC LIMIT 1"
)
FINISHED_SCAN = (
    "SELECT finished, listed FROM scans WHERE flow_id = ? AND finished IS NOT NULL"
    " ORDER BY finished DESC, id DESC LIMIT 1"
)
ADD_SCAN = "INSERT INTO scans (flow_id, started) VALUES (?, ?)"
COUNT_LISTED = (
    "UPDATE scans SET listed = listed + ?, listed_bytes = listed_bytes + ?"
    " WHERE id = ? AND finished IS NULL"
)
END_SCAN = "UPDATE scans SET finished = ? WHERE id = ? AND finished IS NULL"
PRUNE_SCANS = "DELETE FROM scans WHERE flow_id = ? AND id < ? AND finished IS NOT NULL"
PRUNE_BATCHES = "DELETE FROM batches WHERE scan_id NOT IN (SELECT id FROM scans)"
RANGE = (
    "SELECT last_key, end_key, done FROM ranges"
    " WHERE scan_id = ? AND bucket_id = ? AND start_key = ?"
)
RANGES = (
    "SELECT r.start_key, r.last_key, r.end_key, r.done FROM ranges r"
    " JOIN buckets b ON b.id = r.bucket_id WHERE r.scan_id = ? AND b.name = ? ORDER BY r.start_key"
)
DROP_DONE_RANGES = (
    "DELETE FROM ranges WHERE scan_id = ? AND bucket_id NOT IN"
    " (SELECT bucket_id FROM ranges WHERE scan_id = ? AND done = 0)"
)
COUNT_CLASS = (
    "UPDATE classes SET objects = objects + ?, bytes = bytes + ?"
    " WHERE scan_id = ? AND bucket_id = ? AND storage_class = ?"
)
ADD_CLASS = (
    "INSERT INTO classes (objects, bytes, scan_id, bucket_id, storage_class) VALUES (?, ?, ?, ?, ?)"
)
LISTED_BEFORE = (
    "SELECT coalesce(sum(objects), 0), coalesce(sum(bytes), 0) FROM classes"
    " WHERE scan_id = ? AND bucket_id = ?"
)
DROP_CLASSES = "DELETE FROM classes WHERE scan_id = ? AND bucket_id = ?"
DROP_OTHER_CLASSES = (
    "DELETE FROM classes WHERE scan_id IN (SELECT id FROM scans WHERE flow_id = ?) AND scan_id <> ?"
)
DROP_ALL_UNLISTED = "DELETE FROM unlisted WHERE flow_id = ?"
DROP_EMPTY_TOTALS = "DELETE FROM totals WHERE flow_id = ? AND objects = 0"

# --- objects ---------------------------------------------------------------------------------

_ROW = ("id", "object_key", "size", "etag", "state", "reason")
ROWS = Select(
    _ROW,
    "FROM objects WHERE flow_id = ? AND bucket_id = ? AND object_key > ? AND object_key <= ?"
    " ORDER BY object_key LIMIT ?",
    keys=(1,),
)
ROWS_TO_THE_END = Select(
    _ROW,
    "FROM objects WHERE flow_id = ? AND bucket_id = ? AND object_key > ?"
    " ORDER BY object_key LIMIT ?",
    keys=(1,),
)
KNOWN = (
    "SELECT object_key FROM objects"
    " WHERE flow_id = ? AND bucket_id = ? AND object_key IN ({ids}) AND state < 12"
)
ROW_BY_KEY = (
    "SELECT id, size, etag FROM objects WHERE flow_id = ? AND bucket_id = ? AND object_key = ?"
)
LAST_ID = "SELECT max(id) FROM objects"
# What totals, fences and abandoned uploads need to know of a row before it changes.
CURRENT = Select(
    (
        "id",
        "flow_id",
        "bucket_id",
        "size",
        "generation",
        "state",
        "reason",
        "method",
        "proof",
        "target_etag",
        "dropped",
        "upload_id",
        "object_key",
    ),
    "FROM objects WHERE id IN ({ids}) LIMIT 1000000",
    keys=(12,),
)
ADD_OBJECT = (
    "INSERT INTO objects (id, flow_id, bucket_id, object_key, not_utf8, size, etag, modified,"
    " storage_class, state, reason, message, method, proof, target_etag, discovered_at, updated_at)"
    " VALUES {rows}"
)
NEW_VERSION = (
    "UPDATE objects SET size = ?, etag = ?, modified = ?, storage_class = ?, state = ?, reason = ?,"
    " message = ?, method = ?, proof = ?, target_etag = ?, updated_at = ?, version_id = NULL,"
    " dropped = '', attempts = 0, retry_at = 0, due_at = 0, upload_id = NULL, part_size = NULL,"
    " generation = generation + 1 WHERE id = ?"
)
VANISH = (
    "UPDATE objects SET state = 12, reason = ?, message = '', method = '', proof = '',"
    " target_etag = '', dropped = '', attempts = 0, retry_at = 0, due_at = 0, upload_id = NULL,"
    " part_size = NULL, updated_at = ?, generation = generation + 1 WHERE id = ?"
)
SET_VERSION = (
    "UPDATE objects SET size = ?, etag = ?, modified = ?, storage_class = ?, generation = ?"
    " WHERE id = ?"
)
SET_UPLOAD = (
    "UPDATE objects SET state = ?, upload_id = ?, part_size = ?, updated_at = ? WHERE id = ?"
)
TRY_AGAIN = (
    "UPDATE objects SET state = ?, reason = ?, message = '', method = '', proof = '',"
    " target_etag = '', attempts = 0, retry_at = 0, due_at = 0, updated_at = ? WHERE id = ?"
)

# --- restores --------------------------------------------------------------------------------

ADD_RESTORE = "INSERT INTO restores (flow_id, object_id, generation, asked_at, bytes) VALUES {rows}"
RESTORES_OF = "SELECT count(*) FROM restores WHERE object_id = ? AND generation = ?"
RESTORES_SINCE = (
    "SELECT count(*), coalesce(sum(bytes), 0), min(asked_at) FROM restores"
    " WHERE flow_id = ? AND asked_at > ?"
)
HASTEN = (
    "UPDATE objects SET due_at = ? WHERE flow_id = ? AND bucket_id = ? AND object_key = ?"
    " AND state = 6 AND due_at > ?"
)

# --- totals, samples, abandoned uploads ------------------------------------------------------

TOTALS = (
    "SELECT b.name, t.state, t.reason, t.method, t.proof, t.objects, t.bytes FROM totals t"
    " JOIN buckets b ON b.id = t.bucket_id WHERE t.flow_id = ? AND t.objects <> 0"
    " ORDER BY b.name, t.state, t.reason, t.method, t.proof"
)
DROPPED = "SELECT field, objects FROM dropped WHERE flow_id = ? AND objects <> 0 ORDER BY field"
SAMPLES = "SELECT at, objects, bytes FROM samples WHERE flow_id = ? ORDER BY at"
LAST_SAMPLE = "SELECT max(at) FROM samples WHERE flow_id = ?"
ADD_SAMPLE = "INSERT INTO samples (flow_id, at, objects, bytes) VALUES (?, ?, ?, ?)"
DROP_SAMPLES = "DELETE FROM samples WHERE flow_id = ? AND (at < ? OR at > ?)"
ABANDONED = (
    "SELECT b.name, a.object_key, a.upload_id FROM abandoned a"
    " JOIN buckets b ON b.id = a.bucket_id WHERE a.flow_id = ? ORDER BY a.upload_id"
)
DROP_META = "DELETE FROM meta WHERE name = ?"
DROP_ABANDONED = "DELETE FROM abandoned WHERE flow_id = ? AND upload_id = ?"

# --- the audit trail -------------------------------------------------------------------------

CHAIN = "SELECT id, seq, hash FROM chains WHERE flow = ?"
CHAINS = "SELECT flow, seq, hash FROM chains ORDER BY flow"
ADD_CHAIN = "INSERT INTO chains (flow, seq, hash) VALUES (?, 0, ?)"
SET_CHAIN = "UPDATE chains SET seq = ?, hash = ? WHERE id = ?"
ADD_AUDIT = (
    "INSERT INTO audit (chain_id, seq, at, fact, bucket_id, object_key, size, etag, target_etag,"
    " version_id, method, proof, reason, detail, worker, hash) VALUES {rows}"
)
AUDIT = (
    "SELECT c.flow, a.seq, a.at, a.fact, b.name, a.object_key, a.size, a.etag, a.target_etag,"
    " a.version_id, a.method, a.proof, a.reason, a.detail, a.worker, a.hash"
    " FROM audit a JOIN chains c ON c.id = a.chain_id LEFT JOIN buckets b ON b.id = a.bucket_id"
    " WHERE a.chain_id = ? AND a.seq > ? ORDER BY a.seq LIMIT ?"
)
NEWEST_SCAN = "SELECT max(s.id) FROM scans s JOIN flows f ON f.id = s.flow_id WHERE f.name = ?"
BUCKETS_OF = (
    "SELECT DISTINCT b.id, b.name FROM totals t JOIN buckets b ON b.id = t.bucket_id"
    " WHERE t.flow_id = ? AND t.objects <> 0 ORDER BY b.name"
)
RECORDS = (
    "SELECT object_key, size, etag, version_id, modified, storage_class, state, reason, message,"
    " method, proof, target_etag, dropped, attempts, discovered_at, updated_at FROM objects"
    " WHERE flow_id = ? AND bucket_id = ? AND object_key > ? ORDER BY object_key LIMIT ?"
)
# What is told of a version besides what `CURRENT` has, where that happens seldom.
VERSIONS = Select(("id", "etag"), "FROM objects WHERE id IN ({ids}) LIMIT 1000000")

# --- SQLite's own ----------------------------------------------------------------------------
# INDEXED BY refuses to run rather than scan the table: the order of these lookups is a promise.

SAVE = (
    "UPDATE objects SET state = v.column2, reason = v.column3, message = v.column4,"
    " method = v.column5, proof = v.column6, target_etag = v.column7, dropped = v.column8,"
    " attempts = v.column9, retry_at = v.column10, upload_id = v.column11, part_size = v.column12,"
    " updated_at = v.column13, version_id = coalesce(v.column14, version_id), due_at = v.column15"
    " FROM (VALUES {rows}) AS v WHERE objects.id = v.column1"
)
SET_META = (
    "INSERT INTO meta (name, value) VALUES (?, ?)"
    " ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
SET_RANGE = (
    "INSERT INTO ranges (scan_id, bucket_id, start_key, last_key, end_key, done)"
    " VALUES (?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (scan_id, bucket_id, start_key) DO UPDATE SET"
    " last_key = max(last_key, excluded.last_key), end_key = excluded.end_key, done = excluded.done"
)
ADD_TOTAL = (
    "INSERT INTO totals (flow_id, bucket_id, state, reason, method, proof, objects, bytes)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
    " ON CONFLICT (flow_id, bucket_id, state, reason, method, proof)"
    " DO UPDATE SET objects = objects + excluded.objects, bytes = bytes + excluded.bytes"
)
ADD_DROPPED = (
    "INSERT INTO dropped (flow_id, field, objects) VALUES (?, ?, ?)"
    " ON CONFLICT (flow_id, field) DO UPDATE SET objects = objects + excluded.objects"
)
ADD_BATCH = (
    "INSERT INTO batches"
    " (scan_id, verified, adopted, skipped, failed, deleted, verified_bytes)"
    " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (scan_id) DO UPDATE SET"
    " verified = verified + excluded.verified, adopted = adopted + excluded.adopted,"
    " skipped = skipped + excluded.skipped, failed = failed + excluded.failed,"
    " deleted = deleted + excluded.deleted,"
    " verified_bytes = verified_bytes + excluded.verified_bytes"
)
ABANDON = (
    "INSERT INTO abandoned (flow_id, upload_id, bucket_id, object_key) VALUES (?, ?, ?, ?)"
    " ON CONFLICT (flow_id, upload_id) DO NOTHING"
)
DROP_OBJECTS = (
    "DELETE FROM objects WHERE id IN (SELECT id FROM objects WHERE flow_id = ? LIMIT 10000)"
)

_CLAIMED = (
    "id",
    "bucket_id",
    "object_key",
    "size",
    "etag",
    "modified",
    "storage_class",
    "state",
    "generation",
    "attempts",
    "upload_id",
    "part_size",
)
DUE = Select(
    (*_CLAIMED, "due_at", "method", "proof", "target_etag", "version_id", "reason"),
    "FROM objects INDEXED BY objects_due"
    " WHERE flow_id = ? AND state = ? AND due_at > 0 AND due_at <= ? ORDER BY due_at, id LIMIT ?",
    keys=(2,),
)
NEXT_DUE = (
    "SELECT min(due_at) FROM objects INDEXED BY objects_due"
    " WHERE flow_id = ? AND state = ? AND due_at > 0"
)
LAST_DUE = NEXT_DUE.replace("min(due_at)", "max(due_at)")
CLAIM_INTERRUPTED = Select(
    _CLAIMED,
    "FROM objects INDEXED BY objects_interrupted"
    " WHERE flow_id = ? AND state < 10 AND state < 5 AND upload_id IS NOT NULL AND retry_at <= ?"
    " ORDER BY id LIMIT ?",
    keys=(2,),
)
CLAIM_WAITING = Select(
    _CLAIMED,
    "FROM objects INDEXED BY objects_waiting"
    " WHERE flow_id = ? AND state < 5 AND retry_at > 0 AND retry_at <= ?"
    " ORDER BY retry_at, id LIMIT ?",
    keys=(2,),
)
CLAIM_STRAYED = Select(
    _CLAIMED,
    "FROM objects INDEXED BY objects_waiting"
    " WHERE flow_id = ? AND state < 5 AND retry_at > 0 AND retry_at > ?"
    " ORDER BY retry_at, id LIMIT ?",
    keys=(2,),
)
CLAIM_FRESH = Select(
    _CLAIMED,
    "FROM objects INDEXED BY objects_fresh"
    " WHERE flow_id = ? AND id > ? AND state < 5 AND retry_at = 0 AND upload_id IS NULL"
    " ORDER BY id LIMIT ?",
    keys=(2,),
)
UPLOADS = (
    "SELECT upload_id FROM objects INDEXED BY objects_interrupted"
    " WHERE flow_id = ? AND state < 10 AND upload_id IS NOT NULL"
)
WAITING = (
    "SELECT id, retry_at FROM objects INDEXED BY objects_waiting"
    " WHERE flow_id = ? AND state < 5 AND retry_at > 0 ORDER BY retry_at, id LIMIT ?"
)
FAILURES = (
    "SELECT b.name, o.object_key, o.reason, o.message"
    " FROM objects o INDEXED BY objects_failed JOIN buckets b ON b.id = o.bucket_id"
    " WHERE o.flow_id = ? AND o.state = 13 ORDER BY o.id LIMIT ?"
)
FAILED_IDS = (
    "SELECT id FROM objects INDEXED BY objects_failed"
    " WHERE flow_id = ? AND state = 13 AND id > ? AND (? IS NULL OR reason = ?)"
    " ORDER BY id LIMIT 5000"
)
