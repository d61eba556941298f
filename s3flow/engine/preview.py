"""What a flow would do now, by reading only: listing, state and target are looked at."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from s3flow.engine import plan
from s3flow.engine.survey import Known, Range, Survey
from s3flow.engine.verdicts import of_parts
from s3flow.engine.workload import Workload
from s3flow.errors import TooLarge
from s3flow.model import (
    OUTCOMES,
    Discovered,
    Listed,
    Method,
    Outcome,
    Page,
    PageChanges,
    Row,
    State,
)
from s3flow.policies import CopyBy, MethodPolicy, Overwrite
from s3flow.ports import ROWS_AT_ONCE

# ("transfer" or "pending", method), ("adopt", proof), ("skip" or "refuse", reason), …
Verdict = tuple[str, str]
_ASKED = {State.RESTORE_REQUESTED, State.RESTORING}  # whose restore is paid


class NothingKnown:
    """The state of a flow that has never run."""

    async def rows(
        self,
        flow: str,  # noqa: ARG002  the port's names
        bucket: str,  # noqa: ARG002
        after: bytes,  # noqa: ARG002
        upto: bytes | None,  # noqa: ARG002
        limit: int = ROWS_AT_ONCE,  # noqa: ARG002
    ) -> list[Row]:
        """Give no rows."""
        return []

    async def known(self, flow: str, bucket: str, keys: Sequence[bytes]) -> set[bytes]:  # noqa: ARG002
        """Know no key."""
        return set()


@dataclass(slots=True)
class _Overheard:
    """Passes on what the state knows, and keeps what is still to be done of the rows last read."""

    known_state: Known
    pending: list[Row] = field(default_factory=list)

    async def rows(
        self, flow: str, bucket: str, after: bytes, upto: bytes | None, limit: int = ROWS_AT_ONCE
    ) -> list[Row]:
        rows = await self.known_state.rows(flow, bucket, after, upto, limit)
        self.pending = [row for row in rows if OUTCOMES[row.state] is Outcome.PENDING]
        return rows

    async def known(self, flow: str, bucket: str, keys: Sequence[bytes]) -> set[bytes]:
        return await self.known_state.known(flow, bucket, keys)


@dataclass(slots=True)
class Preview:
    """Objects and bytes by what would become of them, and the work in those that move."""

    objects: Counter[Verdict] = field(default_factory=Counter)
    bytes: Counter[Verdict] = field(default_factory=Counter)
    work: Workload = field(default_factory=Workload)

    def count(self, verdict: Verdict, objects: int, size: int) -> None:
        """Count *objects* of *size* bytes in all."""
        if objects:
            self.objects[verdict] += objects
            self.bytes[verdict] += size


async def preview(survey: Survey, known: Known, *, is_new: bool) -> Preview:
    """List the flow's source and say what the next scan would make of it."""
    seen = Preview()
    overheard = _Overheard(known)
    looks = is_new and survey.flow.overwrite is not Overwrite.ALWAYS
    now = time.time()
    for bucket in await survey.buckets():
        keys, last = Range(b"", b""), False
        while not last:
            page = await survey.page(bucket, keys.after)
            last = page.last
            keys = Range(keys.after, None if last else page.entries[-1].key)
            seen.work.listings += 1
            async for changes, _ in survey.changes(overheard, bucket, page, keys, adopting=is_new):
                seen.work.looks += looks and bool(changes.new)
                counting = _Counting(survey, seen, bucket, now)
                counting.count(changes, page, overheard.pending)
            keys = Range(keys.upto or keys.after, None)
    return seen


@dataclass(slots=True)
class _Counting:
    """Counts one step of a listing."""

    survey: Survey
    seen: Preview
    bucket: str
    now: float

    def count(self, changes: PageChanges, page: Page, pending: Sequence[Row]) -> None:
        fresh = [*changes.new, *(found for _, found in changes.changed)]
        for found in fresh:
            self.seen.count(self._verdict(found), 1, found.entry.size)
        rest = changes.listed - len(fresh)
        size = changes.listed_bytes - sum(found.entry.size for found in fresh)
        if pending:
            counted = {found.entry.key for found in fresh}
            entries = {entry.key: entry for entry in page.entries if entry.key not in counted}
            for row in pending:
                entry = entries.get(row.key)
                if entry is not None:
                    verdict = self._moved("pending", entry, asked=row.state in _ASKED)
                    self.seen.count(verdict, 1, entry.size)
                    rest, size = rest - 1, size - entry.size
        self.seen.count(("unchanged", "recorded before"), rest, size)

    def _verdict(self, found: Discovered) -> Verdict:
        match found.state:
            case State.SKIPPED:
                return "skip", found.reason
            case State.FAILED:
                return "refuse", found.reason
            case State.VERIFIED:
                return "adopt", found.proof
        return self._moved("transfer", found.entry)

    def _moved(self, verdict: str, entry: Listed, *, asked: bool = False) -> Verdict:
        try:
            method = self._method(entry)
        except TooLarge as error:
            return "refuse", error.reason
        flow, limits = self.survey.flow, self.survey.route.target.limits
        self.seen.work.add(flow, limits, self.bucket, entry, method, now=self.now, asked=asked)
        return verdict, method

    def _method(self, entry: Listed) -> Method:
        """Choose how an object goes, by what is known of copies inside the store."""
        route = self.survey.route
        flow, limits, verdicts = route.flow, route.target.limits, route.verdicts
        if verdicts is not None:
            method = plan.choose_method(flow, limits, entry.size, entry.etag, inside=True)
            in_parts = method is Method.SERVER_MULTIPART
            known = verdicts.decided.get(of_parts(self.bucket) if in_parts else self.bucket)
            streamed = known is not None and known.way == CopyBy.STREAMED
            if not streamed or flow.method is MethodPolicy.SERVER_ONLY:
                return method
        return plan.choose_method(flow, limits, entry.size, entry.etag)
