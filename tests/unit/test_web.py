"""The listener over real HTTP: what it answers, what it refuses, and what it never says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from s3flow.errors import ConfigError
from s3flow.model import State, Total
from s3flow.observe.metrics import Metrics
from s3flow.observe.progress import as_json, snapshot
from s3flow.web.server import parser_in_c, serve
from tests.unit.test_observe_progress import FLOW, NOW, SCANNED

TAKEN = [snapshot(FLOW, [Total("b", State.FAILED, "r", "", "", 2, 20)], [], {}, SCANNED, NOW)]


class Daemon:
    """What the listener asks, set by the test."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.unready = ""
        self.url = ""

    async def status(self) -> dict[str, Any]:
        return as_json(TAKEN)


@pytest.fixture
async def daemon() -> AsyncIterator[Daemon]:
    one = Daemon()
    async with serve(
        "127.0.0.1:0",
        metrics=Metrics(lambda: TAKEN).render,
        status=one.status,
        degraded=lambda: one.reasons,
        ready=lambda: one.unready,
    ) as bound:
        assert bound is not None
        one.url = f"http://{bound[0]}:{bound[1]}"
        yield one


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_metrics_are_what_prometheus_reads(
    daemon: Daemon, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{daemon.url}/metrics") as answer:
        assert answer.status == 200
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        families = list(text_string_to_metric_families(await answer.text()))
    assert "s3flow_build_info" in [family.name for family in families]


async def test_status_is_the_same_json(daemon: Daemon, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{daemon.url}/api/status") as answer:
        assert answer.content_type == "application/json"
        assert await answer.json() == as_json(TAKEN)


async def test_readiness(daemon: Daemon, http: aiohttp.ClientSession) -> None:
    async with http.get(f"{daemon.url}/readyz") as answer:
        assert (answer.status, await answer.text()) == (200, "ok\n")
    daemon.unready = "stopping"
    async with http.get(f"{daemon.url}/readyz") as answer:
        assert (answer.status, await answer.text()) == (503, "stopping\n")
    async with http.get(f"{daemon.url}/healthz") as answer:
        assert answer.status == 200


async def test_what_is_waited_for_is_told_and_nobody_restarts_the_daemon(
    daemon: Daemon, http: aiohttp.ClientSession
) -> None:
    async with http.get(f"{daemon.url}/healthz") as answer:
        assert (answer.status, await answer.json()) == (200, {"status": "ok", "reasons": []})
    daemon.reasons = ["the state's server is away"]
    async with http.get(f"{daemon.url}/healthz") as answer:
        expected = {"status": "degraded", "reasons": ["the state's server is away"]}
        assert (answer.status, await answer.json()) == (200, expected)


@pytest.mark.parametrize("path", ["metrics", "api/status", "healthz", "readyz", "nowhere"])
async def test_every_answer_has_the_headers(
    daemon: Daemon, http: aiohttp.ClientSession, path: str
) -> None:
    async with http.get(f"{daemon.url}/{path}") as answer:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Server"] == "s3flow"


@pytest.mark.parametrize("path", ["", "/", "/api", "/metrics/", "/api/status/x", "/../metrics"])
async def test_unknown_paths(daemon: Daemon, http: aiohttp.ClientSession, path: str) -> None:
    async with http.get(daemon.url + path) as answer:
        expected = 200 if path == "/../metrics" else 404  # the client resolves it
        assert answer.status == expected


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_only_reading(daemon: Daemon, http: aiohttp.ClientSession, method: str) -> None:
    async with http.request(method, f"{daemon.url}/api/status", data=b"x" * 10_000) as answer:
        assert answer.status == 405


async def test_head(daemon: Daemon, http: aiohttp.ClientSession) -> None:
    async with http.head(f"{daemon.url}/metrics") as answer:
        assert answer.status == 200
        assert await answer.read() == b""


async def test_a_status_that_fails_shows_nothing_of_why(
    daemon: Daemon, http: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken() -> dict[str, Any]:
        raise RuntimeError("canary-5d1")

    async with serve("127.0.0.1:0", metrics=bytes, status=broken) as bound:
        assert bound is not None
        async with http.get(f"http://127.0.0.1:{bound[1]}/api/status") as answer:
            assert answer.status == 500
            assert "canary-5d1" not in await answer.text()
    assert "canary-5d1" in caplog.text  # but the log has it


async def test_no_listener() -> None:
    daemon = Daemon()
    async with serve("", metrics=bytes, status=daemon.status) as bound:
        assert bound is None


async def test_an_address_in_use_is_a_configuration_error(daemon: Daemon) -> None:
    taken = daemon.url.removeprefix("http://")
    with pytest.raises(ConfigError, match=r"daemon\.listen: cannot listen on 127\.0\.0\.1:"):
        async with serve(taken, metrics=bytes, status=daemon.status):
            pass


async def test_ipv6() -> None:
    daemon = Daemon()
    async with (
        serve("[::1]:0", metrics=bytes, status=daemon.status) as bound,
        aiohttp.ClientSession() as session,
    ):
        assert bound is not None
        async with session.get(f"http://[::1]:{bound[1]}/healthz") as answer:
            assert answer.status == 200


async def test_closing_does_not_wait_for_idle_clients() -> None:
    daemon = Daemon()
    async with serve("127.0.0.1:0", metrics=bytes, status=daemon.status) as bound:
        assert bound is not None
        reader, writer = await asyncio.open_connection(*bound)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    assert await reader.read() is not None
    writer.close()
    await writer.wait_closed()


def test_the_parser_is_the_compiled_one() -> None:
    assert parser_in_c()
