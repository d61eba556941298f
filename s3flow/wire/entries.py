"""A listing's entries by one regular expression: a tenth of what a tree of elements costs.

Only for entries that stand one after the other, in the elements and the order that S3 and its kin
use; whatever else comes is left to the XML parser, which alone says what is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import repeat
from urllib.parse import unquote_to_bytes

from s3flow.model import Listed

# Printable ASCII without what XML may mean something by: anything else is the parser's to judge.
_TEXT = rb"[ !#-%'-;=?-~]*"
_QUOTE = rb'(?:&quot;|&#34;|")?'
_SPACE = rb"[ \t\r\n]*+"  # possessive: two in a row would try every way to share a run
_IGNORED = (
    rb"(?:(?:"
    rb"<ChecksumAlgorithm>" + _TEXT + rb"</ChecksumAlgorithm>"
    rb"|<ChecksumType>" + _TEXT + rb"</ChecksumType>"
    rb"|<Generation>" + _TEXT + rb"</Generation>"
    rb"|<MetaGeneration>" + _TEXT + rb"</MetaGeneration>"
    rb"|<Type>" + _TEXT + rb"</Type>"
    rb"|<Owner>(?:"
    + _SPACE
    + rb"<(?:ID>"
    + _TEXT
    + rb"</ID|DisplayName>"
    + _TEXT
    + rb"</DisplayName)>)*"
    + _SPACE
    + rb"</Owner>"
    rb")" + _SPACE + rb")*"
)
_ENTRY = re.compile(
    _SPACE.join(
        (
            rb"<Contents>",
            rb"<Key>(" + _TEXT + rb")</Key>" + _SPACE + _IGNORED,
            rb"<LastModified>(" + _TEXT + rb")</LastModified>",
            rb"<ETag>" + _QUOTE + rb"(" + _TEXT + rb")" + _QUOTE + rb"</ETag>" + _SPACE + _IGNORED,
            rb"<Size>([0-9]{1,15})</Size>" + _SPACE + _IGNORED,
            rb"(?:<StorageClass>(" + _TEXT + rb")</StorageClass>" + _SPACE + _IGNORED + rb")?",
            rb"</Contents>",
            rb"",
        )
    )
)
_FIELDS = 5
_FIRST, _LAST = b"<Contents>", b"</Contents>"
ROOM = b"<Contents/>"  # stands in the rest of the document where the entries were


def cut_out(body: bytes) -> tuple[list[bytes], bytes] | None:
    """Give the fields of all entries, and the document with `ROOM` in their place.

    None when the body is not of the shape that is read here.
    """
    start, stop = body.find(_FIRST), body.rfind(_LAST) + len(_LAST)
    # A comment or CDATA could hide entries, and a declaration change what they mean.
    if start < 0 or b"<!" in body:
        return None
    parts = _ENTRY.split(body[start:stop])
    if any(parts[:: _FIELDS + 1]):  # what is between entries
        return None
    return parts, body[:start] + ROOM + body[stop:]


def listed(parts: Sequence[bytes], *, encoded: bool) -> list[Listed]:
    """Make entries of the fields that `cut_out` gave. Raises `ValueError`.

    By columns and by functions in C: 1.3 us a key instead of 5.
    """
    step = _FIELDS + 1
    keys = _decoded(parts[1::step]) if encoded else list(parts[1::step])
    if not all(keys):
        raise ValueError("an empty key")
    columns = (
        keys,
        map(int, parts[4::step]),
        _texts(parts[3::step]),
        _times(_texts(parts[2::step])),
        map(_classes(parts[5::step]).__getitem__, parts[5::step]),
    )
    return list(map(tuple.__new__, repeat(Listed), zip(*columns, strict=True)))


def milliseconds(text: str) -> int:
    """Read a time of S3's XML: milliseconds since the epoch. Raises `ValueError`."""
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1000)


def _decoded(keys: Sequence[bytes]) -> list[bytes]:
    joined = b"\n".join(keys)  # none has one: see _TEXT
    if b"+" in joined:
        joined = joined.replace(b"+", b" ")
    if b"%" not in joined:
        return joined.split(b"\n")
    if b"%0" not in joined:  # no line feed among what is encoded
        return unquote_to_bytes(joined).split(b"\n")
    return [unquote_to_bytes(key) if b"%" in key else key for key in joined.split(b"\n")]


def _texts(fields: Sequence[bytes]) -> list[str]:
    return b"\n".join(fields).decode("ascii").split("\n")


def _times(texts: Sequence[str]) -> Iterable[int]:
    if "".join(texts).count("Z") < len(texts):  # without a zone: UTC as well
        return map(milliseconds, texts)
    seconds = map(datetime.timestamp, map(datetime.fromisoformat, texts))
    return [round(each * 1000) for each in seconds]


def _classes(fields: Sequence[bytes]) -> dict[bytes, str]:
    return {field: field.decode("ascii") if field else "STANDARD" for field in set(fields)}
