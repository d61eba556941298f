"""Servers that break HTTP's rules: every breach is an error, never a guess."""

from __future__ import annotations

import asyncio

import pytest

from s3flow.errors import BadAnswer
from tests.unit import hostile
from tests.unit.hostile import BOTH_LOOPS, Lane, Peer

pytestmark = BOTH_LOOPS
event_loop_policy = hostile.event_loop_policy
authority, lane = hostile.authority, hostile.lane
START = b"HTTP/1.1 200 OK\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 \xb200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        START + b"no colon\r\nContent-Length: 0\r\n\r\n",
        START + b"Server\r\nContent-Length: 0\r\n\r\n",
        START + b": empty\r\nContent-Length: 0\r\n\r\n",
        START + b"Content-Length : 0\r\n\r\n",
        START + b"X: 1\r\n folded\r\nContent-Length: 0\r\n\r\n",
        START + b"X: a\0b\r\nContent-Length: 0\r\n\r\n",
        START + b"X: a\rb\r\nContent-Length: 0\r\n\r\n",
        START + b"X: a\nY: b\r\nContent-Length: 0\r\n\r\n",
        START + b"Content-Length: -1\r\n\r\n",
        START + b"Content-Length: +1\r\n\r\nx",
        START + b"Content-Length: 1x\r\n\r\nx",
        START + b"Content-Length: 0x1\r\n\r\nx",
        START + b"Content-Length: \xb2\r\n\r\nx",
        START + b"Content-Length:\r\n\r\n",
        START + b"Content-Length: 99999999999999999999\r\n\r\n",
        START + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        START + b"Content-Length: 1, 2\r\n\r\nxx",
        START + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        START + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        START + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        START + b"Transfer-Encoding: identity\r\n\r\nx",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        START + b"X: 1\r\n" * 201 + b"\r\n",
        START + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        START + b"X: " + b"y" * 70_000,
    ],
)
async def test_heads_that_break_the_rules_are_bad_answers(lane: Lane, answer: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(answer)
        await peer.gone()

    async with lane.serve(script) as served:
        with pytest.raises(BadAnswer):
            await lane.pool(served).request("GET", "/", {})


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n",
        b"\r\n",
        b"-1\r\n",
        b"0x1\r\na\r\n0\r\n\r\n",
        b"1 \r\na\r\n0\r\n\r\n",
        b"1\na\n0\n\n" + b" " * 2000,
        b"ffffffffffffffff1\r\n",
        b"1\r\naXX\r\n0\r\n\r\n",
        b"1\r\nab\r\n0\r\n\r\n",
        b"1;" + b"e" * 5000 + b"\r\na\r\n0\r\n\r\n",
        b"1" * 5000,
        b"0\r\nbad trailer\r\n\r\n",
        b"0\r\n folded: x\r\n\r\n",
        b"0\r\nT: a\0\r\n\r\n",
        b"0\r\n" + b"T: v\r\n" * 5000 + b"\r\n",
        b"0\r\nT: " + b"v" * 20_000,
    ],
)
async def test_chunks_that_break_the_rules_are_bad_answers(lane: Lane, body: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + body)
        await peer.gone()

    async with lane.serve(script) as served:
        pool = lane.pool(served)
        response = await pool.request("GET", "/", {})
        with pytest.raises(BadAnswer):
            await response.read_all()
        assert pool._idle == []


async def test_a_head_may_be_64_kib_and_come_in_drops(lane: Lane) -> None:
    value = b"v" * 60_000

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(START + b"X: " + value)
        for byte in b"\r\nContent-Length: 2\r\n\r\nok":
            await peer.send(bytes([byte]))
            await asyncio.sleep(0)
        await peer.gone()

    async with lane.serve(script) as served:
        response = await lane.pool(served).request("GET", "/", {})
        assert response.headers["x"] == value.decode()
        assert await response.read_all() == b"ok"
