"""Copies between two accounts: whose credentials ask for them, object by object, and who owns the copy."""

from __future__ import annotations

import json

import pytest

from tests.demo import compare
from tests.e2e.conftest import Stage
from tests.e2e.content import PART, put_large, uploads_left
from tests.e2e.gaps import need
from tests.e2e.program import adds_up
from tests.servers import make_bucket

FIRST = {"method": "server-first", "part_size": PART}
SOURCE, TARGET = "source's credentials", "target's credentials"


def allow(client: object, bucket: str, keys: str = "*", *, deny: str = "") -> None:
    """Let everybody do everything with *keys* of a bucket, and read nothing of those that *deny* names."""
    here = f"arn:aws:s3:::{bucket}"
    statements = [
        {
            "Effect": "Allow",
            "Principal": "*",
            "Action": "s3:*",
            "Resource": [here, f"{here}/{keys}"],
        }
    ]
    if deny:
        statements.append(
            {
                "Effect": "Deny",
                "Principal": "*",
                "Action": "s3:PutObject",
                "Resource": f"{here}/{deny}",
            }
        )
    policy = {"Version": "2012-10-17", "Statement": statements}
    client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))  # type: ignore[attr-defined]


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


def test_each_object_goes_the_way_that_it_may(two: Stage) -> None:
    for number in range(12):
        two.put(f"{number:02d}-{'open' if number % 2 else 'closed'}", b"some bytes")
    allow(two.ours, two.source, "*-open")
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
    if two.server.store != "ceph":
        pytest.skip("whose an object is, is its bucket's owner's there")
    # The ACL that would give it to them is denied: the source's account keeps what it writes.
    here = f"arn:aws:s3:::{two.target}"
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": "*",
                "Action": ["s3:PutObject", "s3:ListBucket"],
                "Resource": [here, f"{here}/*"],
            }
        ],
    }
    two.theirs.put_bucket_policy(Bucket=two.target, Policy=json.dumps(policy))
    for number in range(6):
        two.put(f"{number}")
    program = two.program(FIRST)
    program.run("sync")
    found = compare.with_bucket(two.ours, two.source, two.theirs, two.target)
    assert (found.differences, found.objects) == ([], 6)
    assert program.flow()["methods"] == {"put": 6}
    [route] = program.flow()["routes"]
    print(route)


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
