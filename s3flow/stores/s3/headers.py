"""What travels with an object, between S3's headers and s3flow's words."""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import NamedTuple

from s3flow.errors import BadAnswer
from s3flow.model import Attributes, ObjectInfo, Restored
from s3flow.wire.sigv4 import quote_value

TOKEN_HEADER = "x-amz-meta-s3flow-transfer"  # noqa: S105 - a header's name
CARRIED = frozenset(
    (
        "content-type",
        "content-encoding",
        "content-disposition",
        "content-language",
        "cache-control",
        "expires",
        "x-amz-website-redirect-location",
    )
)
_CHECKSUM = "x-amz-checksum-"
_RESTORE = re.compile(r'([a-z-]+)="([^"]*)"')
_MONTHS = {
    name: number
    for number, name in enumerate(
        ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"), 1
    )
}


class _Kinds(NamedTuple):
    """What an answer's header names mean, whatever the values are."""

    carried: list[str]
    checksums: list[str]


@lru_cache(maxsize=128)  # names of metadata may be as long as a whole head
def _kinds(names: tuple[str, ...]) -> _Kinds:
    """Sort header names: a server sends the same ones all the time, in the same order."""
    return _Kinds(
        [name for name in names if name in CARRIED or name.startswith("x-amz-meta-")],
        [n for n in names if n.startswith(_CHECKSUM) and n != "x-amz-checksum-type"],
    )


def unquote_etag(etag: str) -> str:
    """Take the quotes off an ETag. Raises `BadAnswer` for control characters, which none has."""
    if not etag.isprintable():
        raise BadAnswer(f"an answer has an ETag that is none: {etag[:80]!r}")
    return etag[1:-1] if etag[:1] == '"' == etag[-1:] and len(etag) > 1 else etag


def object_info(headers: Mapping[str, str], size: int, *, is_whole: bool = True) -> ObjectInfo:
    """Read an answer's headers (lower-case names); *size* is the object's.

    Checksums in the answer to a range or part request may be those of the part: they are only
    taken from answers about the whole object.
    """
    carried = {name: headers[name] for name in _kinds(tuple(headers)).carried}
    get = headers.get
    if "aws-chunked" in carried.get("content-encoding", ""):
        _drop_chunked(carried)
    return ObjectInfo(
        size,
        unquote_etag(get("etag", "")),
        http_date_ms(get("last-modified", "")),
        get("x-amz-storage-class", "STANDARD"),
        get("x-amz-version-id"),
        carried,
        full_checksums(headers) if is_whole else {},
        _number(get("x-amz-tagging-count")) or 0,
        encryption_of(headers),
        _number(get("x-amz-mp-parts-count")),
        _number(get("x-amz-missing-meta")) or 0,
    )


def _drop_chunked(carried: dict[str, str]) -> None:
    """Take out how the object was once uploaded: AWS stores no "aws-chunked", some others do."""
    codings = [each.strip() for each in carried.pop("content-encoding").split(",")]
    kept = ",".join(each for each in codings if each != "aws-chunked")
    if kept:
        carried["content-encoding"] = kept


def encryption_of(headers: Mapping[str, str]) -> str:
    """Say how the store encrypts: see `ObjectInfo.encryption`."""
    if headers.get("x-amz-server-side-encryption-customer-algorithm"):
        return "customer"
    return headers.get("x-amz-server-side-encryption", "")


def note_archive(info: ObjectInfo, headers: Mapping[str, str]) -> None:
    """Add what only HEAD says: of its restore, and of the archive of Intelligent-Tiering."""
    info.archive_status = headers.get("x-amz-archive-status", "")
    said = headers.get("x-amz-restore")
    if said is not None:
        info.restored = restored(said)


def restored(said: str) -> Restored | None:
    """Read `ongoing-request="false", expiry-date="Fri, 21 Dec 2012 00:00:00 GMT"`; None: nonsense."""
    fields = dict(_RESTORE.findall(said))
    ongoing = fields.get("ongoing-request")
    if ongoing not in ("true", "false"):
        return None
    return Restored(ongoing == "true", http_date_ms(fields.get("expiry-date", "")))


def full_checksums(headers: Mapping[str, str]) -> dict[str, str]:
    """Give the checksums of the whole object by algorithm, without composite ones."""
    names = _kinds(tuple(headers)).checksums
    if not names or headers.get("x-amz-checksum-type", "FULL_OBJECT") != "FULL_OBJECT":
        return {}
    # The "-N" of a composite checksum; base64 itself has no hyphen.
    return {name[len(_CHECKSUM) :]: headers[name] for name in names if "-" not in headers[name]}


def write_headers(attributes: Attributes, *, with_token: bool = False) -> dict[str, str]:
    """Give the headers that a write sends for *attributes*: all but those of HTTP itself.

    Values go out as the source sent them, byte for byte (latin-1), RFC 2047 words included. The
    token of an earlier s3flow transfer is not passed on: it would name the wrong source.
    """
    headers = dict(attributes.headers)
    headers.pop(TOKEN_HEADER, None)
    if with_token and attributes.token:
        headers[TOKEN_HEADER] = attributes.token
    if attributes.tags:
        headers["x-amz-tagging"] = "&".join(
            f"{quote_value(name)}={quote_value(value)}" for name, value in attributes.tags.items()
        )
    if attributes.storage_class not in ("", "STANDARD"):
        headers["x-amz-storage-class"] = attributes.storage_class
    return headers


def http_date_ms(text: str) -> int:
    """Give milliseconds since the epoch for an HTTP date, 0 for none or nonsense."""
    # "Wed, 21 Oct 2015 07:28:00 GMT": what servers send; the day is the same for many objects.
    if len(text) == 29 and text.endswith(" GMT"):
        try:
            clock = int(text[17:19]) * 3600 + int(text[20:22]) * 60 + int(text[23:25])
            return (_day(text[5:16]) + clock) * 1000
        except (KeyError, ValueError):
            return 0
    try:
        return int(parsedate_to_datetime(text).timestamp() * 1000)
    except (ValueError, OverflowError):
        return 0


@lru_cache(maxsize=1024)
def _day(text: str) -> int:
    return calendar.timegm((int(text[7:11]), _MONTHS[text[3:6]], int(text[:2]), 0, 0, 0))


def _number(text: str | None) -> int | None:
    # Python refuses to read thousands of digits; no count has more than a few.
    usual = text is not None and text.isascii() and text.isdigit() and len(text) < 16
    return int(text) if text is not None and usual else None
