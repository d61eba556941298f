"""Where secrets were found to come out: mistakes in the configuration, and what services repeat."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest

from s3flow.config import load
from s3flow.errors import ConfigError, CredentialsMissing, S3flowError
from s3flow.model import Doomed
from s3flow.observe import logs
from s3flow.policies import Guard
from s3flow.secrecy import Secrets
from s3flow.stores.s3 import S3Settings
from s3flow.stores.s3.credentials import Keyring
from tests.contract.s3_scripted import BUCKET, TOKEN, Answer, error, scripted

SECRET = "cmgJ3KE6yFbLyr+1Y=iAqf/H4ZHVHecikHqu"


@pytest.mark.parametrize(
    "text",
    [
        f'["{SECRET}"]\n["{SECRET}"]\n',
        f'["{SECRET}"]\n',
        f'[endpoints."{SECRET}"]\ntype = "s3"\n',
        f'[daemon]\n"{SECRET}" = 1\n',
        f'[daemon]\nlisten_password = ["{SECRET}"]\n',
        f'x = {{"{SECRET}" = 1, "{SECRET}" = 2}}\n',
    ],
)
def test_a_secret_in_a_wrong_place_of_the_file_is_not_repeated(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    assert SECRET[:8] not in str(caught.value)


@pytest.mark.parametrize("key", ["customer_key", "listen_password"])
def test_others_who_can_read_a_secret_are_warned_of(tmp_path: Path, key: str) -> None:
    seal = base64.b64encode(b"k" * 32).decode()
    file = tmp_path / "config.toml"
    endpoint = '[endpoints.a]\ntype = "s3"\n'
    told = {"customer_key": f'{endpoint}customer_key = "{seal}"\n', "listen_password": ""}[key]
    file.write_text(told or f'[daemon]\nlisten_password = "{SECRET}"\n')
    file.chmod(0o644)
    [warning] = [line for line in load(file, {}).warnings if "everybody" in line]
    assert key in warning


async def test_what_a_server_repeats_in_another_form_is_hidden() -> None:
    told = base64.b64encode(f"x{TOKEN}".encode()).decode()
    answer = error(403, "AccessDenied", f"no {told} and {TOKEN.encode().hex()} and {TOKEN[:9]}")
    answer = Answer(403, answer.body, {"x-amz-request-id": TOKEN})
    async with scripted(lambda _: answer) as server:
        store = server.store(server.settings(session_token=TOKEN))
        with pytest.raises(S3flowError) as caught:
            await store.list_page(BUCKET, b"", b"")
    said = str(caught.value)
    assert said.count("***") >= 3
    assert TOKEN[:9] not in said
    assert TOKEN.encode().hex()[:16] not in said
    assert told[4:12] not in said


@pytest.mark.parametrize("lead", ["", "x", "xy"])
@pytest.mark.parametrize("write", [str, partial(quote, safe=""), quote, quote_plus])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_form_that_a_server_repeats_in_base64_shows_no_part_of_a_secret(
    lead: str, write: Callable[[str], str], encode: Callable[[bytes], bytes]
) -> None:
    secret = "cmgJ3KE 6yFbLyr+1Y=iAqf/H4ZHVH+AT6OE"
    before, written = f"{lead}ExternalId=", write(secret)
    said = encode(f"{before}{written}&RoleArn=arn".encode()).decode()
    # What has bits of its neighbours alone, or of both, is left.
    begin, end = -(-len(before) * 8 // 6), len(before + written) * 8 // 6
    assert Secrets([secret]).without(f"no {said}") == f"no {said[:begin]}***{said[end:]}"


async def test_a_key_that_shares_letters_with_a_code_of_s3_hides_no_meaning() -> None:
    async with scripted(lambda _: error(403, "InvalidAccessKeyId", "myAccessKey?")) as server:
        store = server.store(server.settings(access_key_id="myAccessKey"))
        with pytest.raises(CredentialsMissing, match=r"InvalidAccessKeyId: \*\*\*\?"):
            await store.list_page(BUCKET, b"", b"")


async def test_what_is_said_of_one_of_many_deletes_repeats_nothing_either() -> None:
    refusal = f"<Key>a</Key><Code>AccessDenied</Code><Message>{TOKEN}</Message>"
    body = f"<DeleteResult><Error>{refusal}</Error></DeleteResult>".encode()
    async with scripted(lambda _: Answer(200, body)) as server:
        store = server.store(server.settings(session_token=TOKEN))
        doomed = [Doomed(b"a", "0" * 32, "v1"), Doomed(b"b", "0" * 32, "v1")]
        [told, _] = await store.delete_objects(BUCKET, doomed, Guard.EACH)
    assert "***" in str(told)
    assert TOKEN not in str(told)


async def test_what_an_agent_answers_amiss_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    async with scripted(lambda _: Answer(400, f'{{"Token": "{SECRET}"'.encode())) as server:
        monkeypatch.setenv(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{server.port}/a"
        )
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with pytest.raises(CredentialsMissing) as caught:
            await Keyring(S3Settings("src"), {}, lambda: 0.0).get()
    assert SECRET[:8] not in str(caught.value)


async def test_a_token_that_is_gone_by_then_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(SECRET)

    def refuse(_: object) -> Answer:
        file.unlink(missing_ok=True)
        return error(400, "InvalidIdentityToken", SECRET)

    async with scripted(refuse) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{server.port}")
        settings = S3Settings(
            "src", role_arn="arn:aws:iam::111122223333:role/r", web_identity_token_file=str(file)
        )
        with pytest.raises(CredentialsMissing) as caught:
            await Keyring(settings, {}, lambda: 0.0).get()
    assert not file.exists()
    assert SECRET[:8] not in str(caught.value)


def test_warnings_of_botocore_that_repeat_an_answer_are_not_logged(
    capfd: pytest.CaptureFixture[str],
) -> None:
    logs.configure("json", "debug")
    try:
        for name in ("botocore.credentials", "aiobotocore.credentials"):
            failed = ValueError(f"cannot parse {SECRET}")
            logging.getLogger(name).warning("Refreshing failed", exc_info=failed)
    finally:
        logs.configure("json", "warning")
    assert SECRET not in capfd.readouterr().err
