"""Opening connections: trust, proxies, and what their failures say and do not say."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

import pytest

from s3flow.errors import BadAnswer, ConfigError, ConnectionLost, Refused
from s3flow.wire import Origin, Pool, Timeouts, proxy_for
from s3flow.wire.dial import parse_proxy
from tests.unit import hostile
from tests.unit.hostile import BOTH_LOOPS, OK, Authority, Peer, answers, serve

pytestmark = BOTH_LOOPS
event_loop_policy = hostile.event_loop_policy


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "trusted")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "stranger")


async def get(pool: Pool) -> bytes:
    response = await pool.request("GET", "/", {})
    body = await response.read_all()
    await pool.close()
    return body


async def fails(pool: Pool, error: type[Exception], match: str) -> str:
    with pytest.raises(error, match=match) as caught:
        await pool.request("GET", "/", {})
    assert pool._slots._value == 256
    await pool.close()
    return str(caught.value)


async def test_a_server_of_a_trusted_authority_is_spoken_to(trusted: Authority) -> None:
    async with serve(answers(OK), trusted.server()) as served:
        assert await get(Pool(served.origin, ssl_context=trusted.client())) == b"ok"


async def test_a_foreign_authority_is_refused(trusted: Authority, stranger: Authority) -> None:
    async with serve(answers(OK), stranger.server()) as served:
        message = await fails(Pool(served.origin, ssl_context=trusted.client()), Refused, "ca_file")
        assert str(served.origin.port) in message


async def test_a_certificate_for_another_host_is_refused(trusted: Authority) -> None:
    async with serve(answers(OK), trusted.server("127.0.0.2")) as served:
        await fails(Pool(served.origin, ssl_context=trusted.client()), Refused, "ca_file")


async def test_an_authority_that_is_too_old_for_python_is_no_stranger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostile, "identified", lambda builder, *_: builder)
    old = Authority(tmp_path, "old")
    context = old.client()
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default from Python 3.13 on
    async with serve(answers(OK), old.server()) as served:
        pool = Pool(served.origin, ssl_context=context)
        message = await fails(pool, Refused, r"Missing Authority Key Identifier.*Python from 3\.13")
    assert "ca_file" not in message


async def test_without_a_context_the_system_decides(stranger: Authority) -> None:
    async with serve(answers(OK), stranger.server()) as served:
        await fails(Pool(served.origin), Refused, "not trusted")


async def test_tls_to_a_plain_server_is_a_lost_connection(trusted: Authority) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(100)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with serve(script) as served:
        origin = served.origin._replace(scheme="https")
        await fails(Pool(origin, ssl_context=trusted.client()), ConnectionLost, "cannot connect")


async def test_a_handshake_that_stops_is_a_lost_connection(trusted: Authority) -> None:
    async with serve(Peer.gone) as served:
        origin = served.origin._replace(scheme="https")
        timeouts = Timeouts(connect=0.2)
        pool = Pool(origin, ssl_context=trusted.client(), timeouts=timeouts)
        await fails(pool, ConnectionLost, r"no connection within 0\.2 s")
        while served.open:
            await asyncio.sleep(0.01)


async def test_an_unknown_host_is_a_lost_connection() -> None:
    await fails(Pool(Origin("http", "host.invalid", 80)), ConnectionLost, "host.invalid")


@pytest.mark.parametrize("label", ["a..b", "x" * 64, ".", "\u00e9" * 60])
async def test_what_no_host_is_called_is_refused_by_name(label: str) -> None:
    origin = Origin("http", f"{label}.s3.invalid", 80)
    message = await fails(Pool(origin), Refused, 'addressing = "path"')
    assert repr(origin.host) in message


# --- proxies ------------------------------------------------------------------------------------


class Tunnels:
    """A CONNECT proxy; *seen* holds the heads it was sent."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []

    async def __call__(self, peer: Peer) -> None:
        line, headers = await peer.head()
        self.seen.append((line, headers))
        host, _, port = line.split()[1].rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        await peer.send(b"HTTP/1.1 200 Connection established\r\nContent-Length: 5\r\n\r\n")
        try:
            await asyncio.gather(_pump(peer.reader, writer), _pump(reader, peer.writer))
        finally:
            writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


@pytest.mark.parametrize("tls", [False, True])
async def test_requests_go_through_a_tunnel(trusted: Authority, tls: bool) -> None:
    proxy = Tunnels()
    async with (
        serve(answers(OK), trusted.server() if tls else None) as served,
        serve(proxy) as middle,
    ):
        url = f"http://us%65r:p%40ss@127.0.0.1:{middle.origin.port}"
        pool = Pool(served.origin, ssl_context=trusted.client() if tls else None, proxy=url)
        for _ in range(3):
            response = await pool.request("GET", "/", {})
            assert await response.read_all() == b"ok"
        await pool.close()
        assert middle.connections == 1
    ((line, headers),) = proxy.seen
    assert line == f"CONNECT 127.0.0.1:{served.origin.port} HTTP/1.1"
    assert headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", Refused),
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", ConnectionLost),
        (b"", ConnectionLost),
        (b"HTTP/1.1 200 OK\r\n\r\nearly bytes", BadAnswer),
        (b"SSH-2.0-x\r\n\r\n", BadAnswer),
    ],
)
async def test_a_proxy_that_refuses_says_so_without_secrets(
    trusted: Authority, answer: bytes, error: type[Exception]
) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(answer)

    async with serve(script) as middle:
        url = f"http://user:secretword@127.0.0.1:{middle.origin.port}"
        origin = Origin("https", "bucket.example", 443)
        pool = Pool(origin, ssl_context=trusted.client(), proxy=url)
        message = await fails(pool, error, r"bucket\.example")
        assert "secretword" not in message
        assert "secretword" not in repr(pool._proxy)


async def test_a_proxy_that_is_not_there_is_named() -> None:
    async with serve(answers(OK)) as gone:
        port = gone.origin.port
    pool = Pool(Origin("http", "h", 80), proxy=f"http://u:secretword@127.0.0.1:{port}")
    message = await fails(pool, ConnectionLost, f"through proxy 127.0.0.1:{port}")
    assert "secretword" not in message


@pytest.mark.parametrize(
    "url", ["https://p:1", "socks5://p:1", "http://", "http://p:x", "http://p:99999"]
)
def test_proxies_that_cannot_be_used_are_refused_without_secrets(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_proxy(url.replace("://", "://user:secretword@"))
    assert "secretword" not in str(caught.value)


def test_proxies_are_read() -> None:
    assert parse_proxy("proxy.local:3128") == ("proxy.local", 3128, "")
    assert parse_proxy("http://[::1]:8080") == ("::1", 8080, "")
    assert parse_proxy("http://proxy") == ("proxy", 80, "")


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://a"}, "http://a"),
        ({"https_proxy": "http://b", "HTTPS_PROXY": "http://a"}, "http://b"),
        ({"HTTP_PROXY": "http://a"}, None),
        ({"HTTPS_PROXY": "http://a", "NO_PROXY": "*"}, None),
        ({"HTTPS_PROXY": "http://a", "NO_PROXY": "other,amazonaws.com"}, None),
        ({"HTTPS_PROXY": "http://a", "no_proxy": ".amazonaws.com"}, None),
        ({"HTTPS_PROXY": "http://a", "no_proxy": "s3.amazonaws.com:443"}, None),
        ({"HTTPS_PROXY": "http://a", "no_proxy": "s3.amazonaws.com:444"}, "http://a"),
        ({"HTTPS_PROXY": "http://a", "no_proxy": "azonaws.com"}, "http://a"),
    ],
)
def test_the_environment_names_proxies(environ: dict[str, str], wanted: str | None) -> None:
    assert proxy_for(Origin("https", "s3.amazonaws.com", 443), environ) == wanted


def test_authorities_leave_default_ports_out() -> None:
    assert Origin("https", "h", 443).authority == "h"
    assert Origin("http", "h", 443).authority == "h:443"
    assert str(Origin("http", "::1", 9000)) == "http://[::1]:9000"
