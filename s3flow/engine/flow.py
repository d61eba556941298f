"""One flow while the daemon runs: its scans, its workers, and the count of what they did."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from s3flow.crashpoints import passing
from s3flow.engine import plan
from s3flow.engine.discovery import Discovery
from s3flow.engine.feed import Feed
from s3flow.engine.recorder import Recorder
from s3flow.engine.retry import Backoff
from s3flow.engine.route import Route, Stopped
from s3flow.engine.throttle import Blockade
from s3flow.engine.uploads import abort_all, abort_upload
from s3flow.engine.worker import Worker
from s3flow.errors import Blocked, CostReached, S3flowError, StateError
from s3flow.events import BucketFailed, FlowDrained, ListingKept, Warned
from s3flow.lanes import Group, heed_cancellation
from s3flow.model import UNKNOWN_UPLOAD, Sample
from s3flow.ports import Wishes

SCAN_AGAIN = 60.0  # seconds until a scan that could not finish is continued


class Crew(Protocol):
    """Who moves the transfers of flows."""

    def hands(self, flow: RunningFlow) -> Iterator[Coroutine[Any, Any, None]]:
        """Give what works off the flow; each ends when its feed has nothing left, or at a stop."""
        ...


class Side(Protocol):
    """What a flow has to do besides moving: to thaw what is frozen, to delete what was moved."""

    async def run(self, moved: asyncio.Event) -> None:
        """Work until the daemon stops, or nothing is left to do once *moved* says that all is moved."""
        ...


class OwnHands:
    """Moves them in this process."""

    def hands(self, flow: RunningFlow) -> Iterator[Coroutine[Any, Any, None]]:
        """Give as many workers as the flow's transfers at a time."""
        for _ in range(flow.workers):
            yield Worker(flow.route, flow.feed, flow.recorder, flow.blockade, flow.backoff).run()


@dataclass(slots=True)
class RunningFlow:
    """A flow with everything it needs. *done* is its last sample, *scan_failed* its last scan's end."""

    route: Route
    feed: Feed
    discovery: Discovery
    recorder: Recorder
    blockade: Blockade
    backoff: Backoff
    crew: Crew
    workers: int
    done: Sample
    sides: Sequence[Side] = ()
    wishes: Wishes | None = None
    scan_failed: bool = False
    _objects: int = 0
    _sampled: bool = False
    _listed: bool = False  # to the end, and what was found is not known to be all done
    _scan_blocked: bool = False

    async def run(self, *, once: bool) -> None:
        """Scan, and transfer what is found, until drained (*once*) or stopped."""
        self.feed.idle = self._idle
        moved = asyncio.Event()
        async with Group() as group:
            for side in self.sides:
                group.create_task(side.run(moved))
            await self._move(once=once)
            moved.set()

    async def _move(self, *, once: bool) -> None:
        async with Group() as group:
            group.create_task(self._scans(once=once))
            for work in self.crew.hands(self):
                group.create_task(work)

    async def scan(self) -> None:
        """Walk the source to its end, or note that it could not be done."""
        try:
            finished = await self.discovery.run()
        except Stopped:
            finished = False
        except S3flowError as error:
            finished = False
            flow = self.route.flow
            if isinstance(error, Blocked) and not isinstance(error, CostReached):
                self._scan_blocked = True
                self.blockade.leave(error, scout=False)
            self.route.emit(BucketFailed(flow.name, flow.source.bucket, error.reason, str(error)))
        if finished:
            self._listed = True
            self.feed.wake()
        if finished:
            self._lift()
        self.scan_failed = not finished and not self.route.stop.is_set()

    def _lift(self) -> None:
        """Let go on what a walk has blocked: what others do finds out by itself how things stand."""
        if self._scan_blocked:
            self._scan_blocked = False
            self.blockade.lift()

    async def inventory(self) -> None:
        """Walk the source, and leave nothing to an interrupted run: the next one looks again."""
        await self._asked()
        await self.scan()
        await self._idle()

    async def _idle(self) -> None:
        """Note that everything found is done, once for each walk."""
        if self._listed:
            self._listed = False
            try:
                await self.discovery.state.drained(self.route.flow.name)
            except StateError as error:
                message = f"an interruption would make this flow go on, not list again: {error}"
                self.route.emit(Warned(self.route.flow.name, message))
            self.route.emit(FlowDrained(self.route.flow.name))

    async def _kept_listing(self) -> float | None:
        """Say when an interrupted run, which goes on now, had listed its source (epoch), else None.

        What was listed is not listed again: not until `every`, or the next run, says so.
        """
        last = await self.discovery.state.last_scan(self.route.flow.name)
        if last.finished is None or last.unfinished or last.drained:
            return None
        self._listed = True
        self.route.emit(ListingKept(self.route.flow.name, last.finished))
        return last.finished

    async def list_again(self) -> None:
        """Let the next walk look into every bucket, not only into those where this one failed."""
        flow = self.route.flow.name
        try:
            await self.discovery.state.list_again(flow)
        except StateError as error:
            message = f"only the buckets that could not be listed are looked at again: {error}"
            self.route.emit(Warned(flow, message))

    async def reap(self) -> None:
        """Abort uploads that no transfer will continue: their version was superseded or is gone."""
        route, state = self.route, self.discovery.state
        for bucket, key, upload_id in await state.abandoned_uploads(route.flow.name):
            try:
                if upload_id.startswith(UNKNOWN_UPLOAD):
                    place = plan.target_bucket(route.flow, bucket), plan.target_key(route.flow, key)
                    # The flow takes its object again, maybe, and another upload of it has begun.
                    await abort_all(route, *place, spared=await state.uploads(route.flow.name))
                else:
                    await abort_upload(route, bucket, key, upload_id)
                passing("upload.reaped")
                await state.uploads_removed(route.flow.name, [upload_id])
            except S3flowError as error:
                message = f"the unfinished upload {upload_id} could not be removed yet: {error}"
                route.emit(Warned(route.flow.name, message))

    async def _asked(self) -> bool:
        """Say whether somebody asks for a listing, and let the next walk be that."""
        flow, state = self.route.flow.name, self.discovery.state
        try:
            buckets = [] if self.wishes is None else await self.wishes.take(flow)
            for bucket in buckets:
                await state.rescan(flow, bucket)
        except StateError as error:
            self.route.emit(Warned(flow, f"nothing is listed again for the asking: {error}"))
            return False
        return bool(buckets)

    async def _pause(self, seconds: float | None) -> None:
        """Wait until it is time for the next walk, somebody asks for it, or the daemon stops."""
        stop, until = self.route.stop, math.inf if seconds is None else time.monotonic() + seconds
        look = math.inf if self.wishes is None else self.wishes.interval
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            wait = min(left, look)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if wait == math.inf else wait):
                    await stop.wait()
            if not stop.is_set() and await self._asked():
                return

    async def _scans(self, *, once: bool) -> None:
        stop, every = self.route.stop, self.route.flow.every
        failed, begun = False, time.monotonic()
        await self._asked()
        kept = await self._kept_listing()
        while not stop.is_set():
            if kept is None:
                await self.scan()
                heed_cancellation()
            # A stop in the midst of a further try says nothing of the others.
            failed = self.scan_failed or (failed and stop.is_set())
            if not stop.is_set():
                await self.reap()
            if once:
                self._lift()  # no walk follows that would
                break
            pause = every  # None: this flow runs once and then idles
            if failed:
                pause = SCAN_AGAIN if every is None else min(SCAN_AGAIN, every)
            elif kept is not None and every is not None:
                pause = min(every, max(0.0, kept + every - time.time()))
            kept = None
            await self._pause(pause)
            # One bucket that is never listed must not keep new objects of the others waiting.
            if not failed or (every is not None and time.monotonic() >= begun + every):
                if failed:
                    await self.list_again()
                begun = time.monotonic()
        if failed:
            await self.list_again()
        self.feed.close()

    def verified(self) -> None:
        """Count an object whose proof is durable."""
        self._objects += 1

    def next_samples(self, now: float, spacing: float) -> list[Sample]:
        """Give the next sample of the work done, none where there was none since the last.

        Work that follows a start or a pause begins with one of its own, *spacing* seconds ago: a rate
        is taken between two.
        """
        passed, self.route.passed = self.route.passed, 0
        if not self._objects and not passed:
            return []
        before, begun, sampled = self.done, now - spacing, self._sampled
        self._sampled = True
        self.done = Sample(now, before.objects + self._objects, before.bytes + passed)
        self._objects = 0
        if sampled and before.at >= begun - spacing:
            return [self.done]
        return [before._replace(at=begun), self.done]
