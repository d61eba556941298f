"""Where to cut a bucket's keys so that two listings share what is left. Pure: keys in, a key out.

Nothing says beforehand how keys are spread, so a cut is a guess from the keys that were seen, over
characters rather than bytes: their order is that of UTF-8, and a cut is always valid UTF-8. What
follows a cut is found out by the first page behind it; where there is nothing, the range that was
cut has become shorter, and the next guess is better.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort

# Behind all other characters, in UTF-8 too. Every cut ends with it, so that no key `a` lies before
# a cut and its `a/b` behind: in a tree of files the former has the place, and is merged first.
TOP = "\U0010ffff"
SAMPLES = 4096  # keys to remember
LETTERS = 4096  # characters to remember
KEY_LIMIT = 1024  # bytes
_PLACES = 64  # characters that count when distances are estimated
_CLASSES = ("0123456789", "0123456789abcdef", "0123456789ABCDEF")


class KeySpace:
    """What was seen of a bucket's keys. All of them begin with *prefix*."""

    def __init__(self, prefix: bytes) -> None:
        self._prefix = prefix.decode(errors="ignore")
        self._seen: list[bytes] = []
        self._letters: set[str] = set()
        self._order: list[str] = []  # the letters, sorted
        self._stem = self._prefix  # what all keys begin with that were seen

    def learn(self, keys: list[bytes]) -> None:
        """Remember some keys of a page; those that are not UTF-8 teach nothing."""
        for key in keys:
            text = _text(key)
            if text is None:
                continue
            insort(self._seen, key)
            if len(self._letters) < LETTERS:
                # No control characters: stores repeat parameters in XML.
                self._letters.update(each for each in text[len(self._prefix) :] if each >= " ")
        if len(self._letters) > len(self._order):
            self._order = sorted(self._letters)
        if self._seen:
            self._stem = _common(self._seen[0].decode(), self._seen[-1].decode())
        if len(self._seen) > SAMPLES:
            del self._seen[1:-1:2]

    def cut(self, cursor: bytes, end: bytes | None) -> bytes | None:
        """Give a key between *cursor* and *end* with about as many keys on either side, or None."""
        low, high = _text(cursor), None if end is None else _text(end)
        if low is None or not low.startswith(self._prefix):
            return None
        if end is not None and (high is None or cursor >= end):
            return None
        shared = self._prefix if high is None else _common(low, high)
        # Only what the cursor begins with: see TOP. Samples that were thinned out may lack it.
        seen = _common(low, self._seen_under(shared))
        if len(seen) > len(shared):
            # Whatever was seen begins alike: if all the rest does too, one empty page shows it.
            cut = seen[: (len(shared) + len(seen) + 1) // 2] + TOP
        else:
            cut = shared + self._middle(shared, low, high) + TOP
        found = cut.encode()
        fits = cursor < found and (end is None or found < end) and len(found) <= KEY_LIMIT
        return found if fits else None

    def left(self, first: bytes, cursor: bytes, end: bytes | None, listed: int) -> float:
        """Estimate the keys between *cursor* and *end*: as dense as the *listed* ones since *first*."""
        at, stem = self._place(cursor), self._stem.encode()
        ends_here = end is not None and end.startswith(stem)
        last = self._place(end or b"") if ends_here else (len(self._order) + 1) ** _PLACES
        done = at - self._place(first)
        return listed * max(0, last - at) / done if done > 0 else 0.0

    def _place(self, key: bytes) -> int:
        """Give the place of a key as a number: its characters are the digits."""
        letters, base = self._order, len(self._order) + 1
        text = key.decode(errors="replace")[len(self._stem) :][:_PLACES]
        number = 0
        for each in text:
            number = number * base + bisect_left(letters, each)
        return int(number * base ** (_PLACES - len(text)))

    def _seen_under(self, shared: str) -> str:
        """Give what all keys begin with that were seen under *shared*: itself if they differ."""
        start = bisect_left(self._seen, shared.encode())
        stop = bisect_right(self._seen, (shared + TOP).encode())
        if start == stop:
            return shared
        return _common(self._seen[start].decode(), self._seen[stop - 1].decode())

    def _middle(self, shared: str, low: str, high: str | None) -> str:
        """Give the character behind *shared* that is in the middle of those that may follow there."""
        at = len(shared)
        here = low[at : at + 1]
        below = high[at] if high is not None else TOP
        between = [each for each in self._order if here < each < below]
        known = {here} | self._known_at(shared)
        for some in _CLASSES:
            if known <= {
                *some,
                "",
            }:  # digits are followed by digits: "/" and letters come elsewhere
                between = [each for each in between if each in some]
                break
        choice = [here, *between] if here else between
        return choice[(len(choice) - 1) // 2] if choice else ""

    def _known_at(self, shared: str) -> set[str]:
        """Give the characters that were seen behind *shared*."""
        found: set[str] = set()
        index, at = bisect_right(self._seen, shared.encode()), len(shared)
        while index < len(self._seen):
            text = self._seen[index].decode()
            if not text.startswith(shared):
                break
            found.add(text[at])
            index = max(index + 1, bisect_right(self._seen, (text[: at + 1] + TOP).encode()))
        return found


def _text(key: bytes) -> str | None:
    try:
        return key.decode()
    except UnicodeDecodeError:
        return None


def _common(one: str, other: str) -> str:
    """Give what both begin with."""
    size = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        size += 1
    return one[:size]
