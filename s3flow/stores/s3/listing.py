"""Walks through listings: pages in byte order, and which of many keys exist."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import pairwise
from operator import attrgetter, lt

from s3flow.errors import BadAnswer
from s3flow.lanes import in_lanes
from s3flow.model import Listed, ObjectInfo, Page
from s3flow.stores.s3.answers import readable
from s3flow.stores.s3.rest import Call, Rest
from s3flow.stores.s3.whose import AFTER, PREFIX, TOKEN, Whose, repeated
from s3flow.wire import Response
from s3flow.wire.sigv4 import quote_value
from s3flow.wire.xml import ListResult, parse_list

PAGE_SIZE = 1000
PAGE_LIMIT = 16 * 1024 * 1024  # bytes; 1,000 keys of 1,024 bytes, each %XX-encoded, fit
EMPTY_PAGES = 1000  # in a row; each was a request, so the store is not getting anywhere
# A listing that finds less per page than this many lookups of single keys would is given up.
WORTH_LISTING = 20
LOOKUPS = 16  # at once

_key = attrgetter("key")
Head = Callable[[str, bytes], Awaitable[ObjectInfo | None]]


class Listings:
    """Lists buckets through *rest*."""

    def __init__(self, rest: Rest) -> None:
        self._rest = rest
        self._whose = Whose()

    async def page(self, bucket: str, prefix: bytes, after: bytes) -> Page:
        """Give the next keys after *after*. Raises `BadAnswer` when the store goes in circles."""
        token = ""
        for _ in range(EMPTY_PAGES):
            result = await self._fetch(bucket, prefix, after, token)
            if result.entries:
                self._check(bucket, prefix, after, result.entries)
            elif result.truncated:
                if not result.token or result.token == token:
                    raise BadAnswer(
                        f"{self._rest.where(bucket, prefix)}: the listing is truncated, empty "
                        "and does not move on; the store's paging is broken"
                    )
                token = result.token
                continue
            return Page(result.entries, last=not result.truncated)
        raise BadAnswer(
            f"{self._rest.where(bucket, prefix)}: {EMPTY_PAGES} empty pages in a row, and more "
            "are announced"
        )

    async def find(self, bucket: str, keys: Sequence[bytes], head: Head) -> dict[bytes, Listed]:
        """Say which of the ascending *keys* exist, by listing as long as that is worth it."""
        found: dict[bytes, Listed] = {}
        keys = _possible(keys)
        index = pages = 0
        prefix = _common_prefix(keys[0], keys[-1]) if keys else b""
        while index < len(keys):
            if pages >= 2 and index < pages * WORTH_LISTING:
                found.update(await self._look_up(bucket, keys[index:], head))
                break
            wanted = frozenset(keys[index:])
            page = await self.page(bucket, prefix, just_below(keys[index]))
            pages += 1
            found.update((entry.key, entry) for entry in page.entries if entry.key in wanted)
            if page.last:
                break
            reached = page.entries[-1].key
            while index < len(keys) and keys[index] <= reached:
                index += 1
        return found

    async def _look_up(self, bucket: str, keys: Sequence[bytes], head: Head) -> dict[bytes, Listed]:
        found: dict[bytes, Listed] = {}

        async def look(key: bytes) -> None:
            info = await head(bucket, key)
            if info is not None:
                found[key] = Listed(key, info.size, info.etag, info.modified, info.storage_class)

        await in_lanes(keys, look, LOOKUPS)
        return found

    async def _fetch(self, bucket: str, prefix: bytes, after: bytes, token: str) -> ListResult:
        start = f"&start-after={quote_value(after)}" if after else ""
        resume = f"continuation-token={quote_value(token)}&" if token else ""
        # The parameters stand in canonical order, as they are signed.
        query = (
            f"{resume}encoding-type=url&list-type=2&max-keys={PAGE_SIZE}"
            f"&prefix={quote_value(prefix)}{start}"
        )
        call = Call("ListObjectsV2", "GET", bucket, None, query, {})
        # What is continued by a token may name where that one starts.
        asked = {PREFIX: prefix, **({TOKEN: token.encode()} if token else {AFTER: after})}
        result, doubts = await self._ask(call, asked)
        if doubts:
            result, again = await self._ask(call, asked)
            if again and again != doubts:
                raise self._of_another(call, asked, " and ".join(again.values()))
            self._whose.believe(bucket, again)
        return result

    async def _ask(
        self, call: Call, asked: Mapping[str, bytes]
    ) -> tuple[ListResult, Mapping[str, str]]:
        """Give an answer, and what could make it another request's. Raises `BadAnswer` if that is sure.

        Proxies that lose count give such answers: a walk would skip keys, or a move believe that
        the listing of its source shows the copies.
        """
        response = await self._rest.send(call)
        body = await response.read_all(PAGE_LIMIT)
        result = self._parse(call, response, body)
        said = repeated(body)
        named = self._whose.differing(call.bucket, asked, said)
        if named is not None:
            raise self._of_another(call, asked, named)
        return result, self._whose.doubts(call.bucket, asked, said)

    def _parse(self, call: Call, response: Response, body: bytes) -> ListResult:
        try:
            return parse_list(body)
        except BadAnswer:
            cleaned = readable(body)
            # Keys are encoded, yet some stores repeat the request's parameters as they are.
            if cleaned is not body and b"<EncodingType>url<" in body:
                return parse_list(cleaned)
            failure = self._rest.describe(call, response, body)
            if failure.code:
                raise self._rest.error(call.bucket, failure) from None
            raise

    def _of_another(self, call: Call, asked: Mapping[str, bytes], named: str) -> BadAnswer:
        return BadAnswer(
            f"ListObjectsV2 {self._rest.where(call.bucket, asked[PREFIX])}: the answer is about "
            f"{self._rest.hidden(named)!r}, which was not asked for; does a proxy mix up answers?"
        )

    def _check(self, bucket: str, prefix: bytes, after: bytes, entries: list[Listed]) -> None:
        keys = [after, *map(_key, entries)]
        if not all(map(lt, keys, keys[1:])):
            previous, key = next(pair for pair in pairwise(keys) if pair[1] <= pair[0])
            raise BadAnswer(
                f"{self._rest.where(bucket, prefix)}: the listing shows {key!r} after "
                f"{previous!r}; s3flow needs byte order, and a start-after that is kept"
            )
        if not (keys[1].startswith(prefix) and keys[-1].startswith(prefix)):
            raise BadAnswer(
                f"{self._rest.where(bucket, prefix)}: the listing shows keys without that prefix"
            )


def _possible(keys: Sequence[bytes]) -> Sequence[bytes]:
    """Leave out what S3 cannot hold, hence does not: empty keys and those that are not UTF-8."""
    try:
        b"".join(keys).decode()
    except UnicodeDecodeError:
        return [key for key in keys if key == key.decode(errors="replace").encode() != b""]
    return keys if not keys or keys[0] else keys[1:]


def just_below(key: bytes) -> bytes:
    """Give a key that sorts before *key* with as few others between as UTF-8 lets one say."""
    text = key.decode()
    below = ord(text[-1]) - 1
    if below < 0x20:  # no control characters: stores repeat parameters in XML
        return text[:-1].encode()
    below = {0xDFFF: 0xD7FF, 0xFFFF: 0xFFFD}.get(below, below)  # surrogates and non-characters
    lower = text[:-1] + chr(below)
    # The highest character after it skips everything that starts with *lower*.
    higher = (lower + "\U0010ffff").encode()
    return higher if len(higher) <= 1024 else lower.encode()


def _common_prefix(first: bytes, last: bytes) -> bytes:
    """Give what both begin with, cut where a character ends: parameters must be UTF-8."""
    size = next(
        (i for i, pair in enumerate(zip(first, last, strict=False)) if pair[0] != pair[1]), None
    )
    return (first[:size] if size is not None else min(first, last)).decode(errors="ignore").encode()
