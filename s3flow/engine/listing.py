"""A bucket's listing in ranges of its keys, several at a time, each with its own cursor."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from operator import attrgetter

from s3flow.engine.ranges import KeySpace
from s3flow.engine.route import Route, Stopped
from s3flow.engine.survey import Range, Survey
from s3flow.errors import S3flowError
from s3flow.lanes import together
from s3flow.model import KeyRange, Listed, Page

SEEN_FIRST = 4  # full pages before the first cut: small buckets cost the requests that they must
SPARE = 6  # pages for each cut that was in vain
WORTH_CUTTING = 2  # pages that seem to be left

Merge = Callable[["Stretch", Page, Range, bytes | None], Awaitable[None]]
_key = attrgetter("key")


@dataclass(slots=True, eq=False)
class Stretch:
    """A range that is being listed: *start* names it, *cursor* is the last key that was taken."""

    start: bytes
    cursor: bytes
    end: bytes | None
    first: bytes = b""  # the first key that was listed
    listed: int = 0  # keys, since this process lists it
    pages: int = 0  # since it began, or was cut
    cut_off: Stretch | None = None  # what was cut off last


@dataclass(slots=True)
class Slots:
    """How many more ranges of a flow's buckets may be listed at a time: each has pages in memory.

    *closed*: the walk over the source ends; what has a page merges it.
    """

    free: int
    closed: bool = False


@dataclass(slots=True)
class Walk:
    """Lists what is left of a bucket and has every page merged, its cuts with it.

    It is given one of the *slots*, takes free ones for further ranges, and keeps the one.
    """

    survey: Survey
    bucket: str
    merge: Merge
    slots: Slots
    listed: int = 0
    _space: KeySpace = field(init=False)
    _held: int = 1  # slots
    _promised: int = 0  # of these to ranges that are about to be cut off
    _waiting: deque[Stretch] = field(default_factory=deque)
    _active: list[Stretch] = field(default_factory=list)
    _fetching: set[asyncio.Task[Page]] = field(default_factory=set)
    _failure: S3flowError | None = None
    _pages: int = 0  # full ones
    _page_size: int = 0  # keys in the largest one
    _in_vain: int = 0  # cuts with not even half a page on one side

    def __post_init__(self) -> None:
        flow = self.survey.flow
        self._space = KeySpace(flow.source.prefix)
        # Of several keys that a rewrite maps onto one place, the first in byte order gets it, on
        # every run: then keys have to be merged in their order.
        if flow.rewrite:
            self.slots = Slots(0)

    @property
    def _route(self) -> Route:
        return self.survey.route

    async def run(self, ranges: list[KeyRange]) -> None:
        """List *ranges*, or the whole bucket if there are none, until done or stopped.

        When one of them fails, the others merge the page that they have, and end.
        """
        for each in ranges or [KeyRange(b"", b"", None, done=False)]:
            if not each.done:
                self._waiting.append(Stretch(each.start, each.cursor, each.end))
        try:
            await together(self._run)
        finally:
            self._give_back(self._held - 1)
        if self._failure is not None:
            raise self._failure

    async def _run(self, group: asyncio.TaskGroup) -> None:
        self._begin(group)

    def _ends(self) -> bool:
        return self._failure is not None or self.slots.closed or self._route.stop.is_set()

    def _begin(self, group: asyncio.TaskGroup) -> None:
        """Start what waits, as far as there are slots."""
        while self._waiting and not self._ends():
            if len(self._active) + self._promised >= self._held and not self._take():
                return
            self._start(group, self._waiting.popleft())

    def _take(self) -> bool:
        if not self.slots.free:
            return False
        self.slots.free -= 1
        self._held += 1
        return True

    def _give_back(self, count: int) -> None:
        self._held -= count
        self.slots.free += count

    def _start(self, group: asyncio.TaskGroup, stretch: Stretch) -> None:
        self._active.append(stretch)
        group.create_task(self._list(group, stretch))

    async def _list(self, group: asyncio.TaskGroup, it: Stretch) -> None:
        """List one range to its end; the next page is fetched while one is merged."""
        following: asyncio.Task[Page] | None = self._fetch(it.cursor)
        try:
            while following is not None and not self._ends():
                page = _within(await following, it.end)
                after = it.cursor
                upto = it.end if page.last else page.entries[-1].key
                following = None if page.last or upto is None else self._fetch(upto)
                cut = self._seen(it, page)
                await self.merge(it, page, Range(after, upto), cut)
                self.listed += len(page.entries)
                if cut is not None:
                    self._cut_off(group, it, cut)
                self._begin(group)  # others may have given slots back
        except Stopped:
            return  # the others see it by themselves, and merge the pages that they have
        except asyncio.CancelledError:
            if self._failure is None:
                raise
            return
        except S3flowError as error:
            self._failure = self._failure or error
            for task in self._fetching:
                task.cancel()
            return
        finally:
            if following is not None:
                following.cancel()
                # Not "await following": our being cancelled must not be mistaken for its.
                await asyncio.wait({following})
                _raise_unexpected(following)
        self._active.remove(it)
        self._begin(group)
        self._give_back(self._held - max(1, len(self._active) + self._promised))

    def _fetch(self, after: bytes) -> asyncio.Task[Page]:
        task = asyncio.create_task(self.survey.page(self.bucket, after))
        self._fetching.add(task)
        task.add_done_callback(self._fetching.discard)
        return task

    def _seen(self, it: Stretch, page: Page) -> bytes | None:
        """Note a page of a range; say where the rest of the range is to be cut, if it is."""
        entries = page.entries
        it.listed += len(entries)
        it.first = it.first or (entries[0].key if entries else b"")
        if page.last:
            if not it.pages and len(entries) * 2 < self._page_size:
                self._in_vain += 1
            return None
        it.cursor = entries[-1].key
        it.pages += 1
        self._pages += 1
        self._page_size = max(self._page_size, len(entries))
        # A single listing learns nothing that it needs.
        if self.slots.free or len(self._active) > 1:
            self._space.learn([entries[0].key, entries[len(entries) // 2].key, it.cursor])
        return self._cut(it) if self.slots.free and not self._waiting else None

    def _cut(self, it: Stretch) -> bytes | None:
        if self._pages < SEEN_FIRST or self._in_vain * SPARE > self._pages:
            return None
        if it.cut_off is not None and not it.cut_off.listed and it.cut_off in self._active:
            return None  # what the last cut was good for is not known yet
        left = self._left(it)
        longer = sum(self._left(each) > left for each in self._active if each is not it)
        if left < WORTH_CUTTING * self._page_size or longer >= self.slots.free:
            return None
        cut = self._space.cut(it.cursor, it.end)
        if cut is not None and self._take():
            self._promised += 1
        return cut

    def _left(self, it: Stretch) -> float:
        if not it.listed:
            return 0.0  # it cannot be cut before it is known
        return self._space.left(it.first, it.cursor, it.end, it.listed)

    def _cut_off(self, group: asyncio.TaskGroup, it: Stretch, cut: bytes) -> None:
        it.cut_off = Stretch(cut, cut, it.end)
        it.end, it.pages = cut, 0
        self._promised -= 1
        self._start(group, it.cut_off)


def _raise_unexpected(ended: asyncio.Task[Page]) -> None:
    """Raise what nobody handles; any other end of a page that is not needed any more is as good."""
    error = None if ended.cancelled() else ended.exception()
    if error is not None and not isinstance(error, S3flowError):
        raise error


def _within(page: Page, end: bytes | None) -> Page:
    """Leave out what lies behind *end*: another range lists it."""
    entries: list[Listed] = page.entries
    if end is None or not entries or entries[-1].key < end:
        return page
    return Page(entries[: bisect_right(entries, end, key=_key)], last=True)
