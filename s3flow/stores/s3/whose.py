"""Whose an answer to ListObjectsV2 is, by what it repeats of its request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from html import unescape
from urllib.parse import unquote_to_bytes

NAME, PREFIX, AFTER, TOKEN = "Name", "Prefix", "StartAfter", "ContinuationToken"
_REPEATED = re.compile(
    rb"<(?:\w+:)?(Name|Prefix|StartAfter|ContinuationToken)(?:\s[^<>]*)?>([^<]*)</"
)
_ENTRIES = (b"Contents", b"CommonPrefixes")  # each side by side; the latter have a Prefix, too
_HIGHEST = "\U0010ffff"  # ends most keys to start after, and not every XML writer lets it pass


class Whose:
    """Remembers what one store repeats, bucket by bucket: without that, silence means nothing."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # of buckets, as their answers give them
        self._repeats: set[tuple[str, str]] = set()

    def differing(
        self, bucket: str, asked: Mapping[str, bytes], said: Mapping[str, str]
    ) -> str | None:
        """Give what *said* names that is another's for sure, None when there is nothing of it."""
        name, known = said.get(NAME), self._names.get(bucket)
        if name == bucket:
            self._names[bucket] = name
        elif name and known is not None and name != known:
            return name
        for element, value in asked.items():
            named = said.get(element)
            if not named:
                continue
            if not _agree(value, named):
                return named
            self._repeats.add((bucket, element))
        return None

    def doubts(
        self, bucket: str, asked: Mapping[str, bytes], said: Mapping[str, str]
    ) -> dict[str, str]:
        """Give what could make it another's: a bucket's other name, or silence where it used to repeat.

        Access points and aliases answer by another name. What comes a second time is to be believed.
        """
        name = said.get(NAME)
        found = {NAME: name} if name and name not in (bucket, self._names.get(bucket)) else {}
        for element, value in asked.items():
            if value and not said.get(element) and (bucket, element) in self._repeats:
                found[element] = ""
        return found

    def believe(self, bucket: str, doubts: Mapping[str, str]) -> None:
        """Take what was doubted, and came again, for what this store answers."""
        if NAME in doubts:
            self._names.setdefault(bucket, doubts[NAME])


def repeated(body: bytes) -> dict[str, str]:
    """Read what a listing repeats of its request; the entries, nearly all of it, are passed over."""
    for entries in _ENTRIES:
        start, stop = body.find(b"<" + entries), body.rfind(b"</" + entries)
        if 0 <= start < stop:
            body = body[:start] + body[stop:]
    found: dict[str, str] = {}
    for element, text in _REPEATED.findall(body):
        found.setdefault(element.decode(), unescape(text.decode(errors="replace")))
    return found


def _agree(asked: bytes, named: str) -> bool:
    """Say whether *named* may be *asked*, encoded or as it is; what XML cannot hold may be anything."""
    try:
        text = asked.decode()
    except UnicodeDecodeError:
        return True
    stem = text.removesuffix(_HIGHEST)
    if not stem.isprintable():
        return True
    wanted = stem.strip().encode()
    decoded = map(unquote_to_bytes, (named, named.replace("+", " ")))
    said = [each.strip() for each in (named.encode(), *decoded)]
    return wanted in said or (stem != text and any(each.startswith(wanted) for each in said))
