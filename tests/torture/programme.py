"""What the programmes have in common: how long they may go on, and what they tell of it."""

from __future__ import annotations

import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path


class Broken(AssertionError):
    """A promise was broken. The message says which, and what repeats it."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a programme is to do: *seconds* long, or *rounds* of its own measure, whichever ends first.

    The *seed* decides everything that can be decided. *state* is "sqlite" or "mysql". *bug* names one
    of `tests.torture.bugs` to be planted in the s3flow that is tried, "" none.
    """

    folder: Path
    seed: int = 0
    seconds: float = float("inf")
    rounds: int | None = None
    state: str = "sqlite"
    bug: str = ""
    begun: float = field(default_factory=time.monotonic)

    def seeds(self) -> Iterator[int]:
        """Give a seed for each round until the task is over; the first one is the task's own."""
        draw, number = random.Random(self.seed), 0
        seed = self.seed
        while (self.rounds is None or number < self.rounds) and not self.over:
            yield seed
            seed, number = draw.getrandbits(32), number + 1

    @property
    def over(self) -> bool:
        """Whether its time is up."""
        return time.monotonic() - self.begun >= self.seconds


@dataclass(slots=True)
class Told:
    """What a programme did: *counts* by what was counted (kills, faults, operations, seeds …)."""

    name: str
    state: str
    seed: int
    seconds: float
    counts: dict[str, int]
    finding: str = ""  # the promise that was broken, with what repeats it
    bug: str = ""  # that was planted
    run: str = ""  # of which run of the one command this was a part: when that began, in UTC


Programme = Callable[[Task], Counter[str]]
"""Does a task and gives its counts; raises `Broken` at the first broken promise."""


def carry_out(name: str, programme: Programme, task: Task) -> Told:
    """Run a programme and tell how it went, also when a promise was broken."""
    counts, finding = Counter[str](), ""
    try:
        counts = programme(task)
    except Broken as error:
        finding = str(error)
    seconds = round(time.monotonic() - task.begun, 1)
    return Told(name, task.state, task.seed, seconds, dict(counts), finding, task.bug)


def note(ledger: Path, told: Told) -> None:
    """Append what was told to a file of JSON lines."""
    ledger.parent.mkdir(parents=True, exist_ok=True)
    with ledger.open("a") as lines:
        lines.write(json.dumps(asdict(told)) + "\n")
