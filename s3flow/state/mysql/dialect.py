"""What MySQL and MariaDB say instead of the statements that only SQLite understands.

Keys of the mappings are those statements themselves; what is not here is the same in both. Only what
MySQL 8.0.19 and MariaDB 10.6 have in common is used: no JSON_TABLE or VALUES ROW(…), no
`AS new ON DUPLICATE KEY`, no RETURNING.
"""

from __future__ import annotations

from functools import lru_cache

from s3flow.state import inventory, moves, proven, sql
from s3flow.state.steps import Select


def _update(columns: str, fixed: str = "") -> str:
    """Make the UPDATE of many rows, whose last column is the id: a join with all of them at once."""
    names = columns.split(", ")
    changes = ", ".join(f"o.{name} = v.c{number}" for number, name in enumerate(names))
    last = f"c{len(names)}"
    more = f", {fixed}" if fixed else ""
    return (
        f"UPDATE {{union}} AS v STRAIGHT_JOIN objects AS o ON o.id = v.{last} SET {changes}{more}"
    )


_NEXT_DUE = (
    "SELECT min(due_at) FROM objects FORCE INDEX (objects_due_at)"
    " WHERE flow_id = ? AND state = ? AND due_at > 0"
)
_NAME = "CONVERT(b.name USING utf8mb4)"
_UNTOUCHED = (
    "o.message = '', o.method = '', o.proof = '', o.target_etag = '', o.attempts = 0,"
    " o.retry_at = 0, o.due_at = 0"
)
_FORGOTTEN = (
    "o.dropped = '', o.upload_id = NULL, o.part_size = NULL, o.generation = o.generation + 1"
)

# Statements for one row, or for many where they have {rows} (as VALUES has them) or {union}.
STATEMENTS = {
    sql.SAVE: (
        "UPDATE {union} AS v STRAIGHT_JOIN objects AS o ON o.id = v.c0 SET o.state = v.c1,"
        " o.reason = v.c2, o.message = v.c3, o.method = v.c4, o.proof = v.c5, o.target_etag = v.c6,"
        " o.dropped = v.c7, o.attempts = v.c8, o.retry_at = v.c9, o.upload_id = v.c10,"
        " o.part_size = v.c11, o.updated_at = v.c12, o.version_id = COALESCE(v.c13, o.version_id),"
        " o.due_at = v.c14"
    ),
    sql.NEW_VERSION: _update(
        "size, etag, modified, storage_class, state, reason, message, method, proof, target_etag,"
        " updated_at",
        f"o.version_id = NULL, o.attempts = 0, o.retry_at = 0, o.due_at = 0, {_FORGOTTEN}",
    ),
    sql.VANISH: _update("reason, updated_at", f"o.state = 12, {_UNTOUCHED}, {_FORGOTTEN}"),
    sql.SET_VERSION: _update("size, etag, modified, storage_class, generation"),
    moves.SET_DUE: _update("due_at, reason", "o.message = ''"),
    sql.TRY_AGAIN: _update("state, reason, updated_at", _UNTOUCHED),
    sql.SET_META: (
        "INSERT INTO meta (name, value) VALUES {rows} ON DUPLICATE KEY UPDATE value = VALUES(value)"
    ),
    sql.SET_RANGE: (
        "INSERT INTO ranges (scan_id, bucket_id, start_key, last_key, end_key, done) VALUES {rows}"
        " ON DUPLICATE KEY UPDATE last_key = GREATEST(last_key, VALUES(last_key)),"
        " end_key = VALUES(end_key), done = VALUES(done)"
    ),
    sql.ADD_TOTAL: (
        "INSERT INTO totals (flow_id, bucket_id, state, reason, method, proof, objects, bytes)"
        " VALUES {rows} ON DUPLICATE KEY UPDATE"
        " objects = objects + VALUES(objects), bytes = bytes + VALUES(bytes)"
    ),
    sql.ADD_DROPPED: (
        "INSERT INTO dropped (flow_id, field, objects) VALUES {rows}"
        " ON DUPLICATE KEY UPDATE objects = objects + VALUES(objects)"
    ),
    sql.ADD_BATCH: (
        "INSERT INTO batches (scan_id, verified, adopted, skipped, failed, deleted, verified_bytes)"
        " VALUES {rows} ON DUPLICATE KEY UPDATE verified = verified + VALUES(verified),"
        " adopted = adopted + VALUES(adopted), skipped = skipped + VALUES(skipped),"
        " failed = failed + VALUES(failed), deleted = deleted + VALUES(deleted),"
        " verified_bytes = verified_bytes + VALUES(verified_bytes)"
    ),
    sql.RECORDS: sql.RECORDS.replace("FROM objects", "FROM objects FORCE INDEX (objects_by_key)"),
    sql.AUDIT: sql.AUDIT.replace(" b.name", f" {_NAME}"),
    sql.BUCKETS_OF: sql.BUCKETS_OF.replace("DISTINCT b.id, b.name", f"DISTINCT b.id, {_NAME}"),
    sql.ABANDON: (
        "INSERT INTO abandoned (flow_id, upload_id, bucket_id, object_key) VALUES {rows}"
        " ON DUPLICATE KEY UPDATE flow_id = VALUES(flow_id)"
    ),
    # The table that is deleted from may be read in a derived table only, which DISTINCT keeps one.
    sql.DROP_DONE_RANGES: (
        "DELETE FROM ranges WHERE scan_id = ? AND bucket_id NOT IN (SELECT bucket_id FROM"
        " (SELECT DISTINCT bucket_id FROM ranges WHERE scan_id = ? AND done = 0) AS unfinished)"
    ),
    # Which ones makes no difference, for all go. In an order, each slice would sort what is left: a million
    # rows took minutes.
    sql.DROP_OBJECTS: "DELETE FROM objects WHERE flow_id = ? LIMIT 10000",
    inventory.CLASSES: inventory.CLASSES.replace("SELECT b.name", f"SELECT {_NAME}"),
    inventory.UNLISTED: inventory.UNLISTED.replace("SELECT b.name", f"SELECT {_NAME}"),
    sql.BUCKET_NAME: f"SELECT {_NAME} FROM buckets b WHERE b.id = ?",
    sql.TOTALS: sql.TOTALS.replace("SELECT b.name", f"SELECT {_NAME}"),
    sql.ABANDONED: (
        f"SELECT {_NAME}, a.object_key, CONVERT(a.upload_id USING utf8mb4) FROM abandoned a"
        " JOIN buckets b ON b.id = a.bucket_id WHERE a.flow_id = ? ORDER BY a.upload_id"
    ),
    sql.VERDICTS: sql.VERDICTS.replace("SELECT bucket", "SELECT CONVERT(bucket USING utf8mb4)"),
    sql.UPLOADS: (
        "SELECT upload_id FROM objects FORCE INDEX (objects_work) WHERE flow_id = ? AND work = 1"
    ),
    sql.WAITING: (
        "SELECT id, due FROM objects FORCE INDEX (objects_due)"
        " WHERE flow_id = ? AND due > 0 ORDER BY due, id LIMIT ?"
    ),
    sql.NEXT_DUE: _NEXT_DUE,
    sql.LAST_DUE: _NEXT_DUE.replace("min(due_at)", "max(due_at)"),
    sql.FAILURES: (
        f"SELECT {_NAME}, o.object_key, o.reason, o.message"
        " FROM objects o FORCE INDEX (objects_work) JOIN buckets b ON b.id = o.bucket_id"
        " WHERE o.flow_id = ? AND o.work = 2 ORDER BY o.id LIMIT ?"
    ),
    sql.FAILED_IDS: (
        "SELECT id FROM objects FORCE INDEX (objects_work)"
        " WHERE flow_id = ? AND work = 2 AND id > ? AND (? IS NULL OR reason = ?)"
        " ORDER BY id LIMIT 5000"
    ),
}
# What these find is the same until one of the others is carried out.
LASTING = {sql.FLOW_ID, sql.BUCKET_ID, sql.BUCKET_NAME}
UNSETTLING = {sql.ADD_FLOW, sql.UNNAME_FLOW, sql.DROP_FLOW, sql.ADD_BUCKET}
_SELECTS = {
    proven.TRANSFERS: proven.TRANSFERS.rest.replace(
        "FROM objects", "FROM objects FORCE INDEX (objects_by_key)"
    ),
    sql.DUE: (
        "FROM objects FORCE INDEX (objects_due_at)"
        " WHERE flow_id = ? AND state = ? AND due_at > 0 AND due_at <= ? ORDER BY due_at, id LIMIT ?"
    ),
    sql.CLAIM_INTERRUPTED: (
        "FROM objects FORCE INDEX (objects_work)"
        " WHERE flow_id = ? AND work = 1 AND state < 5 AND retry_at <= ? ORDER BY id LIMIT ?"
    ),
    sql.CLAIM_WAITING: (
        "FROM objects FORCE INDEX (objects_due)"
        " WHERE flow_id = ? AND due <= ? ORDER BY due, id LIMIT ?"
    ),
    sql.CLAIM_STRAYED: (
        "FROM objects FORCE INDEX (objects_due)"
        " WHERE flow_id = ? AND due > ? ORDER BY due, id LIMIT ?"
    ),
    sql.CLAIM_FRESH: (
        "FROM objects FORCE INDEX (objects_work)"
        " WHERE flow_id = ? AND id > ? AND work = 0 ORDER BY id LIMIT ?"
    ),
}


def statement(text: str) -> str:
    """Give what is said here instead of *text*."""
    return STATEMENTS.get(text, text)


@lru_cache(maxsize=512)
def as_arrays(select: Select) -> str:
    """Make a SELECT whose rows are one JSON array each: one column is read in a third of the time.

    JSON knows no bytes: keys go as hex.
    """
    columns = ", ".join(
        f"HEX({name})" if number in select.keys else name
        for number, name in enumerate(select.columns)
    )
    return f"SELECT JSON_ARRAY({columns}) {_SELECTS.get(select, select.rest)}"
