"""Objects read to their end for nothing but the sums of their bytes."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise

from s3flow.engine.route import Route, Stopped
from s3flow.engine.throttle import PacedBody
from s3flow.errors import Refused
from s3flow.model import ObjectInfo, Span, Transfer
from s3flow.ports import Body, Digest


async def of_target(route: Route, transfer: Transfer, etag: str, digests: Iterable[Digest]) -> None:
    """Read the copy that has *etag* into *digests*. Raises `Refused` where the target cannot be read."""
    if route.reader is None:
        raise Refused(f"{route.target.name} cannot be read back")
    bucket, key = route.destination(transfer)
    async with route.room(transfer.size):
        body: Body = await route.reader.get_object(bucket, key, etag=etag)
        if route.bytes_buckets:
            body = PacedBody(body, route.bytes_buckets)
        await _read(route, body, list(digests))


async def of_source(route: Route, transfer: Transfer) -> bytes:
    """Read the version that is at the source; gives its CRC64NVME."""
    crc64 = route.crc64.new()
    async with route.room(transfer.size):
        await _read(route, await route.open(transfer), [crc64])
    return crc64.digest()


async def _read(route: Route, body: Body, digests: Sequence[Digest]) -> None:
    try:
        while chunk := await body.read():
            if route.stop.is_set():
                raise Stopped("not read to the end")
            for digest in digests:
                digest.update(chunk)
    finally:
        body.close()


class ReadAnew:
    """The bytes of a span, or of all, as a body that asks for other ranges than were asked for before.

    What answers a range with wrong bytes may do so each time: a proxy that keeps them, for one. Two
    equal answers to one question show nothing.
    """

    def __init__(self, route: Route, transfer: Transfer, info: ObjectInfo, span: Span) -> None:
        self.info, self.size = info, span.size
        # The first byte alone is no part, and neither are the others.
        cuts = [span.start, min(span.start + 1, span.stop), span.stop]
        self._left = deque(Span(*each) for each in pairwise(cuts) if each[0] < each[1])
        self._route, self._transfer = route, transfer
        self._body: Body | None = None

    async def read(self) -> memoryview:
        """Give the next chunk, of the next range after the end of one; empty at the end of all."""
        while self._body is not None or self._left:
            if self._body is None:
                await self._route.turn()
                self._body = await self._route.open(self._transfer, self._left.popleft())
            if chunk := await self._body.read():
                return chunk
            self.close()
        return memoryview(b"")

    def close(self) -> None:
        """Close the body at hand."""
        if self._body is not None:
            self._body.close()
            self._body = None


class PartsMd5:
    """The MD5s of parts of one size, which a multipart ETag is made of."""

    def __init__(self, part_size: int) -> None:
        self._part_size = part_size
        self._room = part_size
        self._part = hashlib.md5(usedforsecurity=False)
        self._done: list[bytes] = []

    def update(self, data: memoryview) -> None:
        """Take bytes, which may end in another part than they begin in."""
        while data:
            if not self._room:
                self._next()
            here = data[: self._room]
            self._part.update(here)
            self._room -= len(here)
            data = data[len(here) :]

    def digest(self) -> bytes:
        """Give the MD5 of the MD5s."""
        digests = b"".join([*self._done, self._part.digest()])
        return hashlib.md5(digests, usedforsecurity=False).digest()

    def etag(self) -> str:
        """Give the ETag that a store makes of such parts."""
        return f"{self.digest().hex()}-{len(self._done) + 1}"

    def _next(self) -> None:
        self._done.append(self._part.digest())
        self._part = hashlib.md5(usedforsecurity=False)
        self._room = self._part_size
