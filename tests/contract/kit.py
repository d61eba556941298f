"""What the contract suites need around a store: a bench to try it on, bodies, and awkward keys."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from s3flow.model import Attributes, ObjectInfo, Part, Stored
from s3flow.ports import Body
from s3flow.stores.memory_object import MemoryBody

MODIFIED = 1_600_000_000_000  # milliseconds, whole seconds: what every store can keep
ATTRIBUTES = Attributes({}, {}, "STANDARD", MODIFIED)

# Each is kept byte for byte or refused with NameRefused; never changed, never mistaken for another.
AWKWARD_KEYS = [
    b"plain",
    b"a/b/c",
    b"a//b",
    b"./a",
    b"../a",
    b"..",
    b".",
    b"a/../../b",
    b"/leading",
    b"//",
    b"/",
    b"trailing/",
    b"trailing//",
    b"%25",
    b"%2F",
    b"a%2Fb",
    b"plus+plus",
    b"with space",
    b" leading space",
    b"trailing space ",
    b"&?#=",
    b"?versionId=x",
    b"semi;colon:comma,at@dollar$",
    b"back\\slash",
    b"C:\\drive",
    "emoji-\U0001f600".encode(),
    "nfc-\u00e9".encode(),
    "nfc-e\u0301".encode(),
    "line-separator-\u2028".encode(),
    b"line\nbreak",
    b"carriage\rreturn",
    b"tab\tstop",
    b"control-\x01",
    b"delete-\x7f",
    b"nul-\0",
    b"high-\xff\xfe",
    b"latin-\xe9",
    b"<xml>&amp;\"'",
    b"*?[glob]",
    b"~tilde",
    b".hidden",
    b".s3flow-ours",
    b"-dash",
    b"x" * 255,
    b"x" * 256,
    b"/".join([b"x" * 127] * 8),  # 1,023 bytes
    b"y" * 1024,
    b"/".join([b"z" * 204] * 5),  # 1,024 bytes
    b"w" * 1025,
]


@dataclass
class Bench:
    """A store and what a suite must know about it.

    *read* gives the bytes under a key of *bucket*, None when there are none. *reopen* gives the store
    as another process would see it. Flags say what the *server* behind an adapter does not do.
    """

    store: Any  # a Source, a Target, or both
    bucket: str
    read: Callable[[bytes], Awaitable[bytes | None]]
    reopen: Callable[[], Awaitable[Any]]
    part_size: int = 1000
    page_size: int = 1000
    steps: int = 60  # cancellations tried for each call
    knows_part_sizes: bool = True
    deletes_conditionally: bool = True
    checks_md5: bool = True
    archives: bool = True

    async def put(self, key: bytes, data: bytes, attributes: Attributes = ATTRIBUTES) -> Stored:
        """Put and settle."""
        stored: Stored = await self.store.put_object(
            self.bucket, key, body_of(data), attributes, md5=None
        )
        await self.settle(stored)
        return stored

    async def put_parts(
        self, key: bytes, pieces: list[bytes], attributes: Attributes = ATTRIBUTES
    ) -> Stored:
        """Upload in parts, complete and settle."""
        size = sum(map(len, pieces))
        upload_id = await self.store.create_multipart_upload(self.bucket, key, attributes, size)
        parts: list[Part] = []
        offset = 0
        for number, piece in enumerate(pieces, 1):
            parts.append(await self.send(key, upload_id, number, offset, piece))
            offset += len(piece)
        stored: Stored = await self.store.complete_multipart_upload(
            self.bucket, key, upload_id, parts
        )
        await self.settle(stored)
        return stored

    async def send(self, key: bytes, upload_id: str, number: int, offset: int, data: bytes) -> Part:
        """Upload one part."""
        part: Part = await self.store.upload_part(
            self.bucket, key, upload_id, number, offset, body_of(data)
        )
        return part

    async def settle(self, *stored: Stored) -> None:
        """Settle, and raise what went wrong."""
        for error in await self.store.settle(stored):
            if error is not None:
                raise error


def body_of(data: bytes, chunk_size: int = 700) -> MemoryBody:
    """Give *data* as a body whose one buffer is overwritten at every read."""
    return MemoryBody(memoryview(data), ObjectInfo(len(data), ""), max(chunk_size, 1))


class BreakingBody(MemoryBody):
    """A body that announces *size* bytes and raises *error* after *data*, or just ends."""

    def __init__(self, data: bytes, size: int, error: Exception | None = None) -> None:
        super().__init__(memoryview(data), ObjectInfo(size, ""), 700)
        self.size = size
        self._error = error

    async def read(self) -> memoryview:
        """Give the next chunk, then the error."""
        chunk = await super().read()
        if not chunk and self._error is not None:
            raise self._error
        return chunk


async def read_body(body: Body) -> bytes:
    """Read a body to its end and close it."""
    data = bytearray()
    try:
        while chunk := await body.read():
            data += chunk
    finally:
        body.close()
    return bytes(data)


async def cancel_after(steps: int, work: Awaitable[Any]) -> Any:
    """Run *work*, cancelled once the loop has turned *steps* times; None when that came first."""
    task = asyncio.ensure_future(work)
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        return await task
    return None


def pattern(size: int, seed: int = 0) -> bytes:
    """Give bytes in which no two neighbouring chunks are alike."""
    return bytes((index * 131 + (index >> 8) * 17 + seed) & 0xFF for index in range(size))
