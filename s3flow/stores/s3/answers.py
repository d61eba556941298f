"""Checks of answers that would otherwise be believed."""

from __future__ import annotations

import re
from collections.abc import Callable
from html import unescape
from urllib.parse import unquote_to_bytes

from s3flow.errors import BadAnswer, SourceChanged
from s3flow.model import Span
from s3flow.stores.s3.headers import unquote_etag
from s3flow.wire import Response

_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_KEY = re.compile(rb"<Key>([^<]+)</Key>")
_UPLOAD_ID = re.compile(rb"<UploadId>([^<]+)</UploadId>")
# What XML 1.0 cannot hold, raw or as a reference: S3 writes it into answers all the same (B-18).
_UNREADABLE = re.compile(
    rb"[\x00-\x08\x0b\x0c\x0e-\x1f]"
    rb"|&#(?:0*(?:[0-8]|1[124-9]|2[0-9]|3[01])|x0*(?:[0-8bcef]|1[0-9a-f]));",
    re.IGNORECASE,
)


def readable(body: bytes) -> bytes:
    """Put a question mark for what makes an answer no XML: control characters of keys."""
    return _UNREADABLE.sub(b"?", body) if _UNREADABLE.search(body) else body


def check_opened(
    response: Response, where: Callable[[], str], etag: str, span: Span | None
) -> int | None:
    """Check an answer to GetObject; give the whole object's size, None when it does not say."""
    # 1. Another version. Stores and proxies that ignore If-Match would mix versions (B-06).
    headers = response.headers
    found = unquote_etag(headers.get("etag", ""))
    if etag and found != etag:
        if not found or found.startswith("W/"):
            raise BadAnswer(
                f"GetObject {where()}: the answer has no usable ETag ({found!r}); does a proxy "
                "stand between, and change bodies?"
            )
        raise SourceChanged(f"GetObject {where()}: it changed (etag {etag} -> {found})")
    # 2. The whole object.
    if span is None:
        if response.status != 200:
            raise BadAnswer(f"GetObject {where()}: {response.status} to a request without Range")
        return response.length
    # 3. Another range than was asked for, or all of it (B-07).
    said = headers.get("content-range", "")
    match = _CONTENT_RANGE.fullmatch(said)
    if response.status != 206 or match is None:
        raise BadAnswer(
            f"GetObject {where()}: {response.status} with Content-Range {said!r} to a request for "
            f"bytes {span.start}-{span.stop - 1}; does a proxy ignore Range?"
        )
    total = int(match[3])
    if (int(match[1]), int(match[2]) + 1) != span or span.stop > total:
        raise BadAnswer(
            f"GetObject {where()}: {said!r} came for bytes {span.start}-{span.stop - 1}"
        )
    if response.length is not None and response.length != span.size:
        raise BadAnswer(
            f"GetObject {where()}: Content-Length {response.length} for {span.size} bytes"
        )
    return total


def upload_id_of(body: bytes, key: bytes, where: str) -> str:
    """Find the id in an answer to CreateMultipartUpload, even if it is no XML (B-18)."""
    match = _UPLOAD_ID.search(body)
    if match is None:
        raise BadAnswer(f"CreateMultipartUpload {where}: the answer has no UploadId")
    named = _KEY.search(body)
    if named is not None:
        check_answered(
            key, unescape(named[1].decode(errors="replace")), "CreateMultipartUpload", where
        )
    try:
        upload_id = match[1].decode().strip()
    except UnicodeDecodeError as error:
        raise BadAnswer(
            f"CreateMultipartUpload {where}: the UploadId {match[1][:40]!r} is not UTF-8"
        ) from error
    return unescape(upload_id)


def check_answered(asked: bytes, named: str, operation: str, where: str) -> None:
    """Refuse an answer that names another than was *asked* for.

    It was on its way to somebody else, or for an earlier request: proxies that lose count do that, and
    an upload would be noted by the id of another, or believed to have its parts. An answer that names
    nothing, or what XML cannot hold, may be right.
    """
    text = asked.decode(errors="replace")
    if not named or not text.isprintable() or named.strip() == text.strip():
        return
    if unquote_to_bytes(named.replace("+", " ")) != asked and unquote_to_bytes(named) != asked:
        raise BadAnswer(
            f"{operation} {where}: the answer is about {named!r}, which was not asked for"
        )
