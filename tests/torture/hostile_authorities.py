"""Services that give credentials and mean harm: STS, its web identities, an instance's and a container's.

Whatever they do, asking them ends by itself with an error that names the endpoint and what in its
configuration sends s3flow there; takes little memory; and tells nobody else what it was told.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from s3flow.errors import S3flowError
from s3flow.stores.s3.credentials import Keyring
from s3flow.stores.s3.settings import S3Settings
from tests.torture.hostile_servers import ENDLESS, HANG, _ended
from tests.torture.programme import Broken
from tests.unit.hostile import Peer, Script, serve

PATIENCE = 1.0  # seconds: what `answer_timeout` is for those that would never end
PAUSE = 0.03  # seconds between the bytes of a trickle: far below every timeout
TOKEN = "the-identity-s-own-token"
ROLE = "arn:aws:iam::123456789012:role/a-role"
_BOMB = gzip.compress(b"0" * 50_000_000)


def _settings(kind: str, what: str, folder: Path) -> S3Settings:
    made = S3Settings("src", answer_timeout=PATIENCE if what in TOO_LONG else 2 * HANG)
    if kind == "sts":
        return replace(made, role_arn=ROLE, access_key_id="AK", secret_access_key="SK")
    if kind == "identity":
        file = folder / "token"
        file.write_text(TOKEN)
        return replace(made, role_arn=ROLE, web_identity_token_file=str(file))
    return made


AUTHORITIES = {  # the settings that must be named, and the variable that leads there
    "sts": ("role_arn", "AWS_ENDPOINT_URL_STS"),
    "identity": ("web_identity_token_file", "AWS_ENDPOINT_URL_STS"),
    "instance": ("access_key_id", "AWS_EC2_METADATA_SERVICE_ENDPOINT"),
    "container": ("access_key_id", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
}


# --- what they do ----------------------------------------------------------------------------


def _endless(what: str) -> Callable[[int], Script]:
    first, again = ENDLESS[what]

    def to(trap: int) -> Script:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(first.replace(b" 503 ", b" 200 "))
            while True:
                await peer.send(again)

        return script

    return to


def _trickle(first: bytes) -> Callable[[int], Script]:
    def to(trap: int) -> Script:
        async def script(peer: Peer) -> None:
            await peer.request()
            await peer.send(first)
            while True:
                await peer.send(b"z")
                await asyncio.sleep(PAUSE)

        return script

    return to


def _answers(make: Callable[[int], bytes]) -> Callable[[int], Script]:
    def to(trap: int) -> Script:
        async def script(peer: Peer) -> None:
            while True:
                await peer.request()
                await peer.send(make(trap))

        return script

    return to


def _redirect(status: int) -> Callable[[int], Script]:
    return _answers(
        lambda trap: (
            f"HTTP/1.1 {status} x\r\nLocation: http://127.0.0.1:{trap}/stolen\r\n"
            "Content-Length: 0\r\n\r\n"
        ).encode()
    )


def _silent(trap: int) -> Script:
    async def script(peer: Peer) -> None:
        await peer.gone()

    return script


MISCHIEF: dict[str, Callable[[int], Script]] = {
    **{f"endless {what}": _endless(what) for what in ENDLESS if what != "interim answers"},
    "interim answers": _endless("interim answers"),
    "trickle of a body": _trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"),
    "trickle of a body without length": _trickle(b"HTTP/1.1 200 OK\r\n\r\n"),
    "trickle of a head": _trickle(b"HTTP/1.1 200 OK\r\nX: "),
    "redirect": _redirect(302),
    "redirect with the body": _redirect(307),
    "redirect for good": _redirect(308),
    "bomb": _answers(
        lambda trap: (
            b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(_BOMB)
            + _BOMB
        )
    ),
    "silence": _silent,
}
TOO_LONG = {
    *(what for what in MISCHIEF if what.startswith("trickle")),
    *("silence", "interim answers", "endless chunk line"),
}  # only time ends these


# --- what comes of it ------------------------------------------------------------------------


async def mislead(kind: str, what: str) -> bool:
    """Ask an authority of a *kind* that does *what*, and judge what comes of it.

    False where nobody was asked in time: botocore needs some to get ready.
    """
    where = f"{kind}, {what}"
    trapped: list[bytes] = []

    async def trap(peer: Peer) -> None:
        trapped.append(await peer.reader.read(10_000))

    setting, variable = AUTHORITIES[kind]
    with tempfile.TemporaryDirectory() as folder:
        async with serve(trap) as elsewhere, serve(MISCHIEF[what](elsewhere.origin.port)) as served:
            path = "/keys" if kind == "container" else ""
            environ = {
                variable: f"http://127.0.0.1:{served.origin.port}{path}",
                "AWS_EC2_METADATA_DISABLED": "false" if kind == "instance" else "true",
                **{name: str(Path(folder) / "none") for name in _FILES},
            }
            with patch.dict(os.environ, environ):
                for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
                    os.environ.pop(name, None)
                said = await _ask(
                    Keyring(_settings(kind, what, Path(folder)), {}, lambda: 0.0), where
                )
            await _ended(served)
            asked = bool(served.connections)
    if trapped:
        raise Broken(f"an authority was followed to another host: {where}: {trapped[0][:200]!r}")
    if "endpoints.src" not in said or setting not in said:
        raise Broken(f"the error names no endpoint, or not {setting}: {where}: {said}")
    if not asked and what not in TOO_LONG:
        raise Broken(f"nobody was asked: {where}: {said}")
    return asked


_FILES = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")


async def _ask(keyring: Keyring, where: str) -> str:
    try:
        async with asyncio.timeout(HANG):
            await keyring.get()
    except TimeoutError:
        raise Broken(f"an authority is waited for without end: {where}") from None
    except S3flowError as error:
        if TOKEN in str(error):
            raise Broken(f"an error tells a token: {where}: {error}") from error
        return str(error)
    except Exception as error:
        raise Broken(f"no error of ours: {where}: {error!r}") from error
    raise Broken(f"mischief was taken for credentials: {where}")


async def misled(seed: int, count: int) -> Counter[str]:
    """Ask *count* of the authorities, each of which does one mischief."""
    told: Counter[str] = Counter()
    every = [(kind, what) for kind in AUTHORITIES for what in MISCHIEF]
    for kind, what in random.Random(seed).sample(every, count):
        told["authorities that mean harm"] += await mislead(kind, what)
    return told
