"""Write-behind: what the targets took is settled and recorded in batches; `flush` is the barrier."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from s3flow.crashpoints import passing
from s3flow.engine.retry import UNEXPECTED, Again, Backoff, GiveUp, decide
from s3flow.errors import Blocked, S3flowError, StateError, StateLost
from s3flow.events import Emit, Recorded, Warned
from s3flow.lanes import heed_cancellation
from s3flow.model import Change, Flow, State, Stored
from s3flow.ports import Target

LINGER = 0.05  # seconds that a batch gathers; a crash repeats at most this much work
BATCH = 1_000
BACKLOG = 4_000  # changes not yet durable; beyond it workers wait, so memory stays bounded
STATE_RETRY = 5.0  # seconds between tries while the state's disk is full


class Entry(NamedTuple):
    """A change and, for a finished transfer, what the target must make durable before it."""

    change: Change
    target: Target | None = None
    stored: Stored | None = None


class Ledger(Protocol):
    """Where settled changes are written: the state, or the way to who has it."""

    async def save(self, changes: Sequence[Change]) -> None: ...


class Records(Protocol):
    """Who takes the outcomes of a worker's transfers."""

    async def record(self, entry: Entry) -> None: ...


class Recorder:
    """Owns the order of truth: first the target is durable, then the state says so.

    *unsettled* turns a change whose copy could not be made durable into what is recorded instead.
    """

    def __init__(
        self,
        state: Ledger,
        emit: Emit,
        unsettled: Callable[[Change, Exception], Change],
    ) -> None:
        self._state = state
        self._emit = emit
        self._unsettled = unsettled
        self._entries: list[Entry] = []
        self._work = asyncio.Event()
        self._hurry = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._taken = self._recorded = 0
        self._written = asyncio.Event()  # the next batch; each has one of its own

    async def record(self, entry: Entry) -> None:
        """Take a change; waits only while too many are not durable yet."""
        while not self._room.is_set():  # one opening wakes all who wait: each looks again
            await self._room.wait()
        self._entries.append(entry)
        self._taken += 1
        self._work.set()
        if len(self._entries) >= BATCH:
            self._hurry.set()
        if len(self._entries) >= BACKLOG:
            self._room.clear()

    async def flush(self) -> None:
        """Return once everything taken before is durable, whatever is taken meanwhile."""
        taken = self._taken
        if self._recorded < taken:
            self._hurry.set()
        while self._recorded < taken:
            await self._written.wait()

    async def run(self) -> None:
        """Record batches for ever; the daemon cancels it after the last flush."""
        while True:
            await self._work.wait()
            await self._linger()
            batch, self._entries = self._entries[:BATCH], self._entries[BATCH:]
            if not self._entries:
                self._work.clear()
            if len(self._entries) < BACKLOG:
                self._room.set()
            await self._write(batch)
            self._recorded += len(batch)
            written, self._written = self._written, asyncio.Event()
            written.set()

    async def _linger(self) -> None:
        if len(self._entries) >= BATCH:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                await self._hurry.wait()
        self._hurry.clear()

    async def _write(self, batch: list[Entry]) -> None:
        passing("batch.settling")
        changes = await self._settle(batch)
        passing("batch.settled")
        warned = False
        while True:
            try:
                await self._state.save(changes)
            except StateLost:
                raise
            except StateError as error:
                heed_cancellation()
                # Nothing goes on in memory alone: workers wait behind the backlog until this passes.
                if not warned:
                    self._emit(
                        Warned("", f"the state cannot be written, everything waits: {error}")
                    )
                warned = True
                await asyncio.sleep(STATE_RETRY)
            else:
                break
        passing("batch.saved")
        self._emit(Recorded(changes))

    async def _settle(self, batch: list[Entry]) -> list[Change]:
        by_target: dict[int, list[Entry]] = {}
        for entry in batch:
            if entry.target is not None:
                by_target.setdefault(id(entry.target), []).append(entry)
        errors: dict[int, Exception] = {}
        for entries in by_target.values():
            target = entries[0].target
            if target is None:
                continue
            stored = [entry.stored for entry in entries if entry.stored is not None]
            answers: Sequence[Exception | None]
            try:
                answers = await target.settle(stored)
            except S3flowError as failed:  # of none is it known that it is durable
                answers = [failed] * len(stored)
            for entry, error in zip(entries, answers, strict=True):
                if error is not None:
                    errors[id(entry)] = error
        if not errors:
            return [entry.change for entry in batch]
        return [
            self._unsettled(entry.change, errors[id(entry)])
            if id(entry) in errors
            else entry.change
            for entry in batch
        ]


def unsettled_change(
    change: Change, error: Exception, flow: Flow, block_retry: float, backoff: Backoff
) -> Change:
    """Say what is recorded of a copy that could not be made durable: it is sent again, if ever."""
    transfer = change.transfer
    # A block is no fault of the object: its next try meets the block itself.
    if isinstance(error, Blocked):
        verdict: Again | GiveUp = Again(transfer.attempts, block_retry)
    else:
        verdict = decide(error, transfer.attempts, flow.max_attempts, backoff)
    state = State.DISCOVERED if isinstance(verdict, Again) else State.FAILED
    settled = Change(transfer, state, message=str(error), attempts=verdict.attempts)
    settled.reason = error.reason if isinstance(error, S3flowError) else UNEXPECTED
    if isinstance(verdict, Again):
        settled.retry_at = int((time.time() + verdict.delay) * 1000)
    return settled
