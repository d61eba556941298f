"""Counts a run while it goes, and files its reports; what cannot be written is a warning."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import cast

import structlog

from s3flow.errors import StateError
from s3flow.events import Emit, Event, Warned
from s3flow.model import Flow
from s3flow.observe.account import Account, End, account
from s3flow.observe.board import Board
from s3flow.observe.filing import remove_report, write_report
from s3flow.observe.tally import FlowTally, Tally

_RUNNING = End("run", "the work of a scan is done, the daemon goes on")


class Reporter:
    """Counts a run and writes its reports. Subscribe it with `events.fan_out`.

    While the daemon runs (*each_scan*), `run` writes one for each flow whose scan is worked off; one
    that tells of nothing takes the place of the one before, if that told of nothing either.
    *why_streamed* says by flow why nothing of it can be copied inside a store. *scrub* takes secrets
    out of a text: stores' own words are in reports.
    """

    def __init__(
        self,
        folder: Path,
        flows: Sequence[Flow],
        board: Board,
        why_streamed: Mapping[str, str],
        *,
        each_scan: bool,
        scrub: Callable[[str], str] = str,
    ) -> None:
        self._folder = folder
        self._flows = {flow.name: flow for flow in flows}
        self._board = board
        self._why = why_streamed
        self._scrub = scrub
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
        with contextlib.suppress(StateError):  # the recorder tells of that; a second ago will do
            await self._board.refresh()
        path = await self._written(_RUNNING, [tally], tell)
        if path is None:
            return
        before = self._told_nothing.pop(tally.flow, None)
        if tally.is_empty:
            self._told_nothing[tally.flow] = path
            if before is not None:
                await asyncio.to_thread(remove_report, before)

    async def close(self, end: End, tell: Emit) -> Path | None:
        """Report what is left at the end of a run, and give the readable file.

        What a scan that was reported has told is not told again. And a supervisor that starts again
        and again what breaks down at once must not fill the folder.
        """
        if self._writing is not None:
            await asyncio.wait({self._writing})
        tallies = []
        while not self._waiting.empty():
            tallies.append(self._waiting.get_nowait())
        rest = [self._tally.take(name) for name in self._flows]
        if end.error or end.command == _RUNNING.command:
            rest = [one for one in rest if not one.is_empty]
        tallies += rest
        return await self._written(end, tallies, tell) if tallies else None

    async def _written(self, end: End, tallies: Sequence[FlowTally], tell: Emit) -> Path | None:
        snapshots = {one.name: one for one in self._board.last}
        told = account(end, tallies, self._flows, snapshots, self._why)
        report = cast(Account, _scrubbed(told, self._scrub))
        try:
            path = await asyncio.to_thread(write_report, self._folder, report)
        except OSError as error:
            message = f"the report of this run could not be written to {self._folder}: {error}; "
            message += "set daemon.reports to a folder that s3flow may write to"
            tell(Warned("", message))
            return None
        self._log.info("report written", path=str(path), ending=end.ending)
        return path


def _scrubbed(value: object, scrub: Callable[[str], str], *, names: bool = False) -> object:
    """Clean the texts of a report, and the *names* of those of its fields that stores have worded."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, dict):
        return {
            scrub(name) if names else name: _scrubbed(inner, scrub, names=name == "warnings")
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [_scrubbed(inner, scrub) for inner in value]
    return value
