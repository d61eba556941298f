"""`s3flow run`: looks again, answers scrapers and supervisors, and is alone with its state."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import MIB, Stage
from tests.e2e.content import put_large
from tests.e2e.program import Running
from tests.e2e.supervisor import Supervisor

METRICS = {
    "s3flow_objects": {"flow", "outcome"},
    "s3flow_methods": {"flow", "method"},
    "s3flow_bytes": {"flow", "direction"},
    "s3flow_transfer_seconds": {"flow", "method", "le"},
    "s3flow_inflight_transfers": {"flow"},
    "s3flow_retries": {"flow", "reason"},
    "s3flow_throttled": {"endpoint"},
    "s3flow_concurrency_limit": {"endpoint"},
    "s3flow_flow_blocked": {"flow", "reason"},
    "s3flow_scans": {"flow"},
    "s3flow_scan_last_finished_timestamp_seconds": {"flow"},
    "s3flow_backlog_objects": {"flow", "state"},
    "s3flow_backlog_bytes": {"flow", "state"},
    "s3flow_throughput_bytes_per_second": {"flow"},
    "s3flow_eta_seconds": {"flow", "likelihood"},
    "s3flow_tasks": set(),
    "s3flow_loop_lag_seconds": set(),
    "s3flow_loop_blocks": {"place"},
    "s3flow_loop_blocked_seconds": {"place"},
    "s3flow_build_info": {"version"},
}


def address(running: Running) -> str:
    """Wait until the daemon listens; gives its URL."""
    running.until(lambda: "listening" in running.err.read_text())
    (entry,) = [entry for entry in running.logged() if entry["event"] == "listening"]
    return f"http://{entry['address']}"


def ask(url: str) -> tuple[int, str]:
    """Ask the daemon; gives the status and the answer, 0 when it is gone."""
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_a_daemon_is_seen_from_outside(stage: Stage, supervisor: Supervisor) -> None:
    for number in range(30):
        stage.put(f"secret-name/{number}", b"x" * number)
    program = stage.program({"name": "copies"}, listen="127.0.0.1:0")
    running = program.start("run", **supervisor.environ)
    url = address(running)
    running.until(lambda: program.flow()["objects"]["verified"] == 30)
    assert ask(f"{url}/healthz")[0] == 200
    assert ask(f"{url}/readyz")[0] == 200
    there, beside = json.loads(ask(f"{url}/api/status")[1])["flows"][0], program.flow()
    assert set(there) == set(beside)
    for name in ("objects", "bytes", "states", "methods", "proofs", "reasons", "dropped", "scan"):
        assert there[name] == beside[name]
    assert there["moving"] == {"objects": 0, "bytes": 0, "arrived": 0}  # the state cannot know
    assert beside["moving"] is None

    text = ask(f"{url}/metrics")[1]
    assert "secret-name" not in text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert set(METRICS) <= set(families)
    for name, labels in METRICS.items():
        for sample in families[name].samples:
            assert set(sample.labels) <= labels
            assert sample.labels.get("flow", "copies") == "copies"
            assert sample.labels.get("endpoint", "ours") in {"ours", "theirs", "copies"}
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families.values()
        for sample in family.samples
    }
    assert samples["s3flow_objects_total", "copies", "verified"] == 30
    assert samples["s3flow_bytes_total", "copies", "written"] == sum(range(30))

    running.until(lambda: supervisor.heard().count("WATCHDOG=1") >= 3)
    heard = supervisor.heard()
    assert heard.count("READY=1") == 1
    assert "STOPPING=1" not in heard
    running.stop()
    running.wait(0)
    assert "STOPPING=1" in supervisor.heard()


def test_a_stopping_daemon_is_not_ready(stage: Stage) -> None:
    put_large(stage.ours, stage.source, "large", 24 * MIB)
    flow = {"multipart_threshold": 5 * MIB, "part_size": 5 * MIB}
    proxy = stage.proxy()
    program = stage.program(flow, listen="127.0.0.1:0", max_bytes_per_s=3 * MIB)
    running = program.start("run")
    url = address(running)
    assert ask(f"{url}/readyz")[0] == 200
    running.until(lambda: proxy.seen("upload_part"))
    running.stop()
    seen: list[tuple[int, str]] = []
    running.until(lambda: seen.append(ask(f"{url}/readyz")) or seen[-1][0] != 200)
    assert seen[-1] == (503, "stopping\n")
    assert ask(f"{url}/healthz")[0] == 200
    running.wait(0)


def test_a_new_object_is_found_by_the_next_look(stage: Stage) -> None:
    stage.put("first")
    program = stage.program({"every": "1s"}, {"name": "idle", "target": "nas:"})
    running = program.start("run")
    done = {"flow-0": 1, "idle": 1}

    def verified() -> dict[str, int]:
        return {name: flow["objects"]["verified"] for name, flow in program.status().items()}

    running.until(lambda: verified() == done)
    stage.put("second", b"new")
    running.until(lambda: verified() == done | {"flow-0": 2})
    assert stage.there("second") == b"new"
    running.stop()
    running.wait(0)
    assert verified() == done | {"flow-0": 2}  # without `every` a flow looks once


def test_a_second_daemon_on_the_same_state_is_told_so(stage: Stage) -> None:
    stage.put("first")
    program = stage.program({})
    running = program.start("run")
    running.until(lambda: program.flow()["objects"]["verified"] == 1)
    for command in ("run", "sync", "scan"):
        done = program.run(command, code=3)
        assert "state.db" in done.err
        assert done.err.startswith("s3flow: ")
        assert "Traceback" not in done.err
    assert program.run("status").out.count("1") >= 1  # beside it
    program.run("plan")
    running.stop()
    running.wait(0)
