"""Histories of a flow beside a model of it, in small; `python -m tests.torture --only model` goes on."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture.model import histories, machine_of
from tests.torture.programme import Task
from tests.torture.single import TOLD

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("part", range(4))
def test_s3flow_does_what_the_model_says(part: int, tmp_path: Path) -> None:
    with machine_of(Task(tmp_path)) as machine:
        histories(machine, 50, random.SystemRandom().getrandbits(32))
    assert machine.counts["histories"] >= 50


def test_it_does_so_with_a_server_for_the_state(tmp_path: Path) -> None:
    with machine_of(Task(tmp_path, state="mysql")) as machine:
        histories(machine, 6, random.SystemRandom().getrandbits(32))
    assert machine.counts["runs"]


def test_histories_repeat(tmp_path: Path) -> None:
    """What a seed has found it finds again."""
    told = []
    for _ in range(2):
        with machine_of(Task(tmp_path)) as machine:
            histories(machine, 3, 20)
        told.append(dict(machine.counts))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("bug", "words"),
    [
        ("missing-if-match-delete", "was deleted as"),
        ("state-before-upload", "and its copy is None"),
    ],
)
def test_a_planted_bug_is_found(bug: str, words: str, tmp_path: Path) -> None:
    seed = str(random.SystemRandom().getrandbits(32))
    task = ["model", str(tmp_path), seed, "60", "0", "sqlite", bug]
    command = [sys.executable, "-m", "tests.torture.single", *task]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
    assert words in json.loads((tmp_path / TOLD).read_text())["finding"]
