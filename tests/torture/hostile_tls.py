"""Servers whose TLS is broken: handshakes that are none, records that were cut or spoilt, false names.

What ends without TLS saying so may have been cut by anybody on the way: where nothing else tells how
long an answer is, it is not a whole one. A seed draws where it is cut and what is spoilt.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from s3flow.errors import Refused, S3flowError
from s3flow.wire import Pool, Timeouts
from tests.torture.hostile_servers import HANG, _ended
from tests.torture.programme import Broken
from tests.unit.hostile import Authority, Peer, serve

PAUSES = 100  # chunks after which a slow reader makes haste
PATIENCE = 1.0  # seconds until a handshake, or a wait for bytes, is given up
OPEN = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"
T = TypeVar("T")
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


class Sealed:
    """The server's side of a TLS connection, record by record."""

    def __init__(self, peer: Peer, context: ssl.SSLContext) -> None:
        self._peer = peer
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)

    async def request(self) -> None:
        """Shake hands, and read a request without a body."""
        await self._go_on(self._tls.do_handshake)
        said = b""
        while b"\r\n\r\n" not in said:
            said += await self._go_on(lambda: self._tls.read(65536))

    async def _go_on(self, step: Callable[[], T]) -> T:
        while True:
            try:
                done = step()
            except ssl.SSLWantReadError:
                await self._peer.send(self._out.read())
                data = await self._peer.reader.read(65536)
                if not data:
                    raise ConnectionResetError from None
                self._in.write(data)
            else:
                await self._peer.send(self._out.read())
                return done

    def records(self, *each: bytes) -> bytes:
        """Give *each* in records of its own, as they go over the line."""
        for data in each:
            self._tls.write(data)
        return self._out.read()

    def end(self) -> bytes:
        """Give the record that ends it."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        return self._out.read()


Answering = Callable[[Sealed, Peer, random.Random, bytes], Awaitable[None]]


# --- answers ---------------------------------------------------------------------------------


async def _ended_well(tls: Sealed, peer: Peer, draw: random.Random, body: bytes) -> None:
    await peer.send(tls.records(OPEN, body) + tls.end())


async def _not_ended(tls: Sealed, peer: Peer, draw: random.Random, body: bytes) -> None:
    await peer.send(tls.records(OPEN, body))


async def _cut(tls: Sealed, peer: Peer, draw: random.Random, body: bytes) -> None:
    head = tls.records(OPEN)
    sealed = tls.records(*_pieces(draw, body)) + tls.end()
    await peer.send(head + sealed[: draw.randrange(len(sealed))])


async def _reset(tls: Sealed, peer: Peer, draw: random.Random, body: bytes) -> None:
    await _cut(tls, peer, draw, body)
    peer.reset()


async def _spoilt(tls: Sealed, peer: Peer, draw: random.Random, body: bytes) -> None:
    head = tls.records(OPEN)
    sealed = bytearray(tls.records(*_pieces(draw, body)))
    sealed[draw.randrange(len(sealed))] ^= 1 << draw.randrange(8)
    await peer.send(head + bytes(sealed) + tls.end())


async def _plain_amid(tls: Sealed, peer: Peer, draw: random.Random, body: bytes) -> None:
    await peer.send(tls.records(OPEN, body) + b"and so on in plain words" + tls.end())


async def _twice(tls: Sealed, peer: Peer, draw: random.Random, body: bytes) -> None:
    record = tls.records(body)
    await peer.send(tls.records(OPEN) + record + record + tls.end())


async def _chunks_cut(tls: Sealed, peer: Peer, draw: random.Random, body: bytes) -> None:
    pieces = [b"%x\r\n%b\r\n" % (len(it), it) for it in _pieces(draw, body)]
    await peer.send(tls.records(CHUNKED, *pieces))


async def _announced(tls: Sealed, peer: Peer, draw: random.Random, body: bytes) -> None:
    await peer.send(tls.records(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body))


def _pieces(draw: random.Random, body: bytes) -> list[bytes]:
    size = draw.choice((100, 5000, 16_384))
    return [body[start : start + size] for start in range(0, len(body), size)]


ANSWERS: dict[str, tuple[Answering, bool]] = {  # and whether the body is whole for certain
    "ended well": (_ended_well, True),
    "all there by its length, and not ended": (_announced, True),
    "not ended": (_not_ended, False),
    "cut": (_cut, False),
    "reset": (_reset, False),
    "spoilt": (_spoilt, False),
    "plain words amid": (_plain_amid, False),
    "a record twice": (_twice, False),
    "chunks cut": (_chunks_cut, False),
}


# --- handshakes ------------------------------------------------------------------------------


async def _noise(peer: Peer, draw: random.Random) -> None:
    await peer.reader.read(65536)
    await peer.send(draw.randbytes(draw.choice((1, 5, 100, 70_000))))


async def _hello_cut(peer: Peer, draw: random.Random) -> None:
    await peer.reader.read(65536)
    await peer.send(
        b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76\x03\x03" + draw.randbytes(draw.randrange(99))
    )


async def _alerts(peer: Peer, draw: random.Random) -> None:
    await peer.reader.read(65536)
    while not peer.writer.is_closing():  # warnings, without an end
        await peer.send(b"\x15\x03\x03\x00\x02\x01\x5a" * 1000)


async def _trickle(peer: Peer, draw: random.Random) -> None:
    await peer.reader.read(65536)
    await peer.send(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xfb\x03\x03")
    while not peer.writer.is_closing():
        await peer.send(draw.randbytes(1))
        await asyncio.sleep(0.03)


async def _silence(peer: Peer, draw: random.Random) -> None:
    await peer.gone()


HANDSHAKES: dict[str, Callable[[Peer, random.Random], Awaitable[None]]] = {
    "noise": _noise,
    "a hello cut": _hello_cut,
    "alerts without an end": _alerts,
    "a trickle": _trickle,
    "silence": _silence,
}
NAMES = ("another name", "expired", "a stranger's")


# --- what comes of it ------------------------------------------------------------------------


async def answered(what: str, seed: int, authority: Authority) -> None:
    """Ask a server whose answer ends as *what* says; it is the exact one or an error of ours."""
    draw = random.Random(seed)
    answer, is_whole = ANSWERS[what]
    body = draw.randbytes(draw.choice((1, 1000, 40_000, 600_000)))
    context = authority.server()

    async def script(peer: Peer) -> None:
        tls = Sealed(peer, context)
        await tls.request()
        await answer(tls, peer, draw, body)

    where = f"TLS: {what}, seed {seed}"
    pause = draw.choice((None, None, 0.0, 0.01))
    came = await _ask(script, authority, where, pause)
    if isinstance(came, S3flowError):
        if is_whole:
            raise Broken(f"an exact answer was refused: {where}: {came!r}") from came
    elif not is_whole:
        raise Broken(f"what may have been cut was taken for whole: {where}: {len(came)} bytes")
    elif came != body:
        raise Broken(f"another answer than was sent: {where}")


async def refused(what: str, seed: int, authority: Authority, stranger: Authority) -> None:
    """Try to speak to a server whose handshake is *what*, or whose certificate is."""
    draw = random.Random(seed)
    where = f"TLS: {what}, seed {seed}"
    context = None
    if what in NAMES:
        signer = stranger if what == "a stranger's" else authority
        address = "127.0.0.2" if what == "another name" else "127.0.0.1"
        context = signer.server(address, expired=what == "expired")

    async def script(peer: Peer) -> None:
        if context is not None:
            await Sealed(peer, context).request()
        else:
            await HANDSHAKES[what](peer, draw)

    came = await _ask(script, authority, where)
    if not isinstance(came, S3flowError):
        raise Broken(f"a server was trusted: {where}: {came[:80]!r}")
    if isinstance(came, Refused) != (what in NAMES):
        raise Broken(f"the wrong error: {where}: {came!r}")


async def _ask(
    script: Callable[[Peer], Awaitable[None]],
    authority: Authority,
    where: str,
    pause: float | None = None,
) -> bytes | S3flowError:
    """Ask; *pause* (seconds) after the first chunks, so that the end comes before all was read."""
    async with serve(script) as served:
        origin = served.origin._replace(scheme="https")
        timeouts = Timeouts(PATIENCE, 20.0, 20.0)
        pool = Pool(origin, ssl_context=authority.client(), limit=1, timeouts=timeouts)
        try:
            async with asyncio.timeout(HANG):
                response = await pool.request("GET", "/", {})
                if pause is None:
                    return await response.read_all()
                pieces = []
                while chunk := await response.read():
                    pieces.append(bytes(chunk))
                    if len(pieces) < PAUSES:  # a body in small chunks would take minutes
                        await asyncio.sleep(pause)
                return b"".join(pieces)
        except TimeoutError:
            raise Broken(f"a request hangs: {where}") from None
        except S3flowError as error:
            return error
        except Exception as error:
            raise Broken(f"no error of ours: {where}: {error!r}") from error
        finally:
            given_back = pool._slots._value == 1
            await pool.close()
            await _ended(served)
            if not given_back and not isinstance(sys.exception(), Broken):
                raise Broken(f"a lease was not given back: {where}")


async def break_tls(seed: int) -> Counter[str]:
    """Meet each of them once."""
    told: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        authority, stranger = Authority(Path(folder), "trusted"), Authority(Path(folder), "strange")
        for what in ANSWERS:
            await answered(what, seed, authority)
            told["answers over broken TLS"] += 1
        strangers = (*NAMES, *HANDSHAKES)  # most of them are waited out: at once, then
        await asyncio.gather(*(refused(what, seed, authority, stranger) for what in strangers))
        told["servers not to be trusted"] += len(strangers)
    return told
