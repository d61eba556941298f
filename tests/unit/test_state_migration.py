"""A state file of an earlier version opens, keeps what it knows and works."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest

from s3flow.errors import StateError
from s3flow.model import Discovered, Flow, KeyRange, Listed, PageChanges, Place, ScanSummary
from s3flow.state import sql
from s3flow.state.database import APPLICATION_ID
from s3flow.state.sqlite import open_sqlite

FLOW = Flow("documents", Place("src", "bucket", b""), Place("dst", "other", b""))
_OF_VERSION_1 = """
INSERT INTO meta VALUES ('version', '1'), ('clean', '1');
INSERT INTO flows VALUES
  (1, 'documents', '{"source": "src:bucket/", "target": "dst:other/", "rewrite": "[]"}', 1, 0);
INSERT INTO buckets VALUES (1, 'bucket'), (2, 'done');
INSERT INTO scans VALUES (7, 1, 5.0, NULL, 1, 10);
INSERT INTO cursors VALUES (7, 1, x'62', 0), (7, 2, x'7a', 1);
INSERT INTO objects
  (id, flow_id, bucket_id, object_key, size, etag, modified, storage_class, state,
   discovered_at, updated_at)
  VALUES (1, 1, 1, x'61', 10, 'e', 0, 'STANDARD', 0, 0, 0);
INSERT INTO totals VALUES (1, 1, 0, '', '', '', 1, 10);
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file as version 1 left it in the midst of a listing."""
    path = tmp_path / "state.db"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(sql.migrations("sqlite")[0])
        db.executescript(_OF_VERSION_1)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    return path


async def test_a_listing_that_an_older_version_began_goes_on(old: Path) -> None:
    state = await open_sqlite(old)
    try:
        await state.open_flow(FLOW)
        scan, resumed = await state.begin_scan("documents")
        assert (scan.id, resumed) == (7, True)
        assert await state.ranges(scan, "bucket") == [KeyRange(b"", b"b", None, done=False)]
        assert await state.ranges(scan, "done") == [KeyRange(b"", b"z", None, done=True)]
        new = [Discovered(Listed(b"c", 5, "e", 0, "STANDARD"))]
        await state.apply_page(scan, PageChanges("bucket", b"c", True, 1, 5, new))
        await state.finish_scan(scan)
        assert await state.last_scan("documents") == ScanSummary(
            (await state.last_scan("documents")).finished, False, 2, drained=False
        )
        assert [it.key for it in await state.claim("documents", 9)] == [b"a", b"c"]
    finally:
        await state.close()
    again = await open_sqlite(old, read_only=True)
    try:
        assert sum(line.objects for line in await again.totals("documents")) == 2
    finally:
        await again.close()


async def test_readers_leave_an_older_file_as_it_is(old: Path) -> None:
    with pytest.raises(StateError, match="start the daemon once"):
        await open_sqlite(old, read_only=True)
    with contextlib.closing(sqlite3.connect(old)) as db:
        assert db.execute("SELECT value FROM meta WHERE name = 'version'").fetchone() == ("1",)
