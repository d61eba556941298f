"""One walk over a flow's source: pages of the listing merged with the same key range of the state."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from s3flow.engine import plan
from s3flow.engine.adoption import adopt
from s3flow.engine.retry import Again, Backoff, decide
from s3flow.engine.transfer import Route
from s3flow.errors import PathConflict, Permanent, S3flowError, Throttled
from s3flow.events import BucketFailed, PageMerged, ScanFinished, ScanStarted
from s3flow.model import (
    Discovered,
    Flow,
    Listed,
    Overwrite,
    Page,
    PageChanges,
    Row,
    Scan,
    State,
)
from s3flow.ports import StateStore

LIST_ATTEMPTS = 8
# A transfer that has begun an upload is left to its worker, which aborts it when the source is gone.
_UNFINISHED = {State.DISCOVERED, State.FAILED}
Decide = Callable[[Listed], Discovered]
Answer = TypeVar("Answer")


def merge(
    entries: Sequence[Listed], rows: Sequence[Row], decide: Decide, *, again: bool
) -> PageChanges:
    """Compare a page of the listing with the same key range of the state, both in byte order.

    *decide* says what becomes of an entry that is taken for the first time or anew; with *again*
    that is every one of them.
    """
    changes = PageChanges("", b"", done=False, listed=len(entries), listed_bytes=0)
    position = 0
    for entry in entries:
        while position < len(rows) and rows[position].key < entry.key:
            _vanish(rows[position], changes)
            position += 1
        changes.listed_bytes += entry.size
        if position == len(rows) or rows[position].key != entry.key:
            changes.new.append(decide(entry))
            continue
        row = rows[position]
        position += 1
        if (
            row.etag != entry.etag
            or row.size != entry.size
            or (again and row.state is State.VERIFIED)
        ):
            changes.changed.append((row.id, decide(entry)))
        elif row.state is State.SKIPPED or row.state is State.DISCOVERED:
            _decide_again(row, entry, decide, changes)
    for row in rows[position:]:
        _vanish(row, changes)
    return changes


def _decide_again(row: Row, entry: Listed, decide: Decide, changes: PageChanges) -> None:
    """Filters may have changed since: what was skipped may be taken now, and the other way round."""
    if row.reason == "target_exists":
        return  # the worker's word, not the filters'
    verdict = decide(entry)
    if verdict.state is not row.state or (
        row.state is State.SKIPPED and verdict.reason != row.reason
    ):
        changes.changed.append((row.id, verdict))


def _vanish(row: Row, changes: PageChanges) -> None:
    if row.state in _UNFINISHED:
        changes.vanished.append(row.id)


@dataclass(slots=True)
class Discovery:
    """Scans the source of one flow. *found* is called when there may be something to claim."""

    route: Route
    state: StateStore
    found: Callable[[], None]
    backoff: Backoff

    @property
    def _flow(self) -> Flow:
        return self.route.flow

    async def run(self) -> bool:
        """Walk the source, or go on with the unfinished walk. False when stopped or a bucket failed."""
        started = time.monotonic()
        scan, resumed = await self.state.begin_scan(self._flow.name)
        self.route.emit(ScanStarted(self._flow.name, resumed))
        listed, complete = 0, True
        for bucket in await self.buckets():
            try:
                listed += await self._bucket(scan, bucket)
            except S3flowError as error:
                complete = False
                self.route.emit(BucketFailed(self._flow.name, bucket, error.reason, str(error)))
        if self.route.stop.is_set() or not complete:
            return False
        await self.state.finish_scan(scan)
        self.route.emit(ScanFinished(self._flow.name, listed, time.monotonic() - started))
        return True

    async def buckets(self) -> list[str]:
        """Name the source buckets: the one of the flow, or those of the account that match."""
        pattern = self._flow.source.bucket
        if not any(mark in pattern for mark in "*?["):
            return [pattern]
        found = [bucket.name for bucket in await self._retried(self.route.source.list_buckets)]
        return [
            name
            for name in sorted(found)
            if fnmatch.fnmatchcase(name, pattern)
            and not any(fnmatch.fnmatchcase(name, glob) for glob in self._flow.exclude_buckets)
        ]

    async def _bucket(self, scan: Scan, bucket: str) -> int:
        """Merge the bucket's pages; the next one is fetched while one is merged."""
        after, done = await self.state.cursor(scan, bucket)
        listed = 0
        following = None if done else asyncio.create_task(self._page(bucket, after))
        try:
            while following is not None and not self.route.stop.is_set():
                page = await following
                upto = None if page.last else page.entries[-1].key
                following = None if upto is None else asyncio.create_task(self._page(bucket, upto))
                await self._merge(scan, bucket, page, after, upto)
                listed += len(page.entries)
                after = upto or after
        finally:
            if following is not None:
                following.cancel()
                with contextlib.suppress(asyncio.CancelledError, S3flowError):
                    await following
        return listed

    async def _page(self, bucket: str, after: bytes) -> Page:
        for limit in self.route.request_buckets:
            await limit.take(1)
        return await self._retried(
            lambda: self.route.source.list_page(bucket, self._flow.source.prefix, after)
        )

    async def _retried(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Call until it succeeds; throttling is waited out and counts as no attempt."""
        attempts = 0
        while True:
            try:
                return await call()
            except Throttled as error:
                await asyncio.sleep(max(error.retry_after, self.backoff.delay(3)))
            except S3flowError as error:
                verdict = decide(error, attempts, LIST_ATTEMPTS, self.backoff)
                if not isinstance(verdict, Again):
                    raise
                attempts = verdict.attempts
                await asyncio.sleep(verdict.delay)

    async def _merge(
        self, scan: Scan, bucket: str, page: Page, after: bytes, upto: bytes | None
    ) -> None:
        rows = await self.state.rows(self._flow.name, bucket, after, upto)
        decide = self.decider(bucket)
        again = self._flow.overwrite is Overwrite.ALWAYS
        changes = merge(page.entries, rows, decide, again=again)
        changes.bucket, changes.done = bucket, page.last
        changes.cursor = page.entries[-1].key if page.entries else after
        await self._resolve_rivals(bucket, changes)
        adopted = 0
        if scan.adopting:
            adopted = await adopt(self.route, bucket, changes.new)
        await self.state.apply_page(scan, changes)
        self.route.emit(
            PageMerged(
                self._flow.name,
                bucket,
                len(page.entries),
                len(changes.new),
                len(changes.changed),
                adopted,
            )
        )
        if changes.new or changes.changed:
            self.found()

    def decider(self, bucket: str) -> Decide:
        """Give the function that says what becomes of a listed object: taken, skipped or refused."""
        skip = plan.compile_filters(self._flow.filters, self._flow.source.prefix)
        now = time.time()
        flow, target = self._flow, self.route.target
        target_bucket = plan.target_bucket(flow, bucket)

        def verdict(entry: Listed) -> Discovered:
            if skip is not None and (reason := skip(entry, now)):
                return Discovered(entry, State.SKIPPED, reason)
            try:
                target.refuse(target_bucket, plan.target_key(flow, bucket, entry.key))
            except Permanent as error:
                return Discovered(entry, State.FAILED, error.reason, message=str(error))
            return Discovered(entry)

        return verdict

    async def _resolve_rivals(self, bucket: str, changes: PageChanges) -> None:
        """Fail those whose place at the target belongs to a key that comes before them."""
        is_path = self.route.target.limits.paths
        if not is_path and not self._flow.rewrite:
            return
        fresh = changes.new + [found for _, found in changes.changed]
        rivals = {
            found.entry.key: plan.rivals(self._flow, found.entry.key, is_path=is_path)
            for found in fresh
            if found.state is State.DISCOVERED
        }
        asked = sorted({rival for some in rivals.values() for rival in some})
        if not asked:
            return
        taken = await self.state.known(self._flow.name, bucket, asked)
        here = {found.entry.key for found in fresh if found.state is State.DISCOVERED}
        for found in fresh:
            for rival in rivals.get(found.entry.key, ()):
                if rival in taken or (rival < found.entry.key and rival in here):
                    found.state = State.FAILED
                    found.reason = PathConflict.reason
                    name = rival.decode(errors="backslashreplace")
                    found.message = (
                        f"the key {name!r} has the place that this one needs at the target"
                    )
                    break
