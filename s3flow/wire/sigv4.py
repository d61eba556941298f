"""AWS Signature Version 4 for S3, at the price of three short hashes per request."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import NamedTuple
from urllib.parse import quote, quote_from_bytes

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"

# Proxies and HTTP clients may change these on the way, so a signature over them would not hold.
UNSIGNED_HEADERS = frozenset(
    {
        "connection",
        "expect",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
        "x-amzn-trace-id",
    }
)

_BLANKS = re.compile(r"[ \t]+")
# User metadata makes header sets unbounded, and each as large as a head; the cache of them is not.
_SHAPES = 128
_EMPTY = hashlib.sha256()  # copied instead of constructed: saves OpenSSL's algorithm look-up


class Credentials(NamedTuple):
    """An access key, its secret and, for temporary ones, the session token."""

    access_key: str
    secret_key: str
    token: str = ""

    def __repr__(self) -> str:
        return f"Credentials(access_key={self.access_key!r}, …)"


class _Hmac:
    """HMAC-SHA-256 under one key, with both pads hashed beforehand."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        if len(key) > 64:
            key = hashlib.sha256(key).digest()
        key = key.ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in key))

    def digest(self, message: bytes) -> bytes:
        return bytes.fromhex(self.hexdigest(message))

    def hexdigest(self, message: bytes) -> str:
        inner = self._inner.copy()
        inner.update(message)
        outer = self._outer.copy()
        outer.update(inner.digest())
        return outer.hexdigest()


class _Shape(NamedTuple):
    """What a set of header names means to the signature, whatever the values are."""

    values: Callable[[dict[str, str]], tuple[str, ...]]  # in canonical order
    lines: str  # to be filled with them
    signed: str


class Signer:
    """Signs requests to one service in one region.

    The signing key lasts a day and the date string a second, so both are kept.
    """

    def __init__(self, region: str, service: str = "s3") -> None:
        self._scope_end = f"{region}/{service}/aws4_request"
        self._region = region
        self._service = service
        self._second = -1
        self._date = ""
        self._day = ""
        self._owner: tuple[Credentials, str] | None = None
        self._key = _Hmac(b"")
        self._intro = ""
        self._shapes: dict[tuple[str, ...], _Shape] = {}

    def sign(
        self,
        credentials: Credentials,
        method: str,
        path: str,
        query: str,
        headers: dict[str, str],
        *,
        payload: str = UNSIGNED_PAYLOAD,
        now: float,
    ) -> None:
        """Add the date, payload hash, token and authorization to *headers*, which hold "host".

        *path* and *query* are as they go out, in canonical form (`quote_key`, `canonical_query`).
        *payload* is the body's SHA-256 in hex, or a placeholder that S3 defines. *now* is in
        seconds since the epoch.
        """
        second = int(now)
        if second != self._second:
            self._second = second
            self._date = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
            self._day = self._date[:8]
        date = self._date
        headers["x-amz-date"] = date
        headers["x-amz-content-sha256"] = payload
        if credentials.token:
            headers["x-amz-security-token"] = credentials.token
        if self._owner != (credentials, self._day):
            self._derive(credentials)
        shape = self._shapes.get(tuple(headers)) or self._learn(headers)
        lines = shape.lines % shape.values(headers)
        if " " in lines or "\t" in lines:  # seldom, and looking for pairs is slow
            lines = shape.lines % tuple([_trimmed(value) for value in shape.values(headers)])
        request = f"{method}\n{path}\n{query}\n{lines}\n{shape.signed}\n{payload}"
        digest = _EMPTY.copy()
        # Headers go out as latin-1, so that is what the server hashes. What latin-1 cannot hold is
        # refused when the request is written, with a better message.
        digest.update(request.encode("latin-1", "replace"))
        scope = f"{self._day}/{self._scope_end}"
        message = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{digest.hexdigest()}"
        signature = self._key.hexdigest(message.encode())
        headers["authorization"] = (
            f"{self._intro}SignedHeaders={shape.signed}, Signature={signature}"
        )

    def _derive(self, credentials: Credentials) -> None:
        key = _Hmac(f"AWS4{credentials.secret_key}".encode())
        for step in (self._day, self._region, self._service, "aws4_request"):
            key = _Hmac(key.digest(step.encode()))
        self._key = key
        self._intro = (
            f"AWS4-HMAC-SHA256 Credential={credentials.access_key}/{self._day}/{self._scope_end}, "
        )
        self._owner = (credentials, self._day)

    def _learn(self, headers: dict[str, str]) -> _Shape:
        pairs = sorted(
            (name.lower(), name)
            for name in headers
            if name.lower() not in UNSIGNED_HEADERS and name.lower() != "authorization"
        )
        shape = _Shape(
            itemgetter(*[sent for _, sent in pairs]),  # at least two: the date and the hash
            "".join(f"{name.replace('%', '%%')}:%s\n" for name, _ in pairs),
            ";".join(name for name, _ in pairs),
        )
        if len(self._shapes) >= _SHAPES:
            self._shapes.clear()
        self._shapes[tuple(headers)] = shape
        return shape


def _trimmed(value: str) -> str:
    """Give a header's value without outer blanks and with inner runs of them as one.

    Only blanks and tabs: U+00A0 is a byte of somebody's metadata.
    """
    return _BLANKS.sub(" ", value).strip(" ") if " " in value or "\t" in value else value


def quote_key(key: bytes) -> str:
    """Encode a key for a request's path: everything but "/" and unreserved characters as %XX."""
    return quote_from_bytes(key, safe="/")


def quote_value(value: bytes | str) -> str:
    """Encode a value for a query: everything but unreserved characters as %XX."""
    return quote(value, safe="")


def canonical_query(params: Sequence[tuple[str, str]]) -> str:
    """Encode and sort *params*: the one string for the signature and for the request's target."""
    pairs = sorted((quote(name, safe=""), quote(value, safe="")) for name, value in params)
    return "&".join([f"{name}={value}" for name, value in pairs])
