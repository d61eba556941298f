"""A daemon for hours under changes, faults and restarts: what it takes must stay flat.

`python -m tests.torture.soak --hours 8` draws all that was measured into one picture, and ends with 1
when something grows. First come many short lives, ended by SIGTERM and SIGKILL, then a long one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests import mariadb, servers
from tests.e2e import content
from tests.e2e.conftest import MIB, Stage, staged
from tests.e2e.program import Program, Running, adds_up
from tests.e2e.proxy import Proxy
from tests.e2e.relaying import Request
from tests.e2e.test_daemon import address
from tests.torture.people import People
from tests.torture.plot import plot
from tests.torture.programme import Broken, Task, carry_out, note
from tests.torture.promises import Seen, kept_at_rest
from tests.torture.registry import STATES
from tests.torture.runner import LEDGER, ROOT, line
from tests.torture.sampling import Meter, Samples, size_of

YOUTH = 0.3  # of the time is for short lives
SHORT_LIFE = 0.04  # of the time, on average
REFUSED, DELAYED = 0.02, 0.03  # of all requests
DELAY = 0.4  # seconds
SAMPLES = 1500  # no more are taken
OFTEN = 0.4  # seconds between two of them at least
PICTURE = Path("build/soak.svg")


@dataclass(slots=True)
class Faults:
    """What the proxy does to requests, by a seed; nothing any more once it is *over*."""

    draw: random.Random
    over: bool = False
    counts: Counter[str] = field(default_factory=Counter)

    def refuse(self, _: Request) -> bool:
        """Say whether a request is answered with SlowDown."""
        refused = not self.over and self.draw.random() < REFUSED
        self.counts["faults"] += refused
        return refused

    def delay(self, _: Request) -> float:
        """Say how long a request waits."""
        delayed = not self.over and self.draw.random() < DELAYED
        self.counts["faults"] += delayed
        return DELAY if delayed else 0.0


@dataclass(slots=True)
class Soak:
    """One soak: what is under way, and what was measured and counted."""

    task: Task
    stage: Stage
    program: Program
    proxy: Proxy
    faults: Faults
    people: People
    database: Sequence[Path]
    draw: random.Random
    samples: Samples = field(default_factory=Samples)
    counts: Counter[str] = field(default_factory=Counter)

    def run(self, seconds: float) -> None:
        """Let it soak, then let everything come to rest and look at what is where."""
        end = time.monotonic() + seconds
        youth = time.monotonic() + YOUTH * seconds
        with self.people:
            while time.monotonic() < youth:
                self._live(self.draw.uniform(0.3, 1.7) * SHORT_LIFE * seconds, seconds)
            self._live(end - time.monotonic(), seconds, last=True)
        self.faults.over = True
        self.counts["operations"] = self.people.changes
        self.counts["faults"] = self.faults.counts["faults"]
        self._rest()

    def _live(self, life: float, whole: float, *, last: bool = False) -> None:
        running = self.program.start("run")
        self.samples.lives.append(self.samples.now)
        url = address(running)
        meter = Meter(running.process.pid, url)
        end = time.monotonic() + life
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, max(OFTEN, whole / SAMPLES)))
            self._sample(meter, url, running)
        if last or len(self.samples.lives) % 2 == 0:
            running.stop()
            running.wait(0)
            self.counts["stops"] += 1
        else:
            running.kill()
            self.counts["kills"] += 1

    def _sample(self, meter: Meter, url: str, running: Running) -> None:
        try:
            values = meter.read()
            with urllib.request.urlopen(f"{url}/api/status", timeout=60) as answer:
                flows = json.loads(answer.read())["flows"]
        except OSError as error:
            ended = running.process.poll()
            raise Broken(
                f"the daemon ended with {ended} by itself, or does not answer: {error!r}\n"
                f"{running.err.read_text(errors='replace')[-3000:]}"
            ) from error
        wrong = [flow["name"] for flow in flows if not adds_up(flow)]
        if wrong:
            raise Broken(f"promise 3: the counts of {wrong} do not add up: {flows}")
        values["open uploads"] = float(len(self._uploads()))
        values["database, MiB"] = size_of(*self.database)
        values["log of changes, MiB"] = size_of(self.program.folder / "state.db-wal")
        self.samples.note(values)
        self.counts["samples"] += 1
        self._forget_requests()

    def _uploads(self) -> list[str]:
        return content.uploads_left(self.stage.theirs, self.stage.target)

    def _forget_requests(self) -> None:
        self.counts["requests"] += len(self.proxy.requests)
        self.proxy.clear()

    def _rest(self) -> None:
        """Let it finish what is left, and hold it to its promises."""
        self.program.run("retry")
        self.program.run("sync")
        self.program.run("sync")
        self._forget_requests()
        before = self._seen()
        for flow in self.program.status().values():
            self.counts["objects"] += flow["objects"]["listed"]
            if flow["objects"]["pending"] or flow["objects"]["failed"] or not adds_up(flow):
                raise Broken(f"promise 3: it is not done: {flow}")
        found = [each for seen, moved in before for each in kept_at_rest(seen, moved=moved)]
        if found:
            raise Broken("\n".join(found))

    def _seen(self) -> list[tuple[Seen, bool]]:
        stage, people = self.stage, self.people
        strays = [
            path.name for path in stage.nas.rglob(".s3flow-*") if path.name != content.ROOT_MARK
        ]
        copied = content.digests_of_bucket(stage.theirs, stage.target)
        moved = {key: copied.pop(key) for key in list(copied) if key.startswith("moves/")}
        filed = content.digests_of_folder(stage.nas)
        ours = content.digests_of_bucket(stage.ours, stage.source)
        left = {key: ours.pop(key) for key in list(ours) if key.startswith("moves/")}
        copies = people.of("copies/")
        return [
            (Seen(_by_bytes(ours), _by_bytes(copied), *copies, uploads=self._uploads()), False),
            (Seen(_by_bytes(ours), _by_bytes(filed), *copies, strays=strays), False),
            (Seen(_by_bytes(left), _by_bytes(moved), *people.of("moves/")), True),
        ]


def _by_bytes(digests: dict[str, str]) -> dict[bytes, str]:
    return {key.encode(): digest for key, digest in digests.items()}


@contextlib.contextmanager
def _state(kind: str, folder: Path) -> Iterator[tuple[str, list[Path]]]:
    """Give the setting of the state, and the files that it lies in."""
    if kind == "sqlite":
        yield "sqlite:///state.db", [folder / "state.db"]
        return
    with mariadb.running() as server:
        made = mariadb.Schemas(server.address("mysql")).make()
        place = server.folder / "data" / made.database
        yield f"mysql://root@{made.host}:{made.port}/{made.database}", [place]


@contextlib.contextmanager
def prepared(task: Task) -> Iterator[Soak]:
    """Start the servers, write the configuration, and fill the source a little."""
    draw = random.Random(task.seed)
    with (
        servers.ministack() as server,
        _state(task.state, task.folder) as (state, database),
        staged(server, task.folder) as stage,
    ):
        faults = Faults(random.Random(draw.random()))
        proxy = stage.proxy(refuse=faults.refuse, delay=faults.delay)
        usual = {"every": "1s", "multipart_threshold": 5 * MIB, "part_size": 5 * MIB}
        ours, theirs = f"ours:{stage.source}/", f"theirs:{stage.target}/"
        ends = {
            "s3": {"source": f"{ours}copies/", "target": f"{theirs}copies/"},
            "disk": {"source": f"{ours}copies/", "target": "nas:copies/"},
            "moves": {"source": f"{ours}moves/", "target": f"{theirs}moves/", "mode": "move"},
        }
        program = stage.program(
            *({"name": name, **usual, **end} for name, end in ends.items()),
            # What keeps a line of each thing for good grows, as it should.
            audit=False,
            reports="",
            listen="127.0.0.1:0",
            state=state,
        )
        program.bug = task.bug
        people = People(stage.server, stage.source, random.Random(draw.random()))
        yield Soak(task, stage, program, proxy, faults, people, database, draw)


def soak(task: Task, picture: Path) -> Counter[str]:
    """Soak for the task's time and draw *picture*, also of one that broke; gives what was counted."""
    with prepared(task) as it:
        try:
            it.run(task.seconds)
        finally:
            judgements = it.samples.judged()
            title = f"s3flow, {task.state}, seed {task.seed}: what a daemon takes"
            drawn = plot(title, it.samples.series, it.samples.lives, judgements)
            picture.parent.mkdir(parents=True, exist_ok=True)
            picture.write_text(drawn)
        if leaks := [str(one) for one in judgements if not one.flat]:
            raise Broken("promise 5: " + "\n".join(leaks))
        idle = [
            what
            for what in ("kills", "stops", "faults", "operations", "objects")
            if not it.counts[what]
        ]
        if idle:
            raise Broken(f"nothing was shown: there were no {', '.join(idle)}")
        for one in judgements:
            print(one)
        return it.counts


def run(task: Task) -> Counter[str]:
    """Soak once; a picture of one that broke is kept beside `PICTURE`."""
    picture = task.folder / PICTURE.name
    try:
        return soak(task, picture)
    except Broken:
        kept = ROOT / PICTURE.with_name(f"soak-{task.state}-{task.seed}.svg")
        kept.parent.mkdir(exist_ok=True)
        shutil.copyfile(picture, kept)
        raise


def main(arguments: Sequence[str]) -> int:
    """Soak for hours; the exit status says whether all was flat."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--state", choices=STATES, default=STATES[0])
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--picture", type=Path, default=PICTURE)
    parser.add_argument("--ledger", type=Path, default=LEDGER)
    chosen = parser.parse_args(arguments)
    print(f"seed {chosen.seed}", flush=True)
    began = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with tempfile.TemporaryDirectory(prefix="s3flow-soak-") as folder:
        task = Task(Path(folder), chosen.seed, 3600 * chosen.hours, state=chosen.state)
        told = carry_out("soak", lambda it: soak(it, chosen.picture), task)
    told.run = began
    note(chosen.ledger, told)
    print(line(told), told.finding, f"see {chosen.picture}", sep="\n")
    return int(bool(told.finding))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
