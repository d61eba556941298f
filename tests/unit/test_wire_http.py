"""HTTP as it should be: on both loops, plain and under TLS."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket

import pytest

from s3flow.errors import BadAnswer, Refused
from s3flow.wire import Origin, Pool, Response
from tests.unit import hostile
from tests.unit.hostile import BOTH_LOOPS, EMPTY, OK, Authority, Lane, Peer, answers, answers_once

pytestmark = BOTH_LOOPS
event_loop_policy = hostile.event_loop_policy
authority, lane = hostile.authority, hostile.lane
START = b"HTTP/1.1 200 OK\r\n"


async def digest(response: Response, pause: float = 0.0) -> str:
    total = hashlib.sha256()
    while chunk := await response.read():
        total.update(chunk)
        if pause:
            await asyncio.sleep(pause)
    return total.hexdigest()


async def test_a_request_goes_out_byte_for_byte(lane: Lane) -> None:
    seen = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.reader.readuntil(b"\r\n\r\n") + await peer.reader.readexactly(3))
        await peer.send(OK)

    async with lane.serve(script) as served:
        pool = lane.pool(served)
        headers = {"X-Odd": "caf\xe9 \x80", "x-amz-meta-a": ""}
        response = await pool.request("PUT", "/a//b/../%2B?x=%20&y", headers, b"abc")
        assert await response.read_all() == b"ok"
    assert seen == [
        b"PUT /a//b/../%2B?x=%20&y HTTP/1.1\r\nHost: "
        + served.origin.authority.encode()
        + b"\r\nX-Odd: caf\xe9 \x80\r\nx-amz-meta-a: \r\nContent-Length: 3\r\n\r\nabc"
    ]


async def test_a_host_that_was_signed_is_not_added_again(lane: Lane) -> None:
    async def script(peer: Peer) -> None:
        head = await peer.reader.readuntil(b"\r\n\r\n")
        assert head.lower().count(b"host:") == 1
        assert b"content-length" not in head.lower()
        await peer.send(OK)

    async with lane.serve(script) as served:
        response = await lane.pool(served).request("GET", "/", {"host": "bucket.example"})
        assert await response.read_all() == b"ok"


async def test_answers_are_read_whatever_their_framing(lane: Lane) -> None:
    async with lane.serve(
        answers(
            b"HTTP/1.1 200 OK\r\ncontent-LENGTH:  5 \r\nX: 1\r\nx: 2\r\n\r\nhello",
            b"HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n"
            b"3;a=b\r\nhel\r\n02\r\nlo\r\n0\r\nT: v\r\n\r\n",
            EMPTY,
            b"HTTP/1.1 204 No Content\r\n\r\n",
            b"HTTP/1.1 304 Not Modified\r\nContent-Length: 10\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 7, 7\r\n\r\n\x00\xff\r\n\r\nx",
        )
    ) as served:
        pool = lane.pool(served)
        first = await pool.request("GET", "/", {})
        assert (first.status, first.length, first.headers["x"]) == (200, 5, "1, 2")
        assert await first.read_all() == b"hello"
        assert bytes(await first.read()) == b""
        second = await pool.request("GET", "/", {})
        assert (second.length, await second.read_all()) == (None, b"hello")
        for status, body in [(200, b""), (204, b""), (304, b""), (200, b"\x00\xff\r\n\r\nx")]:
            response = await pool.request("GET", "/", {})
            assert (response.status, await response.read_all()) == (status, body)
        head = await pool.request("HEAD", "/", {})
        assert head.headers["content-length"] == "7"
        assert served.connections == 1


async def test_a_head_request_has_no_body_to_wait_for(lane: Lane) -> None:
    async with lane.serve(answers(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n")) as served:
        pool = lane.pool(served)
        for _ in range(3):
            response = await pool.request("HEAD", "/", {})
            assert response.headers["content-length"] == "999"
            assert bytes(await response.read()) == b""
        assert served.connections == 1


async def test_a_body_without_length_ends_with_the_connection(lane: Lane) -> None:
    body = random.Random(1).randbytes(1_000_000)
    async with lane.serve(answers_once(b"HTTP/1.1 200 OK\r\n\r\n" + body)) as served:
        pool = lane.pool(served)
        for _ in range(2):
            response = await pool.request("GET", "/", {})
            assert response.length is None
            assert await response.read_all() == body
        assert served.connections == 2


async def test_a_server_that_closes_after_the_answer_loses_no_byte_of_it(lane: Lane) -> None:
    """A slow consumer pauses reading while the end of the connection is there already."""
    body = random.Random(2).randbytes(3_000_000)
    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with lane.serve(answers_once(head + body)) as served:
        response = await lane.pool(served).request("GET", "/", {})
        assert await digest(response, pause=0.005) == hashlib.sha256(body).hexdigest()


@pytest.mark.parametrize("size", [10_000, 200_000, 262_144, 300_000, 450_000, 520_000])
async def test_a_tls_end_without_notice_loses_no_byte_either(
    authority: Authority, size: int
) -> None:
    """The TCP connection ends while we are paused and uvloop holds what it has not decrypted."""
    body = random.Random(2).randbytes(size)
    context = authority.server()

    def serve_once(listener: socket.socket) -> None:
        accepted, _ = listener.accept()
        with context.wrap_socket(accepted, server_side=True) as connection:
            connection.recv(65536)
            connection.sendall(START + b"Content-Length: %d\r\n\r\n" % size + body)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(asyncio.to_thread(serve_once, listener))
        origin = Origin("https", *listener.getsockname())
        pool = Pool(origin, ssl_context=authority.client())
        response = await pool.request("GET", "/", {})
        pieces = []
        while chunk := await response.read():
            pieces.append(bytes(chunk))
            await asyncio.sleep(0.05)
        assert b"".join(pieces) == body
        await serving
        await pool.close()


async def test_large_bodies_are_chunked_in_any_size(lane: Lane) -> None:
    rng = random.Random(3)
    body = rng.randbytes(2_000_000)

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        start = 0
        while start < len(body):
            size = min(rng.choice([1, 7, 1000, 65_536, 300_000]), len(body) - start)
            await peer.send(b"%x\r\n" % size + body[start : start + size] + b"\r\n")
            start += size
        await peer.send(b"0\r\n\r\n")
        await peer.gone()

    async with lane.serve(script) as served:
        response = await lane.pool(served).request("GET", "/", {})
        assert await digest(response) == hashlib.sha256(body).hexdigest()


async def test_interim_answers_are_skipped(lane: Lane) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    async with lane.serve(answers(interim + OK)) as served:
        response = await lane.pool(served).request("GET", "/", {})
        assert await response.read_all() == b"ok"


async def test_read_all_is_bounded(lane: Lane) -> None:
    async with lane.serve(answers(OK)) as served:
        response = await lane.pool(served).request("GET", "/", {})
        with pytest.raises(BadAnswer, match="exceeds 1 bytes"):
            await response.read_all(limit=1)


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/", {"x-amz-meta-a": "1\r\nX-Injected: 1"}),
        ("/", {"x-amz-meta-a": "1\n2"}),
        ("/", {"x-amz-meta-a": "\0"}),
        ("/", {"x-amz-meta-a": "\u20ac"}),
        ("/a b", {}),
        ("/a\r\nX: 1", {}),
    ],
)
async def test_what_would_break_the_request_is_refused(
    lane: Lane, target: str, headers: dict[str, str]
) -> None:
    async with lane.serve(answers(OK)) as served:
        with pytest.raises(Refused):
            await lane.pool(served).request("GET", target, headers)
        assert served.connections == 0
