"""Bodies on their way out: from reused memory, cut short, or answered early."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest

from s3flow.errors import BadAnswer, ConnectionLost, Stalled, Truncated
from s3flow.wire import Response
from tests.unit import hostile
from tests.unit.hostile import BOTH_LOOPS, EMPTY, OK, Chunks, Lane, Peer, answers

pytestmark = BOTH_LOOPS
event_loop_policy = hostile.event_loop_policy
authority, lane = hostile.authority, hostile.lane
START = b"HTTP/1.1 200 OK\r\n"


async def echo_digest(peer: Peer) -> None:
    """Answer each request with the digest of its body, read slowly in odd pieces."""
    rng = random.Random(peer.number)
    while True:
        _, headers = await peer.head()
        left, total = int(headers["content-length"]), hashlib.sha256()
        while left:
            piece = await peer.reader.read(min(left, rng.choice([1, 1000, 70_000, 300_000])))
            if not piece:
                return
            total.update(piece)
            left -= len(piece)
            if rng.random() < 0.1:
                await asyncio.sleep(0.002)
        await peer.send(START + b"Content-Length: 64\r\n\r\n" + total.hexdigest().encode())


@pytest.mark.parametrize("seed", range(6))
async def test_a_reused_buffer_never_corrupts_the_stream(lane: Lane, seed: int) -> None:
    """Zero-copy: each chunk's memory is overwritten as soon as the next one is read."""
    rng = random.Random(seed)
    async with lane.serve(echo_digest) as served:
        pool = lane.pool(served)
        for _ in range(4):
            sizes = [rng.choice([1, 100, 16_000, 65_536, 262_144, 900_000]) for _ in range(12)]
            chunks = [rng.randbytes(size) for size in sizes]
            response = await pool.request("PUT", "/", {}, Chunks(chunks))
            expected = hashlib.sha256(b"".join(chunks)).hexdigest()
            assert await response.read_all() == expected.encode()
        assert served.connections == 1


class Piped:
    """A body that is another answer's."""

    def __init__(self, response: Response) -> None:
        assert response.length is not None
        self.size = response.length
        self.info = None
        self.read = response.read
        self.close = response.close


@pytest.mark.parametrize("size", [0, 1, 4096, 20_000, 5_000_000])
async def test_a_body_is_piped_from_answer_to_request(lane: Lane, size: int) -> None:
    body = random.Random(size).randbytes(size)
    answer = START + b"Content-Length: %d\r\n\r\n" % size + body
    async with lane.serve(answers(answer)) as source, lane.serve(echo_digest) as target:
        gets, puts = lane.pool(source), lane.pool(target)

        async def one() -> None:
            got = await gets.request("GET", "/", {})
            put = await puts.request("PUT", "/", {}, Piped(got))
            assert await put.read_all() == hashlib.sha256(body).hexdigest().encode()
            got.close()

        await asyncio.gather(*(one() for _ in range(6)))
        assert len(gets._idle) == gets._slots._value - 2  # six were open, all are idle again


async def test_the_first_chunk_is_read_before_a_connection_is_taken(lane: Lane) -> None:
    async with lane.serve(answers(OK)) as served:
        body = Chunks([Stalled("the source stalls")], size=10)
        with pytest.raises(Stalled, match="the source stalls"):
            await lane.pool(served).request("PUT", "/", {}, body)
        assert served.connections == 0


@pytest.mark.parametrize("big", [10, 100_000])
async def test_a_body_that_fails_drops_the_connection(lane: Lane, big: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.gone()

    async with lane.serve(script) as served:
        pool = lane.pool(served)
        body = Chunks([b"x" * big, Truncated("the source broke off")], size=3 * big)
        with pytest.raises(Truncated, match="the source broke off"):
            await pool.request("PUT", "/", {}, body)
        assert pool._idle == []


@pytest.mark.parametrize(
    ("chunks", "size", "error"),
    [
        ([b"abc"], 4, Truncated),
        ([], 4, Truncated),
        ([b"abc", b"de"], 4, BadAnswer),
        ([b"abcde"], 4, BadAnswer),
        ([b"abcd", b"e"], 4, BadAnswer),
        ([b"a"], 0, BadAnswer),
    ],
)
async def test_a_body_of_another_size_is_an_error(
    lane: Lane, chunks: list[bytes], size: int, error: type[Exception]
) -> None:
    async with lane.serve(answers(OK)) as served:
        pool = lane.pool(served)
        with pytest.raises(error):
            await pool.request("PUT", "/", {}, Chunks(chunks, size=size))
        assert pool._idle == []


async def test_an_early_answer_ends_the_sending(lane: Lane) -> None:
    denied = b"<Error><Code>AccessDenied</Code></Error>"

    async def script(peer: Peer) -> None:
        await peer.head()
        peer.writer.transport.pause_reading()
        head = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n" % len(denied)
        await peer.send(head + denied)
        await asyncio.sleep(600)

    async with lane.serve(script) as served:
        pool = lane.pool(served)
        body = Chunks([b"x" * 250_000] * 400)
        response = await pool.request("PUT", "/", {}, body)
        assert response.status == 403
        assert await response.read_all() == denied
        assert body.reads < 400
        assert pool._idle == []


async def test_an_early_success_is_not_believed(lane: Lane) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.writer.transport.pause_reading()
        await peer.send(EMPTY)
        await asyncio.sleep(600)

    async with lane.serve(script) as served:
        with pytest.raises(BadAnswer, match="before the whole body was sent"):
            await lane.pool(served).request("PUT", "/", {}, Chunks([b"x" * 250_000] * 400))


async def test_a_server_that_dies_while_we_send_is_a_lost_connection(lane: Lane) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        peer.reset()

    async with lane.serve(script) as served:
        with pytest.raises(ConnectionLost):
            await lane.pool(served).request("PUT", "/", {}, Chunks([b"x" * 250_000] * 400))
