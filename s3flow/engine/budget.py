"""How much may be restored: what is under way at a time, and what a day may cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from s3flow.model import Flow, Sample, State, Total
from s3flow.records import Spent

DAY = 86_400_000  # milliseconds
THAWED = "thawed"  # the reason of what can be read now, until a worker has it
AGAIN = 60_000  # milliseconds until a spent budget is looked at again, at the latest


class Spendings(Protocol):
    """Where it is kept what was asked for."""

    async def restores_since(self, flow: str, since: int) -> Spent: ...


@dataclass(slots=True)
class Allowance:
    """What may be asked for now. *frees_at* (ms): when a day's budget that is spent has room again.

    The first of a day may be larger than the day's bytes: else it would never go.
    """

    objects: int
    bytes: int | None = None  # None: no limit
    untouched: bool = True
    frees_at: int | None = None
    later: int | None = None  # what *frees_at* becomes once the budget is spent

    @property
    def is_open(self) -> bool:
        """Say whether anything at all may be asked for."""
        return self.objects > 0 and self.frees_at is None

    def take(self, size: int) -> bool:
        """Take one object of *size* bytes, if it fits; what follows one that does not has to wait."""
        if not self.is_open:
            return False
        if self.bytes is not None and size > self.bytes and not self.untouched:
            self.frees_at = self.later
            return False
        self.untouched = False
        self.objects -= 1
        if self.bytes is not None:
            self.bytes = max(0, self.bytes - size)
        return True


async def allowance(flow: Flow, spendings: Spendings, room: int, now: int) -> Allowance:
    """Say what may be asked for: *room* objects at most, and what is left of any 24 hours' budget."""
    room = max(0, room)
    if not flow.restore_objects_per_day and not flow.restore_bytes_per_day:
        return Allowance(room)
    spent = await spendings.restores_since(flow.name, now - DAY)
    later = min(now + AGAIN, spent.first_at + DAY) if spent.objects else now + AGAIN
    left = Allowance(room, untouched=not spent.objects, later=later)
    if flow.restore_bytes_per_day:
        left.bytes = max(0, flow.restore_bytes_per_day - spent.bytes)
        if not left.bytes:
            left.frees_at = later
    if flow.restore_objects_per_day:
        left.objects = min(room, max(0, flow.restore_objects_per_day - spent.objects))
        if spent.objects >= flow.restore_objects_per_day:
            left.frees_at = later
    return left


def keeps_up(flow: Flow, totals: Sequence[Total], samples: Sequence[Sample]) -> bool:
    """Say whether what has thawed is moved in half the time that its copies stay, at the rate so far.

    What is asked for beyond that would expire unread, and be paid for again.
    """
    thawed = [it for it in totals if it.state is State.DISCOVERED and it.reason == THAWED]
    if not thawed or len(samples) < 2:
        return True
    first, last = samples[0], samples[-1]
    share = flow.restore_days * DAY / 1000 / 2 / max(1.0, last.at - first.at)
    objects, size = last.objects - first.objects, last.bytes - first.bytes
    return not objects or (
        sum(it.objects for it in thawed) <= objects * share
        and sum(it.bytes for it in thawed) <= max(1, size) * share
    )
