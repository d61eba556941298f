"""Filing reports: whole, beside each other, and without an error where that cannot be done."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from s3flow import events
from s3flow.errors import StateError
from s3flow.model import Change, State, Verdict
from s3flow.observe.account import End
from s3flow.observe.board import Board
from s3flow.observe.filing import BadReport, newest_reports, read_report, reports_in, write_report
from s3flow.observe.progress import FlowSnapshot
from s3flow.observe.redact import Redactor
from s3flow.observe.reporter import Reporter
from s3flow.observe.tally import Tally
from tests.unit.test_tally import DOCS, FILM, Clock, moved, reported, tell, transfer


class StillBoard:
    """A board that nobody has to read from a state."""

    last: Sequence[FlowSnapshot] = ()

    def __init__(self, *, lost: bool = False) -> None:
        self.lost = lost

    async def refresh(self) -> None:
        """Stay as it is."""
        if self.lost:
            raise StateError("the database went away")


def reporter(folder: Path, *, each_scan: bool = False, lost: bool = False) -> Reporter:
    board = cast(Board, StillBoard(lost=lost))
    return Reporter(folder, [DOCS, FILM], board, {}, each_scan=each_scan)


def work(to: Reporter, flow: str = "docs") -> None:
    to(events.ScanStarted(flow, resumed=False))
    change = moved(flow=flow)
    to(events.TransferEnded(change, 0.5))
    to(events.Recorded([change]))


def ignore(event: events.Event) -> None:
    raise AssertionError(f"nothing was to be told: {event}")


SYNC = End("sync", "all done", 0)


async def test_the_end_of_a_run_is_one_report_on_all_flows(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there" / "yet"
    counting = reporter(folder)
    work(counting)
    path = await counting.close(SYNC, ignore)
    assert path is not None
    assert sorted(folder.iterdir()) == [path.with_suffix(".json"), path]
    (only,) = reports_in(folder)
    report = read_report(only)
    assert [flow["name"] for flow in report["flows"]] == ["docs", "film"]
    assert report["total"]["transferred"] == 1


async def test_what_broke_down_is_reported_if_it_had_done_anything(tmp_path: Path) -> None:
    failed = End("run", "failed", interrupted=True, error="the disk is on fire")
    idle = reporter(tmp_path)
    assert await idle.close(failed, ignore) is None
    busy = reporter(tmp_path)
    work(busy)
    path = await busy.close(failed, ignore)
    assert path is not None
    assert "the disk is on fire" in path.read_text()
    assert read_report(path.with_suffix(".json"))["interrupted"]


async def test_a_scan_that_is_worked_off_is_reported_at_once(tmp_path: Path) -> None:
    counting = reporter(tmp_path, each_scan=True)
    running = asyncio.create_task(counting.run(ignore))
    for flow in ("docs", "film"):
        work(counting, flow)
        counting(events.FlowDrained(flow))
    while len(reports_in(tmp_path)) < 2:
        await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.wait({running})
    assert await counting.close(End("run", "stopped", 0), ignore) is None
    named = {flow["name"] for path in reports_in(tmp_path) for flow in read_report(path)["flows"]}
    assert named == {"docs", "film"}


async def test_a_state_that_is_away_keeps_no_report_back(tmp_path: Path) -> None:
    counting = reporter(tmp_path, each_scan=True, lost=True)
    running = asyncio.create_task(counting.run(ignore))
    work(counting)
    counting(events.FlowDrained("docs"))
    while not reports_in(tmp_path):
        await asyncio.sleep(0.01)
    assert not running.done()
    running.cancel()
    await asyncio.wait({running})


async def test_what_waits_to_be_written_at_a_stop_is_written(tmp_path: Path) -> None:
    counting = reporter(tmp_path, each_scan=True)
    work(counting)
    counting(events.FlowDrained("docs"))
    running = asyncio.create_task(counting.run(ignore))
    await asyncio.sleep(0)  # it has taken what waits
    running.cancel()
    await asyncio.wait({running})
    work(counting, "film")
    await counting.close(End("run", "stopped", 0), ignore)
    told = [flow for path in reports_in(tmp_path) for flow in read_report(path)["flows"]]
    assert {flow["name"]: flow["transferred"] for flow in told} == {"docs": 1, "film": 1}


async def test_scans_that_find_nothing_keep_one_report(tmp_path: Path) -> None:
    counting = reporter(tmp_path, each_scan=True)
    running = asyncio.create_task(counting.run(ignore))

    async def scan(*, with_work: bool) -> None:
        before = set(reports_in(tmp_path))
        counting(events.ScanStarted("docs", resumed=False))
        if with_work:
            work(counting)
        counting(events.FlowDrained("docs"))
        while not set(reports_in(tmp_path)) - before:
            await asyncio.sleep(0.01)

    for with_work in (False, False, True, False, False, True):
        await scan(with_work=with_work)
    await scan(with_work=True)  # the removals before it are over
    running.cancel()
    await asyncio.wait({running})
    moved_by = [read_report(path)["total"]["transferred"] for path in reports_in(tmp_path)]
    assert moved_by == [1, 1, 0, 1, 0]


async def test_a_folder_that_is_a_file_is_told_and_no_error(tmp_path: Path) -> None:
    place = tmp_path / "logs"
    place.touch()
    counting = reporter(place)
    work(counting)
    told: list[events.Event] = []
    assert await counting.close(SYNC, told.append) is None
    (warning,) = told
    assert isinstance(warning, events.Warned)
    assert "daemon.reports" in warning.message
    assert str(place) in warning.message


async def test_no_secret_gets_into_a_report(tmp_path: Path) -> None:
    board = cast(Board, StillBoard())
    scrub = Redactor(["wJalr/XUtnFEMI", "second"]).scrub
    counting = Reporter(tmp_path, [DOCS], board, {}, each_scan=False, scrub=scrub)
    work(counting)
    words = 'said: "wJalr/XUtnFEMI" and wJalr%2FXUtnFEMI and Signature=abc\\" and so on'
    failed = Change(transfer(), State.FAILED, reason="refused", message=words)
    counting(events.Recorded([failed]))
    counting(events.Warned("docs", words))
    counting(events.BucketFailed("docs", "b", "refused", words))
    counting(events.RouteDecided(Verdict("docs", "b", "objects", "streamed", words, 1.0, 2.0)))
    path = await counting.close(End("sync", "failed", interrupted=True, error=words), ignore)
    assert path is not None
    read_report(path.with_suffix(".json"))
    for file in tmp_path.iterdir():
        text = file.read_text()
        assert "and so on" in text
        assert "XUtnFEMI" not in text
        assert "Signature=abc" not in text


def test_reports_of_one_second_do_not_overwrite_each_other(tmp_path: Path) -> None:
    clock = Clock()
    tally = Tally([DOCS], clock=clock)
    written = []
    for size in range(12):
        tell(tally, moved(size=size))
        written.append(write_report(tmp_path, reported(tally.take("docs"))))
    assert len(set(written)) == 12
    assert reports_in(tmp_path) == [path.with_suffix(".json") for path in reversed(written)]
    sizes = [read_report(path)["total"]["bytes"] for path in reversed(reports_in(tmp_path))]
    assert sizes == list(range(12))
    assert len(list(tmp_path.iterdir())) == 24


def test_a_name_that_is_half_taken_is_left_alone(tmp_path: Path) -> None:
    first = write_report(tmp_path, reported(Tally([DOCS], clock=Clock()).take("docs")))
    first.with_suffix(".json").unlink()
    first.write_text("somebody's")
    other = tmp_path / f".{first.stem}-2.json.part"  # another daemon is at it
    other.touch()
    second = write_report(tmp_path, reported(Tally([DOCS], clock=Clock()).take("docs")))
    assert first.read_text() == "somebody's"
    assert second.stem == f"{first.stem}-3"
    assert other.exists()


def test_files_are_for_their_owner(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        path = write_report(tmp_path / "new", reported(Tally([DOCS]).take("docs")))
    finally:
        os.umask(before)
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {0o600}


def test_a_failed_write_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path, reported(Tally([DOCS]).take("docs")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 99}', "\x00"])
def test_what_is_no_report_is_told_and_the_next_one_taken(tmp_path: Path, text: str) -> None:
    tally = Tally([DOCS], clock=Clock())
    tell(tally, moved(size=7))
    write_report(tmp_path, reported(tally.take("docs")))
    newer = tmp_path / "transfer_summary_29991231T235959Z.json"
    newer.write_text(text)
    with pytest.raises(BadReport, match="29991231"):
        read_report(newer)
    warnings: list[str] = []
    (found,) = newest_reports(reports_in(tmp_path), ["docs"], last=True, warn=warnings.append)
    assert found["total"]["bytes"] == 7
    assert len(warnings) == 1


def test_a_report_holds_no_less_for_a_failed_object_than_the_log(tmp_path: Path) -> None:
    tally = Tally([DOCS])
    change = moved(b"caf\xe9")
    change.state, change.reason, change.message = State.FAILED, "access_denied", "403 for you"
    change.transfer = transfer(b"caf\xe9")
    tell(tally, change)
    path = write_report(tmp_path, reported(tally.take("docs")))
    (failure,) = json.loads(path.with_suffix(".json").read_bytes())["total"]["failures"]
    assert bytes.fromhex(failure["key_hex"]) == b"caf\xe9"
    assert failure["message"] == "403 for you"
    assert "403 for you" in path.read_text()
