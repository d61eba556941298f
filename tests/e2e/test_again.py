"""What is done is not done again: no transfer, no read, one listing; proven from outside."""

from __future__ import annotations

from collections import Counter

from tests.demo.compare import keys_of
from tests.e2e.conftest import Stage
from tests.e2e.content import Crowd, digest_of, digests_of_folder
from tests.e2e.program import Program
from tests.e2e.proxy import Proxy

SMALL_AND_LARGE = {"exclude": ["huge/*", "large/two"]}
WRITES = {"put", "upload_part", "create_upload", "complete", "put_tags", "abort", "delete"}


def pages(proxy: Proxy, bucket: str) -> Counter[str]:
    """Count listing requests of *bucket* by where they begin."""
    return Counter(
        request.query.get("start-after", "") + request.query.get("continuation-token", "")
        for request in proxy.seen("list")
        if request.bucket == bucket
    )


def lists_once(proxy: Proxy, bucket: str, keys: int) -> None:
    counted = pages(proxy, bucket)
    assert set(counted.values()) == {1}
    assert len(counted) == -(-keys // 1000)


def reads_nothing(proxy: Proxy) -> None:
    asked = set(proxy.counts())
    assert "list" in asked  # the proxy sees what happens
    assert asked & (WRITES | {"get", "head", "get_tags"}) == set()


def move_crowd(stage: Stage, crowd: Crowd, **flow: object) -> tuple[Program, Proxy]:
    proxy = stage.proxy()
    program = stage.program({"source": f"ours:{crowd.bucket}/", **SMALL_AND_LARGE, **flow})
    program.run("sync")
    return program, proxy


def test_a_second_sync_to_s3_reads_no_object_and_lists_once(stage: Stage, crowd: Crowd) -> None:
    program, proxy = move_crowd(stage, crowd)
    expected = crowd.below("small/", "large/one")
    assert set(keys_of(stage.theirs, stage.target)) == set(expected)
    assert proxy.counts()["get"] >= len(expected)
    before = program.flow()
    proxy.clear()
    program.run("sync")
    reads_nothing(proxy)
    lists_once(proxy, crowd.bucket, len(crowd.digests))
    after = program.flow()
    for part in ("objects", "bytes", "methods", "proofs", "reasons"):
        assert after[part] == before[part]
    # The state is lost: a listing of both sides shows that everything is there.
    for file in program.folder.glob("state.db*"):
        file.unlink()
    proxy.clear()
    program.run("sync")
    lists_once(proxy, crowd.bucket, len(crowd.digests))
    assert set(proxy.counts()) & (WRITES | {"get"}) == set()
    flow = program.flow()
    assert flow["methods"] == {"adopted": len(expected)}
    assert sum(flow["proofs"].values()) == len(expected)


def test_a_second_sync_to_disk_reads_no_object_and_lists_once(stage: Stage, crowd: Crowd) -> None:
    program, proxy = move_crowd(stage, crowd, target="nas:copy/")
    expected = crowd.below("small/", "large/one")
    assert digests_of_folder(stage.nas / "copy") == expected
    proxy.clear()
    program.run("sync")
    reads_nothing(proxy)
    lists_once(proxy, crowd.bucket, len(crowd.digests))
    for file in program.folder.glob("state.db*"):
        file.unlink()
    proxy.clear()
    program.run("sync")
    assert proxy.counts()["get"] == 0
    flow = program.flow()
    assert flow["methods"] == {"adopted": len(expected)}
    assert set(flow["proofs"]) <= {"md5", "checksum"}
    assert digests_of_folder(stage.nas / "copy") == expected


def test_one_object_overwritten_is_one_transfer(stage: Stage) -> None:
    for number in range(20):
        stage.put(f"k{number:02}", b"before %d" % number)
    proxy = stage.proxy()
    program = stage.program({}, {"target": "nas:copy/"})
    program.run("sync")
    stage.put("k07", b"after")
    proxy.clear()
    program.run("sync")
    gets = proxy.seen("get")
    assert [(request.bucket, request.key) for request in gets] == [(stage.source, "k07")] * 2
    assert [request.key for request in proxy.seen("put", "upload_part")] == ["k07"]
    assert stage.there("k07") == (stage.nas / "copy" / "k07").read_bytes() == b"after"
    assert {flow["objects"]["verified"] for flow in program.status().values()} == {20}


def test_what_another_tool_copied_is_adopted(stage: Stage) -> None:
    stage.put("same", b"equal bytes")
    stage.put("differs", b"these bytes")
    stage.theirs.put_object(Bucket=stage.target, Key="same", Body=b"equal bytes")
    stage.theirs.put_object(Bucket=stage.target, Key="differs", Body=b"other bytes")
    proxy = stage.proxy()
    program = stage.program({})
    program.run("sync")
    assert [request.key for request in proxy.seen("get")] == ["differs"]
    flow = program.flow()
    assert flow["methods"] == {"adopted": 1, "put": 1}
    assert digest_of(stage.theirs, stage.target, "differs") == digest_of(
        stage.ours, stage.source, "differs"
    )
