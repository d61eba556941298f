"""A state of ten million verified rows whose scan was interrupted: made once by SQL, cached."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import subprocess
import time
from pathlib import Path

from tests.bench.cases import Scene
from tests.integration.servers_real import cache

ROWS = 10_000_000
QUICK_ROWS = 200_000
# Before every key of the source: the scan stands between these rows and what is still to list.
_FILL = """\
WITH RECURSIVE counted (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM counted WHERE n + 1 < {rows})
INSERT INTO objects (flow_id, bucket_id, object_key, size, etag, modified, storage_class, state,
  method, proof, target_etag, attempts, discovered_at, updated_at)
SELECT {flow}, {bucket}, CAST(printf('a%04d/%010d', n / 10000, n) AS BLOB), 4096,
  printf('%032x', n), 1767225600000, 'STANDARD', 10, 'put', 'etag', printf('%032x', n), 1,
  1767225600000, 1767225600000
FROM counted
"""


def prepared_state(scene: Scene, rows: int, command: tuple[str, ...], env: dict[str, str]) -> Path:
    """Give the cached file; *command* is a scan that makes the schema, as this version has it."""
    schema = _schema_of(scene, command, env)
    made = cache() / "bench-state" / f"{rows}.db"
    note = made.with_suffix(".json")
    if made.exists() and note.exists() and json.loads(note.read_text()) == schema:
        return made
    print(f"making a state of {rows:,} rows in {made}", flush=True)
    made.parent.mkdir(exist_ok=True)
    for left in made.parent.glob(f"{rows}.*"):
        left.unlink()
    (scene.folder / "state.db").replace(made)
    _fill(made, rows)
    note.write_text(json.dumps(schema))
    return made


def _schema_of(scene: Scene, command: tuple[str, ...], env: dict[str, str]) -> list[str]:
    """Run the scan; what the schema and the flow's row look like afterwards."""
    subprocess.run(command, env=env, cwd=scene.folder, check=True, capture_output=True)
    with contextlib.closing(sqlite3.connect(scene.folder / "state.db")) as state:
        state.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        tables = state.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
        flows = state.execute("SELECT fingerprint FROM flows").fetchall()
    return [str(row[0]) for row in (*tables, *flows)]


def _fill(path: Path, rows: int) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as state:
        state.execute("PRAGMA journal_mode = OFF")
        state.execute("PRAGMA synchronous = OFF")
        state.execute("PRAGMA cache_size = -1000000")
        flow, bucket = state.execute("SELECT flow_id, bucket_id FROM objects LIMIT 1").fetchone()
        state.execute("BEGIN")
        state.execute("DELETE FROM objects")
        state.execute("DELETE FROM totals")
        state.execute(_FILL.format(rows=rows, flow=flow, bucket=bucket))
        totals = "INSERT INTO totals VALUES (?, ?, 10, '', 'put', 'etag', ?, ?)"
        state.execute(totals, (flow, bucket, rows, rows * 4096))
        (last,) = state.execute("SELECT max(object_key) FROM objects").fetchone()
        state.execute("UPDATE scans SET finished = NULL, started = ?", (time.time() - 60,))
        (scan,) = state.execute("SELECT max(id) FROM scans").fetchone()
        state.execute("DELETE FROM ranges")
        state.execute("INSERT INTO ranges VALUES (?, ?, x'', ?, NULL, 0)", (scan, bucket, last))
        state.execute("COMMIT")
        state.execute("PRAGMA journal_mode = WAL")
