"""Replies of an HTTP server that means harm: exact ones in all forms that HTTP allows, and breaches."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from s3flow.wire.connection import LARGE, SMALL

FORGED = b"FORGED"
FORGERY = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n" + FORGED


class Reply(NamedTuple):
    """What a server sends, and what must come of it: *body*, or an error of ours when it is None."""

    what: str
    data: bytes
    body: bytes | None
    status: int = 200
    method: str = "GET"
    ends: bool = False  # the server closes behind it
    leaves: int = -1  # bytes after which the client has had enough; -1: it reads all
    surplus: bytes = (
        b""  # comes with the last bytes; what comes later nobody can tell from an answer
    )


Maker = Callable[[random.Random, bytes], Reply]


def head(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """Write an answer's head."""
    return b"\r\n".join((status, *lines, b"", b""))


def chunked(draw: random.Random, body: bytes, trailer: bytes = b"") -> bytes:
    """Cut *body* into chunks, as oddly as is allowed."""
    pieces, at = [], 0
    while at < len(body):
        piece = body[at : at + draw.choice((1, 7, 300, 5000, 70_000))]
        extension = draw.choice((b"", b"", b";x", b' ; a="b;c"', b";" + b"e" * 900))
        size = draw.choice((b"%x", b"%X", b"0000%x")) % len(piece)
        pieces.append(b"%b%b\r\n%b\r\n" % (size, extension, piece))
        at += len(piece)
    return b"".join((*pieces, b"0\r\n", trailer, b"\r\n"))


# --- what is allowed -------------------------------------------------------------------------


def _by_length(draw: random.Random, body: bytes) -> Reply:
    size = len(body)
    line = draw.choice((b"Content-Length: %d", b"content-length:%d", b"CONTENT-LENGTH:\t %d  "))
    lines = [line % size]
    if draw.random() < 0.2:
        lines.append(b"Content-Length: %d" % size)  # the same twice may be folded into one
    noise = draw.choice((b"X-Noise: \xff\x01\x7f", b"Server: x", b"Etag:", b'X: "a, b"'))
    lines.insert(draw.randrange(len(lines) + 1), noise)
    return Reply("length", head(*lines) + body, body)


def _by_chunks(draw: random.Random, body: bytes) -> Reply:
    trailer = draw.choice((b"", b"T: v\r\n", b"Content-Length: 3\r\n", b"X: y\r\n" * 200))
    line = draw.choice((b"Transfer-Encoding: chunked", b"transfer-encoding:\tCHUNKED "))
    return Reply("chunks", head(line) + chunked(draw, body, trailer), body)


def _by_end(draw: random.Random, body: bytes) -> Reply:
    return Reply("end", head(draw.choice((b"X: y", b"Connection: close"))) + body, body, ends=True)


def _interim(draw: random.Random, body: bytes) -> Reply:
    told = _by_length(draw, body)
    many = draw.choice((1, 3, 3000))
    interim = draw.choice(
        (head(status=b"HTTP/1.1 100 Continue"), head(b"Link: </x>", status=b"HTTP/1.1 103 x"))
    )
    return told._replace(what="interim", data=interim * many + told.data)


def _bodyless(draw: random.Random, body: bytes) -> Reply:
    status = draw.choice((204, 304))
    data = head(b"Content-Length: %d" % draw.choice((0, 999)), status=b"HTTP/1.1 %d x" % status)
    return Reply("bodyless", data, b"", status)


def _to_head(draw: random.Random, body: bytes) -> Reply:
    line = draw.choice((b"Content-Length: 999", b"Transfer-Encoding: chunked"))
    return Reply("to HEAD", head(line), b"", method="HEAD")


def _filling(draw: random.Random, body: bytes) -> Reply:
    """Fill the client's buffer to its last byte, or nearly, with more behind it."""
    room = draw.choice((SMALL, LARGE)) + draw.choice((-1, 0, 0, 0, 1))
    size = room - len(head(b"Content-Length: %d" % room))
    padded = body.ljust(size, b".")[:size]
    data = head(b"Content-Length: %d" % size) + padded
    return Reply("filling", data, padded, surplus=FORGERY)


def _surplus(draw: random.Random, body: bytes) -> Reply:
    """Put an answer that nobody asked for behind an exact one."""
    told = draw.choice((_by_length, _by_chunks, _bodyless, _to_head))(draw, body)
    extra = draw.choice((FORGERY, FORGERY * 3, b"\r\n", b"x", b"HTTP/1.1 "))
    return told._replace(what="surplus behind " + told.what, surplus=extra)


def _abandoned(draw: random.Random, body: bytes) -> Reply:
    """Make a long body of forgeries, of which the client reads the beginning only."""
    size = draw.choice((SMALL, LARGE, 3 * LARGE))
    long = (FORGERY * (size // len(FORGERY) + 2))[: size + draw.randrange(100)]
    data = head(b"Content-Length: %d" % len(long)) + long
    return Reply("abandoned", data, long, leaves=draw.choice((0, 1, size // 2)))


EXACT: tuple[Maker, ...] = (
    *(_by_length, _by_chunks, _by_end, _interim, _bodyless, _to_head),
    *(_filling, _surplus, _abandoned),
)


# --- what is not ------------------------------------------------------------------------------

LENGTHS = (
    b"-1",
    b"+5",
    b"0x5",
    b"5 5",
    b"5, 6",
    b"5,",
    b",5",
    b"5_0",
    b"5.0",
    b"\xb2",
    b"",
    b"5;x",
)
LENGTHS += (b"9" * 19, b"9" * 5000, b"1e3", b"5\x0b", b"NaN")
CODINGS = (b"gzip, chunked", b"chunked, identity", b"xchunked", b"chunked;q=1", b"identity", b"")
CODINGS += (b"chunked, chunked", b"\x0bchunked", b"chunked\x00", b'"chunked"')
STATUS = (
    b"HTTP/0.9 200 OK",
    b"http/1.1 200 OK",
    b"HTTP/1.1  200 OK",
    b"HTTP/1.1 99 x",
    b"HTTP/2 200",
)
STATUS += (
    b"HTTP/1.1 2000 x",
    b"HTTP/1.1\t200 OK",
    b" HTTP/1.1 200 OK",
    b"HTTP/1.1 200OK",
    b"ICY 200 OK",
)
STATUS += (
    b"HTTP/1.1 101 Switching Protocols",
    b"HTTP/1.1 -20 x",
    b"HTTP/1.1 2\xb20 x",
    b"\x16\x03\x01\x02",
)
LINES = (
    b"no colon",
    b"Name : v",
    b" Folded: v",
    b"\tfolded",
    b": empty",
    b"N\xe4me: v",
    b"A: b\0c",
)
LINES += (b"A: b\rc", b"A: b\nContent-Length: 0", b"A\n: b", b"Na me: v", b"A: b\r\r", b"N(ame: v")
CHUNKS = (
    b"-5",
    b"+5",
    b"0x5",
    b"5 ",
    b" 5",
    b"",
    b"g",
    b"f" * 17,
    b"5;\nx",
    b"5;\0",
    b"5\x0b",
    b"\xb2",
)
CHUNKS += (b"5;" + b"e" * 3000, b"0" * 3000 + b"5", b"5,5", b"5_0")
TRAILERS = (
    b"no colon\r\n",
    b" folded: x\r\n",
    b"T: a\0\r\n",
    b"T: v\r\n" * 9000,
    b"T: " + b"v" * 40_000,
)
FIVE = b"Content-Length: 5"


def _framed_twice(draw: random.Random, body: bytes) -> Reply:
    lines = [FIVE, draw.choice((b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity"))]
    draw.shuffle(lines)
    return Reply("framed twice", head(*lines) + b"0\r\n\r\n" + FORGERY, None)


def _two_lengths(draw: random.Random, body: bytes) -> Reply:
    other = b"Content-Length: %d" % draw.choice((0, 4, 6, 50))
    return Reply("two lengths", head(FIVE, other) + b"12345" + FORGERY, None)


def _bad_length(draw: random.Random, body: bytes) -> Reply:
    return Reply("length", head(b"Content-Length: " + draw.choice(LENGTHS)) + b"12345", None)


def _bad_coding(draw: random.Random, body: bytes) -> Reply:
    line = b"Transfer-Encoding: " + draw.choice(CODINGS)
    return Reply("coding", head(line) + b"0\r\n\r\n", None)


def _bad_status(draw: random.Random, body: bytes) -> Reply:
    return Reply("status line", head(FIVE, status=draw.choice(STATUS)) + b"12345", None)


def _bad_line(draw: random.Random, body: bytes) -> Reply:
    lines = [b"X-A: b", FIVE]
    lines.insert(draw.randrange(3), draw.choice(LINES))
    return Reply("header line", head(*lines) + b"12345", None)


def _bare_breaks(draw: random.Random, body: bytes) -> Reply:
    data = head(b"X: y", FIVE).replace(b"\r\n", draw.choice((b"\n", b"\r", b"\n\r")))
    return Reply("bare line breaks", data + b"12345", None, ends=True)


def _many_headers(draw: random.Random, body: bytes) -> Reply:
    lines = draw.choice(([b"X: y"] * 300, [b"X: " + b"y" * 70_000], [b"X" * 70_000 + b": y"]))
    return Reply("too much head", head(*lines, FIVE) + b"12345", None)


def _bad_chunk(draw: random.Random, body: bytes) -> Reply:
    good = b"5\r\n12345\r\n" * draw.randrange(3)
    bad = draw.choice(CHUNKS) + b"\r\n12345\r\n0\r\n\r\n"
    return Reply("chunk size", head(b"Transfer-Encoding: chunked") + good + bad, None)


def _bad_chunk_end(draw: random.Random, body: bytes) -> Reply:
    bad = draw.choice((b"5\r\n12345XX0\r\n\r\n", b"5\r\n123456\r\n0\r\n\r\n", b"5\n12345\n0\n\n"))
    return Reply("chunk end", head(b"Transfer-Encoding: chunked") + bad, None, ends=True)


def _bad_trailer(draw: random.Random, body: bytes) -> Reply:
    data = b"5\r\n12345\r\n0\r\n" + draw.choice(TRAILERS)
    return Reply("trailer", head(b"Transfer-Encoding: chunked") + data + b"\r\n", None)


def _cut(draw: random.Random, body: bytes) -> Reply:
    whole = draw.choice((_by_length, _by_chunks))(draw, body.ljust(10, b"."))
    kept = draw.randrange(len(whole.data))
    return Reply("cut " + whole.what, whole.data[:kept], None, ends=True)


def _no_head(draw: random.Random, body: bytes) -> Reply:
    page = draw.choice((b"<html>no</html>", b"", b"\r\n\r\n", b"\0" * 100, body))
    return Reply("no head", page, None, ends=True)


BREACHES: tuple[Maker, ...] = (
    *(_framed_twice, _two_lengths, _bad_length, _bad_coding, _bad_status, _bad_line),
    *(_bare_breaks, _many_headers, _bad_chunk, _bad_chunk_end, _bad_trailer, _cut, _no_head),
)


def replies(seed: int, count: int) -> list[Reply]:
    """Draw *count* replies; the exact ones are more, or no connection would be used again."""
    draw = random.Random(seed)
    made = []
    for number in range(count):
        size = draw.choice((0, 1, 30, 30, 5000, 20_000, 300_000))
        body = b"%d of %d|\r\n" % (number, seed)
        body = (body * (size // len(body) + 1))[:size]
        makers = EXACT if draw.random() < 0.7 else BREACHES
        made.append(draw.choice(makers)(draw, body))
    return made


def cuts(draw: random.Random, reply: Reply) -> list[bytes]:
    """Cut a reply as a network might."""
    data = reply.data
    if reply.leaves >= 0 or len(data) < 2 or draw.random() < 0.5:
        at = [max(1, len(data) - 500)] if reply.surplus else []
    elif len(data) < 300 and draw.random() < 0.2:
        at = list(range(1, len(data)))
    else:
        at = sorted(draw.randrange(1, len(data)) for _ in range(draw.randrange(1, 6)))
    pieces = [data[start:stop] for start, stop in zip([0, *at], [*at, len(data)], strict=True)]
    return [*pieces[:-1], pieces[-1] + reply.surplus]
