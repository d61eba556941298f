"""The N-th call fails, in each way, at each port, in each scene; and each await is cancelled.

One trial again: `python -m tests.torture.nth SCENE PORT FAULT AT`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tests.torture import bugs
from tests.torture.awaits import Spot, all_awaits
from tests.torture.nth_faults import BODIES, CALLS, Fault, How, Trial
from tests.torture.nth_trials import hurried, observe, one_await, one_call, place
from tests.torture.playbill import ENDLESS, EVERY
from tests.torture.programme import Broken, Task

MEETINGS = 9  # steps of the loop within which a failure can meet a cancellation on its way down
OFTEN = 3  # times that one await is interrupted in one way and scene, spread over all


@dataclass
class Ledger:
    """What was done, and where cancellations arrived."""

    folder: Path
    counts: Counter[str] = field(default_factory=Counter)
    cancelled: set[Spot] = field(default_factory=set)
    after: dict[Spot, Trial] = field(default_factory=dict)  # what is waited at after which
    calls: dict[tuple[str, str], int] = field(default_factory=dict)

    def do(self, trial: Trial) -> bool:
        """Do a trial; False when what it is about never came."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            folder = Path(name) / "stage"
            if trial.port == "await":
                how = asyncio.run(one_await(trial, folder, self.cancelled, self.after))
                self.counts.update({"awaits": bool(how), "cancelled": how == "cancelled"})
                self.counts["trials"] += 1
                return bool(how)
            calls, struck = asyncio.run(one_call(trial, folder))
            key = trial.scene, trial.port
            self.calls[key] = max(calls, self.calls.get(key, 0))
            self.counts.update({"trials": 1, "faults": bool(struck)})
            return bool(struck)

    def look(self, scene: str, trouble: str = "") -> tuple[Counter[Spot], set[str]]:
        """Say where a scene waits, how often, and for what of its ports."""
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            return asyncio.run(observe(EVERY[scene], Path(name) / "stage", trouble))

    def count_calls(self, scene: str, port: str) -> int:
        """Say how many calls a port has in a scene that nobody disturbs."""
        if (scene, port) not in self.calls:
            self.do(Trial(scene, port, Fault.FAILS, str(10**9)))
        return self.calls[scene, port]

    def missing(self) -> list[str]:
        """Name the awaits to which no cancellation ever came."""
        places = all_awaits()
        return sorted(
            f"{each.name} (line {spot.line})"
            for spot, each in places.items()
            if spot not in self.cancelled
        )


def calls_that_fail(ledger: Ledger, scene: str, draw: random.Random) -> Iterator[Trial]:
    """Give a trial for each call of each port, in each way."""
    for port in EVERY[scene].ports:
        calls = ledger.count_calls(scene, port)
        for fault in CALLS:
            if fault in BODIES and port != "source":
                continue
            for n in range(1, calls + 1):
                if fault is Fault.MEETS:
                    yield Trial(scene, port, fault, f"{n}+{draw.randrange(MEETINGS)}")
                else:
                    yield Trial(scene, port, fault, str(n))


def awaits_that_end(ledger: Ledger, scene: str, draw: random.Random) -> Iterator[Trial]:
    """Give trials for each await of a scene, in each way: at some of the times that it is reached."""
    for spot, times in sorted(ledger.look(scene)[0].items()):
        for how in How:
            for number in draw.sample(range(1, times + 1), min(OFTEN, times)):
                yield Trial(scene, "await", how, place(spot, number))


def by_chance(ledger: Ledger, draw: random.Random) -> Iterator[Trial]:
    """Give all trials of all scenes in an order of chance.

    Calls that fail and awaits that end take turns, so that a short run has some of both. With each
    trial one scene more comes in: to count what there is in all of them takes half a minute.
    """
    scenes, calls, ends = draw.sample(list(EVERY), len(EVERY)), list[Trial](), list[Trial]()
    pile, other = calls, ends
    while scenes or calls or ends:
        if scenes:
            scene = scenes.pop()
            if scene not in ENDLESS:
                calls += calls_that_fail(ledger, scene, draw)
            ends += awaits_that_end(ledger, scene, draw)
        pile, other = other, pile
        if pile:
            chosen = draw.randrange(len(pile))
            pile[chosen], pile[-1] = pile[-1], pile[chosen]
            yield pile.pop()


def cancel_everywhere(ledger: Ledger, scene: str, trouble: str = "") -> set[str]:
    """Cancel the daemon, a task, or all of them at each await that no cancellation has come to yet.

    So it is done with what is waited at by who ends. Gives what the ports were asked for.
    """
    spots, methods = ledger.look(scene, trouble)
    for how in (How.CANCEL, How.TASK, How.ALL):
        for spot in sorted(spots):
            if spot not in ledger.cancelled:
                ledger.do(Trial(scene, "await", how, place(spot, 1), trouble))
    for spot, trial in sorted(ledger.after.items()):
        if spot not in ledger.cancelled:
            ledger.do(trial._replace(at=f"{trial.at}>{place(spot, 1)}"))
    ledger.after.clear()
    return methods


@contextmanager
def prepared(bug: str) -> Iterator[None]:
    """Plant a bug, if any, and let no log be written: trials provoke thousands of lines."""
    quiet = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        bugs.plant(bug)  # for the rest of this process
        with hurried():
            yield
    finally:
        logging.disable(quiet)


def run(task: Task) -> Counter[str]:
    """Try everything, in an order of chance, until the time is up; what was cut short comes next time."""
    draw, ledger = random.Random(task.seed), Ledger(task.folder)
    with prepared(task.bug):
        for trial in islice(by_chance(ledger, draw), task.rounds):
            if task.over:
                break
            ledger.do(trial)
    if not (ledger.counts["faults"] and ledger.counts["awaits"]):
        raise Broken(f"nothing went wrong in {ledger.counts['trials']} trials: that is no trial")
    return +ledger.counts


if __name__ == "__main__":
    scene, port, fault, at, *more = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder, prepared(""):
        print(
            "done"
            if Ledger(Path(folder)).do(Trial(scene, port, fault, at, *more))
            else "never came"
        )
