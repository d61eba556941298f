"""Where keys come from, and that renewing them happens once for everybody."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from s3flow.errors import ConnectionLost, CredentialsMissing
from s3flow.stores.s3.credentials import RECHECK_SECONDS, Frozen, Keyring
from s3flow.stores.s3.settings import S3Settings
from s3flow.wire.sigv4 import Credentials


class Keys:
    """A set of keys as botocore freezes them."""

    def __init__(self, number: int) -> None:
        self.access_key = f"AK-key-{number}"
        self.secret_key = f"SK-key-{number}"
        self.token: str | None = f"T-token-{number}"


class Counting:
    """A chain that gives other keys each time, slowly."""

    def __init__(self) -> None:
        self.asked = 0

    async def get_frozen_credentials(self) -> Frozen:
        self.asked += 1
        await asyncio.sleep(0)
        return Keys(self.asked)


def refreshing(clock: Callable[[], float] = lambda: 0.0) -> tuple[Keyring, Counting]:
    """Give a keyring whose chain is a counting one, found anew after each drop."""
    keyring, chain = Keyring(S3Settings("src"), {}, clock), Counting()

    async def find() -> Counting:
        return chain

    keyring._find_chain = find  # type: ignore[method-assign]
    return keyring, chain


def test_keys_in_the_settings_are_ready_at_once_and_final() -> None:
    settings = S3Settings("src", access_key_id="AK", secret_access_key="SK", session_token="T")
    keyring = Keyring(
        settings, {"AWS_ACCESS_KEY_ID": "other", "AWS_SECRET_ACCESS_KEY": "x"}, lambda: 0
    )
    held = keyring.ready()
    assert held == Credentials("AK", "SK", "T")
    assert not keyring.drop(held)
    assert keyring.ready() is held


def test_the_environment_comes_next_unless_a_profile_is_named() -> None:
    environ = {"AWS_ACCESS_KEY_ID": "AK", "AWS_SECRET_ACCESS_KEY": "SK", "AWS_SESSION_TOKEN": "T"}
    assert Keyring(S3Settings("src"), environ, lambda: 0).ready() == Credentials("AK", "SK", "T")
    assert Keyring(S3Settings("src", profile="p"), environ, lambda: 0).ready() is None
    assert Keyring(S3Settings("src", role_arn="arn"), environ, lambda: 0).ready() is None


async def test_concurrent_requests_share_one_look_up() -> None:
    keyring, chain = refreshing()
    held = await asyncio.gather(*(keyring.get() for _ in range(20)))
    assert chain.asked == 1
    assert set(held) == {Credentials("AK-key-1", "SK-key-1", "T-token-1")}
    assert keyring.ready() is held[0]


async def test_refreshable_keys_are_asked_for_again_before_they_expire() -> None:
    now = [0.0]
    keyring, _ = refreshing(lambda: now[0])
    await keyring.get()
    now[0] = RECHECK_SECONDS + 1
    assert keyring.ready() is None
    assert (await keyring.get()).access_key == "AK-key-2"


async def test_refused_keys_are_dropped_once_by_all_who_used_them() -> None:
    keyring, chain = refreshing()
    refused = await keyring.get()
    assert keyring.drop(refused)
    fresh = await keyring.get()
    assert keyring.drop(refused)  # a latecomer that still used the old ones
    assert keyring.ready() is fresh
    assert chain.asked == 2


async def test_a_cancelled_look_up_leaves_the_others_waiting_for_the_next() -> None:
    keyring, _ = refreshing()
    first = asyncio.ensure_future(keyring.get())
    second = asyncio.ensure_future(keyring.get())
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).access_key == "AK-key-2"


async def test_no_credentials_name_the_endpoint_and_the_remedy() -> None:
    keyring = Keyring(S3Settings("src"), {}, lambda: 0)
    with pytest.raises(CredentialsMissing, match=r"endpoints\.src .*access_key_id"):
        await keyring.get()
    with pytest.raises(CredentialsMissing, match="profile 'nobody'"):
        await Keyring(S3Settings("src", profile="nobody"), {}, lambda: 0).get()


async def test_an_unreachable_provider_is_worth_another_try() -> None:
    keyring, chain = refreshing()

    async def fail() -> Frozen:
        raise ConnectionRefusedError("no route")

    chain.get_frozen_credentials = fail  # type: ignore[method-assign]
    with pytest.raises(ConnectionLost, match=r"endpoints\.src"):
        await keyring.get()


async def test_those_who_waited_for_a_look_up_that_failed_do_not_ask_in_turn() -> None:
    keyring, chain = refreshing()

    async def fail() -> Frozen:
        chain.asked += 1
        await asyncio.sleep(0)
        raise ConnectionRefusedError("no route")

    chain.get_frozen_credentials = fail  # type: ignore[method-assign]
    failures = await asyncio.gather(*(keyring.get() for _ in range(20)), return_exceptions=True)
    assert {type(each) for each in failures} == {ConnectionLost}
    assert chain.asked == 1
    with pytest.raises(ConnectionLost):
        await keyring.get()  # who comes later asks anew
    assert chain.asked == 2


async def test_a_provider_that_never_answers_is_an_error_that_names_the_setting() -> None:
    keyring, chain = refreshing()
    keyring._settings = S3Settings("src", role_arn="arn:r", answer_timeout=0.01)

    async def hang() -> Frozen:
        await asyncio.Event().wait()
        raise AssertionError

    chain.get_frozen_credentials = hang  # type: ignore[method-assign]
    with pytest.raises(
        ConnectionLost, match=r"endpoints\.src: .*\(answer_timeout\).* role_arn arn:r"
    ):
        await keyring.get()


async def test_a_profile_is_read_through_botocore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "credentials"
    file.write_text("[mine]\naws_access_key_id = AKP\naws_secret_access_key = SKP\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    keyring = Keyring(S3Settings("src", profile="mine"), {}, lambda: 0)
    assert await keyring.get() == Credentials("AKP", "SKP", "")


async def test_secrets_are_taken_out_of_a_servers_words() -> None:
    keyring = Keyring(
        S3Settings("src", access_key_id="AKIA12345678", secret_access_key="S" * 40), {}, float
    )
    assert keyring.redact(f"key AKIA12345678 with {'S' * 40} is bad") == "key *** with *** is bad"


async def test_keys_that_were_dropped_are_hidden_too_requests_were_under_way_with_them() -> None:
    keyring, _ = refreshing()
    refused = await keyring.get()
    keyring.drop(refused)
    assert keyring.redact(f"signed with {refused.access_key}") == "signed with ***"
    fresh = await keyring.get()
    words = f"{refused.secret_key}, {refused.token}, {fresh.token}"
    assert keyring.redact(words) == "***, ***, ***"
