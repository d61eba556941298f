"""The circuit breaker of moves: signs that something is wrong with more than one object stop all deletes."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from s3flow.errors import Corrupted, TargetLost
from s3flow.model import Change, Flow, State

LEAST = 100  # objects that a share is worth anything of
WINDOW = 1_000  # outcomes that are looked at


@dataclass(slots=True)
class Breaker:
    """Counts what proved right and wrong lately. *why* says why nothing is to be deleted, "" if it is."""

    flow: Flow
    why: str = ""
    _proofs: deque[bool] = field(default_factory=lambda: deque[bool](maxlen=WINDOW))

    def recorded(self, changes: Sequence[Change]) -> None:
        """Take what became durable: objects that were verified, and that failed to be."""
        name = self.flow.name
        for change in changes:
            if change.transfer.flow != name or change.reason == TargetLost.reason:
                continue
            if change.state is State.VERIFIED or change.reason == Corrupted.reason:
                self._proofs.append(change.state is State.VERIFIED)
        self._judge()

    def looked(self, seen: int, lost: int) -> None:
        """Take what a last look at copies found."""
        self._proofs.extend([True] * seen + [False] * lost)
        self._judge()

    def listed(self, counts: Sequence[tuple[int, int]]) -> None:
        """Compare the last two scans: (listed, deleted since it began) of each, the newest first."""
        if len(counts) < 2:
            return
        (listed, deleted), (before, deleted_before) = counts
        expected = before - deleted_before - deleted
        share = self.flow.max_missing
        if expected >= LEAST and listed <= expected * (1 - share):
            self.why = (
                f"the source was listed with {listed:,} objects, and {expected:,} should be there: "
                f"that is {1 - listed / expected:.0%} less, and max_missing is {share:.0%}"
            )

    def closed(self) -> None:
        """Begin anew: a person has looked at it."""
        self.why = ""
        self._proofs.clear()

    def _judge(self) -> None:
        wrong = self._proofs.count(False)
        share = self.flow.max_corrupted
        if len(self._proofs) >= LEAST and wrong > len(self._proofs) * share:
            self.why = (
                f"of the last {len(self._proofs):,} copies {wrong:,} were not equal to their sources, "
                f"or gone: that is {wrong / len(self._proofs):.1%}, and max_corrupted is {share:.0%}"
            )
