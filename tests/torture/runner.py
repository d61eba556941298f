"""Runs programmes in turn, each in a process of its own, and keeps account of what they tell."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests import servers
from tests.torture.programme import Told, note
from tests.torture.registry import ENTRIES, catchers
from tests.torture.single import TOLD, UNHURRIED

ROOT = Path(__file__).parents[2]
LEDGER = Path("build/torture.jsonl")
TURN = 1200.0  # seconds in which each programme has its share; a new turn has new seeds
SLICES = (20.0, 60.0, 120.0)  # seconds of each programme's tries to catch a bug, one after another
BROKE_DOWN = "the programme itself broke down"
LEVELS = ("points",)  # counts of what there is, which are not added up
MANY = 6  # counts whose names begin with one word, which are too many for a line
PASSED_ON = ("S3FLOW_TEST_", "S3FLOW_GOBIN")  # what tells of servers for tests
HUNG = "Timeout ("  # how faulthandler begins


class Round(NamedTuple):
    """One programme, once."""

    name: str
    state: str
    seed: int
    seconds: float
    rounds: int = 0  # 0: as many as there is time for
    bug: str = ""

    @property
    def repeat(self) -> str:
        """The command that does it again."""
        limit = f" --rounds {self.rounds}" if self.rounds else f" --seconds {self.seconds:.0f}"
        bug = f" --bug {self.bug}" if self.bug else ""
        return (
            f"python -m tests.torture --only {self.name} --state {self.state}"
            f" --seed {self.seed}{limit}{bug}"
        )


def plan(
    names: Sequence[str], states: Sequence[str], seed: int, seconds: float, bug: str = ""
) -> Iterator[Round]:
    """Share *seconds* out to rounds; the first of each programme has the seed itself."""
    ways = [(ENTRIES[name], state) for name in names for state in states]
    ways = [(entry, state) for entry, state in ways if state in entry.states] or ways
    weight = sum(entry.share for entry, _ in ways)
    turns = max(1, round(seconds / TURN))
    for turn in range(turns):
        if turn:  # what comes last gets less than its share when others take longer
            random.Random(f"{seed}:{turn}").shuffle(ways)
        for entry, state in ways:
            own = random.Random(f"{seed}:{turn}:{entry.name}:{state}").getrandbits(32)
            if turn and entry.once:
                continue
            pieces = 1 if entry.once else turns
            share = max(entry.least, seconds / pieces * entry.share / weight)
            yield Round(entry.name, state, own if turn else seed, share, bug=bug)


@dataclass(slots=True)
class Account:
    """What was told so far; prints a line for each round, and keeps it in the *ledger*."""

    ledger: Path | None
    run: str
    told: list[Told] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, told: Told, what: Round) -> None:
        """Tell people and the ledger of a round."""
        told.run = self.run
        with self._lock:
            self.told.append(told)
            if self.ledger is not None:
                note(self.ledger, told)
            print(line(told), flush=True)
            if told.finding:
                print(f"\n{told.finding}\n\nrepeat: {what.repeat}\n", flush=True)

    def findings(self, name: str, state: str) -> int:
        """Say how often a programme found something."""
        return sum(bool(one.finding) for one in self.told if (one.name, one.state) == (name, state))


def shown(counts: Mapping[str, int]) -> dict[str, int]:
    """Give *counts* for people: of "fault cut", "fault reset" … how many there are, which is enough."""
    words = Counter(name.partition(" ")[0] for name in counts if " " in name)
    found: dict[str, int] = {}
    for name, number in counts.items():
        word = name.partition(" ")[0]
        if " " in name and words[word] >= MANY:
            found[f"kinds of {word}"] = found.get(f"kinds of {word}", 0) + bool(number)
        else:
            found[name] = number
    return found


def told_of(counts: Mapping[str, int]) -> str:
    """Say in words what was counted."""
    return ", ".join(f"{name} {number:,}" for name, number in shown(counts).items())


def line(told: Told) -> str:
    """Say in a line how a round went."""
    found = "FOUND SOMETHING" if told.finding else told_of(told.counts) or "nothing counted"
    head = f"{told.name:8} {told.state:7} seed {told.seed:<11} {told.seconds:7.1f} s  "
    return head + found


@dataclass(slots=True)
class Running:
    """The processes of rounds under way, so that an interruption can end them."""

    over: threading.Event = field(default_factory=threading.Event)
    processes: set[subprocess.Popen[bytes]] = field(default_factory=set)

    def do(self, what: Round) -> Told:
        """Do a round to its end; one that was interrupted tells of nothing."""
        with tempfile.TemporaryDirectory(
            prefix="s3flow-torture-", ignore_cleanup_errors=True
        ) as name:
            folder = Path(name)
            folder.chmod(0o1777)  # as /tmp, which it stands for: MariaDB will not run as root
            began = time.monotonic()
            process = servers.spawn(_command(what, folder), folder, _environment())
            self.processes.add(process)
            try:
                while process.poll() is None and not self.over.wait(0.1):
                    pass
            finally:
                status = process.poll()
                servers.end(process)  # and what it may have left behind
                self.processes.discard(process)
            seconds = round(time.monotonic() - began, 1)
            if (folder / TOLD).exists():
                return Told(**json.loads((folder / TOLD).read_text()))
            told = Told(what.name, what.state, what.seed, seconds, {}, bug=what.bug)
            if not self.over.is_set():
                said = servers.tail(folder / "log", 6000)
                hung = f"it hung, {UNHURRIED:.0f} s after its time" if HUNG in said else BROKE_DOWN
                told.finding = f"{hung}: it ended with {status}\n{said}"
            return told


def _command(what: Round, folder: Path) -> list[str]:
    numbers = (what.seed, what.seconds, what.rounds)
    words = (what.name, str(folder), *map(str, numbers), what.state, what.bug)
    return [sys.executable, "-m", "tests.torture.single", *words]


def _environment() -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if name.startswith(PASSED_ON)}
    # The home is where servers that were installed for tests lie.
    return {**kept, "PYTHONPATH": str(ROOT), "HOME": str(Path.home())}


def torture(rounds: Iterator[Round], account: Account, *, jobs: int, deadline: float) -> None:
    """Do *rounds*, *jobs* at a time, until the deadline; a programme that found something is done."""
    running, lock = Running(), threading.Lock()

    def work() -> None:
        while not running.over.is_set():
            with lock:
                what = next(rounds, None)
            left = deadline - time.monotonic()
            if what is None or left < min(ENTRIES[what.name].least, what.seconds) / 2:
                return
            if account.findings(what.name, what.state):
                continue
            what = what._replace(seconds=min(what.seconds, left))
            told = running.do(what)
            if not running.over.is_set():
                account.take(told, what)

    threads = [threading.Thread(target=work, name=f"torture-{n}") for n in range(jobs)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)  # not for ever: an interruption must be heard
    finally:
        running.over.set()
        for thread in threads:
            thread.join()


class Catch(NamedTuple):
    """How the hunt for a planted bug ended."""

    bug: str
    by: str  # "" nobody
    seconds: float
    seed: int = 0


def hunt(bug: str, seed: int, state: str, account: Account) -> Catch:
    """Plant *bug* and let those that should find it have a try in turn, until one does."""
    names, spent = catchers(bug), 0.0
    running = Running()
    for number, seconds in enumerate(SLICES):
        for name in names:
            allowed = state if state in ENTRIES[name].states else ENTRIES[name].states[0]
            enough = max(seconds, ENTRIES[name].least)
            what = Round(name, allowed, seed + number, enough, bug=bug)
            told = running.do(what)
            spent += told.seconds
            if _is_a_catch(told) and running.do(what._replace(bug="")).finding:
                told.finding = f"{BROKE_DOWN}: without the bug it says so, too: {told.finding}"
            account.take(told, what)
            if _is_a_catch(told):
                return Catch(bug, name, spent, what.seed)
    return Catch(bug, "", spent)


def _is_a_catch(told: Told) -> bool:
    return bool(told.finding) and not told.finding.startswith(BROKE_DOWN)


def totals(told: Sequence[Told]) -> dict[tuple[str, str], Counter[str]]:
    """Add up the counts of each programme and state, with its seeds, seconds and findings."""
    summed: dict[tuple[str, str], Counter[str]] = {}
    for one in told:
        own = summed.setdefault((one.name, one.state), Counter())
        known = {what: max(own[what], one.counts.get(what, 0)) for what in LEVELS if what in own}
        own.update(one.counts)
        own.update({what: n - own[what] for what, n in known.items()})
        own.update({"findings": int(bool(one.finding)), "seconds": round(one.seconds)})
        if "seeds" not in one.counts:
            own["seeds"] += 1
    return summed
