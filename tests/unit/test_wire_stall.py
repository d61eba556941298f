"""Answers that break off, stop or trickle, and our own slowness, which is none of these."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest

from s3flow.errors import ConnectionLost, Stalled, Truncated
from s3flow.wire import Timeouts
from tests.unit import hostile
from tests.unit.hostile import BOTH_LOOPS, OK, QUICK, Chunks, Lane, Peer, answers, answers_once

pytestmark = BOTH_LOOPS
event_loop_policy = hostile.event_loop_policy
authority, lane = hostile.authority, hostile.lane
START = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize("size", [10, 100_000])
@pytest.mark.parametrize("framing", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked"])
async def test_a_body_that_breaks_off_is_truncated(lane: Lane, framing: bytes, size: int) -> None:
    begin = b"" if framing.startswith(b"Content") else b"f4240\r\n"
    answer = START + framing + b"\r\n\r\n" + begin + b"x" * size
    async with lane.serve(answers_once(answer)) as served:
        response = await lane.pool(served).request("GET", "/", {})
        with pytest.raises(Truncated):
            await response.read_all()


async def test_a_reset_amid_the_body_is_an_error_of_ours(lane: Lane) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(START + b"Content-Length: 1000000\r\n\r\n" + b"x" * 1000)
        peer.reset()

    async with lane.serve(script) as served:
        response = await lane.pool(served).request("GET", "/", {})
        with pytest.raises((Truncated, ConnectionLost)):
            await response.read_all()


async def test_a_connection_that_ends_before_the_answer_is_lost(lane: Lane) -> None:
    async with lane.serve(answers_once(b"")) as served:
        with pytest.raises(ConnectionLost, match="before it answered"):
            await lane.pool(served).request("GET", "/", {})
        assert served.connections == 1


async def test_nobody_listening_is_a_lost_connection(lane: Lane) -> None:
    async with lane.serve(answers(OK)) as served:
        pass
    with pytest.raises(ConnectionLost, match="cannot connect"):
        await lane.pool(served).request("GET", "/", {})


async def test_no_answer_is_a_stall(lane: Lane) -> None:
    async with lane.serve(Peer.gone) as served:
        with pytest.raises(Stalled, match=r"no answer came within 0\.2 s"):
            await lane.pool(served, timeouts=QUICK).request("GET", "/", {})


async def test_one_request_may_wait_longer_for_its_answer(lane: Lane) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await asyncio.sleep(0.8)
        await peer.send(OK)

    async with lane.serve(script) as served:
        pool = lane.pool(served, timeouts=QUICK)
        response = await pool.request("GET", "/", {}, timeout_answer=30.0)
        assert await response.read_all() == b"ok"


@pytest.mark.parametrize("drop", [b"", b"x"])
async def test_a_body_that_stops_or_trickles_is_a_stall(lane: Lane, drop: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(START + b"Content-Length: 1000000\r\n\r\n" + b"x" * 100_000)
        while True:
            await asyncio.sleep(0.02)
            await peer.send(drop)

    async with lane.serve(script) as served:
        response = await lane.pool(served, timeouts=QUICK).request("GET", "/", {})
        with pytest.raises(Stalled, match="arrived in"):
            await response.read_all()


async def test_a_trickling_head_is_a_stall(lane: Lane) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        while True:
            await peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            await asyncio.sleep(0.02)

    async with lane.serve(script) as served:
        with pytest.raises(Stalled):
            await lane.pool(served, timeouts=QUICK).request("GET", "/", {})


async def test_our_own_slowness_is_no_stall(lane: Lane) -> None:
    body = random.Random(4).randbytes(400_000)
    answer = START + b"Content-Length: %d\r\n\r\n" % len(body) + body
    async with lane.serve(answers(answer)) as served:
        response = await lane.pool(served, timeouts=QUICK).request("GET", "/", {})
        pieces = [bytes(await response.read())]
        await asyncio.sleep(1.0)
        while chunk := await response.read():
            pieces.append(bytes(chunk))
        assert b"".join(pieces) == body


async def test_a_server_that_stops_reading_is_a_stall(lane: Lane) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.writer.transport.pause_reading()
        await asyncio.sleep(600)

    async with lane.serve(script) as served:
        body = Chunks([b"x" * 250_000] * 100)
        with pytest.raises(Stalled, match="left in"):
            await lane.pool(served, timeouts=QUICK).request("PUT", "/", {}, body)
        body.close()


async def test_a_server_that_reads_slowly_is_given_time_for_what_sits_in_buffers(
    lane: Lane,
) -> None:
    """The kernel takes megabytes: the wait for the answer begins when the peer has them all."""
    data = bytes(6_000_000)
    patience = Timeouts(progress=0.6, answer=0.6)  # seconds, where the whole takes two

    async def script(peer: Peer) -> None:
        # Little room on this side, so that what waits, waits in the sender's kernel.
        accepted = peer.writer.get_extra_info("socket")
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
        _, headers = await peer.head()
        left = int(headers["content-length"])
        while left:
            piece = await peer.reader.read(min(left, 60_000))
            if not piece:
                return
            left -= len(piece)
            await asyncio.sleep(0.02)
        await peer.send(OK)

    async with lane.serve(script) as served:
        pool = lane.pool(served, timeouts=patience)
        response = await pool.request("PUT", "/", {}, data)
        assert await response.read_all() == b"ok"
