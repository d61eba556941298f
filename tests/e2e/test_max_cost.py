"""A flow that may spend so much and no more, as a person runs into it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.conftest import Stage
from tests.e2e.program import Program
from tests.e2e.test_daemon import address, ask

OBJECTS = 200
GET = 1_000.0  # of a thousand


def set_up(stage: Stage, most: float, **daemon: object) -> Program:
    stage.endpoints["ours"]["prices"] = {"get_requests": {"STANDARD": GET}}
    flow = {"target": "nas:", "tags": "drop", "max_cost": most}
    return stage.program(flow, **daemon)


def arrived(stage: Stage) -> int:
    return sum(path.is_file() and path.name.isdigit() for path in stage.nas.iterdir())


def cost(program: Program) -> dict[str, Any]:
    return dict(program.flow()["cost"])


@pytest.mark.parametrize("workers", [1, 2])
def test_a_flow_stops_before_it_passes_and_goes_on_when_it_may(stage: Stage, workers: int) -> None:
    for number in range(OBJECTS):
        stage.put(f"{number:03d}")
    program = set_up(stage, 50.5, workers=workers)
    (planned,) = json.loads(program.run("plan", "--json").out)["flows"]
    assert planned["cost"]["total"] == pytest.approx(OBJECTS)
    assert (planned["cost"]["max_cost"], planned["cost"]["fits"]) == (50.5, False)
    assert "max_cost 50.50 USD: estimate 200.00, would stop" in program.run("plan").out
    ended = program.run("sync", code=1)
    assert "max_cost" in ended.err + ended.out
    assert "spent: 50.00 of 50.50 USD" in ended.out
    assert arrived(stage) == 50
    assert cost(program) == {
        "spent": 50.0,
        "set_aside": 0.0,
        "max_cost": 50.5,
        "currency": "USD",
        "blocked": True,
    }
    assert "50.00 of 50.50 USD" in program.run("status").out
    program.run("sync", code=1)
    assert arrived(stage) == 50
    program = set_up(stage, 1_000.0, workers=workers)
    (planned,) = json.loads(program.run("plan", "--json").out)["flows"]
    assert (planned["cost"]["spent"], planned["cost"]["fits"]) == (50.0, True)
    program.run("sync")
    assert arrived(stage) == OBJECTS
    assert (cost(program)["spent"], cost(program)["blocked"]) == (200.0, False)


def test_a_killed_flow_has_never_spent_more_than_is_known(stage: Stage) -> None:
    for number in range(OBJECTS):
        stage.put(f"{number:03d}")
    proxy = stage.proxy(delay=lambda _: 0.02)
    program = set_up(stage, 120.0, concurrency=4, workers=1)
    running = program.start("sync")
    running.until(lambda: proxy.counts()["get"] > 20)
    running.kill()
    for _ in range(3):
        program.run("sync", code=1)
    assert 60 < arrived(stage) <= proxy.counts()["get"] <= 120
    assert proxy.counts()["get"] <= cost(program)["spent"] <= 120


def test_a_daemon_that_has_spent_all_says_so_and_waits(stage: Stage) -> None:
    for number in range(10):
        stage.put(f"{number:03d}")
    program = set_up(stage, 4.0, listen="127.0.0.1:0")
    running = program.start("run")
    url = address(running)
    running.until(
        lambda: 's3flow_flow_blocked{flow="flow-0",reason="max_cost"} 1' in ask(f"{url}/metrics")[1]
    )
    running.until(lambda: 's3flow_cost_spent{flow="flow-0"} 4.0' in ask(f"{url}/metrics")[1])
    (flow,) = json.loads(ask(f"{url}/api/status")[1])["flows"]
    assert flow["objects"]["verified"] == 4
    running.stop()
    running.wait(0)
    (entry,) = [entry for entry in running.logged() if entry["event"] == "flow is blocked"]
    assert "has spent 4.00 of max_cost = 4.00 USD" in entry["message"]
    reports = (program.folder / "logs").glob("*.log")
    assert any("raise max_cost" in path.read_text().replace("\n", " ") for path in reports)
