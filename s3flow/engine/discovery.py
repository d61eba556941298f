"""One walk over a flow's source, recorded page by page together with its cursor."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass

from s3flow.engine.route import Route, Stopped
from s3flow.engine.survey import Range, Survey
from s3flow.errors import Blocked, S3flowError
from s3flow.events import BucketFailed, PageMerged, ScanFinished, ScanStarted
from s3flow.model import Page, Scan
from s3flow.ports import StateStore


@dataclass(slots=True)
class Discovery:
    """Scans the source of one flow. *found* is called when there may be something to claim."""

    survey: Survey
    state: StateStore
    found: Callable[[], None]

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
        self.route.emit(ScanStarted(self._flow, resumed))
        listed, complete = 0, True
        for bucket in await self.survey.buckets():
            try:
                listed += await self._bucket(scan, bucket)
            except Stopped:
                break
            except Blocked:
                raise  # every bucket would fail now
            except S3flowError as error:
                complete = False
                self.route.emit(BucketFailed(self._flow, bucket, error.reason, str(error)))
        if self.route.stop.is_set() or not complete:
            return False
        await self.state.finish_scan(scan)
        self.route.emit(ScanFinished(self._flow, listed, time.monotonic() - started))
        return True

    async def _bucket(self, scan: Scan, bucket: str) -> int:
        """Merge the bucket's pages; the next one is fetched while one is merged."""
        after, done = await self.state.cursor(scan, bucket)
        listed = 0
        following = None if done else asyncio.create_task(self.survey.page(bucket, after))
        try:
            while following is not None and not self.route.stop.is_set():
                page = await following
                upto = None if page.last else page.entries[-1].key
                following = (
                    None if upto is None else asyncio.create_task(self.survey.page(bucket, upto))
                )
                await self._merge(scan, bucket, page, after, upto)
                listed += len(page.entries)
                after = upto or after
        finally:
            if following is not None:
                following.cancel()
                with contextlib.suppress(asyncio.CancelledError, S3flowError):
                    await following
        return listed

    async def _merge(
        self, scan: Scan, bucket: str, page: Page, after: bytes, upto: bytes | None
    ) -> None:
        keys = Range(after, upto)
        steps = self.survey.changes(self.state, bucket, page, keys, adopting=scan.adopting)
        async for changes, adopted in steps:
            await self.state.apply_page(scan, changes)
            new, changed = len(changes.new), len(changes.changed)
            self.route.emit(PageMerged(self._flow, bucket, changes.listed, new, changed, adopted))
            if new or changed:
                self.found()
