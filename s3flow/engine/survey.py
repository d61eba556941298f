"""What is at the source and what becomes of it: pages merged with the state. Records nothing."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import attrgetter
from typing import NamedTuple, Protocol, TypeVar

from s3flow.engine import plan, selfsame
from s3flow.engine.adoption import adopt
from s3flow.engine.retry import Again, Backoff, decide, wish
from s3flow.engine.route import Route, Stopped
from s3flow.errors import Blocked, PathConflict, Permanent, S3flowError, TargetExists, Throttled
from s3flow.events import Warned
from s3flow.lanes import heed_cancellation, in_lanes
from s3flow.model import (
    OUTCOMES,
    Discovered,
    Flow,
    Listed,
    Outcome,
    Page,
    PageChanges,
    Row,
    State,
)
from s3flow.policies import Mode, Overwrite
from s3flow.ports import ROWS_AT_ONCE
from s3flow.probes import DELETE_PROBE, looks_so

LIST_ATTEMPTS = 8
LOOKS = 8  # objects of a page that are looked at one by one, at a time
_UNFINISHED = {it for it, end in OUTCOMES.items() if end is Outcome.PENDING} | {State.FAILED}
_KEY = attrgetter("key")
Decide = Callable[[Listed], Discovered]
Answer = TypeVar("Answer")


class Known(Protocol):
    """What is read of the state to decide about a page."""

    async def rows(
        self, flow: str, bucket: str, after: bytes, upto: bytes | None, limit: int = ROWS_AT_ONCE
    ) -> list[Row]: ...

    async def known(self, flow: str, bucket: str, keys: Sequence[bytes]) -> set[bytes]: ...


class Range(NamedTuple):
    """The keys with after < key <= upto; None: to the end."""

    after: bytes
    upto: bytes | None


def merge(
    entries: Sequence[Listed], rows: Sequence[Row], decide: Decide, overwrite: Overwrite
) -> PageChanges:
    """Compare a page of the listing with the same key range of the state, both in byte order.

    *decide* says what becomes of an entry that is taken for the first time or anew; if it is to be
    overwritten always, that is every one of them.
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
        if row.etag != entry.etag or row.size != entry.size:
            changes.changed.append((row.id, decide(entry)))
        elif overwrite is Overwrite.ALWAYS and row.state is State.VERIFIED:
            changes.changed.append((row.id, _again(decide(entry))))
        elif row.state is State.SKIPPED or row.state is State.DISCOVERED:
            _decide_again(row, entry, decide, changes, overwrite)
        elif row.state is State.DELETED:
            changes.back.append((row.id, entry))
    for row in rows[position:]:
        _vanish(row, changes)
    changes.classes = by_class(entries, changes.listed_bytes)
    return changes


def _again(found: Discovered) -> Discovered:
    found.again = True
    return found


def by_class(entries: Sequence[Listed], size: int) -> dict[str, tuple[int, int]]:
    """Count *entries*, which have *size* bytes, by storage class: mostly there is one."""
    names = {entry.storage_class for entry in entries}
    if len(names) <= 1:
        return dict.fromkeys(names, (len(entries), size))
    found: dict[str, tuple[int, int]] = {}
    for name in names:
        sizes = [entry.size for entry in entries if entry.storage_class == name]
        found[name] = (len(sizes), sum(sizes))
    return found


def _decide_again(
    row: Row, entry: Listed, decide: Decide, changes: PageChanges, overwrite: Overwrite
) -> None:
    """Settings may have changed since: what was skipped may be taken now, and the other way round."""
    if row.reason == TargetExists.reason and overwrite is Overwrite.NEVER:
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
class Survey:
    """Looks at one flow's source, and at its target where something may be adopted."""

    route: Route
    backoff: Backoff
    pay_page: Callable[[], Awaitable[None]] | None = None  # where pages are paid
    may_write: bool = True  # a probe, for a moment; not where all is only looked at
    _apart: set[str] = field(default_factory=set)  # buckets that are not copied into themselves

    @property
    def flow(self) -> Flow:
        """The flow that is looked at."""
        return self.route.flow

    async def buckets(self) -> list[str]:
        """Name the source buckets: the one of the flow, or those of the account that match."""
        pattern = self.flow.source.bucket
        if not any(mark in pattern for mark in "*?["):
            return [pattern]
        found = [bucket.name for bucket in await self._retried(self.route.source.list_buckets)]
        matching = [name for name in sorted(found) if self.flow.reads(name)]
        if not matching:
            message = f"none of the {len(found)} buckets of {self.flow.source.endpoint} is meant by"
            self.route.emit(
                Warned(self.flow.name, f"{message} {pattern!r}: there is nothing to do")
            )
        return matching

    async def page(self, bucket: str, after: bytes) -> Page:
        """List the keys of *bucket* that follow *after*.

        Raises `SameObject` for a bucket that would be copied into itself.
        """
        if self.pay_page is not None:
            await self.pay_page()
        for limit in self.route.request_buckets:
            await limit.take(1)
        page = await self._retried(
            lambda: self.route.source.list_page(bucket, self.flow.source.prefix, after)
        )
        page = self._without_probes(page)
        if bucket not in self._apart and page.entries:
            if self.flow.mode is Mode.MOVE and self.may_write:
                await self._retried(partial(selfsame.refuse_selfsame_for_moves, self.route, bucket))
            if selfsame.may_meet(self.route, bucket):
                look = partial(selfsame.refuse_selfsame, self.route, bucket, page.entries)
                await self._retried(look)
            self._apart.add(bucket)
        return page

    def _without_probes(self, page: Page) -> Page:
        """Leave out what is there to try how the source deletes: it will be gone in a moment."""
        begin = self.flow.source.prefix + DELETE_PROBE
        entries = page.entries
        index = bisect_left(entries, begin, key=_KEY)
        if index == len(entries) or not entries[index].key.startswith(begin):
            return page
        left = [each for each in entries if not looks_so(each, begin)]
        return page._replace(entries=left) if left or page.last else page

    async def _retried(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Call until it succeeds; throttling is waited out and counts as no attempt."""
        attempts = 0
        while True:
            try:
                return await call()
            except Throttled as error:
                await self._pause(max(wish(error), self.backoff.delay(3)), error)
            except Blocked:
                raise  # the flow waits, with an alarm
            except S3flowError as error:
                heed_cancellation()
                verdict = decide(error, attempts, LIST_ATTEMPTS, self.backoff)
                if not isinstance(verdict, Again):
                    raise
                attempts = verdict.attempts
                await self._pause(verdict.delay, error)

    async def _pause(self, seconds: float, error: S3flowError) -> None:
        """Wait because of *error*, but not when the daemon stops: then raise `Stopped`."""
        message = f"the scan waits {seconds:.1f} s and tries again ({error.reason}): {error}"
        self.route.emit(Warned(self.flow.name, message))
        if await self.route.stopped_within(seconds):
            raise Stopped(f"the listing of {self.flow.source} waits for the next start")

    async def changes(
        self, known: Known, bucket: str, page: Page, keys: Range, *, adopting: bool
    ) -> AsyncIterator[tuple[PageChanges, int]]:
        """Say what a page changes, and how many of its objects are adopted. Records nothing.

        Mostly one step; more when so much vanished between two keys that it is taken in slices.
        """
        entries, after, more = page.entries, keys.after, True
        while more:
            rows = await known.rows(self.flow.name, bucket, after, keys.upto, ROWS_AT_ONCE)
            more = len(rows) == ROWS_AT_ONCE
            last = rows[-1].key if more else None
            here = entries if last is None else [each for each in entries if each.key <= last]
            entries = entries[len(here) :]
            changes = merge(here, rows, self._decider(bucket), self._overwrite)
            after = last or (here[-1].key if here else after)
            changes.bucket, changes.cursor, changes.done = bucket, after, page.last and not more
            if changes.back:
                await self._look_at_deleted(bucket, changes)
            await self._resolve_rivals(known, bucket, changes)
            adopted = 0
            if adopting and self.flow.overwrite is not Overwrite.ALWAYS:
                look = partial(adopt, self.route, bucket, changes.new, self._retried)
                adopted = await self._retried(look)
            yield changes, adopted

    @property
    def _overwrite(self) -> Overwrite:
        # What a move has proven waits for its delete: copied again at every scan, it would wait for
        # ever, and be deleted while it is copied, with nothing on record that says so.
        always = self.flow.overwrite is Overwrite.ALWAYS and self.flow.mode is Mode.MOVE
        return Overwrite.CHANGED if always else self.flow.overwrite

    def _decider(self, bucket: str) -> Decide:
        """Give the function that says what becomes of a listed object: taken, skipped or refused."""
        skip = plan.compile_filters(self.flow.filters, self.flow.source.prefix)
        now = time.time()
        flow, target = self.flow, self.route.target
        target_bucket = plan.target_bucket(flow, bucket)

        def verdict(entry: Listed) -> Discovered:
            if skip is not None and (reason := skip(entry, now)):
                return Discovered(entry, State.SKIPPED, reason)
            try:
                target.refuse(target_bucket, plan.target_key(flow, entry.key))
            except Permanent as error:
                return Discovered(entry, State.FAILED, error.reason, message=str(error))
            return Discovered(entry)

        return verdict

    async def _look_at_deleted(self, bucket: str, changes: PageChanges) -> None:
        """Take anew those that were deleted after they were moved, if they are there.

        The same bytes may have been written again; or the page is older than the delete.
        """
        source, decide = self.route.source, self._decider(bucket)
        back, changes.back = changes.back, []

        async def look(row: tuple[int, Listed]) -> None:
            row_id, entry = row
            info = await self._retried(partial(source.head_object, bucket, entry.key))
            if info is not None:
                now = Listed(entry.key, info.size, info.etag, info.modified, info.storage_class)
                changes.changed.append((row_id, _again(decide(now))))

        await in_lanes(back, look, LOOKS)

    async def _resolve_rivals(self, known: Known, bucket: str, changes: PageChanges) -> None:
        """Fail those whose place at the target belongs to a key that comes before them."""
        is_path = self.route.target.limits.paths
        if not is_path and not self.flow.rewrite:
            return
        fresh = changes.new + [found for _, found in changes.changed]
        rivals = {
            found.entry.key: plan.rivals(self.flow, found.entry.key, is_path=is_path)
            for found in fresh
            if found.state is State.DISCOVERED
        }
        asked = sorted({rival for some in rivals.values() for rival in some})
        if not asked:
            return
        taken = await known.known(self.flow.name, bucket, asked)
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
