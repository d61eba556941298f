"""Takes secrets out of what others say: they may repeat what a request told them, in any form."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from urllib.parse import quote

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
    """Give how a secret is written where it is not hex."""
    raw = value.encode()
    yield value
    quoted = quote(value, safe="")
    yield quoted
    yield quoted.replace("%2F", "%2f").replace("%2B", "%2b").replace("%3D", "%3d")
    yield quote(value)
    for lead in range(3):  # base64 reads differently by where in a longer text it begins
        text = base64.b64encode(b"\0" * lead + raw).decode()
        end = len(text) if (lead + len(raw)) % 3 == 0 else len(text) - 4
        yield text[4 if lead else 0 : end]  # the rest depends on what stands beside it


def _windows(text: str, size: int) -> Iterator[str]:
    return (text[at : at + size] for at in range(len(text) - size + 1))
