"""Crash points: each is somewhere in s3flow, kills at the passing that was named, and counts what it sees."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import s3flow
from s3flow import crashpoints
from s3flow.crashpoints import KILLED, POINTS, passings
from tests.servers import clean_environment

PACKAGE = Path(s3flow.__file__).parent
PASSING = """
from s3flow.crashpoints import passing
for point in ("put.done", "scan.begun", "put.done", "put.done"):
    passing(point)
    print(point, flush=True)
"""
SOON = """
import asyncio
from s3flow.crashpoints import passing_soon
async def main():
    passing_soon("commit.sent")
    print("sent", flush=True)
    await asyncio.sleep(0)
    print("answered", flush=True)
asyncio.run(main())
"""


def ran(folder: Path, script: str, **environ: str) -> subprocess.CompletedProcess[str]:
    environ["PYTHONPATH"] = str(PACKAGE.parent)
    return subprocess.run(
        [sys.executable, "-c", script],
        env=clean_environment(folder, environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_every_point_is_passed_somewhere_and_no_other() -> None:
    texts = [path.read_text() for path in PACKAGE.rglob("*.py")]
    named = [name for text in texts for name in re.findall(r'passing(?:_soon)?\("([^"]+)"\)', text)]
    assert set(named) == set(POINTS)
    assert len(set(POINTS)) == len(POINTS) < KILLED


def test_without_the_switches_a_point_is_nothing() -> None:
    assert crashpoints.passing is crashpoints._pass_by
    assert crashpoints.passing_soon is crashpoints._pass_by


def test_a_point_kills_at_the_passing_that_was_named(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    switches = {"S3FLOW_CRASH": "put.done:2", "S3FLOW_CRASH_HITS": str(trace)}
    ended = ran(tmp_path, PASSING, **switches)
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert ended.stdout.split() == ["put.done", "scan.begun"]
    assert trace.read_bytes()[-1] == KILLED
    assert passings(trace.read_bytes()) == Counter({"put.done": 2, "scan.begun": 1})
    # The process that follows a worker process that was killed is not killed again.
    assert ran(tmp_path, PASSING, **switches).returncode == 0
    assert passings(trace.read_bytes()) == Counter({"put.done": 5, "scan.begun": 2})


def test_passings_are_noted_without_a_kill(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    assert ran(tmp_path, PASSING, S3FLOW_CRASH_HITS=str(trace)).returncode == 0
    assert passings(trace.read_bytes()) == Counter({"put.done": 3, "scan.begun": 1})


def test_a_point_after_what_is_sent_comes_before_its_answer(tmp_path: Path) -> None:
    ended = ran(tmp_path, SOON, S3FLOW_CRASH="commit.sent")
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    assert ended.stdout.split() == ["sent"]


def test_a_name_that_is_none_is_refused_with_all_that_are(tmp_path: Path) -> None:
    for text in ("put.dome:1", "put.done:x"):
        ended = ran(tmp_path, "import s3flow.app", S3FLOW_CRASH=text)
        assert ended.returncode == 1
        assert f"S3FLOW_CRASH={text}" in ended.stderr
        assert all(point in ended.stderr for point in POINTS)
