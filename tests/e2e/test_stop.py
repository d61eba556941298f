"""SIGTERM in mid-run: what is in flight ends, is recorded, and is not sent again."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import MIB, Stage
from tests.e2e.content import digest_of, digests_of_folder, put_large, uploads_left
from tests.e2e.program import Program, adds_up
from tests.e2e.proxy import Proxy
from tests.e2e.relaying import parts_sent_twice
from tests.e2e.supervisor import Supervisor

SIZE = 60 * MIB + 1
PARTS = 5 * MIB


def slow_program(stage: Stage, pace: int, **daemon: object) -> tuple[Program, Proxy, str]:
    """Prepare a large object among small ones, moved at *pace* bytes per second."""
    digest = put_large(stage.ours, stage.source, "large", SIZE)
    for number in range(20):
        stage.put(f"small/{number}", b"%d" % number)
    proxy = stage.proxy()
    flow = {"multipart_threshold": PARTS, "part_size": PARTS, "lanes": 2}
    return stage.program(flow, max_bytes_per_s=pace, **daemon), proxy, digest


def parts_taken(proxy: Proxy) -> set[str]:
    """Give the numbers of the parts that the server took."""
    return {
        request.query["partNumber"]
        for request in proxy.seen("upload_part")
        if request.status == 200
    }


@pytest.mark.parametrize(("command", "code"), [("sync", 75), ("run", 0)])
def test_a_stop_lets_parts_end_and_the_next_run_sends_the_others(
    stage: Stage, command: str, code: int
) -> None:
    program, proxy, digest = slow_program(stage, 12 * MIB)
    running = program.start(command)
    running.until(lambda: len(parts_taken(proxy)) >= 2)
    running.stop()
    assert "stopping: what is begun is finished" in running.wait(code).err
    # Nothing was cut off: each part that had begun was taken.
    begun = {request.query["partNumber"] for request in proxy.seen("upload_part")}
    taken = parts_taken(proxy)
    assert begun == taken
    assert 2 <= len(taken) < 8, "it was not stopped in mid-run"
    (upload,) = stage.theirs.list_multipart_uploads(Bucket=stage.target)["Uploads"]
    held = stage.theirs.list_parts(Bucket=stage.target, Key="large", UploadId=upload["UploadId"])[
        "Parts"
    ]
    assert {str(part["PartNumber"]) for part in held} == taken
    flow = program.flow()
    assert adds_up(flow)
    assert flow["objects"]["pending"] >= 1
    assert flow["objects"]["verified"] == len(
        [one for one in proxy.seen("put") if one.status == 200]
    )
    at_stop = len(proxy.requests)
    program.run("sync", S3FLOW__DAEMON__MAX_BYTES_PER_S="0")
    again = {
        request.query["partNumber"]
        for request in proxy.requests[at_stop:]
        if request.kind == "upload_part"
    }
    assert again
    assert again & taken == set()
    assert parts_sent_twice(proxy.requests) == []
    assert digest_of(stage.theirs, stage.target, "large") == digest
    assert uploads_left(stage.theirs, stage.target) == []
    assert program.flow()["objects"]["verified"] == 21


def test_a_second_signal_does_not_wait(stage: Stage, supervisor: Supervisor) -> None:
    # At this pace the parts in flight take a minute, and draining may last ten.
    program, proxy, digest = slow_program(stage, 150_000, drain_timeout="10m")
    running = program.start("sync", **supervisor.environ)
    running.until(lambda: proxy.seen("upload_part"))
    running.stop()
    running.until(lambda: "STOPPING=1" in supervisor.heard())
    assert running.process.poll() is None, "it did not drain"
    running.stop()
    running.wait(75)
    assert any(not request.status for request in proxy.seen("upload_part")), "nothing was cut off"
    program.run("sync", S3FLOW__DAEMON__MAX_BYTES_PER_S="0")
    assert digest_of(stage.theirs, stage.target, "large") == digest
    assert uploads_left(stage.theirs, stage.target) == []


def test_a_file_half_written_goes_on_after_a_stop(stage: Stage) -> None:
    digest = put_large(stage.ours, stage.source, "large", SIZE)
    proxy = stage.proxy()
    flow = {"target": "nas:", "multipart_threshold": PARTS, "part_size": PARTS, "lanes": 2}
    program = stage.program(flow, max_bytes_per_s=12 * MIB)
    running = program.start("sync")
    running.until(lambda: len([get for get in proxy.seen("get") if get.ended]) >= 2)
    running.stop()
    running.wait(75)
    done = len(proxy.seen("get"))
    assert done < 8, "it was not stopped in mid-run"
    assert not (stage.nas / "large").exists()
    proxy.clear()
    program.run("sync", S3FLOW__DAEMON__MAX_BYTES_PER_S="0")
    assert len(proxy.seen("get")) == 13 - done
    assert digests_of_folder(stage.nas) == {"large": digest}
