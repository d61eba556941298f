"""Takes secrets out of what others say: they may repeat what a request told them, in any form."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

HIDDEN = "***"
PART = 8  # characters of a secret that are never shown; shorter secrets are of tests, and parts of words
_HEX_PART = 16  # of its digits: eight in a row come up by chance


class Secrets:
    """Some secrets, found as they are, URL-encoded, in base64 or hex, and in parts."""

    def __init__(self, values: Iterable[str]) -> None:
        self._parts: set[str] = set()
        self._digits: set[str] = set()
        for value in values:
            if len(value) >= PART:
                for form in forms(value):
                    self._parts.update(_windows(form, PART))
                self._digits.update(_windows(value.encode().hex(), _HEX_PART))

    def without(self, text: str) -> str:
        """Give *text* with what is secret hidden. For words of errors: it looks at each character."""
        if not self._parts:
            return text
        secret = bytearray(len(text))
        for parts, size, said in (
            (self._parts, PART, text),
            (self._digits, _HEX_PART, text.lower()),
        ):
            for at, window in enumerate(_windows(said, size)):
                if window in parts:
                    secret[at : at + size] = b"\1" * size
        if not any(secret):
            return text
        shown = [char if not hidden else "\0" for char, hidden in zip(text, secret, strict=False)]
        pieces = "".join(shown).split("\0")
        kept = [piece for n, piece in enumerate(pieces) if piece or n in (0, len(pieces) - 1)]
        return HIDDEN.join(kept)


def forms(value: str) -> Iterator[str]:
    """Give how a secret is written where it is not hex: as it is, in URLs and forms, in base64 of these."""
    quoted = quote(value, safe="")
    for text in {value, quoted, quote(value), quote_plus(value)}:
        yield text
        yield from _in_base64(text.encode())
    yield quoted.replace("%2F", "%2f").replace("%2B", "%2b").replace("%3D", "%3d")


def _in_base64(raw: bytes) -> Iterator[str]:
    """Give its own digits: those between differ by where in a longer text it begins."""
    for lead in range(3):
        text = base64.b64encode(b"\0" * lead + raw).decode()
        own = text[-(-lead * 8 // 6) : (lead + len(raw)) * 8 // 6]
        yield own
        yield own.replace("+", "-").replace("/", "_")


def _windows(text: str, size: int) -> Iterator[str]:
    return (text[at : at + size] for at in range(len(text) - size + 1))
