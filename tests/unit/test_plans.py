"""What `plan` prints: the table says what the JSON says, and nothing of it is markup."""

from __future__ import annotations

import io
import json
import re
from typing import Any

from rich.console import Console

from s3flow.engine.costs import Egress, Terms, estimate
from s3flow.engine.workload import Workload
from s3flow.model import GIB, Limits, Listed, Method
from s3flow.observe.plans import FlowPlan, plan_json, plan_view
from s3flow.observe.text import money
from tests.unit.test_costs import AWS, FLOW

ASSUMED = ["prices are [prices] of a [bold]day[/bold]"]


def made() -> FlowPlan:
    work = Workload(listings=3)
    for number, name in enumerate(["STANDARD", "GLACIER", "DEEP_ARCHIVE", "STANDARD_IA"]):
        entry = Listed(b"key", (number + 1) * 10 * GIB, "e", 0, name)
        work.add(FLOW, Limits(), "from", entry, Method.PUT, now=0)
    terms = Terms(AWS, AWS, {"from": Egress.INTERNET})
    cost = estimate(FLOW, Limits(), work, terms)
    return FlowPlan({("transfer", "put"): (4, work.bytes)}, cost, "EUR", ASSUMED)


def printed(plans: dict[str, FlowPlan], width: int) -> str:
    out = io.StringIO()
    Console(width=width, file=out).print(plan_view(plans))
    return out.getvalue()


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]


def test_the_table_says_what_the_json_says() -> None:
    plans = {"one": made()}
    told: dict[str, Any] = json.loads(json.dumps(plan_json(plans)))
    (flow,) = told["flows"]
    shown = printed(plans, 120)
    verdict, *lines, total = rows(shown)
    assert verdict == ["one", "transfer", "put", "4", "100.0 GiB"]
    assert [[line["what"], line["of"]] for line in flow["cost"]["lines"]] == [r[:2] for r in lines]
    assert [money(line["cost"]) for line in flow["cost"]["lines"]] == [row[4] for row in lines]
    for line, row in zip(flow["cost"]["lines"], lines, strict=True):
        number, unit = row[2].split(" ")
        assert unit.rstrip("s") == line["unit"].rstrip("s")
        assert float(number.replace(",", "")) == round(line["quantity"], 2)
    assert total[0] == "total"
    assert total[2] == f"{flow['requests']} requests"
    assert total[4] == money(flow["cost"]["total"]) == money(told["total"])
    for tier, each in flow["cost"]["restoring"].items():
        assert f"restored by {tier}: {money(each['cost'])} EUR" in shown
    assert flow["cost"]["assumptions"] == ASSUMED
    assert f"assumed: {ASSUMED[0]}" in shown


def test_several_flows_are_added_up() -> None:
    plans = {"one": made(), "two": made()}
    told: dict[str, Any] = json.loads(json.dumps(plan_json(plans)))
    assert told["total"] == 2 * plans["one"].cost.total
    assert f"all together: {money(told['total'])} EUR" in printed(plans, 120)


def test_it_fits_a_narrow_terminal() -> None:
    shown = printed({"one": made()}, 80)
    assert max(len(line) for line in shown.splitlines()) <= 80
    assert re.search(r"total.*requests", shown)


def test_money_is_never_rounded_to_nothing() -> None:
    assert [money(each) for each in (0, 0.00001, 0.0012, 0.01, 1234.5)] == [
        "0.00",
        "<0.0001",
        "0.0012",
        "0.01",
        "1,234.50",
    ]
