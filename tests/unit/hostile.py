"""Scripted servers on raw sockets: each test says byte for byte what the other side does."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from s3flow.errors import S3flowError
from s3flow.model import ObjectInfo
from s3flow.wire import Origin, Pool, Timeouts
from tests.e2e.certificates import SIGNS, identified

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
EMPTY = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
Script = Callable[["Peer"], Awaitable[None]]


class Request(NamedTuple):
    """What a client sent."""

    line: str
    headers: dict[str, str]
    body: bytes


class Peer:
    """The server's end of one connection; *number* counts them from 0."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number

    async def head(self) -> tuple[str, dict[str, str]]:
        data = await self.reader.readuntil(b"\r\n\r\n")
        line, *rest = data.decode("latin-1").split("\r\n")
        pairs = (entry.partition(":") for entry in rest if entry)
        return line, {name.lower(): value.strip() for name, _, value in pairs}

    async def request(self) -> Request:
        line, headers = await self.head()
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Request(line, headers, body)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    def reset(self) -> None:
        """Close at once, without reading what is there: the client sees a reset."""
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the client is gone."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


class Served:
    """A running script: where, and how many connections it has seen."""

    def __init__(self) -> None:
        self.origin = Origin("http", "127.0.0.1", 0)
        self.connections = 0
        self.writers: set[asyncio.StreamWriter] = set()
        self.tasks: set[asyncio.Task[None]] = set()

    @property
    def open(self) -> int:
        return len(self.writers)


@contextlib.asynccontextmanager
async def serve(script: Script, tls: ssl.SSLContext | None = None) -> AsyncIterator[Served]:
    """Run *script* for every connection; a script that returns closes its connection."""
    served = Served()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served.tasks.add(task)
        served.writers.add(writer)
        number, served.connections = served.connections, served.connections + 1
        try:
            # What clients do to a script is the test's subject, not the script's failure.
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
                await script(Peer(reader, writer, number))
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        finally:
            writer.transport.abort()
            served.writers.discard(writer)
            served.tasks.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    served.origin = Origin("http" if tls is None else "https", "127.0.0.1", port)
    try:
        yield served
    finally:
        server.close()
        for task in tuple(served.tasks):
            task.cancel()
        await asyncio.gather(*served.tasks, return_exceptions=True)
        await asyncio.sleep(0.01)  # transports report their end in the loop's next rounds


def answers(*each: bytes) -> Script:
    """Make a script that answers requests with *each* in turn, then with the last for ever."""

    async def script(peer: Peer) -> None:
        for answer in each:
            await peer.request()
            await peer.send(answer)
        while True:
            await peer.request()
            await peer.send(each[-1])

    return script


def answers_once(answer: bytes) -> Script:
    """Make a script that sends *answer* to one request and closes."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)

    return script


class Chunks:
    """A body of given chunks, all handed out in one reused buffer as real ones are.

    An exception among the chunks is raised in its turn. *size* may lie.
    """

    def __init__(self, chunks: Iterable[bytes | S3flowError], size: int | None = None) -> None:
        self._chunks = list(chunks)
        self.size = sum(len(c) for c in self._chunks if isinstance(c, bytes))
        if size is not None:
            self.size = size
        self.info = ObjectInfo(self.size, "etag")
        self.reads = 0
        self.closed = False
        self._buffer = bytearray(max([len(c) for c in self._chunks if isinstance(c, bytes)] or [1]))

    async def read(self) -> memoryview:
        self.reads += 1
        await asyncio.sleep(0)
        # What was handed out is dead from here on: whoever still sends it sends this.
        self._buffer[:] = b"\xee" * len(self._buffer)
        chunk = self._chunks.pop(0) if self._chunks else b""
        if isinstance(chunk, S3flowError):
            raise chunk
        self._buffer[: len(chunk)] = chunk
        return memoryview(self._buffer)[: len(chunk)]

    def close(self) -> None:
        self.closed = True


class Authority:
    """A certificate authority that signs certificates for 127.0.0.1."""

    def __init__(self, folder: Path, name: str) -> None:
        self.ca_file = folder / f"{name}-ca.pem"
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        ca = self._build(self._name, self._key, ca=True)
        self.ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        self._folder = folder

    def server(self, address: str = "127.0.0.1", *, expired: bool = False) -> ssl.SSLContext:
        """Make a server's context with a certificate for *address*."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server")])
        certificate = self._build(subject, key, ca=False, address=address, expired=expired)
        chain = self._folder / f"{self.ca_file.stem}-{address}.pem"
        chain.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(chain)
        return context

    def client(self) -> ssl.SSLContext:
        """Make a client's context that trusts this authority alone."""
        return ssl.create_default_context(cafile=str(self.ca_file))

    def _build(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        *,
        ca: bool,
        address: str = "127.0.0.1",
        expired: bool = False,
    ) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=9 if expired else 0)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        builder = identified(builder, key, self._key)
        if ca:
            builder = builder.add_extension(SIGNS, critical=True)
        else:
            names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
            builder = builder.add_extension(names, critical=False)
        return builder.sign(self._key, hashes.SHA256())


class Lane:
    """One way to run a test: plain or TLS. Makes servers and pools, and checks the pools' ends."""

    def __init__(self, authority: Authority | None) -> None:
        self._authority = authority
        self._server = None if authority is None else authority.server()
        self._client = None if authority is None else authority.client()
        self._pools: list[tuple[Pool, int]] = []

    def serve(self, script: Script) -> contextlib.AbstractAsyncContextManager[Served]:
        return serve(script, self._server)

    def pool(
        self,
        served: Served,
        *,
        limit: int = 8,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - immutable
        proxy: str | None = None,
    ) -> Pool:
        pool = Pool(
            served.origin, ssl_context=self._client, limit=limit, timeouts=timeouts, proxy=proxy
        )
        self._pools.append((pool, limit))
        return pool

    async def close(self) -> None:
        """Close every pool, and see that each lease was given back exactly once."""
        for pool, limit in self._pools:
            assert pool._slots._value == limit
            await pool.close()
            assert not pool._open
            assert not pool._idle


@contextlib.asynccontextmanager
async def open_lane(authority: Authority | None) -> AsyncIterator[Lane]:
    """Open a lane for one test."""
    lane = Lane(authority)
    yield lane
    await lane.close()


# What follows is for modules that run on both loops, plain and under TLS: they name the fixtures
# as their own attributes, which keeps them out of the way of every other test.

QUICK = Timeouts(connect=5.0, progress=0.2, answer=0.2)

# The hook that replaces this fixture works for whole folders only, not for a module.
BOTH_LOOPS = pytest.mark.filterwarnings(
    "ignore:Overriding the .event_loop_policy. fixture:pytest.PytestDeprecationWarning"
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """Run each test of the module on asyncio's loop and on uvloop."""
    if request.param == "uvloop":
        return uvloop.EventLoopPolicy()
    return asyncio.DefaultEventLoopPolicy()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Make the authority that clients trust."""
    return Authority(tmp_path_factory.mktemp("ca"), "trusted")


@pytest.fixture(params=["plain", "tls"])
async def lane(request: pytest.FixtureRequest, authority: Authority) -> AsyncIterator[Lane]:
    """Open a lane, plain and under TLS, on the loop that was asked for."""
    wanted = request.getfixturevalue("event_loop_policy")
    assert isinstance(wanted, uvloop.EventLoopPolicy) == isinstance(
        asyncio.get_running_loop(), uvloop.Loop
    )
    async with open_lane(authority if request.param == "tls" else None) as opened:
        yield opened
