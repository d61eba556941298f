"""Clients that mean harm, against the listener: it answers the others, tells them nothing, and goes on."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from typing import NamedTuple
from unittest.mock import patch

from s3flow.web import door
from s3flow.web.server import serve
from tests.torture.programme import Broken

PATIENCE = 60.0  # seconds for an answer, after which it counts as none
USER, PASSWORD, CANARY = "scraper", "canary-5f0e9d2c7b", "canary-of-a-client-31c4"
METRICS, STATUS = b"what-the-metrics-say", b"what-the-status-says"
LOGIN = b"Authorization: Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode())
CROWD = 3 * door.MOST


class Listener(NamedTuple):
    """A listener under attack, and whether it has a password."""

    port: int
    guarded: bool


class Attack(NamedTuple):
    """What a client sends. *answers*: the statuses that may come, in this order; None: whatever comes."""

    what: str
    data: bytes
    answers: list[int] | None = None


class _Heard(logging.Handler):
    """Keeps all that is logged while a listener is attacked."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@contextlib.asynccontextmanager
async def listening(*, guarded: bool) -> AsyncIterator[Listener]:
    """Run a listener, with a password or without."""

    async def status() -> dict[str, object]:
        return {"flows": STATUS.decode()}

    login = {"user": USER, "password": PASSWORD} if guarded else {}
    async with serve("127.0.0.1:0", metrics=lambda: METRICS, status=status, **login) as bound:
        assert bound is not None
        yield Listener(bound[1], guarded)


# --- what they send --------------------------------------------------------------------------


def get(
    path: str = "/readyz", *lines: bytes, host: bytes = b"127.0.0.1", method: str = "GET"
) -> bytes:
    """Write a request."""
    first = f"{method} {path} HTTP/1.1".encode("latin-1")
    return b"\r\n".join((first, b"Host: " + host, *lines, b"", b""))


BODY = b"Content-Length: 5"
CHUNKED = b"Transfer-Encoding: chunked"
SMUGGLED = get("/metrics", LOGIN)
BREACHES = (
    get("/readyz", BODY, CHUNKED) + b"0\r\n\r\n" + SMUGGLED,
    get("/readyz", CHUNKED, BODY) + b"0\r\n\r\n" + SMUGGLED,
    get("/readyz", BODY, b"Content-Length: 50") + b"12345" + SMUGGLED,
    get("/readyz", b"Content-Length: -5") + SMUGGLED,
    get("/readyz", b"Content-Length: +5") + b"12345" + SMUGGLED,
    get("/readyz", b"Content-Length: 0x5") + b"12345" + SMUGGLED,
    get("/readyz", b"Content-Length : 5") + b"12345" + SMUGGLED,
    get("/readyz", b"Transfer-Encoding: chunked, identity") + b"0\r\n\r\n" + SMUGGLED,
    get("/readyz", b"Transfer-Encoding: xchunked") + SMUGGLED,
    get("/readyz", CHUNKED) + b"-1\r\n" + SMUGGLED,
    get("/readyz", CHUNKED) + b"f" * 17 + b"\r\n" + SMUGGLED,
    get("/readyz", b"X: a", b" folded") + SMUGGLED,
    get("/readyz", b"X: a\0b") + SMUGGLED,
    get("/readyz", b"X: a\rb: c") + SMUGGLED,
    get("/readyz").replace(b"\r\n", b"\n"),
    b"GET /readyz HTTP/1.1\r\n\r\n",  # names no host
    get("/readyz", b"Host: 127.0.0.1"),
    b"GET /readyz HTTP/9.9\r\nHost: x\r\n\r\n",
    b"GET /metrics\r\n\r\n",
)
NOISE = (
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x07" * 512,  # TLS says hello
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"SSH-2.0-OpenSSH_9.9\r\n",
    b"\x00" * 5000,
    b"*1\r\n$4\r\nPING\r\n",
    b"<policy-file-request/>\0",
    b"\xff\xfe" * 500,
    b"\n" * 5000,
)
HUGE = (
    b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
    get("/readyz", b"X: " + b"y" * 1_000_000),
    get("/readyz", *[b"X: y"] * 20_000),
    get("/readyz", b"Y" * 1_000_000 + b": y"),
    get("/readyz", b"Content-Length: 50000000") + b"z" * 1_000_000,
    get("/readyz", CHUNKED) + (b"1000\r\n" + b"z" * 4096 + b"\r\n") * 300,
    get("/readyz", CHUNKED) + b"1;" + b"e" * 1_000_000,
    get("/readyz", CHUNKED) + b"0\r\n" + b"T: v\r\n" * 20_000,
    get("/readyz", b"Content-Encoding: gzip", BODY) + b"\x1f\x8b\x08\x00\x00",
)
PATHS = (
    *(
        "/../../etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/metrics/../../etc/passwd",
    ),
    *("/metrics%00", "/metrics%0d%0aX:y", "/api/status/..%2f", "/api", "/.git/config", "/metrics/"),
    *(
        "/%c0%ae%c0%ae/",
        "/\xff",
        "/metrics;a=b",
        "/api/status%2f",
        "/server-status",
        "/proc/self/environ",
    ),
)
METHODS = (
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "TRACE",
    "OPTIONS",
    "PROPFIND",
    "CONNECT",
    "BREW",
    "get",
)
HOSTS = (
    b"evil.example",
    b"127.0.0.1.evil.example",
    b"localhost.evil.example",
    b"localhost@evil.example",
)
HOSTS += (b"[::1].evil.example", b"evil.example:9440", b"0x7f.evil.example", b"", b"\xe9vil")
LOGINS = (
    b"Basic " + base64.b64encode(f"{USER}:{CANARY}".encode()),
    b"Basic " + base64.b64encode(f"{CANARY}:{PASSWORD}".encode()),
    b"Basic " + base64.b64encode(f"{USER}:{PASSWORD[:-1]}".encode()),
    b"Basic " + base64.b64encode(f"{USER}:{PASSWORD}x".encode()),
    b"Basic " + base64.b64encode(f"{USER}{PASSWORD}".encode()),
    b"Basic " + base64.b64encode(f"{USER}:\0{CANARY}\xff".encode("latin-1")),
    b"Basic " + base64.b64encode(b"u:" + b"p" * 5000),
    b"Bearer " + LOGIN.split()[-1],
    *(
        b"Basic",
        b"Basic " + CANARY.encode(),
        b"Basic \xff\xfe",
        b"Basic ====",
        b"Digest x=1",
        b"\xe9",
    ),
)


def attacks(draw: random.Random, *, guarded: bool) -> list[Attack]:
    """Draw what one client after the other sends."""
    own = (LOGIN,) if guarded else ()
    kinds = [
        Attack("a breach of HTTP", draw.choice(BREACHES)),
        Attack("no HTTP", draw.choice(NOISE)),
        Attack("too much", draw.choice(HUGE)),
        Attack("a path", get(draw.choice(PATHS), *own, b"Connection: close")),
        Attack("a method", get("/metrics", *own, method=draw.choice(METHODS))),
        Attack("half a request", get("/metrics", *own)[: draw.randrange(1, 40)]),
        Attack("in a row", get("/readyz", *own) * 50, [200] * 50),
        Attack(
            "HEAD, and more",
            get("/metrics", *own, method="HEAD") + get("/nowhere", *own) + get("/healthz", *own),
            [200, 404, 200],
        ),
        Attack("a change of protocol", get("/readyz", b"Connection: Upgrade", b"Upgrade: h2c")),
        Attack("a wish to go on", get("/readyz", b"Expect: 100-continue", BODY)),
        Attack("an absolute path", get("http://evil.example/metrics", *own)),
        Attack("noise", draw.randbytes(draw.randrange(1, 3000))),
    ]
    if guarded:
        path, login = draw.choice(("/metrics", "/api/status")), draw.choice(LOGINS)
        kinds += [
            Attack("a wrong login", get(path, b"Authorization: " + login)),
            Attack("no login", get(path), [401]),
            Attack("two logins", get(path, b"Authorization: " + login, LOGIN)),
        ]
    else:
        kinds += [Attack("another host", get("/metrics", host=draw.choice(HOSTS)))]
    draw.shuffle(kinds)
    return kinds


# --- what comes of it ------------------------------------------------------------------------


async def exchange(listener: Listener, data: bytes, draw: random.Random) -> bytes:
    """Send *data*, perhaps in pieces, end our half, and give all that is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    try:
        with contextlib.suppress(ConnectionError):
            middle = draw.randrange(len(data) + 1)
            for piece in (data[:middle], data[middle:]):
                writer.write(piece)
                await writer.drain()
            writer.write_eof()
        answered = b""
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65536):
                answered += chunk
        return answered
    finally:
        writer.transport.abort()


def statuses(answered: bytes) -> list[int]:
    """Give the statuses of the answers in a row."""
    return [int(each) for each in re.findall(rb"HTTP/1\.[01] ([0-9]{3}) ", answered)]


async def annoy(listener: Listener, seed: int, told: Counter[str]) -> None:
    """Let one client of each kind come, then ask as one who may."""
    draw = random.Random(seed)
    for attack in attacks(draw, guarded=listener.guarded):
        where = f"{attack.what} (seed {seed}, password {listener.guarded})"
        try:
            async with asyncio.timeout(PATIENCE):
                answered = await exchange(listener, attack.data, draw)
        except TimeoutError:
            raise Broken(f"the listener leaves a client without an end: {where}") from None
        _judge(attack, answered, where)
        told["attacks on the listener"] += 1
    await ask(listener, f"after seed {seed}")


def _judge(attack: Attack, answered: bytes, where: str) -> None:
    came = statuses(answered)
    if attack.answers is not None and came != attack.answers:
        raise Broken(f"not {attack.answers} but {came} came of {where}")
    secret = METRICS in answered or STATUS in answered
    may = attack.what in ("in a row", "HEAD, and more", "an absolute path", "two logins")
    if secret and not may:
        raise Broken(f"something was told to {where}: {answered[:300]!r}")
    if attack.what == "a breach of HTTP" and came not in ([400], [200, 400], [413], []):
        raise Broken(f"a request was smuggled: {where}: {came}, {attack.data[:120]!r}")
    if any(word in answered for word in (b"Traceback", b"aiohttp", b"Python", PASSWORD.encode())):
        raise Broken(f"an answer tells too much: {where}: {answered[:300]!r}")
    if any(status >= 500 for status in came):
        raise Broken(f"the listener failed: {where}: {came}, {attack.data[:120]!r}")


async def ask(listener: Listener, where: str) -> None:
    """Ask as a scraper does; it must be answered, whatever others do."""
    lines = (LOGIN, b"Connection: close") if listener.guarded else (b"Connection: close",)
    for path, wanted in (("/metrics", METRICS), ("/api/status", STATUS), ("/healthz", b'"ok"')):
        try:
            async with asyncio.timeout(PATIENCE):
                answered = await exchange(listener, get(path, *lines), random.Random(0))
        except (TimeoutError, OSError) as error:
            raise Broken(f"a scraper is not answered {where}: {error!r}") from error
        if statuses(answered) != [200] or wanted not in answered:
            raise Broken(f"a scraper is answered wrongly {where}: {answered[:300]!r}")


async def crowd(listener: Listener, seed: int, told: Counter[str]) -> None:
    """Come in hundreds that say nothing, little or read nothing, and stay; the next must be answered."""
    draw = random.Random(seed)
    stay: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    try:
        for _ in range(CROWD):
            came = await asyncio.open_connection("127.0.0.1", listener.port)
            stay.append(came)
            lines = (LOGIN,) if listener.guarded else ()
            greedy = get("/metrics", *lines) * 200
            came[1].write(draw.choice((b"", b"G", get()[:-2], get(), greedy)))
        await ask(listener, f"in a crowd (seed {seed})")
        gone = 0
        for reader, _ in stay:
            with contextlib.suppress(TimeoutError, ConnectionError):
                async with asyncio.timeout(0.001):
                    while await reader.read(65536):
                        pass
                gone += 1
        told["connections in crowds"] += len(stay)
        told["of them shown the door"] += gone
    finally:
        for _, writer in stay:
            writer.transport.abort()


async def besiege(seed: int, turns: int) -> Counter[str]:
    """Attack a listener with a password and one without, and see what was logged meanwhile."""
    told: Counter[str] = Counter()
    heard, root = _Heard(), logging.getLogger()
    level = root.level
    root.addHandler(heard)
    root.setLevel(logging.DEBUG)
    try:
        with patch.object(door, "FAILURE_PAUSE", 0.0):
            for guarded in (True, False):
                async with listening(guarded=guarded) as listener:
                    await ask(listener, "before all")
                    for turn in range(turns):
                        await annoy(listener, seed + turn, told)
                    await crowd(listener, seed, told)
    finally:
        root.removeHandler(heard)
        root.setLevel(level)
    for line in heard.lines:
        if any(word in line for word in (CANARY, PASSWORD, LOGIN.split()[-1].decode())):
            raise Broken(f"a login is in the log: seed {seed}: {line!r}")
        if line.startswith(("ERROR", "CRITICAL")):
            raise Broken(f"clients fill the log: seed {seed}: {line[:300]!r}")
    return told
