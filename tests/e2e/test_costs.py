"""What `plan` says that a flow will ask and cost, held against what a run then asks."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from tests.e2e.conftest import MIB, Stage
from tests.e2e.gaps import lacks, need
from tests.e2e.program import Program
from tests.e2e.test_commands import planned
from tests.e2e.test_copies import open_source

# What the lines of an estimate are called, by what the proxy calls the requests.
CALLED = {
    "put_copy": "copy",
    "get_tags": "get tags",
    "create_upload": "begin upload",
    "upload_part": "upload part",
    "upload_part_copy": "copy part",
    "complete": "complete upload",
}
# Looks for what deaths left of probes, at the start and once a bucket: `upkeep` has them in no estimate.
SWEEP = 2


def plan_of(program: Program) -> dict[str, Any]:
    """Give what `plan --json` says of the only flow."""
    (flow,) = json.loads(program.run("plan", "--json").out)["flows"]
    return dict(flow)


def asked(flow: dict[str, Any]) -> Counter[str]:
    """Give the requests of an estimate."""
    found: Counter[str] = Counter()
    for line in flow["cost"]["lines"]:
        if line["unit"] == "requests":
            found[line["what"]] += line["quantity"]
    return found


def fill(stage: Stage) -> None:
    for number in range(3):
        stage.put(f"small-{number}", b"x" * (number + 1), Tagging="a=b")
    stage.put("large", b"y" * (12 * MIB), Tagging="a=b")


def in_parts(stage: Stage, key: str, count: int) -> None:
    place = {"Bucket": stage.source, "Key": key}
    upload = {"UploadId": stage.ours.create_multipart_upload(**place)["UploadId"]}
    parts = []
    for number in range(1, count + 1):
        part = {"PartNumber": number}
        answer = stage.ours.upload_part(**place, **upload, **part, Body=b"z" * (5 * MIB))
        parts.append({**part, "ETag": answer["ETag"]})
    stage.ours.complete_multipart_upload(**place, **upload, MultipartUpload={"Parts": parts})


@pytest.mark.parametrize("target", ["theirs", "nas"])
def test_a_run_asks_what_the_plan_said(stage: Stage, target: str) -> None:
    fill(stage)
    proxy = stage.proxy()
    flow = {"multipart_threshold": "8MiB", "part_size": "5MiB"}
    if target == "nas":
        flow["target"] = "nas:copy/"
    program = stage.program(flow)
    said = plan_of(program)
    assert (said["objects"], said["bytes"]) == (4, 6 + 12 * MIB)
    proxy.clear()
    program.run("sync")
    counts = Counter({CALLED.get(kind, kind): n for kind, n in proxy.counts().items()})
    expected = asked(said)
    expected["list"] += SWEEP if target == "theirs" else 0
    # Part 1 is asked for where the source was uploaded in parts, which this one was not.
    assert expected["head"] - counts["head"] in {0, 1}
    for counted in (expected, counts):
        counted.pop("head", None)
    assert {kind: counts[kind] for kind in expected} == expected
    after = plan_of(program)
    assert (after["objects"], after["cost"]["total"]) == (0, 0.0)


def test_copies_by_the_store_are_asked_as_planned(stage: Stage) -> None:
    fill(stage)
    in_parts(stage, "parts", 3)
    open_source(stage)
    proxy = stage.proxy()
    program = stage.program({"method": "server-first"})
    said = plan_of(program)
    proxy.clear()
    program.run("sync")
    counts = Counter({CALLED.get(kind, kind): n for kind, n in proxy.counts().items()})
    expected = asked(said)
    assert (expected["copy"], expected["copy part"]) == (4, 3)
    if lacks(stage.server, "foreign-part-copies"):
        return
    expected["list"] += SWEEP
    assert {kind: counts[kind] for kind in expected} == expected


def test_copies_that_were_refused_are_planned_as_streams(stage: Stage) -> None:
    need(stage.server, "second-account")
    for number in range(6):
        stage.put(f"{number}")
    program = stage.program({"method": "server-first"})
    assert planned(program) == {("transfer", "server_copy"): 6}
    program.run("sync")
    stage.put("later")
    after = planned(program)
    assert after == {("unchanged", "recorded before"): 6, ("transfer", "put"): 1}


def test_prices_of_an_endpoint_are_what_its_plan_costs(stage: Stage) -> None:
    need(stage.server, "storage-classes")
    for name in ("STANDARD", "GLACIER", "STANDARD_IA"):
        stage.put(name, b"x" * MIB, StorageClass=name)
    stage.endpoints["ours"]["prices"] = {
        "egress_internet": 1024.0,
        "get_requests": {"STANDARD": 1000.0},
        "restore": {"GLACIER": {"Standard": 2048.0, "Bulk": 512.0}},
    }
    program = stage.program({"target": "nas:copy/"})
    flow = plan_of(program)
    lines = {(line["what"], line["of"]): line["cost"] for line in flow["cost"]["lines"]}
    assert lines["egress", "internet"] == pytest.approx(3.0)
    assert lines["get", "STANDARD_IA"] == pytest.approx(1.0)
    assert lines["restored bytes", "GLACIER Standard"] == pytest.approx(2.0)
    assert flow["cost"]["total"] == pytest.approx(3 + 3 + 2)
    assert flow["cost"]["restoring"]["Bulk"]["cost"] == pytest.approx(0.5)
    assert flow["requests"] == 5  # a page, three reads, a restore
    shown = program.run("plan").out
    assert "restored by Bulk: 0.50 USD" in shown
    assert "8.00" in shown
    assert all(f"assumed: {line}"[:60] in shown for line in flow["cost"]["assumptions"])


def test_another_service_than_aws_is_free_and_the_plan_says_so(stage: Stage) -> None:
    stage.put("a")
    program = stage.program({})
    flow = plan_of(program)
    assert flow["cost"]["total"] == 0
    assert "ours charges nothing; else set endpoints.ours.prices" in flow["cost"]["assumptions"]


def test_what_a_scan_recorded_is_paid_when_it_is_moved(stage: Stage) -> None:
    fill(stage)
    program = stage.program({})
    before = plan_of(program)
    program.run("scan")
    after = plan_of(program)
    assert after["bytes"] == before["bytes"]
    assert asked(after) == asked(before) - Counter({"list": 1})  # nothing is adopted any more
    assert planned(program) == {("pending", "put"): 4}
