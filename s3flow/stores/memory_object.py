"""What the store in memory holds and hands out: objects, bodies, ETags and checksums."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from awscrt import checksums

from s3flow.errors import BadAnswer, Refused, Truncated
from s3flow.model import Attributes, Listed, ObjectInfo, Page, Part
from s3flow.ports import Body

_POISON = 0xDB


@dataclass(slots=True)
class MemoryObject:
    """An object as a test may look at it; *layout* is the sizes of its parts, () after a PUT."""

    data: bytes
    etag: str
    modified: int  # milliseconds since the epoch
    storage_class: str = "STANDARD"
    headers: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    encryption: str = ""
    layout: tuple[int, ...] = ()
    archive_status: str = ""  # as `ObjectInfo` has it
    thaws_at: int | None = None  # milliseconds; None: no restore was asked for
    freezes_at: int = 0  # milliseconds; 0: never again
    locked: bool = False  # under a legal hold


@dataclass(slots=True)
class MemoryUpload:
    """An upload that is not completed."""

    bucket: str
    key: bytes
    attributes: Attributes
    initiated: int
    parts: dict[int, tuple[bytes, Part]] = field(default_factory=dict)

    def take(self, number: int, data: bytes, sums: Mapping[str, str]) -> Part:
        """Take a part, in the place of one of that number."""
        etag = hashlib.md5(data).hexdigest()  # noqa: S324
        part = Part(number, len(data), etag, sums.get("crc64nvme", ""))
        self.parts[number] = (data, part)
        return part

    def pieces(self, parts: Sequence[Part], where: str, min_size: int) -> tuple[bytes, ...]:
        """Give the bytes of the named *parts*, which S3's rules must allow to be joined."""
        numbers = [part.number for part in parts]
        if not numbers or numbers != sorted(set(numbers)):
            raise Refused(f"{where}: parts must be named once each, ascending (InvalidPartOrder)")
        pieces = []
        for part in parts:
            data, held = self.parts.get(part.number, (b"", None))
            if held is None or held.etag != part.etag:
                raise Refused(f"{where}: part {part.number} is not the one stored (InvalidPart)")
            if len(data) < min_size and part is not parts[-1]:
                raise Refused(f"{where}: part {part.number} is too small (EntityTooSmall)")
            pieces.append(data)
        return tuple(pieces)


@dataclass(slots=True)
class Contents:
    """What is in a bucket."""

    objects: dict[bytes, MemoryObject] = field(default_factory=dict)
    keys: list[bytes] = field(default_factory=list)  # ascending

    def page(self, prefix: bytes, after: bytes, size: int) -> Page:
        """List up to *size* keys."""
        keys, entries = self.keys, list[Listed]()
        # b"" sorts first and is no key: any key that starts with the prefix is >= the prefix.
        index = bisect_right(keys, max(after, prefix))
        if prefix > after and prefix in self.objects:
            index -= 1
        while index < len(keys) and keys[index].startswith(prefix):
            if len(entries) == size:
                return Page(entries, last=False)
            entries.append(listed(keys[index], self.objects[keys[index]]))
            index += 1
        return Page(entries, last=True)


class MemoryBody:
    """Chunks in one reused buffer that is overwritten at every read: who holds one is caught."""

    def __init__(self, data: memoryview, info: ObjectInfo, chunk_size: int) -> None:
        self.info = info
        self.size = len(data)
        self._rest = data
        self._buffer = bytearray(chunk_size)

    async def read(self) -> memoryview:
        """Give the next chunk, an empty one at the end."""
        await asyncio.sleep(0)
        self._poison()
        chunk = self._rest[: len(self._buffer)]
        self._buffer[: len(chunk)] = chunk
        self._rest = self._rest[len(chunk) :]
        return memoryview(self._buffer)[: len(chunk)]

    def close(self) -> None:
        """End the reading; the last chunk is no longer valid."""
        self._poison()
        self._rest = memoryview(b"")

    def _poison(self) -> None:
        self._buffer[:] = bytes([_POISON]) * len(self._buffer)


async def read_all(body: Body) -> bytes:
    """Read a body to its end; the bytes are counted against its size."""
    data = bytearray()
    while chunk := await body.read():
        data += chunk
    if len(data) < body.size:
        raise Truncated(f"the body ended after {len(data)} of {body.size} bytes")
    if len(data) > body.size:
        raise BadAnswer(f"the body has {len(data)} bytes where {body.size} were announced")
    return bytes(data)


def copied_headers(headers: Mapping[str, str], redirect: str) -> dict[str, str]:
    """Give the headers of a copy: where its original redirects to does not come by itself."""
    name = "x-amz-website-redirect-location"
    kept = {each: value for each, value in headers.items() if each != name}
    return {**kept, name: redirect} if redirect else kept


def crc64(data: bytes) -> str:
    """Give CRC64NVME in base64, as S3 sends it."""
    return base64.b64encode(checksums.crc64nvme(data).to_bytes(8, "big")).decode()


def cut(data: bytes, part_size: int) -> tuple[bytes, ...]:
    """Cut data as a multipart upload would."""
    starts = accumulate([part_size] * (max(len(data) - 1, 0) // part_size), initial=0)
    return tuple(data[start : start + part_size] for start in starts)


def multipart_etag(pieces: Sequence[bytes]) -> str:
    """Give MD5 over the MD5s of the pieces, and their number: S3's multipart ETag."""
    md5s = b"".join(hashlib.md5(piece).digest() for piece in pieces)  # noqa: S324
    return f"{hashlib.md5(md5s).hexdigest()}-{len(pieces)}"  # noqa: S324


def listed(key: bytes, found: MemoryObject) -> Listed:
    """Give the entry of a listing."""
    return Listed(key, len(found.data), found.etag, found.modified, found.storage_class)


def describe(found: MemoryObject) -> ObjectInfo:
    """Give what GET and HEAD say."""
    return ObjectInfo(
        size=len(found.data),
        etag=found.etag,
        modified=found.modified,
        storage_class=found.storage_class,
        headers=found.headers,
        checksums=found.checksums,
        tag_count=len(found.tags),
        encryption=found.encryption,
    )


def describe_part(found: MemoryObject, number: int) -> ObjectInfo:
    """Give what HEAD says of a part; an object that was put whole is one."""
    info = describe(found)
    sizes = found.layout or (len(found.data),)
    if not 1 <= number <= len(sizes):
        raise Refused(f"there is no part {number} (416 InvalidPartNumber)")
    info.size = sizes[number - 1]
    info.parts_count = len(found.layout) or None
    info.checksums = {} if found.layout else info.checksums
    return info
