"""The simulation in small: some worlds, the same ones each time they are asked for, and bugs found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture.programme import Task
from tests.torture.sim import live, run

WORLDS = 60
PROMISE = {
    "state-before-upload": "I5: ",
    "delete-before-durable": "I1: ",
    "missing-if-match-read": "I2: ",
    "missing-if-match-delete": "I1: ",
    "lost-lease": "lease: ",
    "forgotten-work": "P3: ",
}  # that a bug breaks
TRACE = "from tests.torture.sim import live; print([live(seed)[1] for seed in (3, 11, 12)])"


def test_no_promise_is_broken_in_any_life(tmp_path: Path) -> None:
    counts = run(Task(tmp_path, seed=1, rounds=WORLDS))
    assert counts["seeds"] == WORLDS
    assert counts["lives"] > WORLDS
    for what in (
        *("deletes", "written", "killed", "stopped", "died by an exception", "answer lost"),
        *("worker killed", "worker frozen", "worker died by an exception", "given back"),
    ):
        assert counts[what], f"nothing was {what}: {counts}"


def test_a_seed_is_one_story() -> None:
    assert live(5)[1] == live(5)[1] != live(6)[1]


def test_the_story_does_not_hang_on_the_order_of_sets() -> None:
    def traces(hashes: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", TRACE],
            env={**os.environ, "PYTHONHASHSEED": hashes},
            capture_output=True,
            check=True,
            text=True,
        ).stdout

    assert traces("1") == traces("2")


@pytest.mark.parametrize("bug", PROMISE)
def test_a_planted_bug_is_found(bug: str) -> None:
    command = ["-m", "tests.torture", "--only", "sim", "--state", "sqlite", "--bug", bug]
    ended = subprocess.run(
        [sys.executable, *command, "--rounds", "30", "--seed", "8"],
        capture_output=True,
        check=False,
        text=True,
    )
    assert ended.returncode == 1, ended.stdout
    assert PROMISE[bug] in ended.stdout
