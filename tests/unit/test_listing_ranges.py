"""What long listings ask of ranges and of the state: cuts between names, a recent SQLite, small slices."""

from __future__ import annotations

import sqlite3
import tracemalloc
from pathlib import Path

import pytest

from s3flow.engine import ranges as ranges_module
from s3flow.engine import survey
from s3flow.engine.ranges import TOP, KeySpace
from s3flow.errors import StateError
from s3flow.events import BucketFailed, PageMerged
from s3flow.model import MIB, Discovered, Flow, Listed, Outcome, PageChanges, Place
from s3flow.state.sqlite import open_sqlite
from tests.faults import Recording
from tests.unit.lab import Lab, store


def test_no_cut_parts_a_name_from_what_is_below_it_when_samples_were_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranges_module, "SAMPLES", 4)
    space, cursor = KeySpace(b""), b"b-1"
    space.learn([b"a", cursor, b"ba.-x1", b"ba.-x2", b"z"])  # drops the cursor
    cut = space.cut(cursor, f"bb{TOP}".encode())
    assert cut is not None
    assert f"ba/{TOP}".encode() < cut or cut < b"ba"


@pytest.mark.parametrize("read_only", [False, True])
async def test_an_old_sqlite_is_refused_before_anything_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_only: bool
) -> None:
    path = tmp_path / "state.db"
    if read_only:
        await (await open_sqlite(path)).close()
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 31, 1))
    with pytest.raises(StateError, match=r"needs 3\.38\.0: use a Python that comes with a newer"):
        await open_sqlite(path, read_only=read_only)
    assert path.exists() is read_only


async def test_a_slice_of_rows_takes_little_memory_even_with_the_longest_keys(
    tmp_path: Path,
) -> None:
    # Eight listings may each have one in hand where most of a bucket was moved or has vanished.
    state = await open_sqlite(tmp_path / "state.db")
    try:
        await state.open_flow(Flow("f", Place("src", "b", b""), Place("dst", "c", b"")))
        scan, _ = await state.begin_scan("f")
        entries = [Listed(b"%05d" % n + b"k" * 1019, 1, "e" * 32, 0, "") for n in range(10_000)]
        new = [Discovered(entry) for entry in entries]
        page = PageChanges("b", entries[-1].key, done=True, listed=0, listed_bytes=0, new=new)
        await state.apply_page(scan, page)
        tracemalloc.start()
        try:
            assert await state.rows("f", "b", b"", None)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 16 * MIB
    finally:
        await state.close()


async def test_a_range_is_cut_though_its_page_is_taken_in_slices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cut is behind the page, and so behind its last slice alone."""
    monkeypatch.setattr(survey, "ROWS_AT_ONCE", 15)
    lab = Lab(tmp_path, source=store("src", "from", page_size=20))
    kept = {b"%03d" % number for number in range(0, 600, 2)}
    for number in range(600):
        lab.put(b"%03d" % number, 1)
    lab.change(list_concurrency=1)
    assert await lab.sync(scan_only=True) == {Outcome.PENDING: 600}
    contents = lab.src._contents("from")
    contents.keys[:] = sorted(kept)
    contents.objects = {key: contents.objects[key] for key in kept}
    lab.change(list_concurrency=4)
    lab.source = source = Recording(lab.src)
    assert await lab.sync() == {Outcome.VERIFIED: 300, Outcome.SKIPPED: 300}
    assert any(call.args[2].endswith(TOP.encode()) for call in source.of("list_page"))
    assert lab.of(BucketFailed) == []


@pytest.mark.parametrize("hands", [1, 2])
async def test_more_ranges_than_may_be_listed_at_a_time_are_listed_one_after_the_other(
    tmp_path: Path, hands: int
) -> None:
    """As after a stop, where the flow may list fewer at a time by now."""
    lab = Lab(tmp_path, source=store("src", "from", page_size=20))
    for number in range(900):
        lab.put(b"%03d" % number, 1)
    lab.change(list_concurrency=8)
    lab.stop_at(PageMerged, 14)
    await lab.sync(scan_only=True)
    assert lab.query("SELECT count(*) FROM ranges WHERE NOT done")[0][0] > hands
    lab.subscribers.clear()
    lab.change(list_concurrency=hands)
    assert await lab.sync(scan_only=True) == {Outcome.PENDING: 900}
