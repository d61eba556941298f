"""Counts what a small object costs, in steps and not in seconds: instructions, calls, tasks and more.

s3flow moves a few hundred objects of 4 KiB, whole and as configured by default, on a loop where the
same program takes the same steps each time. The difference between few and many objects is what
one more object costs. `python -m tests.bench.budget --record` notes the figures as the budget.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import dis
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from unittest import mock

from tests.bench.loopback import Bucket, Loop, no_threads

BUDGET = Path(__file__).parents[1] / "unit" / "budget.json"
FEW, MANY = 200, 600  # objects
GROWTH = 1.25  # times what is noted, and it is too much
OTHER_VERSION = 1.4  # where only another Python's figures are noted: its instructions are others
LEAST = 0.25  # of any figure an object; less is the share of a batch
SHOWN = 0.5  # instructions an object; functions below are not noted
SQL_STEPS = 10  # of SQLite's machine, counted at a time
KINDS = ("disk", "s3")
_ROOT = Path(__file__).parents[2]
# The loop itself is uvloop's, in C, where it matters; and the counting costs nothing.
_LEFT_OUT = ("/asyncio/base_events.py", "/asyncio/events.py", "/asyncio/selector_events.py")
_LEFT_OUT += (
    "/asyncio/unix_events.py",
    "/selectors.py",
    "/asyncio/runners.py",
    "/unittest/mock.py",
)
_LEFT_OUT += ("/tests/bench/loopback.py", "/tests/bench/budget.py", "/hashlib.py")
# Instructions that make an object each: what can be had of allocations without a compiler.
_MAKING = (
    "BUILD_",
    "FORMAT_",
    "MAKE_",
    "BINARY_OP",
    "BINARY_SLICE",
    "LIST_TO_TUPLE",
    "RETURN_GENERATOR",
)
# Nothing listens there, and nothing is dialled.
_CONFIG = """\
[daemon]
state = "sqlite:///state.db"
listen = "off"
log_format = "json"
[endpoints.old]
type = "s3"
url = "http://127.0.0.1:9"
addressing = "path"
access_key_id = "COUNTED"
secret_access_key = "counted"
[endpoints.new]
type = "s3"
url = "http://127.0.0.1:10"
addressing = "path"
access_key_id = "COUNTED"
secret_access_key = "counted"
[endpoints.disk]
type = "local"
path = "disk"
[[flows]]
name = "count"
source = "old:from/"
target = "{target}"
"""


Counted = dict[str, dict[str, dict[str, float]]]  # by kind, "figures" and "functions"


class Counter:
    """Counts while it is active."""

    def __init__(self) -> None:
        self.counts: collections.Counter[str] = collections.Counter()
        self._hits: dict[CodeType, list[int]] = {}
        self._tracers: dict[CodeType, Any] = {}

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Watch this thread: there is no other."""
        with mock.patch("sqlite3.connect", self._connect):
            sys.settrace(self._trace)
            sys.setprofile(self._profile)
            try:
                yield
            finally:
                sys.setprofile(None)
                sys.settrace(None)

    def functions(self) -> dict[str, int]:
        """Give the instructions of each function."""
        found: collections.Counter[str] = collections.Counter()
        for code, hits in self._hits.items():
            found[_name(code)] += sum(hits)
        return dict(found)

    def finish(self) -> None:
        """Sum up what the instructions did."""
        for code, hits in self._hits.items():
            made = [i.offset for i in dis.get_instructions(code) if i.opname.startswith(_MAKING)]
            self.counts["objects made"] += sum(hits[offset] for offset in made)
            self.counts["instructions"] += sum(hits)

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        code = frame.f_code
        tracer = self._tracers.get(code)
        if tracer is None:
            if code.co_filename.endswith(_LEFT_OUT):
                return None
            tracer = self._tracers[code] = self._tracer(code)
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        self.counts["calls"] += 1
        return tracer

    def _tracer(self, code: CodeType) -> Callable[[FrameType, str, object], Any]:
        hits = self._hits[code] = [0] * (len(code.co_code) + 2)

        def count(frame: FrameType, event: str, arg: object) -> Any:
            if event == "opcode":
                hits[frame.f_lasti] += 1
            return count

        return count

    def _profile(self, frame: FrameType, event: str, arg: object) -> None:
        if event == "c_call" and frame.f_code in self._hits:
            self.counts["calls into C"] += 1

    def _connect(self, *args: Any, **settings: Any) -> sqlite3.Connection:
        def step() -> None:
            self.counts["steps of SQLite"] += SQL_STEPS

        made = _CONNECT(*args, **settings)
        made.set_progress_handler(step, SQL_STEPS)
        return made


_CONNECT = sqlite3.connect


def _name(code: CodeType) -> str:
    path = Path(code.co_filename)
    where = path.relative_to(_ROOT) if path.is_relative_to(_ROOT / "s3flow") else path.name
    return f"{where}:{code.co_qualname}"


def _move(kind: str, count: int) -> Counter:
    """Move *count* objects; what it took."""
    from s3flow.cli import app

    counter, bucket = Counter(), Bucket(count)
    loop = Loop(bucket)
    with tempfile.TemporaryDirectory(prefix="s3flow-budget-") as folder, contextlib.chdir(folder):
        Path("disk").mkdir()
        config = Path("config.toml")
        target = "disk:" if kind == "disk" else "new:to/"
        config.write_text(_CONFIG.format(target=target))
        config.chmod(0o600)
        with no_threads(), _instead_of_uvloop(loop), counter.active():
            code = _exit_code(app, "sync", "--config", str(config))
        assert code in {0, None}, f"s3flow ended with {code}"
        copied = bucket.is_copied() if kind == "s3" else _files(Path("disk")) == count
        assert copied, "not every object has arrived"
    counter.counts.update(loop.counts)
    counter.counts["requests"] = bucket.requests
    counter.finish()
    return counter


def _instead_of_uvloop(loop: Loop) -> contextlib.AbstractContextManager[object]:
    return mock.patch("uvloop.new_event_loop", return_value=loop)


def _exit_code(app: Callable[[list[str]], object], *words: str) -> object:
    try:
        app(list(words))
    except SystemExit as ended:
        return ended.code
    return None


def _files(folder: Path) -> int:
    return sum(1 for path in folder.glob("d*/*") if path.is_file())


def measure() -> Counted:
    """Count for each kind of target: figures, and instructions by function, for one object."""
    found = {}
    for kind in KINDS:
        _move(kind, 20)  # imports and caches
        few, many = _move(kind, FEW), _move(kind, MANY)
        found[kind] = {
            "figures": _each(few.counts, many.counts),
            "functions": _each(few.functions(), many.functions(), SHOWN),
        }
    return found


def _each(few: dict[str, int], many: dict[str, int], least: float = 0.0) -> dict[str, float]:
    each = {name: (many[name] - few.get(name, 0)) / (MANY - FEW) for name in sorted(many)}
    return {name: round(value, 2) for name, value in each.items() if value >= least}


def version() -> str:
    """Give the minor version of Python: each has its own instructions."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def counted() -> Counted:
    """Count in a process of its own, where nobody else traces and hashes are the same each time."""
    command = (sys.executable, "-m", "tests.bench.budget")
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(_ROOT)}
    done = subprocess.run(
        command, env=environment, cwd=_ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    result: Counted = json.loads(done.stdout.splitlines()[-1])
    return result


def budgeted(budget: dict[str, Counted]) -> tuple[Counted, float]:
    """Give what to compare with, and how much more than that is too much."""
    if version() in budget:
        return budget[version()], GROWTH
    nearest = min(budget, key=lambda name: abs(_minor(name) - _minor(version())))
    return budget[nearest], OTHER_VERSION


def complaint(noted: Counted, now: Counted, growth: float) -> str:
    """Say which figures are more than *growth* times the noted ones, and which functions grew most."""
    lines = []
    for kind, found in now.items():
        before = noted[kind]["figures"]
        more = [
            f"  {name}: {value:,.2f} where {before.get(name, 0.0):,.2f} are noted"
            for name, value in found["figures"].items()
            if value > max(before.get(name, 0.0) * growth, before.get(name, 0.0) + LEAST)
        ]
        if more:
            lines += [f"an object of 4 KiB to {kind} costs more than before:", *more]
            lines += _grown(noted[kind]["functions"], found["functions"])
    if lines:
        lines.append(
            "If the gain is worth it: python -m tests.bench.budget --record notes these figures."
        )
    return "\n".join(lines)


def _grown(before: dict[str, float], now: dict[str, float]) -> list[str]:
    growth = {name: value - before.get(name, 0.0) for name, value in now.items()}
    most = sorted(growth, key=lambda name: -growth[name])[:10]
    rows = [f"  {growth[n]:+8.1f} to {now[n]:8.1f}  {n}" for n in most if growth[n] > 0]
    return [" instructions by function:", *rows] if rows else []


def _minor(name: str) -> int:
    return int(name.partition(".")[2])


def main() -> None:
    """Print the counts as one line of JSON, or note them."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.budget", description=__doc__)
    parser.add_argument("--record", action="store_true", help=f"write them to {BUDGET.name}")
    if not parser.parse_args().record:
        print(json.dumps(measure()))
        return
    budget = json.loads(BUDGET.read_text()) if BUDGET.exists() else {}
    budget[version()] = counted()
    BUDGET.write_text(json.dumps(budget, indent=1, sort_keys=True) + "\n")
    for kind, found in budget[version()].items():
        print(kind, found["figures"])


if __name__ == "__main__":
    main()
