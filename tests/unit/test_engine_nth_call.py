"""Every single call of a run fails once: nothing is lost, left behind or counted wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.errors import (
    ConnectionLost,
    NoSuchUpload,
    S3flowError,
    StateError,
    Throttled,
)
from s3flow.events import BytesMoved, ListingKept
from s3flow.model import Outcome
from tests.faults import NthCallFails
from tests.unit.lab import PARTS, Lab, left_tasks

ENDS = ["source", "target", "state"]


def fresh(lab: Lab) -> None:
    """Give the source one object for each way to go."""
    lab.put(b"empty", 0)
    lab.put(b"put", 50, tags={"t": "1"})
    lab.put(b"parts", 1500)
    lab.put(b"repeated", 1500, part_size=1000)


async def first_run(lab: Lab) -> None:
    fresh(lab)


async def after_a_stop(lab: Lab) -> None:
    """An earlier run was stopped in the middle of its parts, and one object has changed since."""
    fresh(lab)
    lab.stop_at(BytesMoved, 3)
    await lab.sync()
    lab.subscribers.clear()
    lab.put(b"parts", 2500)


async def after_a_loss_of_the_state(lab: Lab) -> None:
    fresh(lab)
    await lab.sync()
    lab.forget()
    lab.put(b"put", 60)


SCENARIOS = [first_run, after_a_stop, after_a_loss_of_the_state]


def lab_in(folder: Path) -> Lab:
    folder.mkdir()
    lab = Lab(folder)
    lab.change(**PARTS, lanes=2)
    return lab


def break_call(lab: Lab, end: str, n: int, error: Exception) -> Callable[[], int]:
    """Let call *n* of an end fail; gives a function that says how many calls were made."""
    made: list[NthCallFails] = []

    def wrap(inner: Any) -> Any:
        made.append(NthCallFails(inner, n, error))
        return made[-1]

    if end == "state":
        lab.wrap_state = wrap
    else:
        setattr(lab, end, wrap(getattr(lab, end)))
    return lambda: made[-1].calls


def mend(lab: Lab) -> None:
    lab.source, lab.target = lab.src, lab.dst
    lab.wrap_state = lambda state: state


async def assert_a_clean_run_completes(lab: Lab, where: str) -> None:
    mend(lab)
    assert await lab.sync() == {Outcome.VERIFIED: 4}, where
    if lab.of(ListingKept):  # it only went on: what changed since is for the next run
        assert await lab.sync() == {Outcome.VERIFIED: 4}, where
    assert lab.differences() == [], where
    assert lab.claimed_nowhere() == [], where
    lab.check_totals()
    # What was found abandoned while the last run was under way is removed with the next scan.
    if lab.uploads():
        await lab.sync()
    assert lab.uploads() == [], where
    assert await left_tasks() == [], where


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("end", ["source", "target"])
@pytest.mark.parametrize("error", [ConnectionLost("x"), Throttled("x")])
async def test_any_call_of_a_store_may_fail_and_the_run_goes_on(
    tmp_path: Path, scenario: Callable[[Lab], Any], end: str, error: S3flowError
) -> None:
    n, calls = 1, 0
    while n == 1 or n <= calls:
        lab = lab_in(tmp_path / str(n))
        await scenario(lab)
        count = break_call(lab, end, n, error)
        counted = await lab.sync()
        calls = count()
        assert counted[Outcome.FAILED] == 0, f"call {n}"
        assert counted == {Outcome.VERIFIED: 4}, f"call {n}"
        await assert_a_clean_run_completes(lab, f"call {n}")
        n += 1
    assert n > 6


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_any_call_of_the_state_may_fail_and_the_next_start_goes_on(
    tmp_path: Path, scenario: Callable[[Lab], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3flow.engine.recorder.STATE_RETRY", 0.001)
    n, calls, down = 1, 0, 0
    while n == 1 or n <= calls:
        lab = lab_in(tmp_path / str(n))
        await scenario(lab)
        count = break_call(lab, "state", n, StateError("x"))
        try:
            counted = await lab.sync()
            assert sum(counted.values()) in {0, 4}, f"call {n}"
        except (BaseExceptionGroup, StateError):
            down += 1
        calls = count()
        assert await left_tasks() == []
        await assert_a_clean_run_completes(lab, f"call {n}")
        n += 1
    assert down > 0


async def test_a_target_that_denies_any_one_upload_leaves_none_behind(tmp_path: Path) -> None:
    n, calls, outcomes = 1, 0, Counter[Outcome]()
    while n == 1 or n <= calls:
        lab = lab_in(tmp_path / str(n))
        fresh(lab)
        lab.change(max_attempts=1)
        count = break_call(lab, "target", n, NoSuchUpload("x"))
        outcomes += await lab.sync()
        calls = count()
        mend(lab)
        await lab.sync()
        assert lab.uploads() == [], f"call {n}"
        n += 1
    assert outcomes[Outcome.FAILED] > 0
