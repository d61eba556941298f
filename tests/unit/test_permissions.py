"""The policies that doctor prints: what the flows' settings make s3flow ask, no more and no less."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from s3flow.config import Settings, load
from s3flow.config.permissions import ACTIONS, Policy, as_text, policies, with_missing
from s3flow.policies import Mode, RestorePolicy

STORE = Path(__file__).parents[2] / "s3flow" / "stores" / "s3"
SRC = {"type": "s3", "region": "ap-south-1", "access_key_id": "A", "secret_access_key": "B"}
DST = {"type": "s3", "region": "eu-west-1", "access_key_id": "C", "secret_access_key": "D"}
FLOW = {"name": "documents", "source": "src:from-here/in/", "target": "dst:to-there/out/"}
OUT = 'policy of the bucket "from-here" of endpoint "src": lets the credentials of "dst" copy out of it'
READ = ("s3:GetObject", "s3:GetObjectTagging")


def settings(
    tmp_path: Path,
    *,
    src: Mapping[str, object] = {},
    dst: Mapping[str, object] = {},
    **flow: object,
) -> Settings:
    """Load a configuration of one flow between two accounts."""
    tables = {"endpoints.src": {**SRC, **src}, "endpoints.dst": {**DST, **dst}}
    if dst.get("type") == "local":
        tables["endpoints.dst"] = dict(dst)
    text = ""
    for name, table in tables.items():
        text += f"[{name}]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in table.items())
    text += "[[flows]]\n" + "".join(f"{k} = {json.dumps(v)}\n" for k, v in {**FLOW, **flow}.items())
    file = tmp_path / "config.toml"
    file.write_text(text)
    return load(file, {})


def found(config: Settings) -> list[Policy]:
    return policies(config, config.flow_specs())


def allowed(policy: Policy) -> set[tuple[str, str]]:
    """Give (resource, action) pairs without Amazon's prefix."""
    return {
        (resource.removeprefix("arn:aws:s3:::"), action)
        for statement in policy.document["Statement"]  # type: ignore[attr-defined]
        for resource in (
            statement["Resource"]
            if isinstance(statement["Resource"], list)
            else [statement["Resource"]]
        )
        for action in statement["Action"]
    }


def identity(config: Settings, name: str) -> set[tuple[str, str]]:
    [policy] = [p for p in found(config) if p.title.startswith("IAM") and p.endpoint == name]
    return allowed(policy)


def test_every_request_that_is_sent_has_its_permission() -> None:
    sent = set()
    for module in STORE.glob("*.py"):
        sent |= set(re.findall(r'\bCall\(\s*"(\w+)"', module.read_text()))
    assert len(sent) > 10
    assert sent == set(ACTIONS)


def test_two_accounts(tmp_path: Path) -> None:
    config = settings(tmp_path, dst={"expected_bucket_owner": "222222222222"})
    assert identity(config, "src") == {
        ("from-here", "s3:ListBucket"),
        ("from-here", "s3:GetBucketLocation"),
        ("from-here", "s3:GetBucketWebsite"),
        *(("from-here/in/*", action) for action in (*READ, "s3:RestoreObject")),
    }
    copying = {("from-here", "s3:ListBucket"), *(("from-here/in/*", action) for action in READ)}
    writing = identity(config, "dst") - copying
    assert {resource for resource, _ in writing} == {"to-there", "to-there/out/*"}
    assert identity(config, "dst") > copying
    [out] = [policy for policy in found(config) if policy.title == OUT]
    assert allowed(out) == copying
    assert {json.dumps(each.get("Principal")) for each in out.statements} == {
        '{"AWS": "arn:aws:iam::222222222222:root"}'
    }
    assert out.placeholders == ()
    into = [policy for policy in found(config) if "copy into it" in policy.title]
    assert [policy.endpoint for policy in into] == ["src"]
    assert into[0].placeholders == ("ACCOUNT-OF-SRC",)
    assert allowed(into[0]) == writing | {
        ("to-there", "s3:GetBucketOwnershipControls"),
        ("to-there/out/*", "s3:PutObjectAcl"),
    }


@pytest.mark.parametrize(
    ("changes", "titles"),
    [
        ({}, 5),
        ({"method": "stream-only"}, 2),
        ({"dst": {"url": "https://s3.example.com"}}, 2),
        ({"dst": {"region": "cn-north-1"}}, 2),
        ({"dst": {"access_key_id": "A"}}, 3 - 1),
        (
            {
                "src": {"expected_bucket_owner": "1" * 12},
                "dst": {"expected_bucket_owner": "1" * 12},
            },
            2,
        ),
        ({"dst": {"type": "local", "path": "/mnt"}, "target": "dst:x/"}, 1),
    ],
)
def test_buckets_let_somebody_in_only_where_another_account_copies(
    tmp_path: Path, changes: dict[str, dict[str, object]], titles: int
) -> None:
    assert len(found(settings(tmp_path, **changes))) == titles


def test_settings_decide(tmp_path: Path) -> None:
    without = settings(tmp_path, tags="drop")
    assert not [each for each in found(without) if "Tagging" in json.dumps(each.document)]
    to_disk = settings(tmp_path, dst={"type": "local", "path": "/mnt"}, target="dst:x/")
    assert ("from-here/in/*", "s3:GetObjectTagging") not in identity(to_disk, "src")
    role = "arn:aws:iam::333333333333:role/mover"
    [out] = [p for p in found(settings(tmp_path, dst={"role_arn": role})) if p.title == OUT]
    assert out.statements[0]["Principal"] == {"AWS": role}
    config = settings(tmp_path)
    moving = [replace(flow, mode=Mode.MOVE) for flow in config.flow_specs()]
    assert ("from-here/in/*", "s3:DeleteObject") in allowed(policies(config, moving)[0])
    assert ("from-here/in/*", "s3:DeleteObject") not in identity(config, "src")
    frozen = [replace(flow, restore=RestorePolicy.NEVER) for flow in config.flow_specs()]
    assert ("from-here/in/*", "s3:RestoreObject") not in allowed(policies(config, frozen)[0])
    elsewhere = settings(tmp_path, src={"url": "https://s3.example.com"})
    assert ("from-here/in/*", "s3:RestoreObject") not in identity(elsewhere, "src")


@pytest.mark.parametrize(
    ("key", "arn", "placeholders"),
    [
        ("1234-ab", "arn:aws:kms:eu-west-1:ACCOUNT-OF-DST:key/1234-ab", ("ACCOUNT-OF-DST",)),
        (
            "alias/moves",
            "arn:aws:kms:eu-west-1:ACCOUNT-OF-DST:key/KEY-ID",
            ("ACCOUNT-OF-DST", "KEY-ID"),
        ),
        ("arn:aws:kms:eu-west-1:2:key/x", "arn:aws:kms:eu-west-1:2:key/x", ()),
    ],
)
def test_a_kms_key_must_let_its_writers_in(
    tmp_path: Path, key: str, arn: str, placeholders: tuple[str, ...]
) -> None:
    config = settings(tmp_path, dst={"encryption": "aws:kms", "kms_key_id": key})
    wanted = {(arn, "kms:Decrypt"), (arn, "kms:GenerateDataKey")}
    assert identity(config, "dst") >= wanted
    [mine] = [policy for policy in found(config) if policy.title == IAM_DST]
    assert mine.placeholders == placeholders
    [into] = [policy for policy in found(config) if "copy into it" in policy.title]
    assert "kms" not in json.dumps(into.document)
    [beside] = [policy for policy in found(config) if "beside the above" in policy.title]
    assert allowed(beside) >= wanted


def test_an_acl_asks_for_more(tmp_path: Path) -> None:
    config = settings(tmp_path, dst={"acl": "bucket-owner-full-control"})
    assert ("to-there/out/*", "s3:PutObjectAcl") in identity(config, "dst")
    assert ("to-there/out/*", "s3:PutObjectAcl") not in identity(settings(tmp_path), "dst")


def test_patterns_and_prefixes_are_written_as_iam_reads_them(tmp_path: Path) -> None:
    config = settings(tmp_path, source="src:logs-[ab]*/a*b?$c/", target="dst:{bucket}/out/")
    names = {resource for resource, _ in identity(config, "src")}
    assert names == {"*", "logs-?*", "logs-?*/a${*}b${?}${$}c/*"}
    assert ("*", "s3:ListAllMyBuckets") in identity(config, "src")
    [out] = [policy for policy in found(config) if "copy out of it" in policy.title]
    assert out.placeholders == ("ACCOUNT-OF-DST", "BUCKET")
    assert {resource for resource, _ in allowed(out)} == {"BUCKET", "BUCKET/a${*}b${?}${$}c/*"}
    chinese = settings(tmp_path, src={"region": "cn-north-1"}, dst={"region": "cn-north-1"})
    assert set(re.findall(r"arn:[\w-]+", json.dumps(found(chinese)[0].document))) == {"arn:aws-cn"}


def test_two_flows_of_one_endpoint_share_its_policy(tmp_path: Path) -> None:
    config = settings(tmp_path)
    [flow] = config.flow_specs()
    other = replace(flow, name="other", source=replace(flow.source, bucket="second", prefix=b""))
    [mine] = [p for p in policies(config, [flow, other]) if p.title == found(config)[0].title]
    assert {r for r, _ in allowed(mine)} == {"from-here", "from-here/in/*", "second", "second/*"}
    sids = [str(statement["Sid"]) for statement in mine.statements]
    assert len(set(sids)) == len(sids)
    assert all(re.fullmatch(r"[A-Za-z0-9]+", sid) for sid in sids)


# --- what doctor was denied -----------------------------------------------------------------------


def missing(config: Settings, *answers: str) -> dict[str, tuple[str, ...]]:
    marked = with_missing(found(config), answers)
    return {policy.title: policy.missing for policy in marked if policy.missing}


IAM_SRC = 'IAM: for the user or role of endpoint "src"'
IAM_DST = 'IAM: for the user or role of endpoint "dst"'


@pytest.mark.parametrize(
    ("answers", "marked"),
    [
        (["3 objects", "copied and removed"], {}),
        (
            ["access_denied: ListObjectsV2 src:from-here: 403 AccessDenied: Access Denied"],
            {IAM_SRC: ("s3:ListBucket",)},
        ),
        (
            ["access_denied: HeadObject dst:to-there/out/x: 403; the credentials need …"],
            {IAM_DST: ("s3:GetObject",)},
        ),
        (
            [
                "no, so objects will be streamed: access_denied: CopyObject dst:to-there/out/x: 403"
                " AccessDenied"
            ],
            {IAM_DST: ("s3:GetObject",), OUT: ("s3:GetObject",)},
        ),
        (
            [
                "access_denied: CopyObject dst:to-there/out/x: 403 AccessDenied: User: arn:aws:iam"
                "::2:user/x is not authorized to perform: s3:GetObjectTagging on resource: y"
            ],
            {IAM_DST: ("s3:GetObjectTagging",), OUT: ("s3:GetObjectTagging",)},
        ),
        (  # the target itself takes nothing, so nothing is known of the source
            [
                "access_denied: PutObject dst:to-there/out/x: 403 AccessDenied",
                "no: access_denied: CopyObject dst:to-there/out/x: 403 AccessDenied",
            ],
            {IAM_DST: ("s3:PutObject",)},
        ),
        (
            [
                "access_denied: GetObject src:from-here/in/a: 403 AccessDenied: User: u is not"
                ' authorized to perform: kms:Decrypt on resource: "arn:aws:kms:r:1:key/k" because'
            ],
            {
                IAM_SRC: (
                    "kms:Decrypt on arn:aws:kms:r:1:key/k, in the policy of that key too if "
                    "another account's",
                )
            },
        ),
        (["access_denied: PutObject dst:to-there/out/x: 403 SignatureDoesNotMatch"], {}),
        (["access_denied: PutObject dst:elsewhere/x: 403 AccessDenied"], {}),
        (["no_such_bucket: PutObject dst:to-there/x: 404 NoSuchBucket"], {}),
    ],
)
def test_what_was_denied_is_marked_where_it_would_be_allowed(
    tmp_path: Path, answers: list[str], marked: dict[str, tuple[str, ...]]
) -> None:
    assert missing(settings(tmp_path), *answers) == marked


def test_the_text_is_json_below_its_headings(tmp_path: Path) -> None:
    config = settings(tmp_path)
    denied = ["access_denied: ListObjectsV2 src:from-here: 403 AccessDenied"]
    text = "\n".join(as_text(config, config.flow_specs(), denied))
    assert text.count("# missing: s3:ListBucket") == 1
    bodies = [body for body in re.split(r"(?m)^#.*\n", text) if body.strip()]
    assert [json.loads(body)["Version"] for body in bodies] == ["2012-10-17"] * 5
