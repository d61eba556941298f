"""A move: all arrives, all is gone at the source, and nothing went before it had arrived for certain."""

from __future__ import annotations

import contextlib
import hashlib
import random
import sqlite3
import time
from pathlib import Path

import pytest

from tests.demo.compare import keys_of
from tests.e2e.conftest import Stage
from tests.e2e.content import digests_of_bucket, digests_of_folder, fill
from tests.e2e.gaps import moving
from tests.e2e.program import Program, adds_up
from tests.e2e.relaying import Request
from tests.e2e.test_kill import settle

OBJECTS = 400
KILLS = 6


def proven(folder: Path) -> set[str]:
    """Read the keys whose rows say that their copies are proven, past all code of s3flow."""
    place = f"file:{folder / 'state.db'}?mode=ro"
    with contextlib.closing(sqlite3.connect(place, uri=True)) as db:
        rows = db.execute("SELECT object_key FROM objects WHERE state IN (10, 11)").fetchall()
    return {bytes(key).decode() for (key,) in rows}


def everything_is_moved(stage: Stage, program: Program, expected: int) -> None:
    assert list(keys_of(stage.ours, stage.source)) == []
    for flow in program.status().values():
        assert flow["objects"]["deleted"] == expected, flow
        assert flow["deletes"] == {"held": None, "kept": {}}
        assert adds_up(flow)


@pytest.mark.parametrize("to_disk", [True, False])
def test_a_move_under_kills_loses_nothing(stage: Stage, to_disk: bool) -> None:
    large = {"large/one": 24 * 1024 * 1024}
    crowd = fill(stage.server, 0, stage.source, OBJECTS, large)
    proxy = stage.proxy(delay=lambda it: 0.1 if it.kind.startswith("delete") else 0.0)
    target = {"target": "nas:copy/"} if to_disk else {}
    program = stage.program(
        moving(stage.server, multipart_threshold="16MiB", part_size="8MiB", **target),
        max_requests_per_s=80,
        concurrency=4,
    )
    rng = random.Random(5)
    hit = 0
    for _ in range(KILLS):
        before = len(proxy.requests)
        running = program.start("sync")
        running.until(lambda before=before: len(proxy.requests) > before)
        time.sleep(rng.uniform(0.4, 1.2))
        if running.process.poll() is not None:
            break
        running.kill()
        settle(proxy)
        left = set(keys_of(stage.ours, stage.source))
        gone = crowd.digests.keys() - left
        assert gone <= proven(program.folder), "deleted before it was durable that it had arrived"
        hit += bool(gone) and bool(left)
    assert hit >= 2, "the kills came before or after the deletes: change the pace"
    program.run("sync", S3FLOW__DAEMON__MAX_REQUESTS_PER_S="0")
    everything_is_moved(stage, program, len(crowd.digests))
    if to_disk:
        copies = {f"copy/{key}": each for key, each in crowd.digests.items()}
        assert digests_of_folder(stage.nas) == copies
    else:
        assert digests_of_bucket(stage.theirs, stage.target) == crowd.digests
    assert ", intact" in program.run("audit", "verify").out


def test_worker_processes_move_and_the_supervisor_deletes(stage: Stage) -> None:
    crowd = fill(stage.server, 0, stage.source, OBJECTS, {})
    program = stage.program(moving(stage.server), workers=2)
    program.run("sync")
    everything_is_moved(stage, program, OBJECTS)
    assert digests_of_bucket(stage.theirs, stage.target) == crowd.digests


def test_what_is_overwritten_between_proof_and_delete_survives_and_is_moved_too(
    ministack_stage: Stage,
) -> None:
    stage = ministack_stage
    crowd = fill(stage.server, 0, stage.source, 50, {})
    chosen = sorted(crowd.digests)[25]
    written: list[bool] = []

    def overwrite(request: Request) -> float:
        if request.kind.startswith("delete") and ".s3flow-probe" not in request.key and written:
            return 0.0
        probing = request.kind == "delete_many" and probes[0] > 0
        probes[0] -= probing
        if request.kind == "delete_many" and not probing:
            stage.put(chosen, b"new bytes")
            written.append(True)
        return 0.0

    probes = [2]  # requests of the probe: one with another ETag, one with its own
    stage.proxy(delay=overwrite)
    program = stage.program({"mode": "move", "target": "nas:copy/"})
    program.run("sync")
    assert written
    everything_is_moved(stage, program, 50)
    expected = {f"copy/{key}": each for key, each in crowd.digests.items()}
    expected[f"copy/{chosen}"] = hashlib.sha256(b"new bytes").hexdigest()
    assert digests_of_folder(stage.nas) == expected


def test_a_hold_is_heeded_by_a_daemon_and_by_the_next_one(stage: Stage) -> None:
    for number in range(20):
        stage.put(f"first/{number}")
    program = stage.program(moving(stage.server, every="300ms"))
    program.run("hold", "flow-0", "--why", "of mine")
    program.run("sync")
    flow = program.flow()
    assert flow["objects"]["verified"] == 20
    assert flow["deletes"]["held"]["why"] == "of mine"
    assert "of mine" in program.run("status").out
    running = program.start("run")
    running.until(lambda: "no source is deleted" in running.err.read_text())
    stage.put("second/1")
    running.until(lambda: program.flow()["objects"]["verified"] == 21)
    assert "released" in program.run("release", "flow-0").out
    running.until(lambda: program.flow()["objects"]["deleted"] == 21)
    assert list(keys_of(stage.ours, stage.source)) == []
    program.run("hold", "flow-0")
    stage.put("third/1")
    running.until(lambda: program.flow()["objects"]["verified"] == 1)
    time.sleep(0.5)
    assert list(keys_of(stage.ours, stage.source)) == ["third/1"]
    running.stop()
    running.wait()
    assert "not held" not in program.run("release", "flow-0").out
    assert "not held" in program.run("release", "flow-0").out
    program.run("hold", "flow-9", code=2)


def test_no_delete_leaves_the_sources_to_the_next_run(stage: Stage) -> None:
    stage.put("a")
    program = stage.program(moving(stage.server))
    program.run("sync", "--no-delete")
    assert list(keys_of(stage.ours, stage.source)) == ["a"]
    assert program.flow()["objects"]["verified"] == 1
    program.run("sync")
    everything_is_moved(stage, program, 1)


def test_a_file_that_is_lost_after_its_proof_is_moved_again(stage: Stage) -> None:
    body = b"worth keeping"
    stage.put("kept/one", body)
    stage.put("kept/two", body)
    stage.put("folder/", b"")
    program = stage.program(moving(stage.server, target="nas:copy/"))
    program.run("sync", "--no-delete")
    (stage.nas / "copy/kept/one").unlink()
    program.run("sync")
    everything_is_moved(stage, program, 3)
    assert (stage.nas / "copy/kept/one").read_bytes() == body


def test_versions_are_removed_where_that_is_asked_for(ministack_stage: Stage) -> None:
    stage = ministack_stage
    versioned = {"Status": "Enabled"}
    stage.ours.put_bucket_versioning(Bucket=stage.source, VersioningConfiguration=versioned)
    stage.put("a", b"old")
    stage.put("a", b"new")
    program = stage.program({"mode": "move", "delete": "version"})
    program.run("sync")
    answer = stage.ours.list_object_versions(Bucket=stage.source)
    assert "DeleteMarkers" not in answer
    [left] = answer["Versions"]
    assert left["Size"] == 3
    assert stage.there("a") == b"new"
    # What was below it is an object again, and the next run moves it.
    program.run("sync")
    assert "Versions" not in stage.ours.list_object_versions(Bucket=stage.source)
    assert stage.there("a") == b"old"


def test_files_that_others_copied_are_adopted_and_their_sources_deleted(stage: Stage) -> None:
    for name in ("equal", "other"):
        stage.put(f"in/{name}", b"some bytes")
    folder = stage.nas / "copy/in"
    folder.mkdir(parents=True)
    (folder / "equal").write_bytes(b"some bytes")
    (folder / "other").write_bytes(b"SOME BYTES")
    program = stage.program(moving(stage.server, target="nas:copy/"))
    program.run("sync")
    everything_is_moved(stage, program, 2)
    assert program.flow()["methods"] == {"adopted": 1, "put": 1}
    assert (folder / "other").read_bytes() == b"some bytes"


def test_a_legal_hold_keeps_its_version_and_says_so(ministack_stage: Stage) -> None:
    stage = ministack_stage
    locked = f"locked-{random.randrange(2**40):x}"
    stage.ours.create_bucket(Bucket=locked, ObjectLockEnabledForBucket=True)
    stage.source = locked
    stage.put("free")
    stage.put("held")
    stage.ours.put_object_legal_hold(Bucket=locked, Key="held", LegalHold={"Status": "ON"})
    program = stage.program({"mode": "move", "delete": "version"})
    program.run("sync", code=1)
    assert list(keys_of(stage.ours, locked)) == ["held"]
    flow = program.flow()
    assert flow["deletes"]["kept"] == {"delete_denied": 1}
    assert (flow["objects"]["verified"], flow["objects"]["deleted"]) == (1, 1)
    assert "delete_denied" in program.run("status").out
    stage.ours.put_object_legal_hold(Bucket=locked, Key="held", LegalHold={"Status": "OFF"})
    program.run("sync", code=1)  # it is not asked for again by itself
    assert "1 object" in program.run("retry").out
    program.run("sync")
    everything_is_moved(stage, program, 2)


def test_doctor_says_how_the_source_deletes(ministack_stage: Stage) -> None:
    ministack_stage.put("in/a")
    program = ministack_stage.program({"mode": "move", "target": "nas:copy/"})
    said = program.run("doctor").out
    assert "delete conditionally in" in said
    assert "only the version that was copied" in said
    assert list(keys_of(ministack_stage.ours, ministack_stage.source)) == ["in/a"]
