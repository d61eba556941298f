"""In small: a sample of the calls that fail, and a cancellation at every await of the engine."""

from __future__ import annotations

import ast
import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from s3flow import lanes
from tests.torture import awaits, bugs, nth_trials
from tests.torture.awaits import all_awaits
from tests.torture.nth import Ledger, calls_that_fail, cancel_everywhere, prepared, run
from tests.torture.nth_faults import Fault, Trial
from tests.torture.playbill import ENDLESS, EVERY
from tests.torture.programme import Broken, Task
from tests.torture.troubles import TROUBLES

SAMPLE = 3  # trials of each port in each scene


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with prepared(""):
        yield Ledger(tmp_path)


@pytest.mark.parametrize("scene", sorted(set(EVERY) - set(ENDLESS)))
def test_any_call_may_fail(ledger: Ledger, scene: str) -> None:
    draw = random.Random(scene)
    by_port: dict[str, list[Trial]] = {}
    for trial in calls_that_fail(ledger, scene, draw):
        by_port.setdefault(trial.port, []).append(trial)
    for trials in by_port.values():
        for trial in draw.sample(trials, SAMPLE):
            ledger.do(trial)
    assert ledger.counts["faults"] > len(by_port)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_await_of_the_engine_is_cancelled(ledger: Ledger) -> None:
    # Two runs of a scene need not wait at quite the same places: what is missing is tried again.
    for _ in range(3):
        for scene, trouble in [*((scene, "") for scene in EVERY), *TROUBLES]:
            if ledger.missing():
                cancel_everywhere(ledger, scene, trouble)
    assert ledger.missing() == []
    assert len(all_awaits()) > 500
    assert ledger.counts["cancelled"] > 200


async def test_a_timeout_is_entered_and_left_without_waiting() -> None:
    timeout = asyncio.timeout(1)
    for step in (timeout.__aenter__(), timeout.__aexit__(None, None, None)):
        with pytest.raises(StopIteration):
            step.send(None)


def meet_everywhere(ledger: Ledger) -> None:
    for later in range(9):
        ledger.do(Trial("fresh", "source", Fault.MEETS, f"14+{later}"))


def test_a_swallowed_cancellation_is_found(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nth_trials, "PATIENCE", 5.0)
    heard, heeded = lanes.together, lanes.heed_cancellation
    bugs.plant("swallowed-cancellation")
    deaf, heedless = lanes.together, lanes.heed_cancellation
    try:
        with pytest.raises(Broken, match="it hangs"):
            meet_everywhere(ledger)
    finally:
        bugs.replace(deaf, heard)
        bugs.replace(heedless, heeded)


def test_nothing_is_missed_where_awaits_are_looked_for() -> None:
    text = "async def f():\n async with asyncio.timeout(a), b:\n  await c\n async for d in e:\n  pass\n"
    found = list(awaits._inside(ast.parse(text), ""))
    assert [(node.lineno, name) for node, name in found] == [(2, "f"), (3, "f"), (4, "f")]
    assert not any(awaits._is_timeout(node) for node, _ in found)
    alone, *_ = awaits._inside(ast.parse(text.replace(", b", "")), "")
    assert awaits._is_timeout(alone[0])


def test_the_programme_counts_what_it_did_and_is_content_with_nothing_less(tmp_path: Path) -> None:
    counts = run(Task(tmp_path, seed=3, rounds=12))
    assert counts["trials"] >= 12
    assert counts["faults"]
