"""One walk over a flow's source, recorded page by page together with its cursor."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from s3flow.crashpoints import passing
from s3flow.engine.listing import Slots, Stretch, Walk
from s3flow.engine.route import Route, Stopped
from s3flow.engine.survey import Range, Survey
from s3flow.errors import Blocked, CostReached, S3flowError, StateError
from s3flow.events import BucketFailed, Decided, PageMerged, ScanFinished, ScanStarted
from s3flow.lanes import in_lanes
from s3flow.model import Discovered, Page, PageChanges, Scan, State
from s3flow.ports import StateStore

TOLD = 20  # objects that a page fails at once and that are told one by one


@dataclass(slots=True)
class Round:
    """One walk over all buckets: those that are left, and what came of the others."""

    scan: Scan
    left: deque[str]
    refused: set[str]  # that could not be listed before
    slots: Slots = field(default_factory=lambda: Slots(0))
    listed: int = 0
    failed: list[str] = field(default_factory=list)
    blocked: Blocked | None = None


@dataclass(slots=True)
class Discovery:
    """Scans the source of one flow. *found* is called when there may be something to claim."""

    survey: Survey
    state: StateStore
    found: Callable[[], None]
    pay_look: Callable[[], Awaitable[None]] | None = None  # at the target, where it is paid

    @property
    def _flow(self) -> str:
        return self.survey.flow.name

    @property
    def route(self) -> Route:
        """The route of the flow."""
        return self.survey.route

    async def run(self) -> bool:
        """Walk the source, or go on with the unfinished walk. False when stopped or a bucket failed."""
        started = time.monotonic()
        scan, resumed = await self.state.begin_scan(self._flow)
        passing("scan.begun")
        self.route.emit(ScanStarted(self._flow, resumed))
        walk = await self._round(scan)
        await self._look_into(walk)
        if walk.blocked is not None:
            raise walk.blocked
        if self.route.stop.is_set() or walk.failed:
            return False
        passing("scan.ended")
        await self.state.finish_scan(scan)
        passing("scan.finished")
        self.route.emit(ScanFinished(self._flow, walk.listed, time.monotonic() - started))
        return True

    async def _round(self, scan: Scan) -> Round:
        """Name the buckets, and recall which of them could not be listed the last time."""
        refused = {each.bucket for each in await self.state.unlisted(self._flow)}
        try:
            buckets = await self.survey.buckets()
        except S3flowError as error:
            await self._note(self.survey.flow.source.bucket, error)
            raise
        if not_meant := sorted(refused.difference(buckets)):
            await self.state.forget_unlisted(self._flow, not_meant)
        return Round(scan, deque(buckets), refused)

    async def _note(self, bucket: str, error: S3flowError) -> None:
        # Whoever ran into the flow's limit is told of that, and no bucket is to blame.
        if not isinstance(error, StateError | CostReached):
            await self.state.note_unlisted(self._flow, bucket, error.reason, str(error))

    async def _look_into(self, walk: Round) -> None:
        """List the buckets, so many at a time as ranges may be: a large one gets what others leave."""
        limit = self.survey.flow.list_concurrency
        hands = max(1, min(limit, len(walk.left)))
        walk.slots.free = limit - hands
        await in_lanes(range(hands), lambda _: self._take_buckets(walk), hands)

    async def _take_buckets(self, walk: Round) -> None:
        """List one bucket after the other, as long as there are any; what it had is free then."""
        while walk.left and not walk.slots.closed and not self.route.stop.is_set():
            bucket = walk.left.popleft()
            try:
                listed = await self._bucket(walk, bucket)
                walk.listed += listed
                if bucket in walk.refused and not self.route.stop.is_set():
                    await self.state.forget_unlisted(self._flow, [bucket])
            except Stopped:
                break
            except Blocked as error:
                walk.blocked = walk.blocked or error
                walk.slots.closed = True  # every bucket would fail now
                await self._note(bucket, error)
            except S3flowError as error:
                walk.failed.append(bucket)
                await self._note(bucket, error)
                self.route.emit(BucketFailed(self._flow, bucket, error.reason, str(error)))
        walk.slots.free += 1

    async def _bucket(self, walk: Round, bucket: str) -> int:
        """List what is left of the bucket, range by range, and merge its pages."""
        scan = walk.scan

        async def merge(it: Stretch, page: Page, keys: Range, cut: bytes | None) -> None:
            known, adopting = self.state, scan.adopting
            if adopting and self.pay_look is not None:
                await self.pay_look()
            steps = self.survey.changes(known, bucket, page, keys, adopting=adopting)
            async for changes, adopted in steps:
                changes.start = it.start
                # A page's last step alone has its range's cursor where the cut was chosen.
                changes.cut = cut if changes.cursor >= it.cursor else None
                await self._record(scan, changes, adopted)

        one = Walk(self.survey, bucket, merge, walk.slots)
        await one.run(await self.state.ranges(scan, bucket))
        return one.listed

    async def _record(self, scan: Scan, changes: PageChanges, adopted: int) -> None:
        passing("page.listed")
        await self.state.apply_page(scan, changes)
        passing("page.merged")
        new, changed = len(changes.new), len(changes.changed)
        merged = PageMerged(self._flow, changes.bucket, changes.listed, new, changed, adopted)
        settled = [each for each in changes.new if each.state is not State.DISCOVERED]
        settled += [each for _, each in changes.changed if each.state is not State.DISCOVERED]
        if settled:
            refused = [each for each in settled if each.state is State.FAILED]
            merged = merged._replace(decided=_summed(settled), refused=tuple(refused[:TOLD]))
        self.route.emit(merged)
        if new or changed:
            self.found()


def _summed(settled: Sequence[Discovered]) -> tuple[Decided, ...]:
    """Sum up what has its outcome without a transfer."""
    sums: dict[tuple[State, str, str, str], list[int]] = {}
    for each in settled:
        cell = sums.setdefault((each.state, each.reason, each.method, each.proof), [0, 0])
        cell[0] += 1
        cell[1] += each.entry.size
    return tuple(Decided(*what, objects, size) for what, (objects, size) in sums.items())
