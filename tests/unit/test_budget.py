"""What one small object costs, in steps that are counted: no clock, no socket, no other thread."""

from __future__ import annotations

import copy
import json

import pytest

from tests.bench import budget
from tests.bench.budget import Counted

NOTED: Counted = {
    "s3": {
        "figures": {"instructions": 4000.0, "tasks": 0.0},
        "functions": {"worker.py:run": 100.0, "http.py:send": 900.0},
    }
}


def test_a_small_object_costs_no_more_than_its_budget() -> None:
    noted, growth = budget.budgeted(json.loads(budget.BUDGET.read_text()))
    complaint = budget.complaint(noted, budget.counted(), growth)
    assert not complaint, f"\n{complaint}"


def test_growth_by_a_quarter_is_named_with_its_function() -> None:
    now = copy.deepcopy(NOTED)
    now["s3"]["figures"]["instructions"] = 5001.0
    now["s3"]["functions"]["worker.py:run"] = 1101.0
    complaint = budget.complaint(NOTED, now, budget.GROWTH)
    assert "instructions: 5,001.00 where 4,000.00 are noted" in complaint
    assert "worker.py:run" in complaint
    assert "http.py:send" not in complaint


def test_less_than_a_quarter_is_let_pass() -> None:
    now = copy.deepcopy(NOTED)
    now["s3"]["figures"] = {"instructions": 4999.0, "tasks": 0.2}
    assert not budget.complaint(NOTED, now, budget.GROWTH)


def test_one_more_task_an_object_is_too_many() -> None:
    now = copy.deepcopy(NOTED)
    now["s3"]["figures"]["tasks"] = 1.0
    assert "tasks" in budget.complaint(NOTED, now, budget.GROWTH)


def test_another_python_is_held_against_the_nearest_one_that_is_noted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "version", lambda: "3.90")
    noted, growth = budget.budgeted({"3.1": {}, "3.99": NOTED, "3.300": {}})
    assert noted == NOTED
    assert growth == budget.OTHER_VERSION
