"""The storm in small, on a server that pip installs; and 100,000 operations on those that people run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.servers import Server
from tests.torture import storm
from tests.torture.faultkinds import KINDS
from tests.torture.programme import Task

MANY = 100_000  # operations


def test_the_promises_hold_in_a_storm(ministack_server: Server, tmp_path: Path) -> None:
    counts = storm.storm(Task(tmp_path), ministack_server, seed=20_265, objects=80, rate=0.1)
    assert counts["operations"] > 1_000
    assert counts["changes at the source"] > 10
    assert [name for name in KINDS if not counts[f"fault {name}"]] == []


def test_a_traceback_is_shown_with_what_led_to_it() -> None:
    entry = json.dumps({"flow": "f" * 2_000, "event": "why", "exception": "Traceback: here"})
    log = f"{'a' * 9_000}\nlast words\n{entry}\n{'b' * 9_000}"
    shown = storm.around_traceback(log)
    before, _, after = shown.partition(entry)
    assert before.endswith("a\nlast words\n")
    assert len(before) == storm.BEFORE
    assert after.startswith("\nb")
    assert len('Traceback: here"}' + after) == storm.AFTER
    assert storm.around_traceback(f"{entry}\n") == f"{entry}\n"


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_the_promises_hold_over_many_operations(s3_server: Server, tmp_path: Path) -> None:
    done = 0
    for seed in Task(tmp_path, seed=20_266).seeds():
        done += storm.storm(Task(tmp_path), s3_server, seed)["operations"]
        if done > MANY:
            return
