"""The printed policies against a server that enforces them: they are enough, and each is needed."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.request import Request, urlopen

import pytest

from s3flow.config import Settings, load
from s3flow.config.permissions import Policy, policies, with_missing
from s3flow.engine.probe import Finding
from s3flow.rehearsal import examine_flows
from tests import servers

# What doctor has no way to prove: its probes carry no tags and are never in another region; moto
# lets copies take tags along unasked.
UNPROVEN = {
    *("s3:GetBucketLocation", "s3:PutObjectTagging", "s3:ListBucketMultipartUploads"),
    *("dst s3:GetObjectTagging",),
}


@dataclass(slots=True)
class Realm:
    """A server with a user for each endpoint, who may do what its policy says."""

    server: servers.Server
    settings: Settings

    @property
    def identities(self) -> list[Policy]:
        """The policies of the users."""
        found = policies(self.settings, self.settings.flow_specs())
        return [policy for policy in found if policy.title.startswith("IAM")]

    def allow(self, policy: Policy, *, without: str = "") -> None:
        """Give a user its policy, but for one action."""
        kept = [
            {**each, "Action": [action for action in each["Action"] if action != without]}  # type: ignore[attr-defined]
            for each in policy.statements
        ]
        document = {**policy.document, "Statement": [each for each in kept if each["Action"]]}
        with contextlib.closing(self.server.client(0, "iam")) as iam:
            iam.put_user_policy(
                UserName=policy.endpoint, PolicyName="s3", PolicyDocument=json.dumps(document)
            )

    async def examine(self) -> list[Finding]:
        """Let doctor look, while the server asks who comes and what they may."""
        enforce(self.server, after=0)
        try:
            return [each async for each in examine_flows(self.settings, self.settings.flow_specs())]
        finally:
            enforce(self.server, after=1_000_000)


def enforce(server: servers.Server, *, after: int) -> None:
    """Let moto check signatures and policies, *after* so many requests."""
    request = Request(
        f"{server.url}/moto-api/reset-auth",
        data=str(after).encode(),
        headers={"Content-Type": "text/plain"},
        method="POST",
    )
    with urlopen(request):
        pass


@pytest.fixture(scope="module")
def realm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Realm]:
    folder = tmp_path_factory.mktemp("permissions")
    with servers.moto() as server:
        keys = {}
        with contextlib.closing(server.client(0)) as s3:
            for bucket in ("from-here", "to-there"):
                s3.create_bucket(Bucket=bucket)
            s3.put_object(Bucket="from-here", Key="in/a", Body=b"some bytes", Tagging="a=b")
        with contextlib.closing(server.client(0, "iam")) as iam:
            for name in ("src", "dst"):
                iam.create_user(UserName=name)
                keys[name] = iam.create_access_key(UserName=name)["AccessKey"]
        file = folder / "config.toml"
        file.write_text(written(server, keys))
        file.chmod(0o600)
        made = Realm(server, load(file, {}))
        for policy in made.identities:
            made.allow(policy)
        yield made


def written(server: servers.Server, keys: dict[str, dict[str, str]]) -> str:
    text = '[daemon]\nstate = "sqlite:///state.db"\n'
    for name, key in keys.items():
        text += (
            f'[endpoints.{name}]\ntype = "s3"\nurl = "{server.url}"\naddressing = "path"\n'
            f'access_key_id = "{key["AccessKeyId"]}"\nsecret_access_key = "{key["SecretAccessKey"]}"\n'
        )
    return text + (
        '[[flows]]\nname = "documents"\nsource = "src:from-here/in/"\ntarget = "dst:to-there/out/"\n'
    )


async def test_they_are_enough(realm: Realm) -> None:
    findings = await realm.examine()
    assert [each.answer for each in findings if not each.ok] == []
    assert not re.search("access_denied", "".join(each.answer for each in findings))
    assert len(findings) >= 7


@pytest.mark.parametrize("name", ["src", "dst"])
async def test_each_one_is_needed_and_doctor_says_which_is_missing(realm: Realm, name: str) -> None:
    [policy] = [each for each in realm.identities if each.endpoint == name]
    actions = {action for each in policy.statements for action in each["Action"]}  # type: ignore[attr-defined]
    proven = {each for each in actions if not UNPROVEN & {each, f"{name} {each}"}}
    assert len(proven) >= 3
    try:
        for action in proven:
            realm.allow(policy, without=action)
            answers = [each.answer for each in await realm.examine()]
            [marked] = [
                each for each in with_missing(realm.identities, answers) if each.endpoint == name
            ]
            assert marked.missing == (action,), answers
    finally:
        realm.allow(policy)
