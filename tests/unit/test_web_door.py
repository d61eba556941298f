"""The listener's door: who has the password, how many at once, and what strangers learn."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from s3flow.web import door
from s3flow.web.server import serve

METRICS = b"what the metrics say"


async def status() -> dict[str, Any]:
    return {"flows": []}


@pytest.fixture
async def guarded(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """Give the port of a listener that has a password."""
    monkeypatch.setattr(door, "FAILURE_PAUSE", 0.0)
    async with serve(
        "127.0.0.1:0",
        metrics=lambda: METRICS,
        status=status,
        degraded=lambda: ["the state's server is away"],
        user="scraper",
        password="pässword of 12",
    ) as bound:
        assert bound is not None
        yield bound[1]


@pytest.fixture
async def unguarded() -> AsyncIterator[int]:
    """Give the port of a listener on loopback, without a password."""
    async with serve("127.0.0.1:0", metrics=lambda: METRICS, status=status) as bound:
        assert bound is not None
        yield bound[1]


async def say(port: int, data: bytes, *, ends: bool = True) -> bytes:
    """Send *data* and give all that comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    if ends:
        writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def get(path: str, login: str = "", host: str = "127.0.0.1") -> bytes:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}"]
    if login:
        lines.append(f"Authorization: Basic {base64.b64encode(login.encode()).decode()}")
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("path", ["/metrics", "/api/status", "/nowhere"])
@pytest.mark.parametrize("login", ["", "scraper:wrong", "other:pässword of 12", "scraper:", ":"])
async def test_who_has_not_the_password_learns_nothing(guarded: int, path: str, login: str) -> None:
    answer = await say(guarded, get(path, login))
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b'WWW-Authenticate: Basic realm="s3flow"' in answer
    assert METRICS not in answer


async def test_who_has_the_password_is_answered(guarded: int) -> None:
    login = "scraper:pässword of 12"
    assert METRICS in await say(guarded, get("/metrics", login))
    assert b"away" in await say(guarded, get("/healthz", login))


async def test_supervisors_learn_without_it_that_it_lives_and_no_more(guarded: int) -> None:
    health = await say(guarded, get("/healthz"))
    assert health.endswith(b'{"status": "degraded"}')
    assert (await say(guarded, get("/readyz"))).endswith(b"ok\n")


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil", "evil:1"]
)
async def test_a_name_that_others_may_give_to_our_address_is_not_answered(
    unguarded: int, host: str
) -> None:
    assert (await say(unguarded, get("/metrics", host=host))).startswith(b"HTTP/1.1 421 ")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:9440", "[::1]:1", "[::1]", "LocalHost:80"]
)
async def test_an_address_is(unguarded: int, host: str) -> None:
    assert METRICS in await say(unguarded, get("/metrics", host=host))


async def test_a_check_in_http_1_0_which_names_no_host_is_answered(unguarded: int) -> None:
    answer = await say(unguarded, b"GET /healthz HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 200 ")
    answer = await say(unguarded, b"GET /metrics HTTP/1.0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.0 421 ")


async def test_what_is_no_http_is_answered_in_two_words_and_logged_nowhere(
    unguarded: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    bad = get("/metrics", "u:canary").replace(b"Authorization:", b"Authorization :")
    answer = await say(unguarded, bad, ends=False)
    assert answer.startswith(b"HTTP/1.0 400 ")
    assert answer.endswith(b"\r\n\r\nnot understood\n")
    assert b"Server: s3flow\r\n" in answer
    assert "Authorization" not in caplog.text
    assert "ERROR" not in caplog.text


async def test_who_ends_his_half_is_answered_first(unguarded: int) -> None:
    answer = await say(unguarded, get("/readyz") * 3)
    assert answer.count(b"HTTP/1.1 200 ") == 3


async def test_a_crowd_keeps_nobody_out_and_is_kept_small(unguarded: int) -> None:
    crowd = [await asyncio.open_connection("127.0.0.1", unguarded) for _ in range(door.MOST + 50)]
    assert METRICS in await say(unguarded, get("/metrics"))
    for reader, _ in crowd[:50]:  # who was silent for longest has gone
        try:
            assert await reader.read() == b""
        except ConnectionError:
            continue
    for _, writer in crowd:
        writer.transport.abort()
    await asyncio.sleep(0)


async def test_who_asks_stays_while_others_come(unguarded: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", unguarded)
    crowd = []
    for _ in range(3):
        crowd += [
            await asyncio.open_connection("127.0.0.1", unguarded) for _ in range(door.MOST - 10)
        ]
        writer.write(get("/readyz"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await reader.readexactly(3) == b"ok\n"
    for _, each in [*crowd, (reader, writer)]:
        each.transport.abort()
    await asyncio.sleep(0)
