"""kill -9 at named points and at any moment: the next life goes on, and every promise holds all along.

One world after the other: flows that copy and move, to S3, inside it and to disk, with small objects,
large ones and frozen ones; people change the sources between lives. What repeats a finding is a
seed with the lives that were lived: `python -m tests.torture.kill --seed N --lives put.done:2,~57`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from s3flow import crashpoints
from s3flow.crashpoints import CRASH, HITS, KILLED, POINTS
from tests import mariadb, servers
from tests.e2e.program import HANG, Running
from tests.e2e.test_kill import settle
from tests.e2e.test_workers import workers_of
from tests.servers import Server
from tests.torture import promises
from tests.torture.kill_world import World, made
from tests.torture.programme import Broken, Task

LIVES = 8  # of a world, before it is left in peace
CREWS = 0.25  # of the worlds have worker processes
MANY = 20  # kills from which on most must have hit work in flight
TRIES = 4  # at a point that no life comes to, before the others have their turn
# What has begun and not ended is in flight.
SPANS = (
    ("start.locked", "start.opened"),
    ("transaction.begun", "commit.done"),
    ("scan.begun", "scan.finished"),
    ("object.begun", "object.ended"),
    ("batch.settling", "batch.saved"),
    ("delete.asking", "delete.recorded"),
    ("restore.noted", "restore.recorded"),
    ("stop.begun", "close.marked"),
)
FIRST = ("schema.stepped", "schema.written")  # passed where there is no state yet
STOPS = ("stop.begun", "stop.drained")
RESUMED = ("upload.resumed", "upload.aborted", "upload.reaped")  # of uploads that a life left open
CREW = ("worker.given", "worker.ended", "worker.remembered")
MYSQL = ("commit.sent",)


class Death(NamedTuple):
    """How a life is to end: as it passes *point* for the *nth* time, or once it has passed *nth* of any.

    "stop" asks it to stop then. With a point and *stop*: it is asked to after so many of any.
    """

    point: str
    nth: int
    stop: int = 0

    def __str__(self) -> str:
        """Give it as the command line has it."""
        return f"{self.point or '~'}:{self.nth}" + (f"@{self.stop}" if self.stop else "")

    @classmethod
    def read(cls, text: str) -> Death:
        """Read what `str` gives."""
        place, _, stop = text.partition("@")
        point, _, nth = place.partition(":")
        return cls("" if point == "~" else point, int(nth), int(stop or 0))


@dataclass(slots=True)
class Deaths:
    """Chooses how lives end: at points none has come to, then where least did; each third at any moment."""

    rng: random.Random
    mysql: bool
    tried: Counter[str] = field(default_factory=Counter)
    usual: Counter[str] = field(default_factory=Counter)  # passings in one life
    length: int = 150  # passings of any in one life
    lives: int = 0

    def expected(self) -> list[str]:
        """Give the points that a run of some length passes."""
        return [point for point in POINTS if self.mysql or point not in MYSQL]

    def choose(self, *, crew: bool, first: bool) -> list[Death]:
        """Give the next death, with that of the life before where it needs one."""
        rng = self.rng
        self.lives += 1
        if self.lives % 3 == 0:
            return [Death("", rng.randint(1, self.length))]
        points = [it for it in self.expected() if (first or it not in FIRST)]
        points = [it for it in points if crew or it not in CREW]
        unmet = [it for it in points if not self.usual[it] and self.tried[it] < TRIES]
        points = unmet or points
        least = min(self.tried[it] for it in points)
        point = rng.choice([it for it in points if self.tried[it] == least])
        self.tried[point] += 1
        nth = rng.choice((1, 2, rng.randint(1, max(2, self.usual[point]))))
        if point in STOPS:
            return [Death(point, 1, rng.randint(60, 140))]  # in the midst of any life
        if point in RESUMED:
            return [Death("part.brought", rng.choice((1, 2))), Death(point, 1)]
        return [Death(point, nth if self.usual[point] > 1 else 1)]

    def learn(self, trace: bytes) -> None:
        """Take the trace of a life."""
        for point, count in crashpoints.passings(trace).items():
            self.usual[point] = max(self.usual[point], count)
        self.length = max(self.length, len(trace))


@dataclass(slots=True)
class Torment:
    """Lives of worlds, and the counts of what they met."""

    server: Server
    schemas: mariadb.Schemas | None
    task: Task
    deaths: Deaths
    counts: Counter[str] = field(default_factory=Counter)
    passed: Counter[str] = field(default_factory=Counter)

    def world(self, seed: int, lives: Sequence[Death] | None = None) -> None:
        """Live through one world: *lives*, or as many as are chosen. Raises `Broken`."""
        crew = random.Random(seed).random() < CREWS and not self.task.bug
        folder = self.task.folder / f"world-{seed}"
        lived: list[Death] = []
        with made(self.server, self.schemas, folder, seed, crew=crew, bug=self.task.bug) as world:
            try:
                for death in self._deaths(world, lives, lived):
                    lived.append(death)
                    self._hold(self._live(world, death))
                self._hold(self._rest(world))
            except AssertionError as error:
                raise Broken(f"{error}\n  repeat: {self._repeat(seed, lived)}") from error
        self.counts["worlds"] += 1

    def _deaths(
        self, world: World, lives: Sequence[Death] | None, lived: list[Death]
    ) -> Iterator[Death]:
        if lives is not None:
            for number, death in enumerate(lives):
                if number:
                    self._between(world, lives[number - 1], death)
                yield death
            return
        while len(lived) < LIVES and not self.task.over:
            for death in self.deaths.choose(crew=world.crew, first=not lived):
                if lived:
                    self._between(world, lived[-1], death)
                yield death

    @staticmethod
    def _between(world: World, before: Death, after: Death) -> None:
        """Let people change things, but not the upload that is to be gone on with."""
        if after.point == "upload.resumed":
            return
        world.stir()
        if after.point == "upload.aborted":
            world.put_all_large()
        elif after.point == "upload.reaped":
            world.remove_all_large()
            world.program.run("scan")  # else whoever goes on with it finds that out, and aborts it

    # --- a life ------------------------------------------------------------------------------

    def _live(self, world: World, death: Death) -> list[str]:
        """Let s3flow live and die so; give the promises that are broken then."""
        trace, killed = self._lived(world, death)
        self.deaths.learn(trace)
        self.passed += crashpoints.passings(trace)
        self.counts["lives"] += 1
        if killed:
            self.counts["kills"] += 1
            self.counts["in_flight"] += in_flight(trace)
            self.counts[f"kills at {'any moment' if not death.point else 'points'}"] += 1
        settle(world.proxy)
        return world.kept()

    def _lived(self, world: World, death: Death) -> tuple[bytes, bool]:
        place = world.program.folder / f"trace{self.counts['lives']}"
        environ = {HITS: str(place)}
        if death.point:
            environ[CRASH] = f"{death.point}:{death.nth}"
        running = world.program.start("sync", **environ)
        if not death.point:
            _wait_for(running, place, death.nth)
            _kill(running, place, a_worker=world.crew and death.nth % 2 == 1)
        elif death.stop:
            _wait_for(running, place, death.stop)
            if running.process.poll() is None:
                running.stop()
        ended = running.wait(None)
        trace = place.read_bytes() if place.exists() else b""
        # Asked to stop before it can hear of it, it dies of that.
        asked = (75, -signal.SIGTERM) if death.stop else ()
        if ended.code not in (0, -signal.SIGKILL, *asked):
            raise Broken(f"a life ended with {ended.code}: {ended.out[-2000:]} {ended.err[-3000:]}")
        dead = world.crew or ended.code == -signal.SIGKILL
        return trace, KILLED in trace and dead

    def _rest(self, world: World) -> list[str]:
        """Let it finish; then all is in its place, and another run finds nothing to do."""
        world.stir()
        self._calm(world)  # goes on with what was listed
        self._calm(world)  # lists what people did meanwhile
        found = [*world.kept(), *world.at_rest()]
        if found:
            return found
        before = world.seen()
        begun = self._calm(world)["object.begun"]
        found = promises.nothing_changed(before, world.seen())
        if begun:
            found.append(f"I6: {begun} objects that were done were begun again")
        return found

    def _calm(self, world: World) -> Counter[str]:
        """Live a life to its end; give the passings."""
        self.counts["calm lives"] += 1
        place = world.program.folder / f"calm{self.counts['calm lives']}"
        world.program.run("sync", code=0, **{HITS: str(place)})
        passed = crashpoints.passings(place.read_bytes())
        self.passed += passed
        return passed

    def _hold(self, found: Sequence[str]) -> None:
        self.counts["checks"] += 1
        if found:
            raise Broken("\n  ".join([f"{len(found)} promises broken:", *found]))

    def _repeat(self, seed: int, lived: Sequence[Death]) -> str:
        bug = f" --bug {self.task.bug}" if self.task.bug else ""
        return (
            f"python -m tests.torture.kill --state {self.task.state} --seed {seed}{bug}"
            f" --lives {','.join(map(str, lived))}"
        )

    # --- all of them -------------------------------------------------------------------------

    def judge(self) -> Counter[str]:
        """Give the counts; raises `Broken` where too little happened for them to say anything."""
        counts = self.counts
        never = [point for point in self.deaths.expected() if not self.passed[point]]
        counts["points"] = len(self.deaths.expected()) - len(never)
        counts += Counter({f"passed {point}": self.passed[point] for point in POINTS})
        if counts["kills"] >= MANY and counts["in_flight"] * 2 < counts["kills"]:
            raise Broken(
                f"only {counts['in_flight']} of {counts['kills']} kills hit work in flight"
            )
        if counts["kills"] >= MANY * 5 and never:
            raise Broken(f"no life has passed {', '.join(never)}")
        return counts


def in_flight(trace: bytes) -> bool:
    """Say whether something had begun and not ended when the process was killed."""
    passed = crashpoints.passings(trace.partition(bytes((KILLED,)))[0])
    return any(passed[begun] > passed[ended] for begun, ended in SPANS)


def _wait_for(running: Running, trace: Path, passings: int) -> None:
    """Wait until so many points were passed, or the process has ended."""
    deadline = time.monotonic() + HANG
    while running.process.poll() is None:
        if trace.exists() and trace.stat().st_size >= passings:
            return
        if time.monotonic() > deadline:
            raise Broken(f"a life hangs: {running.err.read_text()[-3000:]}")
        time.sleep(0.002)


def _kill(running: Running, trace: Path, *, a_worker: bool) -> None:
    """Kill a process, or one of its worker processes: then it goes on with another one."""
    victims = workers_of(running.process.pid) if a_worker else []
    if running.process.poll() is not None:
        return
    if not victims:
        running.kill()
    for pid in victims[:1]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with trace.open("ab") as noted:
        noted.write(bytes((KILLED,)))


def torment(task: Task, server: Server, schemas: mariadb.Schemas | None) -> Torment:
    """Get ready for worlds on *server*; their state is on *schemas*, if there are any."""
    deaths = Deaths(random.Random(task.seed), schemas is not None)
    return Torment(server, schemas, task, deaths)


def run(task: Task) -> Counter[str]:
    """Do a task: a round is a world. Raises `Broken`."""
    with contextlib.ExitStack() as stack:
        found = torment(task, *_servers(stack, task.state))
        for seed in task.seeds():
            found.world(seed)
        return found.judge()


def _servers(stack: contextlib.ExitStack, state: str) -> tuple[Server, mariadb.Schemas | None]:
    server = stack.enter_context(servers.ministack())
    return server, stack.enter_context(mariadb.schemas()) if state == "mysql" else None


def main(words: Sequence[str]) -> None:
    """Repeat one world."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.kill", description=main.__doc__)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--state", choices=("sqlite", "mysql"), default="sqlite")
    parser.add_argument("--bug", default="")
    parser.add_argument("--lives", required=True, help="as a finding names them")
    given = parser.parse_args(words)
    lives = [Death.read(each) for each in given.lives.split(",")]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="s3flow-kill-")))
        task = Task(folder, given.seed, state=given.state, bug=given.bug)
        found = torment(task, *_servers(stack, given.state))
        found.world(given.seed, lives)
        print(dict(found.counts))


if __name__ == "__main__":
    main(sys.argv[1:])
