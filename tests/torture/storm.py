"""The storm: whole flows between real ends, while a proxy spoils one request in twenty.

Copies and moves, streamed and inside the store, to S3 and to disk, in one daemon, while people write at
the source. After each life the promises are looked at; when the storm is over everything must arrive.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests import mariadb
from tests.e2e.program import Done, Program, document
from tests.e2e.test_kill import settle
from tests.integration.servers_real import SERVERS
from tests.servers import Server, from_environment, ministack
from tests.torture import promises
from tests.torture.ends import ERRANDS, MIB, THRESHOLD, Ends, Errand, ends
from tests.torture.faultkinds import KINDS
from tests.torture.faultproxy import FaultProxy
from tests.torture.programme import Broken, Task
from tests.torture.promises import Claim, Seen

# The last compares before it deletes: there people change what is being moved.
STORES = (SERVERS["versitygw"], SERVERS["minio"], ministack)
FOUND = Path(__file__).parents[2] / "build"
RATE = 0.05  # of all requests
OBJECTS = 250  # of each errand, in a round
LIVES = 2  # of the daemon in the storm, each with people at work
CALM = 5  # and after it, until all is done
BEFORE, AFTER = 1_500, 6_000  # characters of a log that are shown around a traceback
DEBUG = {"S3FLOW__DAEMON__LOG_LEVEL": "debug"}
WRITING = (
    "put",
    "put_copy",
    "upload_part",
    "upload_part_copy",
    "complete",
    "create_upload",
    "delete",
)
CLAIMS = (
    "SELECT o.object_key, s.name, o.etag, COALESCE(o.reason, '') FROM objects o"
    " JOIN states s ON s.code = o.state JOIN flows f ON f.id = o.flow_id WHERE f.name = '{}'"
)


def around_traceback(log: str) -> str:
    """Give the first traceback in *log*: its whole entry, which is a line of JSON, and what led to it."""
    at = log.index("Traceback")
    line = log.rfind("\n", 0, at) + 1
    return log[max(0, line - BEFORE) : at + AFTER]


@dataclass(slots=True)
class Round:
    """One storm over two fresh ends."""

    task: Task
    seed: int
    ends: Ends
    proxy: FaultProxy
    program: Program
    secrets: Sequence[str]
    query: Callable[[str], Sequence[Sequence[object]]]  # asks the state, past all code of s3flow
    told: dict[str, str] = field(default_factory=dict)  # what was printed
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def repeat(self) -> str:
        """The command that does this round again."""
        bug = f" --bug {self.task.bug}" if self.task.bug else ""
        seed = f"--seed {self.seed} --rounds 1 --state {self.task.state}{bug}"
        return f"python -m tests.torture --only storm {seed} (on {self.ends.server.store})"

    def run(self, objects: int) -> None:
        """Fill, go through the storm, see what holds; then calm down, and see that all is there."""
        rng = random.Random(self.seed)
        self.ends.fill(objects)
        moves = self.ends.keeps_conditions()
        self.cut_short(rng.randint(objects, 3 * objects))
        self.look(promises.kept)
        for life in range(LIVES):
            with self.ends.people(rng, self.proxy.requests, moves=moves) as done:
                self.sync(f"life {life}", **DEBUG)
            self.counts["changes at the source"] += len(done)
            self.look(promises.kept)
        self.proxy.calm()
        self.settle()
        self.look(lambda seen: [*promises.kept(seen), *promises.all_arrived(seen)])
        self.replay()
        self.no_secrets()
        self.counts["operations"] += sum(
            number for kind, number in self.proxy.done.items() if kind not in {"bucket", "about"}
        )

    # --- s3flow ------------------------------------------------------------------------------------

    def s3flow(self, name: str, *words: str, **environ: str) -> Done:
        """Run a command of s3flow, and keep what it printed."""
        done = self.program.run(*words, code=None, **environ)
        self.told[f"{name}: stdout"], self.told[f"{name}: stderr"] = done.out, done.err
        (self.program.folder / f"{name}.log").write_text(done.out + done.err)
        if "Traceback" in done.err or done.code not in {0, 1}:
            said = done.err[-3000:]
            if "Traceback" in done.err:
                said = around_traceback(done.err)
            raise Broken(f"{words} ended with {done.code}: {said}\n{self.repeat}")
        return done

    def sync(self, name: str, **environ: str) -> Done:
        """Let the daemon go over everything once."""
        self.counts["lives"] += 1
        return self.s3flow(name, "sync", **environ)

    def cut_short(self, requests: int) -> None:
        """Kill the daemon once it has sent so many *requests*: the state must not lead what is there."""
        running = self.program.start("sync")
        running.until(lambda: len(self.proxy.requests) > requests)
        self.counts["killed in flight"] += bool(self.proxy.in_flight())
        running.kill()
        self.counts["kills"] += 1
        self.counts["lives"] += 1
        self.told["killed: stderr"] = running.err.read_text(errors="replace")
        settle(self.proxy)

    def settle(self) -> None:
        """Do without faults what is left to do: what failed or stays is tried again, holds released."""
        for life in range(CALM):
            flows = json.loads(self.s3flow(f"status {life}", "status", "--json").out)["flows"]
            for flow in flows:
                if flow.get("deletes", {}).get("held"):
                    self.counts["deletes held"] += 1
                    self.s3flow(f"release {flow['name']} {life}", "release", flow["name"])
                self.counts["objects failed"] += flow["objects"]["failed"]
            if any(flow["objects"]["failed"] or flow["deletes"]["kept"] for flow in flows):
                self.s3flow(f"retry {life}", "retry")
            if self.sync(f"calm {life}").code == 0:
                return
        raise Broken(f"it does not end: {self.told[f'calm {CALM - 1}: stdout']}\n{self.repeat}")

    # --- promises ----------------------------------------------------------------------------------

    def seen(self, errand: Errand) -> Seen:
        """Look at the ends of an errand, and at what the state says of it."""
        seen = self.ends.seen(errand)
        seen.claims = list(self.claims(errand.name))
        return seen

    def claims(self, flow: str) -> Iterator[Claim]:
        """Read what the state says."""
        for key, state, etag, reason in self.query(CLAIMS.format(flow)):
            assert isinstance(key, bytes)
            yield Claim(key, str(state), str(etag), str(reason))

    def look(self, check: Callable[[Seen], list[str]]) -> None:
        """See what holds of each errand."""
        for errand in ERRANDS:
            promises.hold_to(check(self.seen(errand)), f"{errand.name}: {self.repeat}")
        found = [f"I2: it was not said which version is meant: {it}" for it in self.proxy.unpinned]
        found += [
            f"I2: the next answer was there before it was asked: {it}" for it in self.proxy.reused
        ]
        promises.hold_to(found[: promises.TOLD], self.repeat)

    def replay(self) -> None:
        """Go over everything once more: nothing is left to do, so nothing is done."""
        before = {errand: self.seen(errand) for errand in ERRANDS}
        for errand, seen in before.items():
            found = promises.kept_at_rest(seen, moved=errand.mode == "move")
            promises.hold_to(found, f"{errand.name}: {self.repeat}")
        earlier = Counter(self.proxy.done)
        self.sync("replay")
        did = {kind: self.proxy.done[kind] - earlier[kind] for kind in WRITING}
        if any(did.values()):
            raise Broken(f"I6: when nothing was left to do, it did {did}\n{self.repeat}")
        for errand, seen in before.items():
            promises.hold_to(promises.nothing_changed(seen, self.seen(errand)), self.repeat)

    def no_secrets(self) -> None:
        """See that nothing that was printed or written shows a secret."""
        self.s3flow("status", "status", "--json")
        self.s3flow("report", "report")
        for file in self.program.folder.rglob("*"):
            if file.is_file() and self.ends.nas not in file.parents and file.suffix != ".toml":
                self.told[file.name] = file.read_bytes().decode("latin-1")
        promises.hold_to(promises.no_secret_told(self.secrets, self.told), self.repeat)


def configured(task: Task, folder: Path, server: Server, url: str, at: Ends, state: str) -> Program:
    """Configure the errands, with timeouts and parts that suit small objects."""
    endpoint: dict[str, object] = {
        "type": "s3",
        "url": url,
        "region": server.region,
        "addressing": "path",
        "access_key_id": "${STORM_KEY}",
        "secret_access_key": "${STORM_SECRET}",
        "progress_timeout": "1s",
        "answer_timeout": "5s",
    }
    flows = [
        {
            "name": errand.name,
            "source": f"ours:{at.source}/{errand.name}/",
            "target": f"nas:{errand.name}/"
            if errand.to_disk
            else f"theirs:{at.target}/{errand.name}/",
            "mode": errand.mode,
            "method": errand.method,
            "multipart_threshold": THRESHOLD,
            "part_size": MIB if errand.to_disk else 5 * MIB,
            **({"unguarded_delete": True} if errand.mode == "move" else {}),
        }
        for errand in ERRANDS
    ]
    nas = {"type": "local", "path": str(at.nas)}
    text = document(
        {"state": state, "listen": "off", "workers": 1 + at.seed // 2 % 2},
        {"ours": endpoint, "theirs": endpoint, "nas": nas},
        flows,
    )
    keys = {"STORM_KEY": server.access_key, "STORM_SECRET": server.secret_key}
    program = Program.written(folder, text, keys)
    program.bug = task.bug
    return program


@contextlib.contextmanager
def state_of(
    task: Task, folder: Path
) -> Iterator[tuple[str, Callable[[str], Sequence[Sequence[object]]]]]:
    """Give the setting of an empty state, and what asks it."""
    if task.state == "mysql":
        with mariadb.schemas() as schemas:
            made = schemas.make()
            name = f"{made.user}:{made.password}" if made.password else made.user
            yield (
                f"mysql://{name}@{made.host}:{made.port}/{made.database}",
                lambda statement: schemas.query(statement, made.database),
            )
            schemas.drop()
        return

    def query(statement: str) -> Sequence[Sequence[object]]:
        place = f"file:{folder / 'state.db'}?mode=ro"
        with contextlib.closing(sqlite3.connect(place, uri=True)) as db:
            return db.execute(statement).fetchall()

    yield "sqlite:///state.db", query


def storm(
    task: Task, server: Server, seed: int, objects: int = OBJECTS, rate: float = RATE
) -> Counter[str]:
    """Do one round; gives what was counted."""
    folder = task.folder / str(seed)
    folder.mkdir(parents=True)
    with (
        ends(server, folder, seed) as at,
        FaultProxy(server.url, KINDS, seed=seed, rate=rate) as proxy,
        state_of(task, folder) as (state, query),
    ):
        program = configured(task, folder, server, proxy.url, at, state)
        secrets = [server.secret_key]
        one = Round(task, seed, at, proxy, program, secrets, query)
        try:
            one.run(objects)
        except Broken:
            if not task.bug:  # for whoever wants to know how it came to what is found
                (folder / "faults.log").write_text("".join(f"{line}\n" for line in proxy.journal))
                shutil.copytree(folder, FOUND / f"storm-{seed}", dirs_exist_ok=True)
            raise
        one.counts.update({f"fault {name}": number for name, number in proxy.faults.items()})
        one.counts["faults"] += proxy.faults.total()
        one.counts["rounds"] += 1
    return one.counts


def run(task: Task) -> Counter[str]:
    """Do storms until the task is over, on one real server after the other."""
    counts: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        named = from_environment()
        stores = [named] if named else [stack.enter_context(store()) for store in STORES]
        for seed in task.seeds():
            counts += storm(task, stores[seed % len(stores)], seed)
    if missing := [name for name in KINDS if not counts[f"fault {name}"]]:
        raise Broken(f"nothing was seen of these faults: {missing}; give it more time")
    return counts
