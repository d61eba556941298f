"""The parser fed by hand: any split of an answer reads equally, any damage ends in our errors."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3flow.errors import BadAnswer, S3flowError
from s3flow.wire.connection import Connection
from s3flow.wire.framing import Chunks
from s3flow.wire.progress import Watch
from s3flow.wire.response import Response


class Socketless(asyncio.Transport):
    """A transport that goes nowhere; it remembers only whether reading is paused."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = True
        self.aborted = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        assert high == 0

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def abort(self) -> None:
        self.aborted = True


async def exchange(data: bytes, cuts: list[int], method: str) -> tuple[object, ...]:
    """Feed *data*, cut at *cuts*, as the answer to *method*; give what came out."""
    transport, dropped = Socketless(), []
    connection = Connection("test", Watch(1.0), dropped.append)
    connection.connection_made(transport)
    connection.begin(method, 1.0)

    async def feed() -> None:
        for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
            rest = memoryview(data)[start:stop]
            while rest and not transport.aborted:
                while not transport.reading and not transport.aborted:
                    await asyncio.sleep(0)
                room = connection.get_buffer(-1)
                assert len(room) > 0
                size = min(len(room), len(rest))
                room[:size] = rest[:size]
                connection.buffer_updated(size)
                rest = rest[size:]
                await asyncio.sleep(0)
        connection.eof_received()
        connection.connection_lost(None)

    async def read() -> tuple[object, ...]:
        head = await connection.answer("early")
        ends: list[bool] = []

        def done(_: Connection, clean: bool) -> None:
            ends.append(clean)
            if not clean:
                connection.abort()

        response = Response(head, connection, done)
        body = await response.read_all()
        assert len(ends) == 1
        return head.status, response.headers, body

    feeding = asyncio.ensure_future(feed())
    try:
        return await read()
    finally:
        connection.abort()
        await feeding
        assert dropped == [connection]


def run(data: bytes, cuts: list[int], method: str = "GET") -> tuple[object, ...]:
    return asyncio.run(exchange(data, sorted(cut % (len(data) + 1) for cut in cuts), method))


def chunked(body: bytes, sizes: list[int]) -> bytes:
    out, start = [], 0
    for size in sizes:
        piece = body[start : start + size]
        if piece:
            out.append(b"%X;x=1\r\n%s\r\n" % (len(piece), piece))
            start += size
    rest = body[start:]
    if rest:
        out.append(b"%x\r\n%s\r\n" % (len(rest), rest))
    return b"".join([*out, b"0\r\nTrailer: t\r\n\r\n"])


@st.composite
def valid(draw: st.DrawFn) -> tuple[bytes, int, bytes]:
    """Make an answer, its status and its body."""
    status = draw(st.sampled_from([200, 206, 404, 503]))
    size = draw(st.one_of(st.integers(0, 50), st.sampled_from([16_000, 17_000, 600_000])))
    body = random.Random(size).randbytes(size)
    names = st.from_regex(r"x-[a-z0-9-]{1,10}", fullmatch=True)
    values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF), max_size=20)
    extra = draw(st.dictionaries(names, values.filter(lambda v: v == v.strip()), max_size=4))
    lines = [f"{name}:{value}" for name, value in extra.items()]
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    payload = body
    if framing == "length":
        lines.append(f"Content-Length: {size}")
    elif framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        payload = chunked(body, draw(st.lists(st.integers(1, 300_000), max_size=5)))
    interim = draw(st.sampled_from(["", "HTTP/1.1 100 Continue\r\n\r\n"]))
    head = "\r\n".join([f"{interim}HTTP/1.1 {status} Reason", *lines, "", ""])
    return head.encode("latin-1") + payload, status, body


@settings(max_examples=150, deadline=None)
@given(answer=valid(), cuts=st.lists(st.integers(0, 2_000_000), max_size=12))
def test_any_split_of_a_valid_answer_reads_equally(
    answer: tuple[bytes, int, bytes], cuts: list[int]
) -> None:
    data, status, body = answer
    result = run(data, cuts)
    assert (result[0], result[2]) == (status, body)
    assert result == run(data, [])


@settings(max_examples=40, deadline=None)
@given(answer=valid().filter(lambda answer: len(answer[0]) < 400))
def test_an_answer_may_come_byte_by_byte(answer: tuple[bytes, int, bytes]) -> None:
    data, status, body = answer
    result = run(data, list(range(len(data))))
    assert (result[0], result[2]) == (status, body)


@settings(max_examples=400, deadline=None)
@given(
    answer=valid(),
    edits=st.lists(
        st.tuples(st.integers(0, 700), st.sampled_from("sdi"), st.binary(min_size=1, max_size=3)),
        min_size=1,
        max_size=4,
    ),
    cuts=st.lists(st.integers(0, 2_000_000), max_size=3),
    method=st.sampled_from(["GET", "HEAD"]),
)
def test_damaged_answers_end_in_errors_of_ours(
    answer: tuple[bytes, int, bytes],
    edits: list[tuple[int, str, bytes]],
    cuts: list[int],
    method: str,
) -> None:
    data = bytearray(answer[0])
    for place, kind, new in edits:
        at = place % (len(data) + 1)
        removed = 0 if kind == "i" else len(new)
        data[at : at + removed] = b"" if kind == "d" else new
    try:
        status, _, body = run(bytes(data), cuts, method)
    except S3flowError:
        return
    assert isinstance(status, int)
    assert isinstance(body, bytes)
    assert len(body) <= len(data)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_noise_ends_in_errors_of_ours(noise: bytes) -> None:
    for start in (b"", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"):
        try:
            run(start + noise, [])
        except S3flowError:
            continue


def test_chunks_say_where_their_data_is() -> None:
    chunks = Chunks()
    buffer = bytearray(b"3\r\nabc\r\n0\r\n\r\n")
    at = chunks.advance(buffer, 0, len(buffer))
    assert (at, chunks.left, chunks.done) == (3, 3, False)
    chunks.left = 0
    assert chunks.advance(buffer, 6, len(buffer)) == len(buffer)
    assert chunks.done


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("said", ["5\r\nContent-Length: 5", "5, 5", "5,\t5 ,5"])
def test_a_length_that_is_said_twice_is_given_once(said: str, method: str) -> None:
    data = f"HTTP/1.1 200 OK\r\nContent-Length: {said}\r\n\r\n".encode()
    body = b"" if method == "HEAD" else b"12345"
    assert run(data + body, [], method) == (200, {"content-length": "5"}, body)


@pytest.mark.parametrize("said", ["5\r\nContent-Length: 6", "5, 05", "5,", "+5"])
def test_a_length_that_can_be_read_in_two_ways_is_refused(said: str) -> None:
    data = f"HTTP/1.1 200 OK\r\nContent-Length: {said}\r\n\r\n12345".encode()
    with pytest.raises(BadAnswer, match="Content-Length"):
        run(data, [])
