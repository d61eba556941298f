"""What is known of a route's copies inside the store: where they work, and where they are refused."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass

from s3flow.ports import Clock

# One object may be refused for its own sake (a customer's key, an ACL); in a row it is the bucket.
REFUSALS = 3
# Failures say less of the next copy than refusals do, and those of a brownout pass.
FAILURES = 10
EXPIRY = 600.0  # seconds until a bucket that was refused is tried again
LOOKING = 60.0  # seconds that one object has for that, before another looks
PATIENCE = (
    2.0  # seconds to wait for the probing object; being refused takes less, copying may take more
)


@dataclass(slots=True)
class _Standing:
    """A bucket where copies are not known to work. *until*: they are refused; 0.0: not decided."""

    refusals: int = 0  # in a row
    until: float = 0.0  # by the clock
    probing: asyncio.Event | None = None


class Verdicts:
    """Learns by source bucket whether copies inside the store work; the target's bucket follows from it.

    While it is not decided one object tries, and the others wait for it a moment.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self.works: set[str] = set()  # looked at for every object, so nothing else is done for it
        self.failing: dict[str, int] = {}  # failures in a row, by bucket; mostly empty
        self.apart: set[str] = set()  # buckets whose name means another one at the target
        self._clock = clock
        self._standings: dict[str, _Standing] = {}

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

    def worked(self, bucket: str) -> None:
        """Note that a copy was made."""
        if bucket not in self.works:
            self.works.add(bucket)
            self.tried(bucket)
            self._standings.pop(bucket, None)

    def goes(self, bucket: str) -> None:
        """Note that a part was copied: nobody waits for the others, unless it ended badly before."""
        standing = self._standings.get(bucket)
        if standing is None or not standing.refusals:
            self.worked(bucket)

    def copied(self, bucket: str) -> None:
        """Note that an object was copied, proven and all."""
        self.failing.pop(bucket, None)
        self.worked(bucket)

    def refused(self, bucket: str) -> bool:
        """Note that a copy was refused; True when that makes it the verdict for the bucket."""
        self.works.discard(bucket)
        standing = self._standings.setdefault(bucket, _Standing())
        standing.refusals += 1
        is_known = standing.until > 0.0
        if is_known or standing.refusals >= REFUSALS:
            standing.until = self._clock() + EXPIRY
        self.tried(bucket)
        return standing.until > 0.0 and not is_known

    def failed(self, bucket: str) -> bool:
        """Note that a copy failed at the store; True when that makes it the verdict for the bucket."""
        count = self.failing[bucket] = self.failing.get(bucket, 0) + 1
        self.tried(bucket)
        if count < FAILURES:
            return False
        self.works.discard(bucket)
        standing = self._standings.setdefault(bucket, _Standing())
        is_known = standing.until > 0.0
        standing.until = self._clock() + LOOKING
        return not is_known

    def tried(self, bucket: str) -> None:
        """Let the next one look, if nothing is decided."""
        standing = self._standings.get(bucket)
        if standing is not None and standing.probing is not None:
            standing.probing.set()
            standing.probing = None
