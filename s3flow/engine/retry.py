"""One retry policy: which errors are tried again, how often, and after how long."""

from __future__ import annotations

import random
from dataclasses import dataclass

from s3flow.errors import Permanent, S3flowError, Throttled, Transient

UNEXPECTED = "unexpected"
LONGEST_WISH = 300.0  # seconds; a store that asks for hours is asked again meanwhile

# What spares a store is the gate, which halves. Doubling further than to 4 s would only let the
# last few unlucky objects of a flow sleep for minutes beside a store that has long recovered.
THROTTLED_DOUBLINGS = 3


@dataclass(frozen=True, slots=True)
class Backoff:
    """Full jitter: a random delay below first * 2**tries, at most *ceiling* seconds.

    Waiting a random time, not a doubled one, keeps a thousand failed transfers from returning
    together (AWS Architecture Blog, "Exponential Backoff And Jitter").
    """

    first: float = 0.5
    ceiling: float = 60.0

    def delay(self, tries: int) -> float:
        """Give the delay in seconds before try number *tries* + 1."""
        return random.uniform(0, min(self.ceiling, self.first * 2.0 ** min(tries, 30)))


@dataclass(frozen=True, slots=True)
class Again:
    """Try again after *delay* seconds; *attempts* have failed so far."""

    attempts: int
    delay: float


@dataclass(frozen=True, slots=True)
class GiveUp:
    """Record the object as failed."""

    attempts: int
    reason: str


def wish(error: Throttled) -> float:
    """Give the seconds that a store wants to be left alone, as far as they are granted."""
    return min(error.retry_after, LONGEST_WISH)


def decide(error: Exception, attempts: int, max_attempts: int, backoff: Backoff) -> Again | GiveUp:
    """Decide what a failed attempt means. *attempts* counts the failed ones before this."""
    attempts += 1
    if isinstance(error, Permanent):
        return GiveUp(attempts, error.reason)
    if isinstance(error, Transient):
        if attempts < max_attempts:
            return Again(attempts, backoff.delay(attempts))
        return GiveUp(attempts, error.reason)
    # A defect or a library's surprise: one more try shows whether it is the object or the moment.
    if attempts < min(max_attempts, 2):
        return Again(attempts, backoff.delay(attempts))
    return GiveUp(attempts, error.reason if isinstance(error, S3flowError) else UNEXPECTED)


def patience(error: Throttled, tries: int, backoff: Backoff) -> float:
    """Say how many seconds to wait after being throttled *tries* times in a row."""
    return max(wish(error), backoff.delay(min(tries, THROTTLED_DOUBLINGS)))
