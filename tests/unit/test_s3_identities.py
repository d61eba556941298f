"""Who a store is: roles, tokens, containers and instances, each asked of a server of its own."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from s3flow.errors import CredentialsMissing
from s3flow.observe import logs
from s3flow.stores.s3.credentials import RECHECK_SECONDS
from tests.contract.s3_scripted import BUCKET, Answer, Scripted, scripted

ROLES = "/latest/meta-data/iam/security-credentials/"


@dataclass(slots=True)
class Given:
    """One set of keys that the authority gave: to whom, and by what it was asked."""

    whom: str
    asked: dict[str, str] = field(default_factory=dict)


class Authority:
    """STS, a container's agent and an instance's metadata: numbers the keys that it gives."""

    def __init__(self) -> None:
        self.given: list[Given] = []
        self.lasts = 60  # seconds: less than what a client renews before
        self.refusal = ""
        authority = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self) -> None:
                self.answer(b"imds-token" if self.path == "/latest/api/token" else b"", 200)

            def do_GET(self) -> None:
                if self.path == ROLES:
                    self.answer(b"instance-role", 200)
                elif self.path.startswith(ROLES):
                    asked = {"token": self.headers.get("x-aws-ec2-metadata-token", "")}
                    self.answer(authority.keys("instance", asked), 200)
                else:
                    asked = {"authorization": self.headers.get("authorization", "")}
                    self.answer(authority.keys("container", asked), 200)

            def do_POST(self) -> None:
                size = int(self.headers["content-length"])
                form = parse_qs(self.rfile.read(size).decode())
                asked = {name: values[0] for name, values in form.items()}
                asked["authorization"] = self.headers.get("authorization", "")
                if authority.refusal:
                    self.answer(authority.refused(), 403)
                else:
                    self.answer(authority.role(asked), 200)

            def answer(self, body: bytes, status: int) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def _next(self, whom: str, asked: dict[str, str]) -> tuple[str, str]:
        self.given.append(Given(whom, asked))
        number = sum(each.whom == whom for each in self.given)
        expiry = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + self.lasts))
        return f"AK{whom}{number}", expiry

    def keys(self, whom: str, asked: dict[str, str]) -> bytes:
        key, expiry = self._next(whom, asked)
        found = {"AccessKeyId": key, "SecretAccessKey": "secret", "Token": f"T{key}"}
        return json.dumps({"Code": "Success", **found, "Expiration": expiry}).encode()

    def role(self, asked: dict[str, str]) -> bytes:
        key, expiry = self._next(asked["RoleArn"].rpartition("/")[2], asked)
        kind = asked["Action"]
        return (
            f'<{kind}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><{kind}Result>'
            f"<Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>secret</SecretAccessKey>"
            f"<SessionToken>T{key}</SessionToken><Expiration>{expiry}</Expiration></Credentials>"
            "<AssumedRoleUser><AssumedRoleId>A:s3flow</AssumedRoleId>"
            "<Arn>arn:aws:sts::123456789012:assumed-role/r/s3flow</Arn></AssumedRoleUser>"
            f"</{kind}Result></{kind}Response>"
        ).encode()

    def refused(self) -> bytes:
        return (
            "<ErrorResponse><Error><Type>Sender</Type><Code>AccessDenied</Code>"
            f"<Message>{self.refusal}</Message></Error></ErrorResponse>"
        ).encode()


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Authority]:
    """Give the authority, as the only one that the environment names."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    made = Authority()
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", made.url)
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", made.url)
    thread = threading.Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.server.shutdown()
    thread.join()
    made.server.server_close()


class Clock:
    """The machine's clock, which a test puts forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


def signers(server: Scripted) -> list[tuple[str, str]]:
    """Give key and token of each request that came."""
    found = []
    for request in server.requests:
        key = re.search(r"Credential=(\w+)/", request.headers["authorization"])
        assert key is not None
        found.append((key[1], request.headers.get("x-amz-security-token", "")))
    return found


def script(_: object) -> Answer:
    return Answer(headers={"etag": '"e"'})


async def test_a_web_identity_is_a_role_by_a_token_that_is_read_anew(
    authority: Authority, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("first token\n")
    clock = Clock()
    async with scripted(script) as server:
        settings = server.settings(
            access_key_id=None,
            secret_access_key=None,
            role_arn="arn:aws:iam::123456789012:role/mover",
            web_identity_token_file=str(token),
        )
        store = server.store(settings, clock=clock)
        await store.head_object(BUCKET, b"a")
        await store.head_object(BUCKET, b"b")
        token.write_text("second token")
        clock.ahead = RECHECK_SECONDS + 1
        await store.head_object(BUCKET, b"c")
        assert signers(server) == [
            ("AKmover1", "TAKmover1"),
            ("AKmover1", "TAKmover1"),
            ("AKmover2", "TAKmover2"),
        ]
    actions = {given.asked["Action"] for given in authority.given}
    assert actions == {"AssumeRoleWithWebIdentity"}
    assert [given.asked["WebIdentityToken"] for given in authority.given] == [
        "first token",
        "second token",
    ]
    assert {given.asked["authorization"] for given in authority.given} == {""}  # nobody signs it


async def test_the_environment_s_web_identity_is_found_as_well(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("of the pod")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/pod")
    async with scripted(script) as server:
        settings = server.settings(access_key_id=None, secret_access_key=None)
        await server.store(settings).head_object(BUCKET, b"a")
        assert signers(server) == [("AKpod1", "TAKpod1")]


async def test_a_role_is_assumed_with_its_external_id_and_renewed(authority: Authority) -> None:
    clock = Clock()
    async with scripted(script) as server:
        settings = server.settings(
            role_arn="arn:aws:iam::123456789012:role/partner", external_id="what they asked for"
        )
        store = server.store(settings, clock=clock)
        for ahead in (0.0, RECHECK_SECONDS + 1, 2 * RECHECK_SECONDS + 2):
            clock.ahead = ahead
            await store.head_object(BUCKET, b"a")
        assert [key for key, _ in signers(server)] == ["AKpartner1", "AKpartner2", "AKpartner3"]
    assert {given.asked["ExternalId"] for given in authority.given} == {"what they asked for"}
    assert all("AKIASCRIPTED" in given.asked["authorization"] for given in authority.given)


async def test_two_endpoints_are_two_identities_each_renewed_in_mid_run(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{authority.url}/agent")
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "of the agent")
    (tmp_path / "token").write_text("a token")
    clock = Clock()
    async with scripted(script) as server:
        nobody = {"access_key_id": None, "secret_access_key": None}
        ours = server.store(server.settings(**nobody), clock=clock)
        theirs = server.store(
            server.settings(
                **nobody,
                role_arn="arn:aws:iam::123456789012:role/theirs",
                web_identity_token_file=str(tmp_path / "token"),
            ),
            clock=clock,
        )
        for ahead in (0.0, RECHECK_SECONDS + 1):
            clock.ahead = ahead
            for store in (ours, theirs):
                await store.head_object(BUCKET, b"a")
        keys = [key for key, _ in signers(server)]
    assert [re.sub(r"\d", "", key) for key in keys] == ["AKcontainer", "AKtheirs"] * 2
    assert len(set(keys)) == 4  # each was renewed
    assert keys[1::2] == ["AKtheirs1", "AKtheirs2"]
    asked = [given.asked for given in authority.given if given.whom == "container"]
    assert {each["authorization"] for each in asked} == {"of the agent"}


async def test_an_instance_s_role_is_asked_for_with_a_session_token(authority: Authority) -> None:
    authority.lasts = 24 * 3600  # what is too young or too old makes botocore ask in between
    async with scripted(script) as server:
        settings = server.settings(access_key_id=None, secret_access_key=None)
        await server.store(settings).head_object(BUCKET, b"a")
        assert signers(server) == [("AKinstance1", "TAKinstance1")]
    assert [given.asked for given in authority.given] == [{"token": "imds-token"}]


async def test_keys_that_the_store_takes_no_longer_are_renewed_at_once(
    authority: Authority,
) -> None:
    def expired_first(request: object) -> Answer:
        if "AKpartner1" in request.headers["authorization"]:  # type: ignore[attr-defined]
            return Answer(400, b"<Error><Code>ExpiredToken</Code><Message>old</Message></Error>")
        return script(request)

    authority.lasts = 24 * 3600
    async with scripted(expired_first) as server:
        settings = server.settings(role_arn="arn:aws:iam::123456789012:role/partner")
        store = server.store(settings)
        await store.delete_object(BUCKET, b"a", etag="")
        assert [key for key, _ in signers(server)] == ["AKpartner1", "AKpartner2"]


@pytest.mark.parametrize("there", [False, True])
async def test_what_is_missing_is_named(authority: Authority, tmp_path: Path, there: bool) -> None:
    file = tmp_path / "token"
    if there:
        file.write_text("a token")
        authority.refusal = "not for you"
    async with scripted(script) as server:
        settings = server.settings(
            access_key_id=None,
            secret_access_key=None,
            role_arn="arn:aws:iam::123456789012:role/mover",
            web_identity_token_file=str(file),
        )
        said = "not for you" if there else "No such file"
        with pytest.raises(CredentialsMissing, match=said) as caught:
            await server.store(settings).head_object(BUCKET, b"a")
        assert "web_identity_token_file" in str(caught.value)
        assert "a token" not in str(caught.value)


async def test_debug_logs_tell_nothing_that_was_given(
    authority: Authority, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "token"
    file.write_text("a web identity's token")
    logs.configure("json", "debug")
    try:
        async with scripted(script) as server:
            for settings in (
                server.settings(
                    access_key_id=None,
                    secret_access_key=None,
                    role_arn="arn:aws:iam::123456789012:role/mover",
                    web_identity_token_file=str(file),
                ),
                server.settings(
                    role_arn="arn:aws:iam::123456789012:role/partner", external_id="an id of theirs"
                ),
                server.settings(access_key_id=None, secret_access_key=None),
            ):
                await server.store(settings).delete_object(BUCKET, b"a", etag="")
            assert len(signers(server)) == 3
    finally:
        logs.configure("json", "warning")
    said = capfd.readouterr().err
    for whom in ("mover", "partner", "instance"):
        assert f"TAK{whom}1" not in said
    for secret in ("a web identity's token", "web+identity", "imds-token", "an id of theirs"):
        assert secret not in said
