"""Values as SQL text, and statements filled with them.

The driver would do the same, value by value at three times the cost. The session's sql_mode, which
is ours, leaves backslashes their meaning; bytes travel as hex, whatever the mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any

from pymysql.converters import escape_string


def _text(value: str) -> str:
    return f"'{escape_string(value)}'" if value else "''"


def _bytes(value: bytes) -> str:
    return f"x'{value.hex()}'"


def _float(value: float) -> str:
    text = repr(value)
    # Without an exponent it would be a DECIMAL, and compare as one.
    return text if "e" in text else f"{text}e0"


class _Writers(dict[type, Callable[[Any], str]]):
    """How values of a type are written; of others than these none is, so that nothing is guessed."""

    def __missing__(self, kind: type) -> Callable[[Any], str]:
        if issubclass(kind, StrEnum):
            self[kind] = _text
            return _text
        raise TypeError(f"the state has no values of {kind}")


_WRITERS = _Writers(
    {
        str: _text,
        int: str,
        bytes: _bytes,
        float: _float,
        bool: lambda value: "1" if value else "0",
        type(None): lambda _: "NULL",
    }
)


def literal(value: object) -> str:
    """Write a value as SQL."""
    return _WRITERS[type(value)](value)


def columns(values: Sequence[object]) -> str:
    """Write values as a SELECT takes them."""
    known = _WRITERS
    return ",".join([known[type(value)](value) for value in values])


def row(values: Sequence[object]) -> str:
    """Write a row as VALUES takes it."""
    return f"({columns(values)})"


@lru_cache(maxsize=512)
def _pieces(statement: str) -> tuple[str, ...]:
    return tuple(statement.split("?"))


def filled(statement: str, values: Sequence[object]) -> str:
    """Put *values* in the places of the question marks, of which there must be as many."""
    if not values:
        return statement
    pieces = _pieces(statement)
    first, *rest = pieces
    text = [first]
    for value, piece in zip(values, rest, strict=True):
        text.append(literal(value))
        text.append(piece)
    return "".join(text)


def size(text: str) -> int:
    """Say how many bytes *text* has at most: counting them would mean to encode it twice."""
    return len(text) if text.isascii() else len(text) * 4


def slices(texts: Sequence[str], rows: int, limit: int) -> Iterator[Sequence[str]]:
    """Cut *texts* into runs of at most *rows*, of together at most about *limit* bytes."""
    start = held = 0
    for at, text in enumerate(texts):
        length = size(text)
        if at > start and (at - start == rows or held + length > limit):
            yield texts[start:at]
            start, held = at, 0
        held += length + 1
    if start < len(texts):
        yield texts[start:]
