"""Adversarial names and metadata through every route, every state and every output.

Each object is copied exactly, or refused by a written rule with its reason; and whatever people or
programs read of it acts on no terminal, forges no line and is no formula.
"""

from __future__ import annotations

import contextlib
import csv
import json
import random
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from botocore.client import BaseClient

from tests import mariadb
from tests.demo import compare
from tests.demo.objects import MIB
from tests.e2e.conftest import Stage, s3_endpoint
from tests.e2e.program import Program, adds_up
from tests.e2e.test_daemon import address, ask
from tests.e2e.test_terminal import on_a_terminal
from tests.servers import Server, make_bucket, ministack
from tests.torture import names_corpus as corpus
from tests.torture.programme import Broken, Task

OBJECTS = 60
FRESH = 10  # rounds after which there is a new server: it keeps everything in memory
LARGE = 2  # of them go in parts
PARTS = {"part_size": 5 * MIB, "multipart_threshold": 5 * MIB}
STYLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")  # what the display itself sends
ACTING = ("\x1b[31m", "\x1b[2J", "\x1b]", "\x1bP", "\x9b", "\x07", "\x08", "\u202e", "\u2066")
HARMLESS = frozenset("\n\t")
UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
FORMULA = tuple("=+-@\t\r\n")
IN_THE_WAY = "path_conflict"


@dataclass(slots=True)
class Round:
    """One set of objects, by a seed, on all routes."""

    stage: Stage
    seed: int
    kind: str
    bug: str
    state: str
    counts: Counter[str]
    draw: random.Random = field(init=False)
    keys: list[str] = field(init=False)
    moving: str = field(init=False)
    ends: dict[str, tuple[BaseClient, str]] = field(init=False)
    found: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        stage = self.stage
        self.draw = random.Random(self.seed)
        self.keys = list(corpus.keys(self.draw, OBJECTS))
        self.moving = make_bucket(stage.server, 0)
        self.ends = {
            "streamed": (stage.theirs, stage.target),
            "copied": (stage.ours, make_bucket(stage.server, 0)),
            "moved": (stage.theirs, make_bucket(stage.server, 1)),
        }

    def go(self) -> None:
        """Put, move, and look."""
        self.fill()
        program = self.configured()
        program.bug = self.bug
        refused = {key for key in self.keys if corpus.refused_on_disk(key)}
        blocked = corpus.in_the_way(set(self.keys) - refused)
        log = program.folder / "sync.err"
        sent = on_a_terminal(program, "sync", code=int(bool(refused or blocked)), stderr=log)
        status = program.status()
        for name, (client, bucket) in self.ends.items():
            if name != "moved":
                done = compare.with_bucket(self.stage.ours, self.stage.source, client, bucket)
                self.found += [f"{name}: {what}" for what in done.differences]
        self.check_moved(status["moved"])
        self.check_disk(program, refused, blocked)
        for name, flow in status.items():
            if not adds_up(flow):
                self.found.append(
                    f"{name}: its outcomes are not what was listed: {flow['objects']}"
                )
            if name != "disk" and flow["objects"]["failed"]:
                self.found.append(f"{name}: {flow['reasons']} where every name can be kept")
        self.check_outputs(program, sent, log.read_text())
        self.counts["objects"] += len(self.keys) * 4
        self.counts["refused"] += len(refused)
        if self.found:
            told = "\n  ".join(self.found[:20])
            repeat = f"--only names --rounds 1 --seed {self.seed} --state {self.kind}"
            raise Broken(f"repeat: python -m tests.torture {repeat}\n  {told}")

    def configured(self) -> Program:
        """Write the flows."""
        source = {"source": f"ours:{self.stage.source}/"}
        bucket = {name: bucket for name, (_, bucket) in self.ends.items()}
        return self.stage.program(
            {"name": "streamed", **source, "target": f"theirs:{bucket['streamed']}/", **PARTS},
            {
                "name": "copied",
                **source,
                "target": f"ours:{bucket['copied']}/",
                "method": "server-first",
                **PARTS,
            },
            {
                "name": "moved",
                "source": f"ours:{self.moving}/",
                "target": f"theirs:{bucket['moved']}/",
                "mode": "move",
            },
            {"name": "disk", **source, "target": "nas:copy/", **PARTS},
            state=self.state,
            listen="127.0.0.1:0",
            log_format="json",
            log_level="debug",
            reports="logs",
        )

    def fill(self) -> None:
        """Put the objects, each with something about it that is odd as well."""
        stage, large = self.stage, LARGE

        def put(key: str, about: Mapping[str, Any], body: bytes, *, twice: bool) -> None:
            for bucket in (stage.source, self.moving) if twice else (stage.source,):
                stage.ours.put_object(Bucket=bucket, Key=key, Body=body, **about)

        with ThreadPoolExecutor(4) as hands:
            jobs = []
            for key in self.keys:
                size = 0 if key.endswith("/") else self.draw.choice([0, 1, 9, 300])
                if large and size:
                    large, size = large - 1, 5 * MIB + 77
                body = (key.encode() * (size // len(key.encode()) + 1))[:size]
                about = self.about()
                if size > MIB:
                    about.pop("Tagging", None)  # the server forgets those of uploads in parts
                jobs.append(hands.submit(put, key, about, body, twice=size < MIB))
            for job in jobs:
                job.result()

    def about(self) -> dict[str, Any]:
        """Choose headers, metadata and tags."""
        tags = self.draw.choice(["", "", "a=b", "k%20e=v%2Bx%40&empty=", "path=%2Fa%2F..&x=%C3%A9"])
        about: dict[str, Any] = {"Metadata": self.draw.choice(corpus.METADATA)}
        about.update(self.draw.choice(corpus.HEADERS))
        return {**about, "Tagging": tags} if tags else about

    # --- what became of them -------------------------------------------------------------------------

    def check_moved(self, flow: Mapping[str, Any]) -> None:
        """See that what is gone from the source is at the target, and that all is gone."""
        client, bucket = self.ends["moved"]
        left = set(compare.keys_of(self.stage.ours, self.moving))
        there = set(compare.keys_of(client, bucket))
        small = {key for key in self.keys if key in left or key in there}
        self.found += [f"moved: {key!r} is still at the source" for key in sorted(left)]
        if len(there) != flow["objects"]["listed"] or small != there:
            self.found.append(f"moved: {len(there)} of {flow['objects']['listed']} have arrived")
        for key in there:
            pair = [
                self.read(*place, key)
                for place in ((self.stage.ours, self.stage.source), (client, bucket))
            ]
            if pair[0] != pair[1]:
                self.found.append(f"moved: {key!r} is another object now")

    @staticmethod
    def read(client: BaseClient, bucket: str, key: str) -> tuple[bytes, dict[str, str]]:
        """Give an object's bytes and metadata."""
        answer = client.get_object(Bucket=bucket, Key=key)
        with answer["Body"] as body:
            about = {k: v for k, v in answer["Metadata"].items() if k != compare.OWN_METADATA}
            return body.read(), about

    def check_disk(self, program: Program, refused: set[str], blocked: set[str]) -> None:
        """See that files have the keys' names, byte for byte, and what is refused has its reason."""
        failed = {
            key: reason
            for key, reason in self.failures(program).items()
            if not (reason == IN_THE_WAY and key in blocked)
        }
        wanted = {key: corpus.refused_on_disk(key) for key in refused}
        for key in sorted(failed.keys() | wanted.keys()):
            if failed.get(key, "") != wanted.get(key, ""):
                told = failed.get(key, "no failure")
                self.found.append(f"disk: {key!r} has {told}, not {wanted.get(key, 'arrived')}")
        folder = self.stage.nas / "copy"
        taken = set(self.keys) - self.failures(program).keys()
        files = {
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        }
        plain = {key for key in taken if not key.endswith("/")}
        self.found += [f"disk: {name!r} is wrong" for name in sorted(files ^ plain)]
        for key in sorted(plain & files):
            if (folder / key).read_bytes() != self.read(self.stage.ours, self.stage.source, key)[0]:
                self.found.append(f"disk: {key!r} has other bytes")
        around = [
            path for path in self.stage.nas.iterdir() if path.name not in ("copy", ".s3flow-root")
        ]
        self.found += [f"disk: {path} is outside of the flow's folder" for path in around]

    def failures(self, program: Program) -> dict[str, str]:
        """Give the reasons of the folder's failed objects, by the state's own export."""
        file = program.folder / "state.jsonl"
        file.unlink(missing_ok=True)
        program.run("state", "export", str(file))
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        columns = lines[0]["tables"]
        flows = [
            dict(zip(columns["flows"], row[1:], strict=True))
            for row in lines[1:]
            if row[0] == "flows"
        ]
        (flow,) = [each["id"] for each in flows if each["name"] == "disk"]
        rows = [
            dict(zip(columns["objects"], row[1:], strict=True))
            for row in lines[1:]
            if row[0] == "objects"
        ]
        known = {row["object_key"] for row in rows if row["flow_id"] == flow}
        if known != set(self.keys):
            self.found.append(f"state: its keys are others: {sorted(known ^ set(self.keys))[:5]}")
        return {
            row["object_key"]: row["reason"]
            for row in rows
            if row["flow_id"] == flow and row["state"] == "failed"
        }

    # --- what is told of them ------------------------------------------------------------------------

    def check_outputs(self, program: Program, sent: str, log: str) -> None:
        """Look at all that people and programs read."""
        self.on_terminal("the display of sync", sent)
        self.plain("the log", log)
        for entry in log.splitlines():
            json.loads(entry)
        self.counts["log lines"] += log.count("\n")
        for line in ("status", "failures", "report", "status --json", "plan"):
            done = program.run(*line.split(), code=None)
            self.plain(line, done.out + done.err)
        for words in (
            *(("failures",), ("report", "--certificate"), ("audit", "export")),
            ("audit", "export", "--format", "csv"),
        ):
            self.on_terminal(" ".join(words), self.shown_by(program, *words))
        for file in sorted((program.folder / "logs").iterdir()):
            self.plain(file.name, file.read_text())
        self.check_audit(program)
        self.check_certificate(program)
        self.check_served(program)

    def shown_by(self, program: Program, *words: str) -> str:
        """Give what a command sends to a terminal, however it ends."""
        for code in (0, 1):
            with contextlib.suppress(AssertionError):
                return on_a_terminal(program, *words, code=code)
        raise Broken(f"{words} ended with neither 0 nor 1")

    def on_terminal(self, name: str, sent: str) -> None:
        """Find what would act on a terminal."""
        self.found += [f"{name}: sends {what!r}" for what in ACTING if what in sent]
        self.plain(name, STYLE.sub("", sent))

    def plain(self, name: str, text: str) -> None:
        """Find what is not to be seen."""
        bad = {
            char
            for char in set(text) - HARMLESS
            if not char.isascii() or not char.isprintable()
            if unicodedata.category(char) in UNSEEN
        }
        if bad:
            self.found.append(f"{name}: has {sorted(bad)!r} as they are")
        self.counts["characters read"] += len(text)

    def check_audit(self, program: Program) -> None:
        """See that both forms of the trail have the keys, and that they check."""
        for form in ("jsonl", "csv"):
            file = program.folder / f"audit.{form}"
            program.run("audit", "export", "--format", form, "--output", str(file))
            program.run("audit", "verify", "--file", str(file))
            with file.open(newline="") as lines:
                if form == "jsonl":
                    named = {json.loads(line)["key"] for line in lines}
                else:
                    rows = list(csv.DictReader(lines))
                    risky = [
                        cell
                        for row in rows
                        for cell in row.values()
                        if cell.startswith(FORMULA) and not re.fullmatch(r"-?[0-9.]+", cell)
                    ]
                    self.found += [f"audit csv: the cell {cell!r} is a formula" for cell in risky]
                    named = {row["key"].removeprefix("'") for row in rows}
            missing = set(self.keys) - named
            self.found += [f"audit {form}: nothing of {key!r}" for key in sorted(missing)]

    def check_certificate(self, program: Program) -> None:
        """See that a certificate of such keys is one."""
        file = program.folder / "certificate"
        program.run("report", "--certificate", "--output", str(file), code=None)
        checked = program.run("report", "--check", str(file), code=None)
        if "NOT" in checked.out or not checked.out:
            self.found.append(f"certificate: {checked}")
        text = file.read_text()
        self.plain("the certificate", text)

    def check_served(self, program: Program) -> None:
        """Look at what a daemon tells over HTTP, and how it stops."""
        running = program.start("run")
        url = address(running)
        for path in ("/metrics", "/readyz", "/healthz", "/api/status"):
            self.plain(path, ask(url + path)[1])
        running.stop()
        ended = running.wait(code=None)
        self.plain("the daemon", ended.out + ended.err)


@contextlib.contextmanager
def states(task: Task) -> Iterator[Iterator[str]]:
    """Give addresses of empty states."""
    if task.state == "sqlite":
        yield iter(lambda: "sqlite:///state.db", "")
        return
    with mariadb.schemas() as made:
        yield iter(lambda: _address(made), "")


def _address(made: mariadb.Schemas) -> str:
    at = made.make()
    return f"mysql://{at.user}@{at.host}:{at.port}/{at.database}"


def run(task: Task) -> Counter[str]:
    """Try names until the task is over."""
    counts: Counter[str] = Counter()
    with states(task) as addresses, contextlib.ExitStack() as stack:
        server: Server | None = None
        for number, seed in enumerate(task.seeds()):
            if server is None or number % FRESH == 0:
                stack.close()
                server = stack.enter_context(ministack())
            one_round(task, server, seed, next(addresses), counts)
    if counts["rounds"] and not counts["refused"]:
        raise Broken("no name was ever refused: the rules were not tried")
    return counts


def one_round(task: Task, server: Server, seed: int, state: str, counts: Counter[str]) -> None:
    """Try one set of names."""
    place = task.folder / f"names-{seed}"
    place.mkdir()
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(contextlib.closing(server.client(0)))
        theirs = stack.enter_context(contextlib.closing(server.client(1)))
        stage = Stage(server, place, ours, theirs, stack)
        stage.endpoints = {
            "ours": s3_endpoint(server, "OURS"),
            "theirs": s3_endpoint(server, "THEIRS"),
            "nas": {"type": "local"},
        }
        stage.source, stage.target = make_bucket(server, 0), make_bucket(server, 1)
        Round(stage, seed, task.state, task.bug, state, counts).go()
    counts["rounds"] += 1
