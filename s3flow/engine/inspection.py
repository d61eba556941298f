"""A walk over a flow's copies: all of them or a sample, from the state or from what is listed now."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from s3flow.engine import plan
from s3flow.engine.retry import Backoff
from s3flow.engine.reverify import DIFFERENT, Copy, Looked, Prover, Result, copy_of
from s3flow.engine.route import Stopped
from s3flow.engine.survey import Survey
from s3flow.errors import Blocked, Permanent, S3flowError
from s3flow.lanes import together
from s3flow.model import Listed, Proof
from s3flow.ports import ROWS_AT_ONCE
from s3flow.records import Due

Tell = Callable[[Copy, Looked], Awaitable[None]]
_ALL = 2**64


class Rows(Protocol):
    """What is read of the state to prove copies again."""

    async def buckets(self, flow: str) -> list[str]: ...

    async def transfers(
        self, flow: str, bucket: str, start: bytes, limit: int = ROWS_AT_ONCE
    ) -> list[Due]: ...


def is_sampled(bucket: str, key: bytes, share: float) -> bool:
    """Say whether an object belongs to a sample of that *share* of all: on every run the same ones.

    A larger sample has those of a smaller one among its own.
    """
    if share >= 1:
        return True
    digest = hashlib.blake2b(bucket.encode() + b"\0" + key, digest_size=8).digest()
    return int.from_bytes(digest) < int(share * _ALL)


def after(key: bytes) -> bytes:
    """Give the key that follows *key* at once."""
    return key + b"\0"


async def current(rows: Rows, copy: Copy) -> Copy | None:
    """Look at what the state says of a copy by now; None where it tells of none any more."""
    it = copy.transfer
    found = await rows.transfers(it.flow, it.bucket, it.key, 1)
    return copy_of(found[0]) if found and found[0].transfer.key == it.key else None


async def look_again(prover: Prover, rows: Rows, copy: Copy) -> tuple[Copy, Looked] | None:
    """Prove a copy that the state tells of; None if it tells of none any more.

    A daemon may have copied a newer version since the row was read. Raises `Blocked`, `Stopped`.
    """
    looked = await prover.prove(copy)
    if looked.result in DIFFERENT:
        now = await current(rows, copy)
        if now is None:
            return None
        if now != copy:
            return now, await prover.prove(now)
    return copy, looked


@dataclass(slots=True)
class Inspection:
    """Looks at copies, *lanes* at a time, until there are no more, or *limit* was reached, or a stop.

    *tell* is called for each, and *unlisted* for buckets that cannot be listed.
    """

    prover: Prover
    tell: Tell
    unlisted: Callable[[str, S3flowError], None]
    lanes: int
    share: float = 1.0
    limit: int | None = None
    _begun: int = 0

    async def of_state(self, rows: Rows) -> None:
        """Prove the copies that the state tells of."""
        await self._run(self._recorded(rows), partial(self._look, rows))

    async def of_listing(self) -> None:
        """Prove the copies of what the source lists now, whoever made them."""
        survey = Survey(self.prover.route, Backoff(), may_write=False)
        await self._run(self._listed(survey), partial(self._look, None))

    # --- which ---------------------------------------------------------------------------------------

    def _takes(self, bucket: str, key: bytes) -> bool:
        if not is_sampled(bucket, key, self.share):
            return False
        self._begun += 1
        return self.limit is None or self._begun <= self.limit

    @property
    def _over(self) -> bool:
        reached = self.limit is not None and self._begun >= self.limit
        return reached or self.prover.route.stop.is_set()

    async def _recorded(self, rows: Rows) -> AsyncIterator[Copy]:
        flow = self.prover.route.flow.name
        for bucket in await rows.buckets(flow):
            start = b""
            while not self._over and (page := await rows.transfers(flow, bucket, start)):
                start = after(page[-1].transfer.key)
                for due in page:
                    copy = copy_of(due)
                    if copy is not None and self._takes(bucket, due.transfer.key):
                        yield copy

    async def _listed(self, survey: Survey) -> AsyncIterator[Copy]:
        flow = survey.flow
        skip = plan.compile_filters(flow.filters, flow.source.prefix)
        now = time.time()
        for bucket in await survey.buckets():
            last, key = False, b""
            while not last and not self._over:
                try:
                    page = await survey.page(bucket, key)
                except Stopped:
                    return
                except Blocked:
                    raise
                except S3flowError as error:
                    self.unlisted(bucket, error)
                    break
                last, key = page.last, page.entries[-1].key if page.entries else key
                taken = [
                    entry
                    for entry in page.entries
                    if not (skip and skip(entry, now)) and self._takes(bucket, entry.key)
                ]
                for copy in await self._unproven(bucket, taken):
                    yield copy

    async def _unproven(self, bucket: str, entries: list[Listed]) -> list[Copy]:
        """Leave out what the target's listing shows to be equal, or not to be there."""
        route = self.prover.route
        copies = [Copy(plan.as_transfer(route.flow.name, bucket, entry)) for entry in entries]
        if self.prover.reads or not route.target.limits.etags or not copies:
            return copies
        places = {route.destination(copy.transfer)[1]: copy for copy in copies}
        there = plan.target_bucket(route.flow, bucket)
        try:
            find = partial(route.target.find, there, sorted(places))
            found = await self.prover.patiently(find)
        except Stopped:
            return []
        except Permanent:
            return copies  # who may not list may be able to look
        left = []
        for key, copy in places.items():
            entry, etag = found.get(key), copy.transfer.etag
            if entry is None:
                await self.tell(
                    copy, Looked(Result.MISSING, message="nothing is at the target's key")
                )
            elif entry.etag == etag and entry.size == copy.transfer.size and _is_sum(etag):
                await self.tell(copy, Looked(Result.PROVEN, Proof.ETAG))
            else:
                left.append(copy)
        return left

    # --- looks ---------------------------------------------------------------------------------------

    async def _run(
        self, copies: AsyncIterator[Copy], look: Callable[[Copy], Awaitable[None]]
    ) -> None:
        line: asyncio.Queue[Copy | None] = asyncio.Queue(self.lanes)

        async def lane() -> None:
            while (copy := await line.get()) is not None:
                if not self.prover.route.stop.is_set():
                    await look(copy)

        async def feed(group: asyncio.TaskGroup) -> None:
            for _ in range(self.lanes):
                group.create_task(lane())
            async for copy in copies:
                await line.put(copy)
            for _ in range(self.lanes):
                await line.put(None)

        await together(feed)

    async def _look(self, rows: Rows | None, copy: Copy) -> None:
        try:
            if rows is None:
                seen: tuple[Copy, Looked] | None = (copy, await self.prover.prove(copy))
            else:
                seen = await look_again(self.prover, rows, copy)
        except Stopped:
            return
        if seen is not None:
            await self.tell(*seen)


def _is_sum(etag: str) -> bool:
    return plan.is_md5(etag) or plan.parts_in(etag) > 0
