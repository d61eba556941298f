"""`workers = 2`: the same promises with several processes, whichever of them dies, and when."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import MIB, Stage
from tests.e2e.content import (
    Crowd,
    digest_of,
    digests_of_bucket,
    digests_of_folder,
    put_large,
    uploads_left,
)
from tests.e2e.program import Program, adds_up
from tests.e2e.proxy import Proxy
from tests.e2e.relaying import parts_sent_twice
from tests.e2e.test_daemon import address, ask
from tests.e2e.test_kill import settle

PARTS = {"multipart_threshold": 16 * MIB, "part_size": 8 * MIB, "lanes": 2}
KILLS = 6


def workers_of(pid: int) -> list[int]:
    """Give the process ids of a supervisor's worker processes; [] when it is gone."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [child for child in map(int, children) if b"s3flow.member" in command_of(child)]
    return []


def command_of(pid: int) -> bytes:
    """Give a process's command line, b"" when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def both(stage: Stage, crowd: Crowd, **daemon: object) -> tuple[Program, dict[str, str], Proxy]:
    """Prepare flows of the crowd to S3 and to disk, moved by two worker processes."""
    proxy = stage.proxy()
    source = {"source": f"ours:{crowd.bucket}/", "exclude": ["huge/*"], **PARTS}
    program = stage.program(
        {"name": "s3", **source},
        {"name": "disk", "target": "nas:copy/", **source},
        **{"workers": 2, **daemon},
    )
    return program, crowd.below("small/", "large/"), proxy


def check(stage: Stage, program: Program, expected: dict[str, str], proxy: Proxy) -> None:
    """Check that all is there, proven and counted, and that no part was answered twice."""
    for flow in program.status().values():
        assert adds_up(flow)
        assert flow["objects"]["verified"] == len(expected)
        assert sum(flow["proofs"].values()) == len(expected)
        assert set(flow["proofs"]) <= {"checksum", "etag", "md5"}
        assert flow["methods"]["multipart"] == 2
    assert digests_of_folder(stage.nas) == {f"copy/{key}": each for key, each in expected.items()}
    assert digests_of_bucket(stage.theirs, stage.target) == expected
    assert uploads_left(stage.theirs, stage.target) == []
    assert parts_sent_twice(proxy.requests) == []


def test_two_processes_move_what_one_does(stage: Stage) -> None:
    for number in range(40):
        stage.put(f"small/{number}", b"%d" % number)
    put_large(stage.ours, stage.source, "large", 21 * MIB)
    parts = {"multipart_threshold": 5 * MIB, "part_size": 5 * MIB}
    program = stage.program(
        {"name": "s3", **parts}, {"name": "disk", "target": "nas:copy/", **parts}, workers=2
    )
    running = program.start("sync")
    seen: set[int] = set()
    running.until(lambda: seen.update(workers_of(running.process.pid)) or len(seen) == 2)
    running.wait(0)
    expected = digests_of_bucket(stage.ours, stage.source)
    assert len(expected) == 41
    assert digests_of_bucket(stage.theirs, stage.target) == expected
    assert digests_of_folder(stage.nas) == {f"copy/{key}": each for key, each in expected.items()}
    for flow in program.status().values():
        assert adds_up(flow)
        assert flow["objects"]["verified"] == 41
        assert set(flow["proofs"]) <= {"checksum", "etag", "md5"}
    assert sum(entry["event"] == "worker process started" for entry in running.logged()) == 2
    assert [pid for pid in seen if command_of(pid)] == []


def test_killed_worker_processes_change_nothing(stage: Stage, crowd: Crowd) -> None:
    program, expected, proxy = both(stage, crowd, max_bytes_per_s=48 * MIB)
    running = program.start("sync")
    rng, killed, at_work = random.Random(20_263), [], 0
    while len(killed) < KILLS:
        # One that dies time and again before it has moved anything is given up, with good reason.
        running.until(
            lambda: running.err.read_text().count("worker process started") > len(killed) + 1
        )
        before = len(proxy.requests)
        running.until(
            lambda before=before: (
                len(proxy.requests) > before + 20 and len(workers_of(running.process.pid)) == 2
            )
        )
        time.sleep(rng.uniform(0, 0.5))
        victim = rng.choice(workers_of(running.process.pid))
        at_work += bool(proxy.in_flight())
        os.kill(victim, signal.SIGKILL)
        killed.append(victim)
        # What reached the server in full is answered: a part of it is not to be sent again.
        running.until(lambda victim=victim: not command_of(victim))
    done = running.wait(0)
    assert at_work >= KILLS // 2
    assert done.err.count("worker process died") == KILLS
    assert any(entry.get("returned") for entry in running.logged())
    check(stage, program, expected, proxy)


def test_a_killed_supervisor_leaves_no_orphan(stage: Stage, crowd: Crowd) -> None:
    program, expected, proxy = both(stage, crowd, max_bytes_per_s=48 * MIB)
    rng = random.Random(20_264)
    for _ in range(4):
        running = program.start("sync")
        before = len(proxy.requests)
        running.until(lambda before=before: len(proxy.requests) > before + 30)
        time.sleep(rng.uniform(0, 0.6))
        workers = workers_of(running.process.pid)
        assert len(workers) == 2
        running.kill()
        deadline = time.monotonic() + 60
        while any(command_of(pid) for pid in workers):
            assert time.monotonic() < deadline, "orphans live on"
            time.sleep(0.01)
        settle(proxy)
    program.run("sync", S3FLOW__DAEMON__MAX_BYTES_PER_S="0")
    check(stage, program, expected, proxy)


@pytest.mark.parametrize("whole_group", [False, True], ids=["supervisor", "all"])
def test_a_stop_lets_the_parts_of_all_processes_end(stage: Stage, whole_group: bool) -> None:
    digests = {name: put_large(stage.ours, stage.source, name, 40 * MIB) for name in ("one", "two")}
    proxy = stage.proxy()
    flow = {"multipart_threshold": 5 * MIB, "part_size": 5 * MIB, "lanes": 2}
    program = stage.program(flow, workers=2, max_bytes_per_s=16 * MIB)
    running = program.start("sync")
    running.until(lambda: len(ended_parts(proxy)) >= 3)
    workers = workers_of(running.process.pid)
    assert len(workers) == 2
    for pid in (*(workers if whole_group else ()), running.process.pid):
        os.kill(pid, signal.SIGTERM)
    done = running.wait(75)
    assert "worker process died" not in done.err
    assert [pid for pid in workers if command_of(pid)] == []
    begun = {(request.key, request.query["partNumber"]) for request in proxy.seen("upload_part")}
    assert begun == ended_parts(proxy), "a part was cut off"
    assert len(begun) < 16, "it was not stopped in mid-run"
    assert {key for key, _ in begun} == set(digests), "one process had both objects"
    program.run("sync", S3FLOW__DAEMON__MAX_BYTES_PER_S="0")
    assert parts_sent_twice(proxy.requests) == []
    for name, digest in digests.items():
        assert digest_of(stage.theirs, stage.target, name) == digest
    assert uploads_left(stage.theirs, stage.target) == []


def ended_parts(proxy: Proxy) -> set[tuple[str, str]]:
    """Give the parts that the server took."""
    return {
        (request.key, request.query["partNumber"])
        for request in proxy.seen("upload_part")
        if request.status == 200
    }


def test_a_second_signal_does_not_wait_for_any_process(stage: Stage) -> None:
    digest = put_large(stage.ours, stage.source, "large", 24 * MIB)
    proxy = stage.proxy()
    stage.put("small", b"x" * MIB)
    flow = {"multipart_threshold": 5 * MIB, "part_size": 5 * MIB, "lanes": 2}
    program = stage.program(
        flow,
        {"name": "disk", "target": "nas:"},
        workers=2,
        max_bytes_per_s=150_000,
        drain_timeout="10m",
    )
    running = program.start("sync")
    running.until(lambda: proxy.seen("upload_part") and list(stage.nas.glob(".s3flow-????????*")))
    running.stop()
    time.sleep(0.5)
    assert running.process.poll() is None, "it did not drain"
    running.stop()
    running.wait(75)
    # Nobody killed them: each cleared away what it had not finished.
    assert [path.name for path in stage.nas.iterdir()] == [".s3flow-root"]
    program.run("sync", S3FLOW__DAEMON__MAX_BYTES_PER_S="0")
    assert digest_of(stage.theirs, stage.target, "large") == digest
    assert uploads_left(stage.theirs, stage.target) == []


def test_one_scrape_shows_all_processes(stage: Stage) -> None:
    sizes = {f"{number}": number * 1000 for number in range(40)}
    for key, size in sizes.items():
        stage.put(key, b"x" * size)
    program = stage.program({"name": "copies"}, workers=2, listen="127.0.0.1:0")
    running = program.start("run")
    url = address(running)
    running.until(lambda: program.flow()["objects"]["verified"] == len(sizes))

    def samples() -> dict[tuple[str, ...], float]:
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(ask(f"{url}/metrics")[1])
            for sample in family.samples
        }

    running.until(lambda: samples().get(("s3flow_worker_cpu_seconds_total", "1"), 0) > 0)
    found = samples()
    assert found["s3flow_objects_total", "copies", "verified"] == len(sizes)
    assert found["s3flow_bytes_total", "copies", "written"] == sum(sizes.values())
    assert found["s3flow_bytes_total", "copies", "read"] == sum(sizes.values())
    assert found["s3flow_inflight_transfers", "copies"] == 0
    assert found["s3flow_worker_processes",] == 2
    assert found["s3flow_worker_restarts_total",] == 0
    victim = workers_of(running.process.pid)[0]
    os.kill(victim, signal.SIGKILL)
    running.until(lambda: samples()["s3flow_worker_restarts_total",] == 1)
    running.until(lambda: samples()["s3flow_worker_processes",] == 2)
    assert victim not in workers_of(running.process.pid)
    running.stop()
    running.wait(0)


def test_no_secret_is_in_a_command_line_and_a_broken_worker_ends_all(stage: Stage) -> None:
    stage.put("first")
    program = stage.program({}, workers=2)
    running = program.start("run")
    running.until(lambda: program.flow()["objects"]["verified"] == 1)
    lines = b"".join(command_of(pid) for pid in workers_of(running.process.pid))
    secrets = [value for name, value in program.environ.items() if name.endswith("_SECRET")]
    assert lines
    assert secrets
    assert not any(secret.encode() in lines for secret in secrets)
    killed: set[int] = set()

    def kill_all() -> bool:
        for pid in set(workers_of(running.process.pid)) - killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        return running.process.poll() is not None

    running.until(kill_all)
    done = running.wait(75)
    assert "times in a row" in done.err
