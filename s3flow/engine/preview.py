"""What a flow would do now, by reading only: listing, state and target are looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from s3flow.engine import plan
from s3flow.engine.survey import Known, Range, Survey
from s3flow.errors import TooLarge
from s3flow.model import Discovered, PageChanges, Row, State
from s3flow.ports import ROWS_AT_ONCE

Verdict = tuple[str, str]  # ("transfer", method), ("adopt", proof), ("skip" or "refuse", reason), …


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
class Preview:
    """Objects and bytes by what would become of them."""

    objects: Counter[Verdict] = field(default_factory=Counter)
    bytes: Counter[Verdict] = field(default_factory=Counter)

    def count(self, verdict: Verdict, objects: int, size: int) -> None:
        """Count *objects* of *size* bytes in all."""
        if objects:
            self.objects[verdict] += objects
            self.bytes[verdict] += size


async def preview(survey: Survey, known: Known, *, is_new: bool) -> Preview:
    """List the flow's source and say what the next scan would make of it."""
    seen = Preview()
    for bucket in await survey.buckets():
        keys, last = Range(b"", b""), False
        while not last:
            page = await survey.page(bucket, keys.after)
            last = page.last
            keys = Range(keys.after, None if last else page.entries[-1].key)
            async for changes, _ in survey.changes(known, bucket, page, keys, adopting=is_new):
                _count(survey, seen, changes)
            keys = Range(keys.upto or keys.after, None)
    return seen


def _count(survey: Survey, seen: Preview, changes: PageChanges) -> None:
    fresh = [*changes.new, *(found for _, found in changes.changed)]
    for found in fresh:
        seen.count(_verdict(survey, found), 1, found.entry.size)
    rest = changes.listed - len(fresh)
    size = changes.listed_bytes - sum(found.entry.size for found in fresh)
    seen.count(("unchanged", "recorded before"), rest, size)


def _verdict(survey: Survey, found: Discovered) -> Verdict:
    match found.state:
        case State.SKIPPED:
            return "skip", found.reason
        case State.FAILED:
            return "refuse", found.reason
        case State.VERIFIED:
            return "adopt", found.proof
    route, entry = survey.route, found.entry
    try:
        method = plan.choose_method(
            route.flow,
            route.target.limits,
            entry.size,
            entry.etag,
            inside=route.verdicts is not None,
        )
    except TooLarge as error:
        return "refuse", error.reason
    return "transfer", method
