"""Cancelled at every await: no dirty connection returns to the pool and no lease is lost."""

from __future__ import annotations

import asyncio
import hashlib
import random

import pytest

from s3flow.wire import Pool
from tests.unit import hostile
from tests.unit.hostile import BOTH_LOOPS, Chunks, Lane, Peer

pytestmark = BOTH_LOOPS
event_loop_policy = hostile.event_loop_policy
authority, lane = hostile.authority, hostile.lane
SIZE = 300_000


async def labelled(peer: Peer) -> None:
    """Answer each request with a body that its target determines, in pieces."""
    while True:
        line, headers = await peer.head()
        left, total = int(headers.get("content-length", "0")), hashlib.sha256()
        while left:
            piece = await peer.reader.read(min(left, 50_000))
            if not piece:
                return
            total.update(piece)
            left -= len(piece)
        body = total.hexdigest().encode() if line.startswith("PUT") else expected(line.split()[1])
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body))
        for start in range(0, len(body), 70_000):
            await peer.send(body[start : start + 70_000])
            await asyncio.sleep(0)


def expected(target: str) -> bytes:
    return random.Random(target).randbytes(SIZE)


async def get(pool: Pool, target: str) -> bytes:
    response = await pool.request("GET", target, {})
    try:
        return await response.read_all()
    finally:
        response.close()


async def put(pool: Pool, target: str) -> bytes:
    data = expected(target)
    chunks = [data[start : start + 30_000] for start in range(0, SIZE, 30_000)]
    response = await pool.request("PUT", target, {}, Chunks(chunks))
    try:
        return await response.read_all()
    finally:
        response.close()


async def both(pool: Pool, target: str) -> None:
    """Get and put; each answer must be the one to its own request."""
    assert await get(pool, target) == expected(target)
    digest = hashlib.sha256(expected(target)).hexdigest()
    assert await put(pool, target) == digest.encode()


async def test_cancelled_in_every_round_of_the_loop(lane: Lane) -> None:
    """The task is cancelled after 0, 1, 2, … rounds until it gets through uncancelled."""
    async with lane.serve(labelled) as served:
        pool = lane.pool(served, limit=2)
        rounds = 0
        while True:
            task = asyncio.create_task(both(pool, f"/{rounds}"))
            for _ in range(rounds):
                await asyncio.sleep(0)
            if task.done():
                await task
                break
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert pool._slots._value == 2
            if rounds % 10 == 0:
                await both(pool, f"/after-{rounds}")
            rounds += 1
        assert rounds > 10
        await both(pool, "/last")


async def test_cancelled_at_random_among_many(lane: Lane) -> None:
    rng = random.Random(5)
    async with lane.serve(labelled) as served:
        pool = lane.pool(served, limit=3)
        finished = 0
        for _ in range(12):
            tasks = [asyncio.create_task(both(pool, f"/{number}")) for number in range(8)]
            for task in rng.sample(tasks, 4):
                await asyncio.sleep(rng.random() * 0.01)
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            finished += results.count(None)
            others = [r for r in results if not isinstance(r, asyncio.CancelledError | None)]
            assert others == []
        assert finished >= 48
        assert len(pool._open) <= 3 + 2  # those dropped a moment ago may still be closing


async def test_a_wait_for_a_connection_can_be_cancelled(lane: Lane) -> None:
    async with lane.serve(labelled) as served:
        pool = lane.pool(served, limit=1)
        held = await pool.request("GET", "/held", {})
        waiting = [asyncio.create_task(get(pool, f"/{number}")) for number in range(4)]
        await asyncio.sleep(0.01)
        waiting[0].cancel()
        waiting[2].cancel()
        assert await held.read_all() == expected("/held")
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [isinstance(r, asyncio.CancelledError) for r in results] == [1, 0, 1, 0]
        assert (results[1], results[3]) == (expected("/1"), expected("/3"))


async def test_a_cancelled_read_drops_the_connection(lane: Lane) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        await peer.gone()

    async with lane.serve(script) as served:
        pool = lane.pool(served)
        response = await pool.request("GET", "/", {})
        task = asyncio.create_task(response.read_all())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert pool._slots._value == 8  # given back by the cancellation itself
        assert pool._idle == []
        response.close()
        while served.open:
            await asyncio.sleep(0.01)
