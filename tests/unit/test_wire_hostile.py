"""What servers that mean harm were found to get away with: each was a way to mislead or to swell."""

from __future__ import annotations

import tracemalloc

import pytest

from s3flow.errors import BadAnswer
from s3flow.wire import framing
from s3flow.wire.connection import LARGE, SMALL
from s3flow.wire.framing import parse_head
from s3flow.wire.xml import parse_document, parse_list
from tests.unit import hostile
from tests.unit.hostile import BOTH_LOOPS, Lane, Peer

pytestmark = BOTH_LOOPS
event_loop_policy = hostile.event_loop_policy
authority, lane = hostile.authority, hostile.lane
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
FORGED = HEAD % 6 + b"FORGED"


@pytest.mark.parametrize("room", [SMALL, LARGE])
@pytest.mark.parametrize("over", [-1, 0, 1])
async def test_an_answer_that_fills_the_buffer_hides_none_behind_it(
    lane: Lane, room: int, over: int
) -> None:
    size = room + over - len(HEAD % room)
    data = HEAD % size + b"x" * size

    async def script(peer: Peer) -> None:
        while True:
            line, _ = await peer.head()
            await peer.send(data + FORGED if line.startswith("GET /first") else HEAD % 2 + b"ok")

    async with lane.serve(script) as served:
        pool = lane.pool(served, limit=1)
        for _ in range(3):
            assert await (await pool.request("GET", "/first", {})).read_all() == b"x" * size
            assert await (await pool.request("GET", "/second", {})).read_all() == b"ok"


SIZE = 4 * 1024 * 1024
START, END = b"<ListBucketResult>", b"</ListBucketResult>"


@pytest.mark.parametrize(
    "body",
    [
        b"<a>" * (SIZE // 3),
        START + b"<a/>" * (SIZE // 4) + END,
        START + b"ab\n" * (SIZE // 3) + END,
        START + b"xy&lt;" * (SIZE // 6) + END,
        b"<ListBucketResult " + b"".join(b"a%x='' " % n for n in range(SIZE // 10)) + b"/>",
    ],
    ids=["depth", "elements", "lines", "references", "attributes"],
)
def test_xml_that_would_take_a_hundred_times_its_size_is_refused(body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(BadAnswer, match="too many parts"):
            parse_list(body)
        with pytest.raises(BadAnswer, match="too many parts"):
            parse_document(body, "List")
        assert tracemalloc.get_traced_memory()[1] < 2 * SIZE
    finally:
        tracemalloc.stop()


def test_long_lists_of_small_things_are_still_read() -> None:
    bucket = b"\n  <Bucket>\n    <Name>%d</Name>\n    <CreationDate>2026-01-01</CreationDate>\n  </Bucket>"
    body = START + b"".join(bucket % n for n in range(20_000)) + END
    assert len(parse_document(body, "List").each("Bucket")) == 20_000


def test_long_names_of_headers_are_not_remembered() -> None:
    name = b"X-Amz-Meta-" + b"n" * 60_000
    head = parse_head(memoryview(b"HTTP/1.1 200 OK\r\n" + name + b": v"), "GET")
    assert head.headers[name.decode().lower()] == "v"
    assert name.decode() not in framing._known_names
