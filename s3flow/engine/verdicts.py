"""What is known of a route's copies inside the store: where they work, for whom, and where not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from s3flow.model import Verdict
from s3flow.policies import CopyBy
from s3flow.ports import Clock

# One object may be refused for its own sake (a customer's key, an ACL); in a row it is the bucket.
REFUSALS = 3
# Where some objects may be copied and others not, rows come by chance: there it takes more of them, and
# twice as many each time that the next copy shows that it was chance.
BOTH_KINDS = REFUSALS * 2**2
MOST_REFUSALS = REFUSALS * 2**8
# Failures say less of the next copy than refusals do, and those of a brownout pass.
FAILURES = 10
EXPIRY = 600.0  # seconds until a bucket that was refused is tried again
# What works is found out again by itself when it ends; this is for a better way that has opened.
WORKS = 24 * 3600.0  # seconds
LOOKING = 60.0  # seconds that one object has for that, before another looks
PATIENCE = (
    2.0  # seconds to wait for the probing object; being refused takes less, copying may take more
)
REASON_LIMIT = 1000  # characters
_PARTS = "/parts"  # no bucket has a slash in its name


def of_parts(bucket: str) -> str:
    """Name what is learnt of parts: Ceph's gateway lets other accounts copy whole objects alone."""
    return bucket + _PARTS


def _nobody(verdict: Verdict) -> None:
    """Tell nobody."""


@dataclass(slots=True)
class _Standing:
    """A bucket where copies are not known to work. *until*: they are refused; 0.0: not decided."""

    refusals: int = 0  # in a row
    until: float = 0.0  # by the clock
    probing: asyncio.Event | None = None


class Verdicts:
    """Learns by source bucket whether copies inside the store work; the target's bucket follows from it.

    While it is not decided one object tries, and the others wait for it a moment. *ways* are tried
    in their order. *tell* hears what is decided, and when that changes; *clock* is the epoch's.
    """

    def __init__(
        self,
        clock: Clock = time.time,
        *,
        flow: str = "",
        ways: Sequence[CopyBy] = (CopyBy.TARGET,),
        tell: Callable[[Verdict], None] = _nobody,
    ) -> None:
        # Looked at for every object, so nothing else is done for one: bucket -> way.
        self.works: dict[str, str] = {}
        self.failing: dict[str, int] = {}  # failures in a row, by bucket; mostly empty
        self.strays: dict[str, int] = {}  # copies in a row that went another way than the usual one
        self.apart: set[str] = set()  # buckets whose name means another one at the target
        self.decided: dict[str, Verdict] = {}
        self._flow = flow
        self._tell = tell
        self._clock = clock
        self._standings: dict[str, _Standing] = {}
        self._enough: dict[str, int] = {}  # refusals in a row, where they are more than the usual
        # By the way that goes first.
        self._orders: dict[str, tuple[CopyBy, ...]] = {
            way: (way, *(each for each in ways if each is not way)) for way in ways
        }
        self._usual = tuple(ways)

    def ways(self, bucket: str) -> tuple[CopyBy, ...]:
        """Give the ways to try for an object of *bucket*: what worked last, then the others."""
        way = self.works.get(bucket)
        if way is None:
            known = self.decided.get(bucket)
            way = known.way if known else ""
        return self._orders.get(way, self._usual)

    async def ask(self, bucket: str) -> bool:
        """Say whether an object of *bucket* should be tried; whoever tries calls `tried` at the end."""
        while bucket not in self.works:
            standing = self._standings.setdefault(bucket, _Standing())
            if standing.until:
                now = self._clock()
                if now < standing.until:
                    return False
                standing.until = now + LOOKING  # the others go on streaming
                return True
            if standing.probing is None:
                standing.probing = asyncio.Event()
                return True
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await standing.probing.wait()
                continue
            return True
        return True

    def worked(self, bucket: str, way: CopyBy = CopyBy.TARGET, reason: str = "") -> None:
        """Note that a copy was made; *reason* says why it was not made in a way that goes before."""
        usual = self.works.get(bucket)
        if usual == way:
            return
        if usual is not None:
            # One object may be somebody's own; several in a row say that the bucket has changed.
            strays = self.strays[bucket] = self.strays.get(bucket, 0) + 1
            if strays < REFUSALS:
                return
        self.strays.pop(bucket, None)
        self.works[bucket] = way
        self._overturn(bucket)
        self._decide(bucket, way, reason, WORKS)

    def goes(self, bucket: str) -> None:
        """Note that a part was copied: nobody waits for the others, unless it ended badly before."""
        standing = self._standings.get(bucket)
        if standing is None or not standing.refusals:
            self.worked(bucket)

    def copied(self, bucket: str, way: CopyBy = CopyBy.TARGET, reason: str = "") -> None:
        """Note that an object was copied, proven and all."""
        self.failing.pop(bucket, None)
        if self.works.get(bucket) == way:
            self.strays.pop(bucket, None)
        standing = self._standings.get(bucket)
        if standing is not None and standing.refusals:
            self._enough.setdefault(bucket, BOTH_KINDS)
        self.worked(bucket, way, reason)

    def refused(self, bucket: str, reason: str = "") -> bool:
        """Note that a copy was refused; True when that makes it the verdict for the bucket."""
        self.works.pop(bucket, None)
        standing = self._standings.setdefault(bucket, _Standing())
        standing.refusals += 1
        is_known = standing.until > 0.0
        if is_known or standing.refusals >= self._enough.get(bucket, REFUSALS):
            standing.until = self._clock() + EXPIRY
            self._decide(bucket, CopyBy.STREAMED, reason, EXPIRY)
        self.tried(bucket)
        return standing.until > 0.0 and not is_known

    def failed(self, bucket: str, reason: str = "") -> bool:
        """Note that a copy failed at the store; True when that makes it the verdict for the bucket."""
        count = self.failing[bucket] = self.failing.get(bucket, 0) + 1
        self.tried(bucket)
        if count < FAILURES:
            return False
        self.works.pop(bucket, None)
        standing = self._standings.setdefault(bucket, _Standing())
        is_known = standing.until > 0.0
        standing.until = self._clock() + LOOKING
        self._decide(bucket, CopyBy.STREAMED, reason, LOOKING)
        return not is_known

    def tried(self, bucket: str) -> None:
        """Let the next one look, if nothing is decided."""
        standing = self._standings.get(bucket)
        if standing is not None and standing.probing is not None:
            standing.probing.set()
            standing.probing = None

    def _overturn(self, bucket: str) -> None:
        """Let everybody copy, whatever was known before."""
        self.tried(bucket)
        standing = self._standings.pop(bucket, None)
        if standing is not None and standing.until and standing.refusals:
            enough = self._enough.get(bucket, REFUSALS)
            self._enough[bucket] = min(2 * enough, MOST_REFUSALS)

    # --- what lasts ---------------------------------------------------------------------------

    def take(self, verdict: Verdict) -> None:
        """Believe what was found out before, or by another process, while it lasts."""
        bucket = verdict.bucket + (_PARTS if verdict.what == "parts" else "")
        if verdict.way != CopyBy.STREAMED and verdict.way not in self._orders:
            return  # whose credentials they were is not configured any more
        if verdict.expires <= self._clock():
            return
        self.decided[bucket] = verdict
        if verdict.way == CopyBy.STREAMED:
            self.works.pop(bucket, None)
            standing = self._standings.setdefault(bucket, _Standing())
            standing.until = verdict.expires
            self.tried(bucket)
        else:
            self.works[bucket] = verdict.way
            self._overturn(bucket)

    def review(self) -> None:
        """Forget what has worked for so long that another way may have opened meanwhile."""
        now = self._clock()
        for bucket in [each for each in self.works if self._is_old(each, now)]:
            del self.works[bucket]
            self.decided.pop(bucket, None)
            self._enough.pop(bucket, None)

    def _is_old(self, bucket: str, now: float) -> bool:
        verdict = self.decided.get(bucket)
        return verdict is not None and verdict.expires <= now

    def _decide(self, bucket: str, way: CopyBy, reason: str, lasts: float) -> None:
        """Tell of a verdict that is news. Objects that are refused for their own sake make none."""
        now, known = self._clock(), self.decided.get(bucket)
        # Within a minute a refusal only repeats what many objects at a time have found.
        if known is not None and known.way == way and now + lasts - known.expires < LOOKING:
            return
        if known is not None and known.way == way != CopyBy.STREAMED and known.expires > now:
            return
        name = bucket.removesuffix(_PARTS)
        what = "objects" if name == bucket else "parts"
        verdict = Verdict(
            self._flow, name, what, way.value, reason[:REASON_LIMIT], now, now + lasts
        )
        self.decided[bucket] = verdict
        self._tell(verdict)
