"""The journal of an unfinished upload: a file of JSON lines beside its data, only ever appended to.

The first line says whose upload it is; each further one that a part is on disk, or (size -1) that it
is about to be written again. Every line begins and ends with a newline, so that one which a crash cut
short spoils only itself.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

if TYPE_CHECKING:
    from s3flow.stores.local.paths import Directory

SUFFIX = b".parts"
_VOID = -1


class Record(NamedTuple):
    """A part on disk, in bytes."""

    offset: int
    size: int


class Header(NamedTuple):
    """Whose upload it is."""

    bucket: str
    key: bytes
    size: int  # bytes
    modified: int  # milliseconds since the epoch
    token: str
    initiated: int  # milliseconds since the epoch


@dataclass(slots=True)
class Journal:
    """What a journal says."""

    header: Header
    parts: dict[int, Record] = field(default_factory=dict)


def header_line(header: Header) -> bytes:
    """Spell the first line; the key is percent-encoded, for JSON has no bytes."""
    return _line(header._replace(key=b"")._asdict() | {"key": quote_from_bytes(header.key)})


def part_line(number: int, offset: int, size: int) -> bytes:
    """Spell the line that says that a part is on disk."""
    return _line({"number": number, "offset": offset, "size": size})


def void_line(number: int) -> bytes:
    """Spell the line that says that a part is no longer to be trusted."""
    return part_line(number, 0, _VOID)


def append(fd: int, line: bytes) -> None:
    """Add a line to a journal opened with O_APPEND and make it durable."""
    written = os.write(fd, line)
    if written < len(line):  # the disk is full: writing the rest says so
        os.write(fd, line[written:])
    os.fdatasync(fd)


def read(directory: Directory, name: bytes) -> Journal | None:
    """Read a journal; None when there is none, or none with a whole first line."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory.fd)
    except FileNotFoundError:
        return None
    with open(fd, "rb") as file:  # noqa: PTH123 - by descriptor
        return parse(file.read())


def parse(text: bytes) -> Journal | None:
    """Read a journal's bytes; lines that a crash spoiled count for nothing."""
    journal: Journal | None = None
    for line in text.split(b"\n"):
        fields = _fields(line)
        if fields is None:
            continue
        if journal is None:
            header = _header(fields)
            if header is None:
                return None
            journal = Journal(header)
            continue
        number, offset, size = (fields.get(name) for name in ("number", "offset", "size"))
        if isinstance(number, int) and isinstance(offset, int) and isinstance(size, int):
            if size == _VOID:
                journal.parts.pop(number, None)
            else:
                journal.parts[number] = Record(offset, size)
    return journal


def _line(fields: dict[str, object]) -> bytes:
    return b"\n" + json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def _fields(line: bytes) -> dict[str, object] | None:
    if not line:
        return None
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def _header(fields: dict[str, object]) -> Header | None:
    bucket, key, token = (fields.get(name) for name in ("bucket", "key", "token"))
    size, modified, initiated = (fields.get(name) for name in ("size", "modified", "initiated"))
    if not (isinstance(bucket, str) and isinstance(key, str) and isinstance(token, str)):
        return None
    if not (isinstance(size, int) and isinstance(modified, int) and isinstance(initiated, int)):
        return None
    return Header(bucket, unquote_to_bytes(key), size, modified, token, initiated)
