"""Moves' second half: what is verified and durable is deleted at the source, unless something holds it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from s3flow.crashpoints import passing
from s3flow.engine import retry
from s3flow.engine.breaker import Breaker
from s3flow.engine.feed import Feed
from s3flow.engine.recorder import Entry, Recorder
from s3flow.engine.removing import Removed, Remover
from s3flow.engine.retry import Backoff
from s3flow.engine.route import Route
from s3flow.engine.throttle import Blockade
from s3flow.errors import Blocked, StateError, StateLost, Throttled
from s3flow.events import DeletesHeld, DeletesResumed, Kept, Warned
from s3flow.lanes import heed_cancellation
from s3flow.model import Change, State, Transfer
from s3flow.policies import VERIFICATION_FAILED
from s3flow.ports import Holds, StateStore
from s3flow.records import Due, Hold

BATCH = 1_000
LINGER = 0.2  # seconds in which proven copies gather, for one look at them and one delete of all
LOOK_AGAIN = 2.0  # seconds between looks at whether deletes are held still
LONGEST_WAIT = 30.0  # seconds; a wait ends by an event, this only heals a missed one
FAILURES = 8  # turns that fail one after the other, until a flow that is to end does so without


@dataclass(slots=True)
class Deleter:
    """One flow's deletes. They are all this task's: nobody else deletes at a source."""

    route: Route
    state: StateStore
    recorder: Recorder
    feed: Feed
    blockade: Blockade
    backoff: Backoff
    block_retry: float  # seconds
    holds: Holds
    clock: Callable[[], float] = time.time
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _claimed: dict[int, Transfer] = field(default_factory=dict)  # by row
    _remover: Remover = field(init=False)
    _breaker: Breaker = field(init=False)
    _held: str = ""  # why nothing is deleted, as it was told
    _tripped: bool = False  # and it was the circuit breaker of this run that said so
    _working: bool = False
    _resting: bool = False  # nothing is deleted for now, whatever is due
    _unknown: int = 0  # turns, the last ones, in which nobody could say whether they are held
    _undue: bool = True  # there may be proven copies that nothing was said of yet
    _listed: bool = False  # a scan has ended since the last look
    _failures: int = 0
    _blocking: bool = False
    _told: set[tuple[str, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._remover = Remover(self.route)
        self._breaker = Breaker(self.route.flow)

    # --- what others tell --------------------------------------------------------------------------

    def recorded(self, changes: Sequence[Change]) -> None:
        """Take what became durable."""
        self._breaker.recorded(changes)
        for change in changes:
            if change.reason == VERIFICATION_FAILED:
                self._remover.refuted.add(change.transfer.id)
        self._wake.set()

    def looked(self, proven: int, refuted: int) -> None:
        """Count copies that were looked at again."""
        self._breaker.looked(proven, refuted)

    def scanned(self) -> None:
        """Look at what a scan that ended has found."""
        self._undue = self._listed = True
        self._wake.set()

    async def has_work(self) -> bool:
        """Say whether sources are being deleted, or can be now: some may have to be moved again."""
        if self._working:
            return True
        if self._resting:  # what is not known now may be the next time
            return 0 < self._unknown < FAILURES
        if self._undue or self._listed:
            return True
        due = await self.state.next_due(self.route.flow.name, State.VERIFIED)
        return due is not None and due <= self._now()

    # --- work --------------------------------------------------------------------------------------

    async def run(self, moved: asyncio.Event) -> None:
        """Delete until the daemon stops, or all is *moved*: that waits until nothing more may be deleted.

        No turn begins after it: what one finds to be copied again nobody would copy any more.
        """
        stop = self.route.stop
        while not (stop.is_set() or moved.is_set()):
            self._wake.clear()
            self._working = True
            try:
                more = await self._turn()
            finally:
                self._working = False
                self.feed.wake()
            heed_cancellation()  # a bucket's refusal may have taken its place
            if not more:
                await self._wait(moved)

    async def _turn(self) -> bool:
        """Delete what is due, a batch of it; False when there is nothing, or nothing may be deleted."""
        self._remover.refuted.clear()
        try:
            await self._give_back()
            dues = await self._next()
            if not dues:
                self._unblock()  # or it would be for ever: nobody asks for what is not due any more
                return False
            self._claimed = {due.transfer.id: due.transfer for due in dues}
            removed = await self._remover.remove(dues)
            self._breaker.looked(removed.seen, removed.lost)
            await self._record(removed)
            await self._give_back()
        except StateLost:
            raise
        except StateError as error:
            return await self._failed(error)
        if removed.error is not None:
            return await self._failed(removed.error)
        if removed.unsure:
            return await self._failed(removed.unsure[0])
        self._failures = 0
        self._unblock()
        return True

    def _unblock(self) -> None:
        """Let the flow go on, if it was this that could not."""
        if self._blocking:
            self._blocking = False
            self.blockade.lift()

    async def _next(self) -> Sequence[Due]:
        """Give what is due, unless something holds it."""
        name = self.route.flow.name
        if self._listed:
            self._breaker.listed(await self.state.last_counts(name))
            self._listed = False
        self._resting = await self._is_held()
        if self._resting:
            return ()
        if self._undue:
            flow = self.route.flow
            after = int(flow.delete_after * 1000)
            await self.state.make_due(name, self._now() + after, unguarded=flow.unguarded_delete)
            self._undue = False
            passing("sources.due")
        return await self.state.claim_due(name, self._now(), BATCH)

    async def _give_back(self) -> None:
        """Release what was claimed and of which nothing was recorded: of a last turn, or of this one."""
        if self._claimed:
            await self.state.release(list(self._claimed.values()))
            self._claimed.clear()

    async def _record(self, removed: Removed) -> None:
        """Record a batch; what is not recorded is due still, and found to be gone the next time."""
        for change in removed.changes:
            await self.recorder.record(Entry(change))
        if removed.changes:
            await self.recorder.flush()
        passing("delete.recorded")
        if removed.kept:
            await self.state.save(removed.kept)
        for change in (*removed.changes, *removed.kept):
            self._claimed.pop(change.transfer.id, None)
        for change in removed.kept:
            place = (change.transfer.bucket, change.reason)
            told = place in self._told
            self._told.add(place)
            self.route.emit(Kept(change, first=not told))

    async def _failed(self, error: Exception) -> bool:
        """Wait because of *error*; False when a flow that is to end need not wait for better times."""
        heed_cancellation()
        self._failures += 1
        if isinstance(error, Throttled):
            self.route.gate.throttled(error.endpoint)
            delay = retry.patience(error, self._failures, self.backoff)
        elif isinstance(error, Blocked):
            self.blockade.leave(error, scout=False)
            self._blocking = True
            delay = self.block_retry
        else:
            delay = self.backoff.delay(self._failures)
            if self._failures in {1, FAILURES}:
                message = f"sources wait to be deleted, it is tried again: {error}"
                self.route.emit(Warned(self.route.flow.name, message))
        if await self.route.stopped_within(delay):
            return False
        self._resting = self._failures >= FAILURES and not isinstance(error, Throttled)
        return not self._resting

    async def _is_held(self) -> bool:
        """Say whether somebody, or the circuit breaker, holds the deletes; and tell of it."""
        name = self.route.flow.name
        try:
            hold = await self.holds.get(name)
            if hold is None and self._tripped:
                self._breaker.closed()  # a person has released it
                self._tripped = False
            if hold is None and self._breaker.why:
                hold = Hold(self._breaker.why, self.clock(), tripped=True)
                await self.holds.put(name, hold)
                self._tripped = True
            self._unknown = 0
        except StateError as error:
            self._unknown += 1
            hold = Hold(f"it cannot be known whether somebody holds them: {error}", self.clock())
        why = "" if hold is None else hold.why
        if hold is not None and why != self._held:
            reason = "circuit_breaker" if hold.tripped else "hold"
            self.route.emit(DeletesHeld(name, reason, why))
        elif hold is None and self._held:
            self.route.emit(DeletesResumed(name))
        self._held = why
        return hold is not None

    async def _wait(self, moved: asyncio.Event) -> None:
        """Wait until something may be due, or until *moved*."""
        delay = LONGEST_WAIT
        if self._resting:
            delay = LOOK_AGAIN
            self._failures = 0
        else:
            with contextlib.suppress(StateError):
                due = await self.state.next_due(self.route.flow.name, State.VERIFIED)
                if due is not None:
                    delay = min(delay, max(0.0, due - self._now()) / 1000)
        events = [self._wake.wait(), moved.wait(), self.route.stop.wait()]
        tasks = [asyncio.ensure_future(event) for event in events]
        try:
            await asyncio.wait(
                tasks[self._resting :], timeout=delay, return_when=asyncio.FIRST_COMPLETED
            )
            if not moved.is_set():
                await self.route.stopped_within(LINGER)
        finally:
            for task in tasks:
                task.cancel()

    def _now(self) -> int:
        return int(self.clock() * 1000)
