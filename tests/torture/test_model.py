"""Histories of a flow beside a model of it, in small; `python -m tests.torture --only model` goes on."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.torture.model import run
from tests.torture.programme import Task
from tests.torture.single import TOLD

REPOSITORY = Path(__file__).parents[2]


def run_some(
    folder: Path, rounds: int, seed: int | None = None, state: str = "sqlite"
) -> Counter[str]:
    seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    return run(Task(folder, seed, rounds=rounds, state=state))


@pytest.mark.parametrize("part", range(4))
def test_s3flow_does_what_the_model_says(part: int, tmp_path: Path) -> None:
    counts = run_some(tmp_path, rounds=5)
    assert counts["histories"] >= 50


def test_it_does_so_with_a_server_for_the_state(tmp_path: Path) -> None:
    counts = run_some(tmp_path, rounds=1, state="mysql")
    assert counts["operations"]


def test_histories_repeat(tmp_path: Path) -> None:
    """What a seed has found it finds again."""
    assert run_some(tmp_path, 1, seed=20) == run_some(tmp_path, 1, seed=20)


@pytest.mark.parametrize("bug", ["missing-if-match-delete", "state-before-upload"])
def test_a_planted_bug_is_found(bug: str, tmp_path: Path) -> None:
    seed = str(random.SystemRandom().getrandbits(32))
    task = ["model", str(tmp_path), seed, "120", "0", "sqlite", bug]
    command = [sys.executable, "-m", "tests.torture.single", *task]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    # Which promise is broken first is a matter of the seed; without the bug none is, by the others.
    assert json.loads((tmp_path / TOLD).read_text())["finding"]
