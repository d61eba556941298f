"""Runs s3flow as a person does: a configuration file, a command line, an exit status."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s3flow.config import load
from s3flow.errors import S3flowError
from s3flow.observe.progress import as_json
from s3flow.operations import read_status
from s3flow.process import run_async
from tests.servers import clean_environment

ROOT = Path(__file__).parents[2]  # what is tested is the code beside the tests, however installed
HANG = 240.0  # seconds after which a command counts as hung; no test measures with it
GROUPS = ("audit", "state")  # commands of two words
FlowStatus = dict[str, Any]


def toml(value: object) -> str:
    """Write a value as TOML has it."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(toml(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def document(
    daemon: Mapping[str, object],
    endpoints: Mapping[str, Mapping[str, object]],
    flows: Sequence[Mapping[str, object]],
) -> str:
    """Write a whole configuration."""
    tables = [("[daemon]", daemon)]
    tables += [(f"[endpoints.{name}]", endpoint) for name, endpoint in endpoints.items()]
    tables += [("[[flows]]", flow) for flow in flows]
    blocks = [
        "\n".join([head, *(f"{key} = {toml(value)}" for key, value in table.items())])
        for head, table in tables
    ]
    return "\n\n".join(blocks) + "\n"


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str


@dataclass(slots=True)
class Program:
    """s3flow with one configuration file and environment."""

    config: Path
    environ: dict[str, str]
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)
    bug: str = ""  # of tests.torture.bugs, planted in every command

    @classmethod
    def written(cls, folder: Path, text: str, environ: Mapping[str, str]) -> Program:
        """Write *text* into *folder* as the configuration of a program."""
        config = folder / "config.toml"
        config.write_text(text)
        config.chmod(0o600)  # it may hold secrets, and s3flow warns of others who can read it
        return cls(config, clean_environment(folder, {"PYTHONPATH": str(ROOT), **environ}))

    @property
    def folder(self) -> Path:
        """Where it runs; the state lies here."""
        return self.config.parent

    def command(self, *words: str) -> list[str]:
        """Give the command line of an s3flow command with the configuration."""
        named = 2 if words[0] in GROUPS else 1
        name, rest = words[:named], words[named:]
        module = ["tests.torture.bugs", self.bug] if self.bug else ["s3flow"]
        return [sys.executable, "-m", *module, *name, "--config", str(self.config), *rest]

    def run(self, *words: str, code: int | None = 0, **environ: str) -> Done:
        """Run a command to its end and check its exit status (None: any)."""
        ended = subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.environ | environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=HANG,
            check=False,
        )
        done = Done(ended.returncode, ended.stdout.decode(), ended.stderr.decode())
        assert code is None or done.code == code, f"{words} ended with {done}"
        return done

    def start(self, *words: str, own_group: bool = False, **environ: str) -> Running:
        """Start a command; its output goes to files. *own_group*: of processes, to find what it starts."""
        name = f"run{len(self.children)}"
        out, err = self.folder / f"{name}.out", self.folder / f"{name}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                self.command(*words),
                cwd=self.folder,
                env=self.environ | environ,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                process_group=0 if own_group else None,
            )
        self.children.append(process)
        return Running(process, out, err)

    def status(self, *words: str) -> dict[str, FlowStatus]:
        """Give what `status --json` says, by flow.

        Without *words* it is read as the command reads it, but in this process: it is asked for
        all the time, and a process takes thirty times as long to begin.
        """
        if words:
            answer = json.loads(self.run("status", "--json", *words).out)
        else:
            settings = load(self.config, self.environ)
            found = run_async(read_status(settings, settings.chosen_flows([])))
            answer = json.loads(json.dumps(as_json(found)))
        assert list(answer) == ["flows"]
        return {flow["name"]: flow for flow in answer["flows"]}

    def flow(self) -> FlowStatus:
        """Give the status of the only flow."""
        (flow,) = self.status().values()
        return flow

    def end(self) -> None:
        """Kill what is still running."""
        for process in self.children:
            if process.poll() is None:
                process.kill()
            process.wait()


@dataclass(slots=True)
class Running:
    """A command that was started."""

    process: subprocess.Popen[bytes]
    out: Path
    err: Path

    def wait(self, code: int | None = 0) -> Done:
        """Wait for the end and check the exit status (None: any)."""
        self.process.wait(HANG)
        done = Done(
            self.process.returncode,
            self.out.read_text(errors="replace"),
            self.err.read_text(errors="replace"),
        )
        assert code is None or done.code == code, done
        return done

    def kill(self) -> None:
        """Kill it, as a power cut would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ask it to stop."""
        self.process.send_signal(signal.SIGTERM)

    def logged(self) -> list[dict[str, Any]]:
        """Give its log entries so far."""
        lines = self.err.read_text(errors="replace").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    def until(self, happened: Callable[[], object]) -> None:
        """Wait until something happened; fails when the command ends before, or hangs."""
        deadline = time.monotonic() + HANG
        while not happened():
            ended = self.process.poll()
            if ended is not None:
                if happened():
                    return
                raise AssertionError(f"ended with {ended}: {self.err.read_text()[-3000:]}")
            assert time.monotonic() < deadline, f"hangs: {self.err.read_text()[-3000:]}"
            time.sleep(0.05)  # most of the processor is for what is waited for


def adds_up(flow: FlowStatus) -> bool:
    """Say whether the outcomes of a flow are together what was listed, in objects and bytes."""
    return all(
        sum(number for name, number in flow[unit].items() if name != "listed")
        == flow[unit]["listed"]
        for unit in ("objects", "bytes")
    )


@contextmanager
def watched(program: Program) -> Iterator[list[FlowStatus]]:
    """Read `status --json` over and over while the block runs; gives what was read."""
    seen: list[FlowStatus] = []
    broken: list[Exception] = []
    over = threading.Event()

    def watch() -> None:
        try:
            while not over.is_set():
                seen.extend(program.status().values())
                over.wait(0.1)  # most of the processor is for what is watched
        except (AssertionError, OSError, ValueError, S3flowError) as error:
            broken.append(error)

    thread = threading.Thread(target=watch, name="watch")
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()
    if broken:
        raise broken[0]
