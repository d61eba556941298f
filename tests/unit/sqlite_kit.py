"""A state in a file, with pages of objects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from s3flow.model import Discovered, Flow, Listed, PageChanges, Place, Scan
from s3flow.state.queries import fetch
from s3flow.state.sqlite import open_sqlite
from s3flow.state.store import SqlState

FLOW = Flow("documents", Place("src", "bucket", b""), Place("dst", "other", b""))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
async def state(path: Path) -> AsyncIterator[SqlState]:
    opened = await open_sqlite(path)
    await opened.open_flow(FLOW)
    yield opened
    await opened.close()


def page(keys: list[bytes], *, done: bool = False) -> PageChanges:
    new = [Discovered(Listed(key, 10, "e", 0, "STANDARD")) for key in keys]
    return PageChanges("bucket", keys[-1], done, len(keys), 10 * len(keys), new)


async def fill(state: SqlState, count: int, start: int = 0) -> Scan:
    scan, _ = await state.begin_scan("documents")
    await state.apply_page(scan, page([b"%08d" % n for n in range(start, start + count)]))
    return scan


async def query(state: SqlState, statement: str, *values: object) -> list[tuple[Any, ...]]:
    rows = await state._database.read(lambda: fetch(statement, *values))
    return [tuple(row) for row in rows]
