"""HTTP as it should be, and as servers get it wrong: the same suite on both loops, plain and TLS."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
from collections.abc import AsyncIterator

import pytest
import uvloop

from s3flow.errors import BadAnswer, ConnectionLost, Refused, Stalled, Truncated
from s3flow.wire import Origin, Pool, Response, Timeouts
from tests.unit.hostile import (
    EMPTY,
    OK,
    Authority,
    Chunks,
    Lane,
    Peer,
    answers,
    answers_once,
    open_lane,
)

QUICK = Timeouts(connect=5.0, progress=0.2, answer=0.2)

# The hook that replaces this fixture works for whole folders only, not for a module.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Overriding the .event_loop_policy. fixture:pytest.PytestDeprecationWarning"
)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    if request.param == "uvloop":
        return uvloop.EventLoopPolicy()
    return asyncio.DefaultEventLoopPolicy()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "trusted")


@pytest.fixture(params=["plain", "tls"])
async def lane(request: pytest.FixtureRequest, authority: Authority) -> AsyncIterator[Lane]:
    wanted = request.getfixturevalue("event_loop_policy")
    assert isinstance(wanted, uvloop.EventLoopPolicy) == isinstance(
        asyncio.get_running_loop(), uvloop.Loop
    )
    async with open_lane(authority if request.param == "tls" else None) as lane:
        yield lane


async def digest(response: Response, pause: float = 0.0) -> str:
    total = hashlib.sha256()
    while chunk := await response.read():
        total.update(chunk)
        if pause:
            await asyncio.sleep(pause)
    return total.hexdigest()


# --- the ordinary -------------------------------------------------------------------------------


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
        assert head.headers["content-length"] == "7, 7"
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


# --- framing errors -----------------------------------------------------------------------------

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


# --- bodies that break off or stop --------------------------------------------------------------


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


# --- sending bodies -----------------------------------------------------------------------------


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


# --- connections --------------------------------------------------------------------------------


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
