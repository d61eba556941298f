"""The bucket policies that doctor prints, pasted into a store that keeps accounts apart: copies go."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from botocore.client import BaseClient

from tests.e2e.conftest import Stage
from tests.e2e.gaps import need
from tests.e2e.program import Program

Statement = dict[str, Any]


@pytest.fixture
def two(stage: Stage) -> Stage:
    """Give a stage whose accounts can be given rights by each other."""
    need(stage.server, "second-account")
    need(stage.server, "foreign-buckets")
    for number in range(4):
        stage.put(f"in/{number}", b"some bytes", Tagging="k=v", Metadata={"a": "b"})
    stage.put("elsewhere/secret")
    return stage


def printed(program: Program, what: str) -> list[Statement]:
    """Give the statements of the policy whose title says *what*."""
    text = program.run("doctor", "--policies").out
    [body] = re.findall(rf"(?m)^# .*{what}.*\n(?:# .*\n)*((?:^[^#\n].*\n|^}}\n)+)", text)
    found: list[Statement] = json.loads(body)["Statement"]
    return found


def paste(
    two: Stage, client: BaseClient, bucket: str, statements: Sequence[Statement], owner: str
) -> None:
    """Set the policy of a bucket. Whom it lets in has a name of its own in each store."""
    said = [{**statement, "Principal": "*"} for statement in statements]
    if two.server.store == "versitygw":  # there, it is all that counts for the owner as well
        here = f"arn:aws:s3:::{bucket}"
        own = {"Principal": {"AWS": [owner]}, "Action": "s3:*", "Resource": [here, f"{here}/*"]}
        said = [{"Effect": "Allow", **own}, *said]
    policy = json.dumps({"Version": "2012-10-17", "Statement": said})
    client.put_bucket_policy(Bucket=bucket, Policy=policy)


def flow(two: Stage) -> dict[str, object]:
    ends = {"source": f"ours:{two.source}/in/", "target": f"theirs:{two.target}/out/"}
    return {**ends, "method": "server-first"}


def test_the_source_s_bucket_lets_copies_out(two: Stage) -> None:
    program = two.program(flow(two))
    statements = printed(program, 'of endpoint "ours": lets the credentials of "theirs" copy out')
    assert {action for each in statements for action in each["Action"]} == {
        *("s3:GetObject", "s3:GetObjectTagging", "s3:ListBucket"),
    }
    paste(two, two.ours, two.source, statements, two.server.access_key)
    program.run("sync")
    assert program.flow()["methods"] == {"server_copy": 4}
    assert {route["way"] for route in program.flow()["routes"]} == {"target's credentials"}
    with pytest.raises(two.theirs.exceptions.ClientError, match=r"403|AccessDenied"):
        two.theirs.get_object(Bucket=two.source, Key="elsewhere/secret")


def test_the_target_s_bucket_lets_copies_in(two: Stage) -> None:
    program = two.program(flow(two))
    statements = printed(program, 'of endpoint "theirs": lets the credentials of "ours" copy into')
    paste(two, two.theirs, two.target, statements, two.server.accounts[1].access_key)
    program.run("sync")
    assert program.flow()["methods"] == {"server_copy": 4}
    assert {route["way"] for route in program.flow()["routes"]} == {"source's credentials"}
    assert two.there("out/3") == b"some bytes"
    assert two.theirs.head_object(Bucket=two.target, Key="out/3")["Metadata"] == {"a": "b"}
    tags = two.theirs.get_object_tagging(Bucket=two.target, Key="out/3")["TagSet"]
    assert tags == [{"Key": "k", "Value": "v"}]
