"""Servers that mean harm, against the HTTP client: whatever bytes come, an exact answer or our error.

A seed makes a list of replies: exact ones in all forms that HTTP allows, and ones with a breach. They
are asked for over kept-alive connections, so what one reply leaves behind would answer the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter

from s3flow.errors import S3flowError
from s3flow.model import MIB
from s3flow.wire import Pool, Timeouts
from s3flow.wire.connection import LARGE
from tests.torture.hostile_replies import Reply, cuts, replies
from tests.torture.programme import Broken
from tests.unit.hostile import Peer, Served, serve

HANG = 60.0  # seconds after which a request counts as hung: many times what ends it


# --- a conversation --------------------------------------------------------------------------


async def converse(seed: int, count: int) -> Counter[str]:
    """Ask for *count* replies over few connections, and judge what came of each."""
    told: Counter[str] = Counter()
    made = replies(seed, count)

    async def script(peer: Peer) -> None:
        draw = random.Random(seed + peer.number)
        while True:
            line, _ = await peer.head()
            reply = made[int(line.split(" ")[1][1:])]
            for piece in cuts(draw, reply):
                await peer.send(piece)
                await asyncio.sleep(0)
            if reply.ends:
                return

    async with serve(script) as served:
        pool = Pool(served.origin, limit=2, timeouts=Timeouts(20.0, 20.0, 20.0))
        try:
            for number, reply in enumerate(made):
                await _judge(pool, number, reply, seed, told)
            told["connections used again"] += count - served.connections
            if pool._slots._value != 2:
                raise Broken(f"a lease was not given back: seed {seed}")
        finally:
            await pool.close()
        await _ended(served)
    return told


async def _ended(served: Served) -> None:
    """Wait until the scripts noticed by themselves that the client is gone."""
    while served.tasks:
        await asyncio.sleep(0.01)


async def _judge(pool: Pool, number: int, reply: Reply, seed: int, told: Counter[str]) -> None:
    where = f"{reply.what!r}, reply {number} of seed {seed}"
    try:
        async with asyncio.timeout(HANG):
            came = await _ask(pool, number, reply)
    except TimeoutError:
        raise Broken(f"a request hangs: {where}") from None
    except S3flowError as error:
        if reply.body is not None:
            raise Broken(f"an exact answer was refused: {where}: {error!r}") from error
        told["breaches refused"] += 1
        return
    except Exception as error:
        raise Broken(f"no error of ours came of {where}: {error!r}") from error
    if reply.body is None:
        raise Broken(f"a breach was taken for an answer: {where}: {came[1][:80]!r}")
    if came != (reply.status, reply.body if reply.leaves < 0 else b""):
        raise Broken(f"another answer than was sent: {where}: {came[0]}, {came[1][:80]!r}")
    told["exact answers"] += 1


async def _ask(pool: Pool, number: int, reply: Reply) -> tuple[int, bytes]:
    response = await pool.request(reply.method, f"/{number}", {})
    if reply.leaves < 0:
        return response.status, await response.read_all(4 * LARGE)
    came = 0
    while came < reply.leaves:
        came += len(await response.read())
    response.close()
    return response.status, b""


# --- what never ends -------------------------------------------------------------------------

OK, NO = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 503 x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
ENDLESS = {  # what comes first, and then again and again
    "header": (OK + b"X: ", b"y" * 65536),
    "headers": (OK, b"X: y\r\n" * 9000),
    "status line": (b"HTTP/1.1 200 ", b"y" * 65536),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 2000),
    "chunks": (NO + CHUNKED, b"1000\r\n" + b"e" * 4096 + b"\r\n"),
    "chunk line": (OK + CHUNKED + b"5;", b"e" * 65536),
    "trailers": (OK + CHUNKED + b"0\r\n", b"T: v\r\n" * 9000),
    "body": (NO + b"\r\n", b"z" * 65536),
    "announced body": (NO + b"Content-Length: 999999999999999999\r\n\r\n", b"z" * 65536),
    "chunk of a petabyte": (OK + CHUNKED + b"4000000000000\r\n", b"z" * 65536),
}
TRICKLES = {
    "head": b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n",
    "body": b"",
    "blank lines": b"\r\n",
}


async def endless(what: str) -> None:
    """Let a server send *what* without an end; the client must have enough of it by itself."""
    first, again = ENDLESS[what]

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(first)
        while True:
            await peer.send(again)

    async with serve(script) as served:
        await _had_enough(served, what)
        await _ended(served)


async def trickle(what: str) -> None:
    """Let a server send *what* a byte at a time."""
    first = b"" if what == "head" else b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n"

    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(first)
        while True:
            for byte in TRICKLES[what] or b"z":
                await peer.send(bytes([byte]))
                await asyncio.sleep(0.03)

    async with serve(script) as served:
        await _had_enough(served, f"trickle of {what}")
        await _ended(served)


async def _had_enough(served: Served, what: str) -> None:
    pool = Pool(served.origin, limit=1, timeouts=Timeouts(5.0, 0.3, 0.3))
    try:
        async with asyncio.timeout(HANG):
            response = await pool.request("GET", "/", {})
            await response.read_all(MIB)
    except TimeoutError:
        raise Broken(f"a request hangs on an endless {what}") from None
    except S3flowError:
        if served.connections > 1:
            raise Broken(f"an endless {what} was asked for again") from None
    else:
        raise Broken(f"an endless {what} was taken for an answer")
    finally:
        with contextlib.suppress(S3flowError):
            await pool.close()
