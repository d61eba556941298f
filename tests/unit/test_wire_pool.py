"""Connections: reused, replaced when dead, dropped when dirty, bounded in number."""

from __future__ import annotations

import asyncio

import pytest

from s3flow.errors import ConnectionLost
from tests.unit import hostile
from tests.unit.hostile import (
    BOTH_LOOPS,
    EMPTY,
    OK,
    QUICK,
    Chunks,
    Lane,
    Peer,
    answers,
    answers_once,
)

pytestmark = BOTH_LOOPS
event_loop_policy = hostile.event_loop_policy
authority, lane = hostile.authority, hostile.lane
START = b"HTTP/1.1 200 OK\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"


async def test_connections_are_reused_last_in_first_out_up_to_the_limit(lane: Lane) -> None:
    async with lane.serve(answers(OK)) as served:
        pool = lane.pool(served, limit=3)

        async def one() -> bytes:
            response = await pool.request("GET", "/", {})
            return await response.read_all()

        assert await asyncio.gather(*(one() for _ in range(20))) == [b"ok"] * 20
        assert served.connections == 3
        last = pool._idle[-1]
        await one()
        assert pool._idle[-1] is last


@pytest.mark.parametrize("size", [16 * 1024, 256 * 1024, 1024 * 1024])
async def test_bodies_of_round_sizes_that_arrive_at_once_do_not_cost_the_connection(
    lane: Lane, size: int
) -> None:
    head = START + f"Content-Length: {size}\r\n\r\n".encode()
    async with lane.serve(answers(head + bytes(size))) as served:
        pool = lane.pool(served)
        for _ in range(5):
            response = await pool.request("GET", "/", {})
            assert len(await response.read_all()) == size
        assert served.connections == 1


async def test_those_who_wait_for_a_connection_are_served_in_order(lane: Lane) -> None:
    async with lane.serve(answers(OK)) as served:
        pool = lane.pool(served, limit=1)
        order = []

        async def one(number: int) -> None:
            response = await pool.request("GET", "/", {})
            order.append(number)
            await response.read_all()

        tasks = [asyncio.create_task(one(number)) for number in range(9)]
        await asyncio.sleep(0)
        tasks[4].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == [0, 1, 2, 3, 5, 6, 7, 8]


async def test_a_connection_that_died_while_idle_is_replaced(lane: Lane) -> None:
    async with lane.serve(answers_once(OK)) as served:
        pool = lane.pool(served)
        for _ in range(3):
            response = await pool.request("PUT", "/", {}, Chunks([b"body"]))
            assert await response.read_all() == b"ok"
        assert served.connections == 3


def reluctant(answer: bytes) -> object:
    """Answer the first connection once; close it, after *answer*, at the second request."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        while peer.number:
            await peer.request()
            await peer.send(OK)
        await peer.request()
        await peer.send(answer)

    return script


@pytest.mark.parametrize("body", [b"", b"bytes", "chunks", "big"])
async def test_a_dead_connection_is_replaced_once_when_nothing_is_lost(
    lane: Lane, body: object
) -> None:
    async with lane.serve(reluctant(b"")) as served:
        pool = lane.pool(served)
        await (await pool.request("GET", "/", {})).read_all()
        sent = Chunks([b"chunk"]) if body == "chunks" else body
        if body == "big":
            sent = bytes(1_000_000)
        response = await pool.request("PUT", "/", {}, sent)
        assert await response.read_all() == b"ok"
        assert served.connections == 2


@pytest.mark.parametrize("size", [10, 100_000])
async def test_a_body_that_is_gone_is_not_sent_again(lane: Lane, size: int) -> None:
    async with lane.serve(reluctant(b"")) as served:
        pool = lane.pool(served)
        await (await pool.request("GET", "/", {})).read_all()
        with pytest.raises(ConnectionLost):
            await pool.request("PUT", "/", {}, Chunks([b"x" * size, b"y"]))
        assert served.connections == 1


async def test_a_post_is_sent_once_and_never_over_a_connection_that_was_idle(lane: Lane) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        if not peer.number:
            await peer.send(OK)
            await peer.gone()

    async with lane.serve(script) as served:
        pool = lane.pool(served)
        await (await pool.request("GET", "/", {})).read_all()
        with pytest.raises(ConnectionLost):
            await pool.request("POST", "/", {}, b"once")
        assert served.connections == 2


async def test_new_connections_for_posts_do_not_pile_up(lane: Lane) -> None:
    async with lane.serve(answers(OK)) as served:
        pool = lane.pool(served, limit=2)

        async def one(number: int) -> None:
            method = "POST" if number % 3 else "GET"
            assert await (await pool.request(method, "/", {}, b"x")).read_all() == b"ok"
            assert sum(connection.usable for connection in pool._open) <= 2

        await asyncio.gather(*(one(number) for number in range(30)))


async def test_a_begun_answer_is_not_asked_for_again(lane: Lane) -> None:
    async with lane.serve(reluctant(b"HTTP/1.1 200")) as served:
        pool = lane.pool(served)
        await (await pool.request("GET", "/", {})).read_all()
        with pytest.raises(ConnectionLost):
            await pool.request("GET", "/", {})
        assert served.connections == 1


@pytest.mark.parametrize(
    "first", [OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged", OK + b"x", EMPTY + b"x"]
)
async def test_bytes_after_the_answer_never_answer_the_next_request(
    lane: Lane, first: bytes
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK if peer.number else first)
        await peer.gone()

    async with lane.serve(script) as served:
        pool = lane.pool(served)
        await (await pool.request("GET", "/", {})).read_all()
        response = await pool.request("GET", "/", {})
        assert await response.read_all() == b"ok"
        assert served.connections == 2


async def test_unasked_bytes_drop_an_idle_connection(lane: Lane) -> None:
    unasked = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        if not peer.number:
            await unasked.wait()
            await peer.send(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        await peer.gone()

    async with lane.serve(script) as served:
        pool = lane.pool(served)
        await (await pool.request("GET", "/", {})).read_all()
        unasked.set()
        while pool._idle:
            await asyncio.sleep(0.01)
        response = await pool.request("GET", "/", {})
        assert (response.status, await response.read_all()) == (200, b"ok")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive, Close\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    ],
)
async def test_a_connection_that_the_server_will_close_is_not_kept(
    lane: Lane, answer: bytes
) -> None:
    async with lane.serve(answers(answer)) as served:
        pool = lane.pool(served)
        for _ in range(2):
            await (await pool.request("GET", "/", {})).read_all()
        assert served.connections == 2


async def test_an_old_server_may_keep_the_connection(lane: Lane) -> None:
    old = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok"
    async with lane.serve(answers(old)) as served:
        pool = lane.pool(served)
        for _ in range(2):
            await (await pool.request("GET", "/", {})).read_all()
        assert served.connections == 1


async def test_closing_an_answer_keeps_the_connection_only_when_all_was_read(lane: Lane) -> None:
    chunked = CHUNKED + b"2\r\nok\r\n0\r\n\r\n"
    async with lane.serve(answers(OK, OK, chunked, OK)) as served:
        pool = lane.pool(served)
        for _ in range(3):  # handed out whole, the end not asked for
            response = await pool.request("GET", "/", {})
            assert bytes(await response.read()) == b"ok"
            response.close()
            response.close()
            assert bytes(await response.read()) == b""
        assert served.connections == 1
        (await pool.request("GET", "/", {})).close()
        await (await pool.request("GET", "/", {})).read_all()
        assert served.connections == 2


async def test_idle_connections_hold_small_buffers_only(lane: Lane) -> None:
    body = bytes(2_000_000)
    answer = START + b"Content-Length: %d\r\n\r\n" % len(body) + body
    async with lane.serve(answers(answer)) as served:
        pool = lane.pool(served)

        async def one() -> None:
            assert len(await (await pool.request("GET", "/", {})).read_all()) == len(body)

        await asyncio.gather(*(one() for _ in range(5)))
        assert [connection._capacity for connection in pool._idle] == [16 * 1024] * 5


async def test_an_idle_connection_is_dropped_in_time(
    lane: Lane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3flow.wire.http._IDLE_LIMIT", 0.1)
    async with lane.serve(answers(OK)) as served:
        pool = lane.pool(served, timeouts=QUICK)
        await (await pool.request("GET", "/", {})).read_all()
        assert pool._open
        while pool._open:
            await asyncio.sleep(0.01)
        assert pool._idle == []


async def test_a_closed_pool_ends_its_requests_and_takes_no_more(lane: Lane) -> None:
    async with lane.serve(Peer.gone) as served:
        pool = lane.pool(served)
        task = asyncio.create_task(pool.request("GET", "/", {}))
        while not served.open:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        await pool.close()
        with pytest.raises(ConnectionLost, match="closed on our side"):
            await task
        with pytest.raises(ConnectionLost, match="closed on our side"):
            await pool.request("GET", "/", {})
