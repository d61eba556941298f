"""The two ends of a flow: "endpoint:bucket/prefix" becomes a `Place`, and places can overlap."""

from __future__ import annotations

from fnmatch import fnmatchcase

from s3flow.model import Place

EACH_BUCKET = "{bucket}"
_WILD = "*?["


def is_pattern(bucket: str) -> bool:
    """Say whether a source's bucket stands for several. No bucket name has these characters."""
    return any(char in bucket for char in _WILD)


def endpoint_of(text: str) -> str:
    """Give what stands before the colon. Raises `ValueError` when nothing does."""
    endpoint, colon, _ = text.partition(":")
    if not colon or not endpoint:
        raise ValueError('names no endpoint: write "endpoint:bucket/prefix"')
    return endpoint


def parse_source(text: str) -> Place:
    """Read a flow's source; its bucket may be a pattern such as "*" or "logs-*"."""
    endpoint = endpoint_of(text)
    bucket, _, prefix = text[len(endpoint) + 1 :].partition("/")
    if not bucket:
        raise ValueError(f'names no bucket: write "{endpoint}:bucket/prefix", or "{endpoint}:*"')
    if EACH_BUCKET in bucket:
        raise ValueError('has "{bucket}", which is for targets: write a bucket, or "*"')
    return Place(endpoint, bucket, _bytes(prefix))


def parse_target(text: str, *, local: bool, many: bool) -> Place:
    """Read a flow's target. *many*: the source's bucket is a pattern, so "{bucket}" is implied."""
    endpoint = endpoint_of(text)
    rest = text[len(endpoint) + 1 :]
    if not rest and many:
        rest = EACH_BUCKET
    head, _, tail = rest.partition("/")
    if EACH_BUCKET in rest and (head != EACH_BUCKET or EACH_BUCKET in tail):
        raise ValueError(
            f'may have "{{bucket}}" only right after the colon: "{endpoint}:{{bucket}}/…"'
        )
    if many and head != EACH_BUCKET:
        raise ValueError(
            f'would mix the keys of several buckets: write "{endpoint}:{{bucket}}/", '
            "so that each bucket gets its own place"
        )
    if not local and not head:
        raise ValueError(f'names no bucket: write "{endpoint}:bucket/prefix"')
    if local and head != EACH_BUCKET:
        head, tail = "", rest
    if local:
        _check_folders(tail)
    return Place(endpoint, head, _bytes(tail))


def _check_folders(prefix: str) -> None:
    folders = prefix.split("/")
    if any(folder in {".", ".."} for folder in folders) or "" in folders[:-1]:
        raise ValueError(
            'has a prefix that no path can have (an empty folder, "." or ".."): '
            "it starts below the endpoint's own path"
        )


def _bytes(prefix: str) -> bytes:
    # The environment gives bytes that are not UTF-8 as surrogates; they go back to what they were.
    return prefix.encode("utf-8", "surrogateescape")


class Ground:
    """What a flow reads or writes: a store, its bucket or bucket pattern, and a prefix.

    Two grounds overlap when one key could lie in both. Patterns are compared cautiously:
    two of them are apart only if their literal beginnings are.
    """

    __slots__ = ("bucket", "excluded", "prefix", "store")

    def __init__(
        self, store: str, bucket: str, prefix: bytes, excluded: tuple[str, ...] = ()
    ) -> None:
        self.store = store
        self.bucket = bucket
        self.prefix = prefix
        self.excluded = excluded

    def overlaps(self, other: Ground) -> bool:
        """Say whether a key can belong to both."""
        return (
            self.store == other.store
            and self._meets(other)
            and (self.prefix.startswith(other.prefix) or other.prefix.startswith(self.prefix))
        )

    def _meets(self, other: Ground) -> bool:
        wild, other_wild = is_pattern(self.bucket), is_pattern(other.bucket)
        if wild and other_wild:
            mine, theirs = _literal(self.bucket), _literal(other.bucket)
            return mine.startswith(theirs) or theirs.startswith(mine)
        if wild:
            return self._holds(other.bucket)
        if other_wild:
            return other._holds(self.bucket)
        return self.bucket == other.bucket

    def _holds(self, bucket: str) -> bool:
        return fnmatchcase(bucket, self.bucket) and not any(
            fnmatchcase(bucket, pattern) for pattern in self.excluded
        )


def _literal(pattern: str) -> str:
    return pattern[: min(pattern.index(char) for char in _WILD if char in pattern)]
