"""HTTP/1.1 answers from bytes: heads and chunks, strict because leniency mixes answers up."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import NamedTuple

from s3flow.errors import BadAnswer

MAX_HEAD = 64 * 1024  # bytes
MAX_HEADERS = 200
MAX_TRAILERS = 16 * 1024  # bytes
MAX_CHUNK_LINE = 1024  # bytes: a size and its extensions

HEAD_END = b"\r\n\r\n"

_FIELD = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):(.*)", re.DOTALL)
_STATUS_LINE = re.compile(r"HTTP/1\.([01]) ([1-9][0-9]{2})(?: .*)?")
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:[ \t]*;[^\r\n\0]*)?")
_DIGITS = re.compile(r"[0-9]{1,18}")
_NAMES = 1024  # how many checked names are remembered; user metadata makes them unbounded
_LONGEST_NAME = 64  # characters of one that is remembered

_known_names: dict[str, str] = {}


class Framing(IntEnum):
    """How an answer's body ends."""

    LENGTH = 0
    CHUNKED = 1
    UNTIL_CLOSE = 2


class Head(NamedTuple):
    """An answer's head. *length* is for LENGTH; *keep*: the connection can be used again."""

    status: int
    headers: dict[str, str]
    framing: Framing
    length: int
    keep: bool


def parse_head(data: memoryview, method: str) -> Head:
    """Read the head of an answer to *method*; *data* ends before the empty line.

    Raises `BadAnswer` for whatever two parties could read differently.
    """
    text = str(data, "latin-1")
    lines = text.split("\r\n")
    # "in" goes by memchr; counting the breaks instead took 1 us more.
    rest = "".join(lines)
    if "\n" in rest or "\r" in rest or "\0" in rest:
        raise BadAnswer("the answer's head has a NUL or a line break that is not CR LF")
    status = _STATUS_LINE.fullmatch(lines[0])
    if status is None:
        raise BadAnswer(f"the answer does not begin with an HTTP/1.x status: {lines[0][:80]!r}")
    del lines[0]
    if len(lines) > MAX_HEADERS:
        raise BadAnswer(f"the answer has more than {MAX_HEADERS} headers")
    headers = _usual_fields(text, lines) or _fields(lines)
    return _frame(method, int(status[2]), headers, modern=status[1] == "1")


def _usual_fields(text: str, lines: list[str]) -> dict[str, str] | None:
    """Read fields that look as most servers write them, in half of the time; None for any others."""
    if "\t" in text or ":  " in text or " \r" in text or text[-1] == " ":
        return None
    known = _known_names  # checked when they came first
    try:
        headers = {known[name]: value for name, value in [line.split(": ", 1) for line in lines]}
    except (KeyError, ValueError):
        return None
    return headers if len(headers) == len(lines) else None


def _fields(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        if field is None:  # folded lines and missing colons as well
            raise BadAnswer(f"the answer has an invalid header line: {line[:80]!r}")
        lower = _lower(field[1])
        value = field[2].strip(" \t")
        headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
    return headers


def _lower(name: str) -> str:
    """Give a header's name in lower case, and remember it unless it is long."""
    lower = name.lower()
    if len(name) <= _LONGEST_NAME:
        if len(_known_names) >= _NAMES:
            _known_names.clear()
        _known_names[name] = lower
    return lower


def _frame(method: str, status: int, headers: dict[str, str], *, modern: bool) -> Head:
    connection = headers.get("connection", "")
    if connection == "keep-alive":
        keep = True
    elif not connection:
        keep = modern
    else:
        options = {option.strip().lower() for option in connection.split(",")}
        keep = "close" not in options and (modern or "keep-alive" in options)
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if length is not None and coding is not None:
        raise BadAnswer("the answer has both Content-Length and Transfer-Encoding")
    size = -1 if length is None else _content_length(length, headers)
    if status < 200 or status in (204, 304) or method == "HEAD":
        return Head(status, headers, Framing.LENGTH, 0, keep)
    if method == "CONNECT" and status < 300:
        return Head(status, headers, Framing.LENGTH, 0, keep)
    if coding is not None:
        if coding.lower() != "chunked" or not modern:
            raise BadAnswer(f"the answer has an unusable Transfer-Encoding: {coding[:80]!r}")
        return Head(status, headers, Framing.CHUNKED, 0, keep)
    if size >= 0:
        return Head(status, headers, Framing.LENGTH, size, keep)
    return Head(status, headers, Framing.UNTIL_CLOSE, 0, keep=False)


def _content_length(text: str, headers: dict[str, str]) -> int:
    """Read what *headers* say; where they say it several times, leave it there once."""
    if _DIGITS.fullmatch(text) is not None:
        return int(text)
    values = {value.strip(" \t") for value in text.split(",")}
    value = values.pop()
    if values or _DIGITS.fullmatch(value) is None:
        raise BadAnswer(f"the answer has an unusable Content-Length: {text[:80]!r}")
    headers["content-length"] = value
    return int(value)


class Chunks:
    """Where a chunked body stands: *left* bytes of this chunk to come; *done* after the last."""

    __slots__ = ("_after_data", "_in_trailers", "_trailer_bytes", "done", "left")

    def __init__(self) -> None:
        self.left = 0
        self.done = False
        self._after_data = False
        self._in_trailers = False
        self._trailer_bytes = 0

    def advance(self, buffer: bytearray, start: int, stop: int) -> int:
        """Read framing from *buffer* up to the next data, as far as *stop*; say where it ended.

        Call it with *left* at 0. It returns with *left* above 0, *done*, or needing more bytes.
        Raises `BadAnswer` when the framing is broken.
        """
        while not self.done:
            end = buffer.find(b"\r\n", start, stop)
            if end < 0:
                self._check_unfinished(stop - start)
                break
            line = bytes(buffer[start:end])
            start = end + 2
            if self._take(line):
                break
        return start

    def _check_unfinished(self, size: int) -> None:
        limit = 1 if self._after_data else MAX_CHUNK_LINE
        if self._in_trailers:
            limit = MAX_TRAILERS
        if size > limit:
            raise BadAnswer("the answer's chunked framing has a line without an end")

    def _take(self, line: bytes) -> bool:
        """Apply one line of framing; True when data follows."""
        if self._after_data:
            if line:
                raise BadAnswer("the answer has a chunk that is longer than it says")
            self._after_data = False
            return False
        if self._in_trailers:
            self._take_trailer(line)
            return False
        match = _CHUNK_LINE.fullmatch(line) if len(line) <= MAX_CHUNK_LINE else None
        if match is None:
            raise BadAnswer(f"the answer has an invalid chunk size: {line[:40]!r}")
        self.left = int(match[1], 16)
        self._after_data = self.left > 0
        self._in_trailers = self.left == 0
        return self._after_data

    def _take_trailer(self, line: bytes) -> None:
        self._trailer_bytes += len(line) + 2
        if self._trailer_bytes > MAX_TRAILERS:
            raise BadAnswer(f"the answer's trailers exceed {MAX_TRAILERS} bytes")
        if not line:
            self.done = True
            return
        text = line.decode("latin-1")
        if "\0" in text or "\r" in text or "\n" in text:
            raise BadAnswer("the answer's trailers have a control character")
        if _FIELD.fullmatch(text) is None:
            raise BadAnswer(f"the answer's trailers have an invalid line: {text[:80]!r}")
