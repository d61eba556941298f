"""The folder of reports: written whole or not at all, none over another, found again by name."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from s3flow.errors import S3flowError
from s3flow.events import Emit, Event, Warned
from s3flow.observe.account import FORMAT, Account, End, account
from s3flow.observe.report import report_lines
from s3flow.observe.tally import FlowTally, Tally

if TYPE_CHECKING:
    from s3flow.model import Flow
    from s3flow.observe.board import Board

_NAME = re.compile(r"transfer_summary_(\d{8}T\d{6}Z)(?:-(\d+))?\.json")
_SAME_SECOND = 1_000  # reports that one second may have
_RUNNING = End("run", "the work of a scan is done, the daemon goes on")


class BadReport(S3flowError):
    """A file is no report that this version reads."""

    reason = "bad_report"


def write_report(folder: Path, report: Account) -> Path:
    """Write both files and give the readable one. Raises `OSError`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    moment = datetime.fromisoformat(report["total"]["ended"]).astimezone(UTC)
    stamp = f"transfer_summary_{moment:%Y%m%dT%H%M%SZ}"
    for number in range(1, _SAME_SECOND):
        stem = stamp if number == 1 else f"{stamp}-{number}"
        if _write_pair(folder, stem, report):
            return folder / f"{stem}.log"
    raise FileExistsError(f"{folder} has {_SAME_SECOND} reports of one second: {stamp}")


def _write_pair(folder: Path, stem: str, report: Account) -> bool:
    """Write the files of *stem*; False when others have the name.

    Whoever has the unfinished file has the name: two daemons may share a folder.
    """
    data, text = folder / f"{stem}.json", folder / f"{stem}.log"
    claim, other = folder / f".{stem}.json.part", folder / f".{stem}.log.part"
    try:
        descriptor = os.open(claim, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    try:
        _fill(descriptor, json.dumps(report, ensure_ascii=False, indent=1) + "\n")
        if data.exists() or text.exists():
            return False
        descriptor = os.open(other, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        _fill(descriptor, "".join(f"{line}\n" for line in report_lines(report)))
        other.replace(text)
        claim.replace(data)
    finally:
        for path in (other, claim):
            path.unlink(missing_ok=True)
    return True


def _fill(descriptor: int, text: str) -> None:
    # What a key's bytes are read as may hold halves of surrogates, which no file encodes.
    with open(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def reports_in(folder: Path) -> list[Path]:
    """Give the reports for programs, the newest first; none where there is no folder."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        for path in folder.iterdir():
            name = _NAME.fullmatch(path.name)
            if name is not None:
                found.append((name[1], int(name[2] or 1), path))
    return [path for *_, path in sorted(found, reverse=True)]


def read_report(path: Path) -> Account:
    """Read a report for programs. Raises `BadReport`."""
    try:
        report: Account = json.loads(path.read_bytes())
        version = report["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadReport(f"{path}: cannot be read as a report: {error}") from error
    if version != FORMAT:
        raise BadReport(f"{path}: is of format {version}, and this s3flow reads {FORMAT}")
    return report


class Reporter:
    """Counts a run and writes its reports. Subscribe it with `events.fan_out`.

    While the daemon runs (*each_scan*), `run` writes one for each flow whose scan is worked off; one
    that tells of nothing takes the place of the one before, if that told of nothing either.
    *why_streamed* says by flow why nothing of it can be copied inside a store.
    """

    def __init__(
        self,
        folder: Path,
        flows: Sequence[Flow],
        board: Board,
        why_streamed: Mapping[str, str],
        *,
        each_scan: bool,
    ) -> None:
        self._folder = folder
        self._flows = {flow.name: flow for flow in flows}
        self._board = board
        self._why = why_streamed
        self._tally = Tally(flows, self._waiting_for if each_scan else None)
        self.told = self._tally.told
        self._waiting: asyncio.Queue[FlowTally] = asyncio.Queue()
        self._writing: asyncio.Task[None] | None = None
        self._told_nothing: dict[str, Path] = {}
        self._log = structlog.get_logger("s3flow.report")

    def __call__(self, event: Event) -> None:
        """Count *event*."""
        self._tally(event)

    def _waiting_for(self, tally: FlowTally) -> None:
        self._waiting.put_nowait(tally)

    async def run(self, tell: Emit) -> None:
        """Write reports as flows are worked off, until cancelled; tells what cannot be written."""
        while True:
            tally = await self._waiting.get()
            self._writing = asyncio.create_task(self._scan_done(tally, tell))
            await asyncio.shield(self._writing)  # a stop waits for it in `close`

    async def _scan_done(self, tally: FlowTally, tell: Emit) -> None:
        await self._board.refresh()
        path = await self._written(_RUNNING, [tally], tell)
        if path is None:
            return
        before = self._told_nothing.pop(tally.flow, None)
        if tally.is_empty:
            self._told_nothing[tally.flow] = path
            if before is not None:
                await asyncio.to_thread(_remove_pair, before)

    async def close(self, end: End, tell: Emit) -> Path | None:
        """Report what is left at the end of a run, and give the readable file.

        What a scan that was reported has left is not told again.
        """
        if self._writing is not None:
            await asyncio.wait({self._writing})
        tallies = []
        while not self._waiting.empty():
            tallies.append(self._waiting.get_nowait())
        rest = [self._tally.take(name) for name in self._flows]
        if end.command == _RUNNING.command:
            rest = [one for one in rest if not one.is_empty or one.listed]
        tallies += rest
        return await self._written(end, tallies, tell) if tallies else None

    async def _written(self, end: End, tallies: Sequence[FlowTally], tell: Emit) -> Path | None:
        snapshots = {one.name: one for one in self._board.last}
        report = account(end, tallies, self._flows, snapshots, self._why)
        try:
            path = await asyncio.to_thread(write_report, self._folder, report)
        except OSError as error:
            message = f"the report of this run could not be written to {self._folder}: {error}; "
            message += "set daemon.reports to a folder that s3flow may write to"
            tell(Warned("", message))
            return None
        self._log.info("report written", path=str(path), ending=end.ending)
        return path


def _remove_pair(text: Path) -> None:
    # Somebody may have moved or locked it away: then there is one more, and no harm.
    for path in (text.with_suffix(".json"), text):
        with contextlib.suppress(OSError):
            path.unlink()
