"""A process that dies at any instruction leaves a state that is whole and adds up."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from s3flow.model import State
from s3flow.state.audit import Check
from s3flow.state.sqlite import open_sqlite

WRITER = """
import asyncio, os, sys
from pathlib import Path
from s3flow.model import *
from s3flow.state.sqlite import open_sqlite

FLOW = Flow("documents", Place("src", "bucket", b""), Place("dst", "other", b""))

async def main():
    state = await open_sqlite(Path(sys.argv[1]))
    await state.open_flow(FLOW)
    scan, _ = await state.begin_scan("documents")
    while True:
        reached = await state.ranges(scan, "bucket")
        start = int(reached[0].cursor) + 1 if reached else 0
        new = [Discovered(Listed(b"%08d" % n, n, "e", 0, "S")) for n in range(start, start + 200)]
        await state.apply_page(
            scan, PageChanges("bucket", new[-1].entry.key, False, 200, sum(range(start, start + 200)), new)
        )
        claimed = await state.claim("documents", 150)
        changes = [Change(it, State.VERIFIED, method="put", proof="md5") for it in claimed[:100]]
        changes += [Change(it, State.FAILED, "refused", "m" * 50) for it in claimed[100:]]
        await state.save(changes)
        print("saved", flush=True)

try:
    asyncio.run(main())
except BaseException as error:
    print(error, flush=True)
    os._exit(1)  # or the state's thread would keep a failed writer alive for ever
"""


@pytest.mark.parametrize("rounds", [1, 3, 7, 12])
async def test_a_killed_writer_leaves_sums_that_add_up(tmp_path: Path, rounds: int) -> None:
    path = tmp_path / "state.db"
    saved = 0
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            for _ in range(rounds):
                assert writer.stdout.readline() == b"saved\n"
            writer.kill()  # wherever it is: the next page and save are on their way
            saved += rounds
        state = await open_sqlite(path)
        try:
            rows = await state.rows("documents", "bucket", b"", None, 1_000_000)
            totals = await state.totals("documents")
            trail, check = await state.audit("documents", 0, 1_000_000), Check()
            check.rows(trail)
            assert check.end((await state.audited())["documents"]) is None
            ((_, cursor, *_),) = await state.ranges(
                (await state.begin_scan("documents"))[0], "bucket"
            )
        finally:
            await state.close()
        for word in State:
            mine = [row for row in rows if row.state is word]
            lines = [line for line in totals if line.state is word]
            assert sum(line.objects for line in lines) == len(mine)
            assert sum(line.bytes for line in lines) == sum(row.size for row in mine)
        # A fact is there if and only if what it tells of is.
        final = {(row.state, row.key) for row in rows if row.state in {"verified", "failed"}}
        assert {(State(it.fact), it.key) for it in trail} == final
        assert len(trail) == len(final)
        # Whatever was reported is there, and the cursor is where the rows end.
        assert sum(row.state is State.VERIFIED for row in rows) >= 100 * saved
        assert cursor == rows[-1].key
        assert len(rows) == int(cursor) + 1
        db = sqlite3.connect(path)
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        (listed,) = db.execute("SELECT listed FROM scans").fetchone()
        assert listed == len(rows)
        db.close()
