"""Stores and routes put together: who copies for whom, and what tells one configuration from another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from s3flow.assembly import LocalSettings, StoreSettings, opened
from s3flow.engine.wiring import Wiring
from s3flow.model import Flow, Place
from s3flow.policies import MethodPolicy
from s3flow.stores.s3 import S3Settings, S3Store

SRC = S3Settings("src", "https://s3.example.com", access_key_id="A", secret_access_key="secret-a")
DST = S3Settings("dst", "https://s3.example.com", access_key_id="B", secret_access_key="secret-b")
FLOW = Flow("flow", Place("src", "from", b""), Place("dst", "to", b""))


async def wired(source: StoreSettings, target: StoreSettings, flow: Flow = FLOW) -> Wiring:
    async with opened({"src": source, "dst": target}, [flow]) as (wiring,):
        return wiring


async def test_the_source_s_account_copies_at_the_target_where_both_are_one_service() -> None:
    wiring = await wired(SRC, DST)
    copier = wiring.copier
    assert isinstance(copier, S3Store)
    assert copier is not wiring.target
    assert (copier.service, copier.name) == (wiring.target.service, "dst")
    settings = copier._rest._settings
    assert (settings.access_key_id, settings.secret_access_key) == ("A", "secret-a")
    assert (settings.acl, settings.acl_is_wish) == ("bucket-owner-full-control", True)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (replace(SRC, access_key_id="B", secret_access_key="secret-b"), DST),  # one account
        (SRC, replace(DST, url="https://s3.example.org")),  # two services
        (replace(SRC, url=None), replace(DST, url=None, region="cn-north-1")),  # two partitions
        (SRC, LocalSettings("dst", Path("/tmp"))),
    ],
)
async def test_nobody_copies_as_the_source_where_it_could_change_nothing(
    source: S3Settings, target: StoreSettings
) -> None:
    assert (await wired(source, target)).copier is None


async def test_what_the_target_is_told_holds_for_the_source_s_account_there() -> None:
    target = replace(DST, encryption="aws:kms", kms_key_id="k", expected_bucket_owner="1" * 12)
    source = replace(SRC, encryption="AES256", region="eu-west-1", role_arn="arn:aws:iam::1:role/r")
    copier = (await wired(source, target)).copier
    assert isinstance(copier, S3Store)
    settings = copier._rest._settings
    assert (settings.encryption, settings.kms_key_id) == ("aws:kms", "k")
    assert (settings.region, settings.expected_bucket_owner) == ("us-east-1", "1" * 12)
    assert settings.role_arn == "arn:aws:iam::1:role/r"


@pytest.mark.parametrize(
    "changes",
    [
        {"url": "https://s3.example.com:444"},
        {"region": "eu-west-1"},
        {"access_key_id": "C"},
        {"role_arn": "arn:aws:iam::1:role/r"},
        {"profile": "p"},
        {"kms_key_id": "k"},
    ],
)
async def test_another_configuration_has_another_fingerprint(changes: dict[str, str]) -> None:
    before = (await wired(SRC, DST)).endpoints
    assert before == (await wired(SRC, DST)).endpoints
    assert before != (await wired(replace(SRC, **changes), DST)).endpoints
    assert before != (await wired(SRC, replace(DST, **changes))).endpoints


async def test_a_new_secret_is_no_other_configuration_and_shows_in_none() -> None:
    before = (await wired(SRC, DST)).endpoints
    again = (await wired(replace(SRC, secret_access_key="rotated"), DST)).endpoints
    assert before == again
    assert len(before) == 32
    assert not {"secret-a", "A"} & {before, *before.split()}
    other = replace(FLOW, method=MethodPolicy.STREAM_ONLY)
    assert before != (await wired(SRC, DST, other)).endpoints
