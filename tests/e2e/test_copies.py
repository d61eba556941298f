"""Copies inside the store where the target's account may read the source; streams where it may not."""

from __future__ import annotations

import json

from tests.demo import compare, objects
from tests.e2e.conftest import Stage
from tests.e2e.content import KINDS, PART, put_large, uploads_left
from tests.e2e.gaps import lacks, need
from tests.e2e.program import adds_up
from tests.e2e.relaying import Request
from tests.servers import make_bucket

FIRST, ONLY = {"method": "server-first"}, {"method": "server-only"}
INSIDE = {"server_copy", "server_multipart"}
STREAMED = {"put", "multipart"}
PARTS = 6
TRIES = (
    5  # objects that are tried in vain, by either account: three in a row, and who was on its way
)


def put_kinds(stage: Stage) -> int:
    for sample in KINDS:
        objects.put(stage.ours, stage.source, sample)
    return len(KINDS)


def open_source(stage: Stage) -> None:
    """Let the target's account read the source bucket; where none can, one account has both."""
    if lacks(stage.server, "foreign-buckets"):
        stage.target = make_bucket(stage.server, 0)
        stage.theirs = stage.ours
        stage.endpoints["theirs"] = {**stage.endpoints["ours"]}
    elif not lacks(stage.server, "second-account"):
        statement = {
            "Effect": "Allow",
            "Principal": "*",
            # To some stores a policy is all that counts, for the bucket's owner as well.
            "Action": "s3:*",
            "Resource": [f"arn:aws:s3:::{stage.source}", f"arn:aws:s3:::{stage.source}/*"],
        }
        policy = {"Version": "2012-10-17", "Statement": [statement]}
        stage.ours.put_bucket_policy(Bucket=stage.source, Policy=json.dumps(policy))


def test_a_store_that_may_copies_objects_of_every_kind_by_itself(stage: Stage) -> None:
    need(stage.server, "copied-expires")
    count = put_kinds(stage)
    open_source(stage)
    proxy = stage.proxy()
    program = stage.program(FIRST)
    assert "no byte need pass" in program.run("doctor").out
    proxy.clear()
    program.run("sync")
    found = compare.with_bucket(stage.ours, stage.source, stage.theirs, stage.target)
    assert found.differences == []
    assert found.objects == count
    flow = program.flow()
    assert adds_up(flow)
    parts_too = not lacks(stage.server, "foreign-part-copies")
    assert set(flow["methods"]) <= (INSIDE if parts_too else {"server_copy", "multipart"})
    assert flow["methods"]["server_copy"] >= count - 4
    assert sum(flow["methods"].values()) == sum(flow["proofs"].values()) == count
    assert set(flow["proofs"]) <= {"checksum", "etag"}
    assert not {"put", *(("get", "upload_part") if parts_too else ())} & proxy.counts().keys()
    assert uploads_left(stage.theirs, stage.target) == []


def test_where_the_account_may_not_everything_is_streamed_and_nothing_fails(stage: Stage) -> None:
    need(stage.server, "second-account")
    count = put_kinds(stage)
    for number in range(100):
        stage.put(f"many/{number}")
    proxy = stage.proxy()
    program = stage.program(FIRST)
    told = program.run("doctor").out
    assert "objects will be streamed" in told
    assert "FAIL" not in told
    proxy.clear()
    done = program.run("sync")
    found = compare.with_bucket(stage.ours, stage.source, stage.theirs, stage.target)
    assert found.differences == []
    assert found.objects == count + 100
    flow = program.flow()
    assert set(flow["methods"]) <= STREAMED
    assert flow["objects"]["failed"] == 0
    assert 0 < len({request.key for request in proxy.seen("put_copy")}) <= TRIES
    assert len({request.key for request in proxy.seen("upload_part_copy")}) <= TRIES
    told = [line for line in done.err.splitlines() if "inside the store" in line]
    assert len([line for line in told if "no objects from" in line]) == 1
    assert len(told) <= 2  # of objects in parts it may be told as well


def test_server_only_fails_with_the_reason_where_the_account_may_not(stage: Stage) -> None:
    need(stage.server, "second-account")
    stage.put("a")
    program = stage.program(ONLY)
    assert "FAIL" in program.run("doctor", code=1).out
    program.run("sync", code=1)
    assert program.flow()["reasons"] == {"copy_refused": 1}
    told = program.run("failures").out
    assert "s3:GetObject" in told
    assert stage.theirs.list_objects_v2(Bucket=stage.target)["KeyCount"] == 0
    if lacks(stage.server, "foreign-buckets"):
        return
    open_source(stage)
    program.run("retry")
    program.run("sync")
    assert program.flow()["methods"] == {"server_copy": 1}
    assert stage.there("a") == b"some bytes"


def test_a_killed_copy_goes_on_with_the_missing_parts_only(stage: Stage) -> None:
    need(stage.server, "foreign-part-copies")
    put_large(stage.ours, stage.source, "large", PARTS * PART - 5)
    open_source(stage)

    def slow_last_parts(request: Request) -> float:
        late = request.kind == "upload_part_copy" and int(request.query["partNumber"]) > PARTS // 2
        return 120.0 if late and not killed else 0.0

    killed: list[bool] = []
    proxy = stage.proxy(delay=slow_last_parts)
    program = stage.program(FIRST | {"part_size": PART})
    running = program.start("sync")

    def answered() -> int:
        return sum(each.status == 200 for each in proxy.seen("upload_part_copy"))

    running.until(lambda: answered() == PARTS // 2)
    running.kill()
    killed.append(True)
    proxy.clear()
    program.run("sync")
    assert program.flow()["methods"] == {"server_multipart": 1}
    again = {int(each.query["partNumber"]) for each in proxy.seen("upload_part_copy")}
    assert again == set(range(PARTS // 2 + 1, PARTS + 1))
    assert not {"get", "create_upload", "upload_part"} & proxy.counts().keys()
    found = compare.with_bucket(stage.ours, stage.source, stage.theirs, stage.target)
    assert (found.differences, found.objects) == ([], 1)
    assert uploads_left(stage.theirs, stage.target) == []


def test_a_bucket_behind_two_urls_is_not_copied_below_itself(stage: Stage) -> None:
    for number in range(5):
        stage.put(f"a/{number}")
    # One account behind another URL: nothing but its objects shows that it is the same bucket.
    stage.endpoints["theirs"] = {**stage.endpoints["ours"]}
    stage.through(stage.proxy(), "theirs")
    stage.endpoints["ours"]["url"] = stage.server.url
    program = stage.program({"target": f"theirs:{stage.source}/z/"})
    assert "the same objects" in program.run("doctor", code=1).out
    done = program.run("sync", code=1)
    assert "the same objects" in done.err
    keys = stage.ours.list_objects_v2(Bucket=stage.source)
    assert keys["KeyCount"] == 5
