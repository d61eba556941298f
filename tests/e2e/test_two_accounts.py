"""Copies between two accounts: whose credentials ask for them, object by object, and who owns the copy."""

from __future__ import annotations

import json

import pytest
from botocore.client import BaseClient

from tests.demo import compare
from tests.e2e.conftest import Stage
from tests.e2e.content import PART, put_large, uploads_left
from tests.e2e.gaps import need
from tests.e2e.program import adds_up
from tests.e2e.relaying import Request
from tests.servers import make_bucket

FIRST = {"method": "server-first", "part_size": PART}
SOURCE, TARGET = "source's credentials", "target's credentials"


def allow(
    client: BaseClient, bucket: str, keys: str = "*", *, denied: str = "", owner: str = ""
) -> None:
    """Let everybody do everything with *keys* of a bucket, but for what is *denied*.

    The *owner* may do all of it, where that does not go without saying.
    """
    here = f"arn:aws:s3:::{bucket}"
    everybody = {"Principal": "*", "Action": "s3:*", "Resource": [here, f"{here}/{keys}"]}
    statements = [{"Effect": "Allow", **everybody}]
    if denied:
        statements.append(
            {"Effect": "Deny", **everybody, "Action": denied, "Resource": f"{here}/*"}
        )
    if owner:
        own = {"Principal": {"AWS": [owner]}, "Action": "s3:*", "Resource": [here, f"{here}/*"]}
        statements.append({"Effect": "Allow", **own})
    policy = {"Version": "2012-10-17", "Statement": statements}
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


@pytest.fixture
def two(stage: Stage) -> Stage:
    """Give a stage whose accounts can be given rights by each other."""
    need(stage.server, "second-account")
    need(stage.server, "foreign-buckets")
    return stage


def routes(stage: Stage, program: object) -> dict[str, str]:
    """Give the ways that are known, by what goes them."""
    found = program.flow()["routes"]  # type: ignore[attr-defined]
    assert {route["bucket"] for route in found} <= {stage.source}
    return {route["what"]: route["way"] for route in found}


def test_the_source_s_account_copies_where_only_it_may(two: Stage) -> None:
    about = {"Metadata": {"a": "b"}, "ContentType": "text/x", "Tagging": "k=v"}
    for number in range(20):
        two.put(f"small/{number}", b"%d bytes" % number, **about)
    put_large(two.ours, two.source, "large", 3 * PART - 5)
    allow(two.theirs, two.target)
    proxy = two.proxy()
    program = two.program(FIRST)
    assert SOURCE in program.run("doctor").out
    proxy.clear()
    program.run("sync")
    # It is theirs to read: whoever wrote it.
    found = compare.with_bucket(two.ours, two.source, two.theirs, two.target)
    assert (found.differences, found.objects) == ([], 21)
    flow = program.flow()
    assert adds_up(flow)
    assert flow["methods"]["server_copy"] == 20
    assert routes(two, program)["objects"] == SOURCE
    assert len(proxy.seen("put_copy")) <= 20 + 4  # not twice for each object
    assert not proxy.seen("put")
    assert flow["methods"]["server_multipart"] == 1
    assert uploads_left(two.theirs, two.target) == []


def test_a_killed_copy_of_the_source_s_goes_on_with_the_missing_parts_only(two: Stage) -> None:
    parts = 6
    put_large(two.ours, two.source, "large", parts * PART - 5)
    allow(two.theirs, two.target)
    killed: list[bool] = []

    def slow_last_parts(request: Request) -> float:
        late = request.kind == "upload_part_copy" and int(request.query["partNumber"]) > parts // 2
        return 120.0 if late and not killed else 0.0

    proxy = two.proxy(delay=slow_last_parts)
    program = two.program(FIRST)
    running = program.start("sync")

    def answered() -> int:
        return sum(each.status == 200 for each in proxy.seen("upload_part_copy"))

    running.until(lambda: answered() == parts // 2)
    running.kill()
    killed.append(True)
    proxy.clear()
    program.run("sync")
    assert program.flow()["methods"] == {"server_multipart": 1}
    assert routes(two, program) == {"parts": SOURCE}
    again = {int(each.query["partNumber"]) for each in proxy.seen("upload_part_copy")}
    assert again == set(range(parts // 2 + 1, parts + 1))
    assert not {"get", "create_upload", "upload_part"} & proxy.counts().keys()
    found = compare.with_bucket(two.ours, two.source, two.theirs, two.target)
    assert (found.differences, found.objects) == ([], 1)
    assert uploads_left(two.theirs, two.target) == []


def test_each_object_goes_the_way_that_it_may(two: Stage) -> None:
    for number in range(12):
        two.put(f"{number:02d}-{'open' if number % 2 else 'closed'}", b"some bytes")
    # To versitygw a policy is all that counts, for the bucket's owner as well.
    owner = two.server.access_key if two.server.store == "versitygw" else ""
    allow(two.ours, two.source, "*-open", owner=owner)
    program = two.program(FIRST, concurrency=1)
    program.run("sync")
    found = compare.with_bucket(two.ours, two.source, two.theirs, two.target)
    assert (found.differences, found.objects) == ([], 12)
    flow = program.flow()
    assert flow["methods"] == {"server_copy": 6, "put": 6}
    assert flow["objects"]["failed"] == 0


def test_what_was_found_out_is_known_to_the_next_run(two: Stage) -> None:
    for number in range(5):
        two.put(f"first/{number}")
    proxy = two.proxy()
    program = two.program(FIRST)
    program.run("sync")
    assert set(routes(two, program).values()) == {"streamed"}
    assert proxy.seen("put_copy")
    assert "streamed" in program.run("status").out
    # It is not asked again, though by now it would be allowed…
    allow(two.ours, two.source)
    proxy.clear()
    for number in range(5):
        two.put(f"second/{number}")
    program.run("sync")
    assert proxy.seen("put_copy") == []
    assert program.flow()["methods"] == {"put": 10}
    # … unless the endpoints are others.
    two.endpoints["theirs"]["url"] = two.endpoints["ours"]["url"] = two.server.url
    two.put("third")
    program = two.program(FIRST)
    program.run("sync")
    assert program.flow()["methods"] == {"put": 10, "server_copy": 1}
    assert routes(two, program) == {"objects": TARGET}


def test_a_copy_that_they_cannot_read_is_none(two: Stage) -> None:
    # The source's account may write there, and the target's is kept from seeing what it wrote.
    allow(two.theirs, two.target, denied="s3:GetObject")
    for number in range(6):
        two.put(f"{number}")
    program = two.program(FIRST)
    program.run("sync")
    two.theirs.delete_bucket_policy(Bucket=two.target)
    found = compare.with_bucket(two.ours, two.source, two.theirs, two.target)
    assert (found.differences, found.objects) == ([], 6)
    assert program.flow()["methods"] == {"put": 6}
    [route] = program.flow()["routes"]
    assert route["way"] == "streamed"
    assert "not readable by the target's account" in route["reason"]


def test_a_bucket_of_one_s_own_needs_no_second_look(stage: Stage) -> None:
    stage.target = make_bucket(stage.server, 0)
    stage.theirs = stage.ours
    stage.endpoints["theirs"] = {**stage.endpoints["ours"]}
    for number in range(10):
        stage.put(f"{number}")
    proxy = stage.proxy()
    program = stage.program(FIRST)
    program.run("sync")
    assert program.flow()["methods"] == {"server_copy": 10}
    assert routes(stage, program) == {"objects": TARGET}
    assert proxy.counts()["put_copy"] == 10
    assert not proxy.seen("head", "put")
