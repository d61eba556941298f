"""Archived objects on their way back: asked for within bounds, looked after by their times, released."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from s3flow.crashpoints import passing
from s3flow.engine import retry, thawing
from s3flow.engine.budget import Allowance, allowance, keeps_up
from s3flow.engine.purse import Purse
from s3flow.engine.recorder import STATE_RETRY, Entry, Recorder
from s3flow.engine.retry import Again, Backoff
from s3flow.engine.route import Route, object_name
from s3flow.engine.throttle import Blockade, TokenBucket
from s3flow.errors import (
    Blocked,
    ExpeditedUnavailable,
    RestoreExpired,
    SourceGone,
    StateError,
    StateLost,
    Throttled,
)
from s3flow.events import Retried, Warned
from s3flow.lanes import heed_cancellation, in_lanes
from s3flow.model import (
    Change,
    Flow,
    ObjectInfo,
    RestoreAnswer,
    RestoreEvent,
    RestoreNews,
    State,
    Transfer,
)
from s3flow.policies import RestorePolicy, RestoreTier
from s3flow.ports import RestoreQueue, StateStore

LANES = 8  # requests at a time
LOOKS_PER_SECOND = 50  # however many restores are under way that others have asked for
AT_ONCE = 100  # restores that one turn looks at
TIMES = 3  # restores of one version that may expire unread
LONGEST_WAIT = 30.0  # seconds; a wait ends by an event, this only heals a missed one
SHORTEST_WAIT = 0.02  # seconds
REMEMBERED = 10_000  # restores whose looks are counted: others may have asked for millions
EVER = 2**62
QUEUE_AGAIN = 30.0  # seconds until a queue that failed is asked again
EXPEDITED_AGAIN = 300.0  # seconds until Expedited is asked for again, once it could not be had


@dataclass(slots=True)
class Restorer:
    """One flow's restores. Whatever is in its two states is this task's: no worker claims it.

    RESTORE_REQUESTED is the line; RESTORING is what was asked for, or is about to be: that is durable
    before the request is sent, so a restart finds all that may be under way among the latter. It asks
    HEAD, and asks for nothing twice.
    """

    route: Route
    state: StateStore
    recorder: Recorder
    backoff: Backoff
    block_retry: float  # seconds
    clock: Callable[[], float] = time.time
    blockade: Blockade | None = None  # while it is closed, nothing more is asked for
    purse: Purse | None = None
    rested: Callable[[], None] | None = None  # called when a turn has ended
    working: bool = False  # on rows whose state may be another one any moment
    _awake: asyncio.Event = field(default_factory=asyncio.Event)
    _pace: TokenBucket = field(default_factory=lambda: TokenBucket(LOOKS_PER_SECOND))
    _looks: dict[int, int] = field(default_factory=dict)  # in vain so far, by transfer
    _noted: set[int] = field(default_factory=set)  # whose next request is counted already
    _throttled: int = 0
    _no_expedited: float = 0.0  # until when it is not even asked for
    _told: set[str] = field(default_factory=set)

    # --- what others tell --------------------------------------------------------------------

    def stir(self) -> None:
        """Look again: something came into the line, or was told to be readable."""
        self._awake.set()

    async def _listen(self, queue: RestoreQueue) -> None:
        """Look at restores that a queue tells of, at once; without it they are found by their times."""
        try:
            while True:
                try:
                    await self._hear(queue, await queue.receive())
                except Exception as error:  # noqa: BLE001  nothing but haste depends on it
                    self._tell(f"the queue of restores is asked again later: {error}")
                    await asyncio.sleep(QUEUE_AGAIN)
        finally:
            await queue.close()

    async def _hear(self, queue: RestoreQueue, news: Sequence[RestoreNews]) -> None:
        """Take news of this flow's source out of the queue; the rest is for somebody else."""
        mine = [each for each in news if all(self._is_ours(event) for event in each.events)]
        keys: dict[str, list[bytes]] = {}
        for event in (event for each in mine for event in each.events if event.is_complete):
            keys.setdefault(event.bucket, []).append(event.key)
        for bucket, names in keys.items():
            if await self.state.hasten(self._flow.name, bucket, names, self._now()):
                self.stir()
        await queue.remove(mine)

    def _is_ours(self, event: RestoreEvent) -> bool:
        source = self._flow.source
        return fnmatch.fnmatchcase(event.bucket, source.bucket) and event.key.startswith(
            source.prefix
        )

    # --- work --------------------------------------------------------------------------------

    async def run(self, moved: asyncio.Event) -> None:
        """Thaw until all is *moved*, or the daemon stops."""
        stop = self.route.stop
        watchers = [asyncio.create_task(self._stir_at(event)) for event in (moved, stop)]
        queue = self.route.restore_queue
        if queue is not None and self._flow.restore is RestorePolicy.AUTO:
            watchers.append(asyncio.create_task(self._listen(queue)))
        try:
            while not (moved.is_set() or stop.is_set()):
                self._awake.clear()
                pause = await self._turn()
                heed_cancellation()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._awake.wait()
        finally:
            for watcher in watchers:
                watcher.cancel()
            await asyncio.wait(watchers)

    async def _stir_at(self, event: asyncio.Event) -> None:
        await event.wait()
        self._awake.set()

    async def _turn(self) -> float:
        self.working = True
        try:
            return await self.turn()
        except StateLost:
            raise
        except StateError as error:  # what was asked for is found by HEAD
            self._tell(f"restores wait for the state: {error}")
            return STATE_RETRY
        finally:
            self.working = False
            if self.rested is not None:
                self.rested()

    async def turn(self) -> float:
        """Do what is due by now; give the seconds until something else may be."""
        if self._flow.restore is RestorePolicy.NEVER:
            return await self._let_go()
        allowed = await self._admit()
        dues = await self.state.due(self._flow.name, State.RESTORING, self._now(), AT_ONCE)
        if dues:
            await self._look_after([each.transfer for each in dues])
        return await self._pause(allowed.frees_at)

    async def _let_go(self) -> float:
        """Give back what an earlier setting has left here: nothing is restored any more."""
        for state in (State.RESTORE_REQUESTED, State.RESTORING):
            left = await self.state.due(self._flow.name, state, EVER, AT_ONCE)
            await self._record(thawing.thawed(each.transfer, None, self._now()) for each in left)
            if left:
                return SHORTEST_WAIT
        return LONGEST_WAIT

    async def _admit(self) -> Allowance:
        """Let the first of the line be asked for, as far as the bounds allow."""
        name, now = self._flow.name, self._now()
        allowed = await self._allowance(now)
        if not allowed.is_open:
            return allowed
        line = await self.state.due(name, State.RESTORE_REQUESTED, now, allowed.objects)
        admitted = [each.transfer for each in line if allowed.take(each.transfer.size)]
        if self.purse is not None:
            admitted = await self.purse.grant_restores(admitted)
        await self._record(thawing.waiting(each, now, asked=True) for each in admitted)
        return allowed

    async def _allowance(self, now: int) -> Allowance:
        flow = self._flow
        totals = await self.state.totals(flow.name)
        under_way = sum(line.objects for line in totals if line.state is State.RESTORING)
        waits = self.blockade is not None and bool(self.blockade.reason)
        waits = waits or (self.purse is not None and self.purse.is_short)
        if waits or not keeps_up(flow, totals, await self.state.samples(flow.name)):
            return Allowance(0)
        return await allowance(flow, self.state, flow.max_restores - under_way, now)

    async def _pause(self, closed: int | None) -> float:
        """Say how long nothing is due. Who stands in line has no time while nobody is admitted."""
        name = self._flow.name
        allowed = await self._allowance(self._now())
        times = [closed or allowed.frees_at]
        times.append(await self.state.next_due(name, State.RESTORING))
        if allowed.is_open and closed is None:
            times.append(await self.state.next_due(name, State.RESTORE_REQUESTED))
        first = min((each for each in times if each is not None), default=None)
        if first is None:
            self._looks.clear()
            self._noted.clear()
            return LONGEST_WAIT
        return min(LONGEST_WAIT, max(SHORTEST_WAIT, first / 1000 - self.clock()))

    async def _look_after(self, transfers: Sequence[Transfer]) -> None:
        """HEAD what is due; what is neither readable nor under way is asked for."""
        cold: list[tuple[Transfer, ObjectInfo]] = []

        async def look(transfer: Transfer) -> Change | None:
            info = await self._head(transfer)
            if info is None or info.etag != transfer.etag or not info.is_frozen:
                self._forget(transfer)
                return thawing.thawed(transfer, info, self._now())
            if info.restored is None:
                if self.purse is not None and not self.purse.may_ask(transfer):
                    return thawing.waiting(transfer, self._now())  # to be paid (again)
                cold.append((transfer, info))
                return None
            return self._under_way(transfer, info)

        await self._record(await self._each(transfers, look))
        if cold and not self.route.stop.is_set():
            await self._ask(cold)

    async def _ask(self, cold: Sequence[tuple[Transfer, ObjectInfo]]) -> None:
        """Ask for restores; each is counted, durably, before it is sent."""
        now, infos = self._now(), {transfer.id: info for transfer, info in cold}
        new = [transfer for transfer, _ in cold if transfer.id not in self._noted]
        counts = await self.state.note_restores(new, now)
        passing("restore.noted")
        # Those that are tried again by a person are given as many restores again.
        spent = {
            each.id for each, count in zip(new, counts, strict=True) if not count % (TIMES + 1)
        }
        self._noted.update(each.id for each in new if each.id not in spent)
        await self._record(_given_up(each) for each in new if each.id in spent)

        async def ask(transfer: Transfer) -> Change:
            info = infos[transfer.id]
            answer = await self._restore(transfer, info)
            passing("restore.asked")
            self._noted.discard(transfer.id)
            if self.purse is not None:
                self.purse.asked(transfer)
            if answer is RestoreAnswer.RESTORED:
                return thawing.thawed(transfer, None, self._now())
            self._looks.pop(transfer.id, None)
            return self._under_way(transfer, info)

        asked = [transfer for transfer, _ in cold if transfer.id not in spent]
        await self._record(await self._each(asked, ask))
        passing("restore.recorded")

    async def _restore(self, transfer: Transfer, info: ObjectInfo) -> RestoreAnswer:
        flow = self._flow
        tier = thawing.tier_for(flow, info)
        if tier is RestoreTier.EXPEDITED and flow.restore_fallback:
            if self.clock() < self._no_expedited:
                tier = RestoreTier.STANDARD
            else:
                try:
                    return await self._send(transfer, info, tier)
                except ExpeditedUnavailable as error:
                    self._no_expedited = self.clock() + EXPEDITED_AGAIN
                    self._tell(f"restores go by Standard while Expedited cannot be had: {error}")
                    tier = RestoreTier.STANDARD
        return await self._send(transfer, info, tier)

    async def _send(self, transfer: Transfer, info: ObjectInfo, tier: RestoreTier) -> RestoreAnswer:
        # Intelligent-Tiering brings the object itself back, and refuses to be told for how long.
        days = None if info.archive_status else self._flow.restore_days
        version = info.version_id if info.version_id != "null" else None
        await self.route.turn(1)
        async with self.route.gate:
            return await self.route.source.restore_object(
                transfer.bucket, transfer.key, version_id=version, days=days, tier=tier.value
            )

    async def _head(self, transfer: Transfer) -> ObjectInfo | None:
        await self._pace.take(1)
        await self.route.turn(1)
        async with self.route.gate:
            return await self.route.source.head_object(transfer.bucket, transfer.key)

    # --- outcomes ----------------------------------------------------------------------------

    def _under_way(self, transfer: Transfer, info: ObjectInfo) -> Change:
        looks = self._looks.get(transfer.id, 0)
        if info.restored is not None and not looks:
            looks = 1  # it was asked for before this process began
        if len(self._looks) >= REMEMBERED:
            self._looks.clear()
        self._looks[transfer.id] = looks + 1
        seconds = thawing.next_look(self._flow, thawing.depth(info), looks)
        change = thawing.waiting(transfer, self._in(seconds), asked=True)
        change.attempts = 0  # they count what fails one after the other
        return change

    def _failed(self, transfer: Transfer, error: Exception) -> Change:
        """Say what a look, or a request, that failed means: it is repeated, or the object fails."""
        if isinstance(error, SourceGone):
            return thawing.thawed(transfer, None, self._now())  # whoever reads it finds out
        attempts = transfer.attempts
        if isinstance(error, Throttled):
            self.route.gate.throttled(error.endpoint)
            self._throttled += 1
            delay = retry.patience(error, self._throttled, self.backoff)
        elif isinstance(error, Blocked):
            self._tell(f"restores wait, and are tried again: {error}")
            delay = self.block_retry
        elif isinstance(error, ExpeditedUnavailable):
            delay = EXPEDITED_AGAIN
        else:
            verdict = retry.decide(error, attempts, self._flow.max_attempts, self.backoff)
            if not isinstance(verdict, Again):
                return thawing.failed(transfer, verdict.reason, str(error), verdict.attempts)
            attempts, delay = verdict.attempts, verdict.delay
        reason = getattr(error, "reason", retry.UNEXPECTED)
        self.route.emit(Retried(transfer, reason, str(error), delay))
        change = thawing.waiting(transfer, self._in(delay), asked=True)
        change.attempts, change.reason, change.message = attempts, reason, str(error)
        return change

    def _forget(self, transfer: Transfer) -> None:
        self._looks.pop(transfer.id, None)
        self._noted.discard(transfer.id)

    # --- means -------------------------------------------------------------------------------

    async def _each(
        self,
        transfers: Sequence[Transfer],
        step: Callable[[Transfer], Awaitable[Change | None]],
    ) -> list[Change]:
        """Do *step* for each, a few at a time, until the daemon stops; give what changed."""
        changes: list[Change] = []

        async def one(transfer: Transfer) -> None:
            if self.route.stop.is_set():
                return
            try:
                change = await step(transfer)
                self._throttled = 0
            except StateError:
                raise
            except Exception as error:  # noqa: BLE001  one object's trouble is its own
                change = self._failed(transfer, error)
            if change is not None:
                changes.append(change)

        await in_lanes(transfers, one, LANES)
        return changes

    async def _record(self, changes: Iterable[Change]) -> None:
        """Make changes durable before anything builds on them."""
        some = False
        for change in changes:
            await self.recorder.record(Entry(change))
            some = True
        if some:
            await self.recorder.flush()

    def _tell(self, message: str) -> None:
        """Warn, once for each message."""
        if message not in self._told:
            self._told.add(message)
            self.route.emit(Warned(self._flow.name, message))

    @property
    def _flow(self) -> Flow:
        return self.route.flow

    def _in(self, seconds: float) -> int:
        return int((self.clock() + seconds) * 1000)

    def _now(self) -> int:
        return int(self.clock() * 1000)


def _given_up(transfer: Transfer) -> Change:
    message = (
        f"{object_name(transfer)}: it was restored {TIMES} times, and its copy was gone each time before "
        "it was read; raise restore_days, or lower max_restores, then `s3flow retry`"
    )
    return thawing.failed(transfer, RestoreExpired.reason, message, transfer.attempts)
