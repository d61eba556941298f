"""Canaries: secrets that sing wherever they come up, whole, encoded or in parts."""

from __future__ import annotations

import base64
import random
import string
from collections.abc import Iterable
from urllib.parse import quote

PART = 8  # characters of one that are enough to be heard
HEX_PART = 16  # of its digits: eight in a row come up by chance
_LETTERS = string.ascii_letters + string.digits


def canary(draw: random.Random, size: int = 36, odd: str = "/+=%:@ ") -> str:
    """Make a secret, with what encodings change in its middle."""
    letters = draw.choices(_LETTERS, k=size)
    for sign in odd:
        letters[draw.randrange(6, size - 6)] = sign
    return "".join(letters)


class Cage:
    """Knows the canaries, by name, in all forms."""

    def __init__(self, canaries: dict[str, str]) -> None:
        self._parts: dict[bytes, str] = {}
        self._hex: dict[bytes, str] = {}
        for name, value in canaries.items():
            raw = value.encode()
            for form in _forms(value):
                self._add(self._parts, name, form, PART)
            for digits in (raw.hex(), raw.hex().upper()):
                self._add(self._hex, name, digits.encode(), HEX_PART)

    @staticmethod
    def _add(parts: dict[bytes, str], name: str, form: bytes, size: int) -> None:
        for at in range(len(form) - size + 1):
            parts[form[at : at + size]] = name

    def heard(self, data: bytes) -> str:
        """Name the canary that sings in *data*, with what is around it; "" for silence."""
        for parts, size in ((self._parts, PART), (self._hex, HEX_PART)):
            for at in range(len(data) - size + 1):
                name = parts.get(data[at : at + size])
                if name is not None:
                    around = data[max(0, at - 150) : at + 60]
                    return f"{name}: …{around.decode(errors='replace')}…"
        return ""


def _forms(value: str) -> Iterable[bytes]:
    quoted = quote(value, safe="")
    yield quoted.lower().encode()
    for raw in (value.encode(), quoted.encode()):
        yield raw
        for lead in range(3):  # base64 reads differently by where in a longer text it begins
            text = base64.b64encode(b"\0" * lead + raw)
            # What neighbours may change is left out.
            yield text[-(-lead * 8 // 6) : (lead + len(raw)) * 8 // 6]
