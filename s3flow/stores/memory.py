"""An S3 in memory, source and target: strict where S3 is, for the engine is tested against it."""

from __future__ import annotations

import asyncio
import hashlib
import time
from bisect import insort
from collections.abc import Mapping, Sequence
from contextlib import suppress

from s3flow.errors import (
    Corrupted,
    NameRefused,
    NameTooLong,
    NoSuchBucket,
    NoSuchUpload,
    Refused,
    SourceChanged,
    SourceGone,
    TooLarge,
)
from s3flow.model import (
    NOT_SEALED,
    Attributes,
    Bucket,
    Limits,
    Listed,
    ObjectInfo,
    Original,
    Page,
    Part,
    Span,
    Stored,
    Upload,
)
from s3flow.policies import Guard
from s3flow.ports import Body, Clock
from s3flow.stores.memory_freezing import MemoryArchive, note_archive
from s3flow.stores.memory_object import (
    Contents,
    MemoryBody,
    MemoryObject,
    MemoryUpload,
    copied_headers,
    crc64,
    cut,
    describe,
    describe_part,
    listed,
    multipart_etag,
    read_all,
)
from s3flow.stores.memory_removing import MemoryRemovals

TOKEN_HEADER = "x-amz-meta-s3flow-transfer"  # noqa: S105 - it names a source version, no secret
MAX_KEY = 1024


class MemoryStore(MemoryRemovals, MemoryArchive):
    """S3's answers without a network: conditions, layouts, archive tiers, pages, multipart rules.

    *beside* is another one whose buckets these are too: two accounts of one service, which copies
    between them by itself. *with_checksums*: every object and part has a full-object CRC64NVME.
    *strict_parts*: S3's minimum part size holds. Buckets are made with `make_bucket` or by `put`.
    """

    def __init__(
        self,
        name: str,
        *,
        with_checksums: bool = False,
        strict_parts: bool = False,
        chunk_size: int = 64 * 1024,
        page_size: int = 1000,
        limits: Limits | None = None,
        clock: Clock = time.time,
        beside: MemoryStore | None = None,
        guard: Guard = Guard.EACH,
    ) -> None:
        self.name = name
        self.service: str = beside.service if beside else f"memory:{id(self):x}"
        self.owner = ""
        self.opening = NOT_SEALED
        self.websites: set[str] = set()
        self.limits = limits or (Limits() if strict_parts else Limits(min_part_size=1))
        self._with_checksums = with_checksums
        self._chunk_size = chunk_size
        self._page_size = page_size
        self._clock = clock
        self._buckets: dict[str, Contents] = {} if beside is None else beside._buckets  # noqa: SLF001
        self._uploads: dict[str, MemoryUpload] = {}
        self._upload_count = 0
        self.asked = []
        self._guard = guard

    # --- for tests: no await, no condition ----------------------------------------------------

    def make_bucket(self, bucket: str) -> None:
        """Make a bucket unless it is there."""
        self._buckets.setdefault(bucket, Contents())

    def put(
        self,
        bucket: str,
        key: bytes,
        data: bytes,
        *,
        part_size: int | None = None,
        headers: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        storage_class: str = "STANDARD",
        encryption: str = "",
    ) -> MemoryObject:
        """Place an object, making the bucket; with *part_size* as a multipart upload would.

        One that KMS or a customer key encrypts gets an ETag that is no MD5.
        """
        self.make_bucket(bucket)
        pieces = cut(data, part_size) if part_size else ()
        etag = multipart_etag(pieces) if pieces else hashlib.md5(data).hexdigest()  # noqa: S324
        if encryption not in ("", "AES256"):
            etag = hashlib.md5(b"sealed" + data).hexdigest()  # noqa: S324
        stored = MemoryObject(
            data, etag, self._now(), storage_class, headers or {}, tags or {}, self._sums(data)
        )
        stored.encryption = encryption
        stored.layout = tuple(len(piece) for piece in pieces)
        self._place(bucket, key, stored)
        return stored

    def peek(self, bucket: str, key: bytes) -> MemoryObject | None:
        """Give the object at *key*, or None."""
        return self._contents(bucket).objects.get(key)

    def keys(self, bucket: str) -> list[bytes]:
        """Give all keys, ascending."""
        return list(self._contents(bucket).keys)

    # --- Source -------------------------------------------------------------------------------

    async def list_buckets(self) -> list[Bucket]:
        """Give the buckets by name."""
        await asyncio.sleep(0)
        return [Bucket(name) for name in sorted(self._buckets)]

    async def list_page(self, bucket: str, prefix: bytes, after: bytes) -> Page:
        """List in byte order; a page has 1,000 keys unless told otherwise."""
        await asyncio.sleep(0)
        return self._contents(bucket).page(prefix, after, self._page_size)

    async def get_object(
        self, bucket: str, key: bytes, *, etag: str, span: Span | None = None
    ) -> MemoryBody:
        """Open an object under If-Match; an archived one refuses."""
        await asyncio.sleep(0)
        found = self._found(bucket, key)
        self._check_etag(bucket, key, found, etag)
        self._check_readable(bucket, key, found)
        data = memoryview(found.data)
        if span is not None:
            if not 0 <= span.start < span.stop <= len(data):
                raise Refused(f"{self._at(bucket, key)} has no bytes {span} (416 InvalidRange)")
            data = data[span.start : span.stop]
        return MemoryBody(data, describe(found), self._chunk_size)

    async def head_object(
        self, bucket: str, key: bytes, *, part_number: int | None = None
    ) -> ObjectInfo | None:
        """Say what is there; with *part_number*, the size of that part of the layout."""
        await asyncio.sleep(0)
        found = self._contents(bucket).objects.get(key)
        if found is None:
            return None
        if part_number is not None:
            return describe_part(found, part_number)
        info = describe(found)
        note_archive(info, found, self._now())
        return info

    async def get_object_tagging(self, bucket: str, key: bytes) -> dict[str, str]:
        """Give the tags."""
        await asyncio.sleep(0)
        found = self._found(bucket, key)
        return dict(found.tags)

    # --- Target -------------------------------------------------------------------------------

    def refuse(self, bucket: str, key: bytes) -> None:
        """Refuse an empty key and one over 1,024 bytes; all others are kept exactly."""
        if not key:
            raise NameRefused(f"{self.name}:{bucket}: an object needs a key of at least one byte")
        if len(key) > MAX_KEY:
            raise NameTooLong(f"{self._at(bucket, key)} has {len(key)} bytes; S3 takes {MAX_KEY}")

    async def find(self, bucket: str, keys: Sequence[bytes]) -> Mapping[bytes, Listed]:
        """Say which of *keys* exist."""
        await asyncio.sleep(0)
        objects = self._contents(bucket).objects
        return {key: listed(key, objects[key]) for key in keys if key in objects}

    async def put_object(
        self, bucket: str, key: bytes, body: Body, attributes: Attributes, *, md5: bytes | None
    ) -> Stored:
        """Take a whole object; it appears at once, as S3's do."""
        self.refuse(bucket, key)
        self._contents(bucket)
        if body.size > self.limits.max_put_size:
            raise TooLarge(
                f"{self._at(bucket, key)}: {body.size} bytes are more than one PUT takes"
            )
        data = await read_all(body)
        digest = hashlib.md5(data)  # noqa: S324
        if md5 is not None and md5 != digest.digest():
            raise Corrupted(f"{self._at(bucket, key)}: the bytes do not match Content-MD5")
        stored = self._made(data, digest.hexdigest(), attributes)
        self._place(bucket, key, stored)
        return Stored(len(data), stored.etag, stored.checksums)

    async def is_website(self, bucket: str) -> bool:
        """Say whether a test made the bucket a website."""
        return bucket in self.websites

    async def copy_object(
        self,
        original: Original,
        bucket: str,
        key: bytes,
        *,
        storage_class: str,
        with_tags: bool,
        redirect: str = "",
    ) -> Stored:
        """Copy an object of this service; it gets an ETag as if it was put whole."""
        self.refuse(bucket, key)
        found = await self._original(original)
        if len(found.data) > self.limits.max_put_size or (bucket, key) == original[:2]:
            raise Refused(f"{self._at(bucket, key)}: too large, or itself (400 InvalidRequest)")
        kept = copied_headers(found.headers, redirect)
        about = Attributes(kept, found.tags if with_tags else {}, storage_class or "STANDARD", 0)
        stored = self._made(found.data, hashlib.md5(found.data).hexdigest(), about)  # noqa: S324
        self._place(bucket, key, stored)
        return Stored(len(found.data), stored.etag, stored.checksums)

    async def create_multipart_upload(
        self, bucket: str, key: bytes, attributes: Attributes, size: int
    ) -> str:
        """Begin an upload."""
        await asyncio.sleep(0)
        self.refuse(bucket, key)
        self._contents(bucket)
        if size > self.limits.max_object_size:
            raise TooLarge(f"{self._at(bucket, key)}: {size} bytes are more than the store takes")
        self._upload_count += 1
        upload_id = f"{self.name}-upload-{self._upload_count}"
        self._uploads[upload_id] = MemoryUpload(bucket, key, attributes, self._now())
        return upload_id

    async def upload_part(
        self, bucket: str, key: bytes, upload_id: str, number: int, offset: int, body: Body
    ) -> Part:
        """Take a part; S3 numbers them, so *offset* is only checked to be possible."""
        upload = self._upload(bucket, key, upload_id)
        if not 1 <= number <= self.limits.max_parts or offset < 0:
            raise Refused(f"{self._at(bucket, key)}: part {number} at {offset} (InvalidArgument)")
        if body.size > self.limits.max_part_size:
            raise TooLarge(f"{self._at(bucket, key)}: part {number} has {body.size} bytes")
        data = await read_all(body)
        self._upload(bucket, key, upload_id)  # it may have been aborted meanwhile
        return upload.take(number, data, self._sums(data))

    async def upload_part_copy(
        self,
        original: Original,
        bucket: str,
        key: bytes,
        upload_id: str,
        number: int,
        span: Span,
    ) -> Part:
        """Take a span of an object of this service as a part."""
        found = await self._original(original)
        if not 0 <= span.start < span.stop <= len(found.data):
            raise Refused(f"{self._at(bucket, key)}: no bytes {span} to copy (400 InvalidArgument)")
        data = found.data[span.start : span.stop]
        return self._upload(bucket, key, upload_id).take(number, data, self._sums(data))

    async def list_parts(self, bucket: str, key: bytes, upload_id: str) -> list[Part]:
        """Give the parts that arrived, ascending."""
        await asyncio.sleep(0)
        parts = self._upload(bucket, key, upload_id).parts
        return [parts[number][1] for number in sorted(parts)]

    async def complete_multipart_upload(
        self, bucket: str, key: bytes, upload_id: str, parts: Sequence[Part]
    ) -> Stored:
        """Join the named parts, in order; a wrong list is refused and the upload stays."""
        await asyncio.sleep(0)
        upload = self._upload(bucket, key, upload_id)
        pieces = upload.pieces(parts, self._at(bucket, key), self.limits.min_part_size)
        data = b"".join(pieces)
        stored = self._made(data, multipart_etag(pieces), upload.attributes)
        stored.layout = tuple(len(piece) for piece in pieces)
        stored.headers = {**stored.headers, TOKEN_HEADER: upload.attributes.token}
        self._place(bucket, key, stored)
        del self._uploads[upload_id]
        return Stored(len(data), stored.etag, stored.checksums)

    async def abort_multipart_upload(self, bucket: str, key: bytes, upload_id: str) -> None:
        """Forget the upload; one that is gone already is no error."""
        await asyncio.sleep(0)
        upload = self._uploads.get(upload_id)
        if upload is not None and (upload.bucket, upload.key) == (bucket, key):
            del self._uploads[upload_id]

    async def list_multipart_uploads(self, bucket: str, prefix: bytes) -> list[Upload]:
        """Give the unfinished uploads by key."""
        await asyncio.sleep(0)
        self._contents(bucket)
        return sorted(
            Upload(upload.key, upload_id, upload.initiated)
            for upload_id, upload in self._uploads.items()
            if upload.bucket == bucket and upload.key.startswith(prefix)
        )

    async def settle(self, stored: Sequence[Stored]) -> list[Exception | None]:
        """S3 is durable when it answers: nothing is left to do."""
        return [None] * len(stored)

    async def digest(
        self, bucket: str, key: bytes, algorithm: str, part_size: int | None
    ) -> bytes | None:
        """Say nothing: an S3 would have to be read again for this."""
        del bucket, key, algorithm, part_size
        return None

    async def discard(self, bucket: str, key: bytes, stored: Stored) -> None:
        """Delete what was stored, under If-Match."""
        with suppress(SourceChanged):  # another one took its place: it stays
            await self.delete_object(bucket, key, etag=stored.etag)

    # --- inside -------------------------------------------------------------------------------

    def _at(self, bucket: str, key: bytes) -> str:
        return f"{self.name}:{bucket}/{key.decode(errors='backslashreplace')}"

    def _now(self) -> int:
        return int(self._clock() * 1000)

    def _sums(self, data: bytes) -> dict[str, str]:
        return {"crc64nvme": crc64(data)} if self._with_checksums else {}

    def _contents(self, bucket: str) -> Contents:
        contents = self._buckets.get(bucket)
        if contents is None:
            raise NoSuchBucket(f"{self.name}: bucket {bucket!r} does not exist")
        return contents

    def _found(self, bucket: str, key: bytes) -> MemoryObject:
        found = self._contents(bucket).objects.get(key)
        if found is None:
            raise SourceGone(f"{self._at(bucket, key)} does not exist (404 NoSuchKey)")
        return found

    async def _original(self, original: Original) -> MemoryObject:
        await asyncio.sleep(0)
        found = self._found(original.bucket, original.key)
        self._check_etag(original.bucket, original.key, found, original.etag)
        self._check_readable(original.bucket, original.key, found)
        return found

    def _check_etag(self, bucket: str, key: bytes, found: MemoryObject, etag: str) -> None:
        if etag and etag != found.etag:
            raise SourceChanged(
                f"{self._at(bucket, key)} changed (etag {etag} -> {found.etag}); plan it again"
            )

    def _upload(self, bucket: str, key: bytes, upload_id: str) -> MemoryUpload:
        upload = self._uploads.get(upload_id)
        if upload is None or (upload.bucket, upload.key) != (bucket, key):
            raise NoSuchUpload(f"{self._at(bucket, key)}: no upload {upload_id!r}; begin again")
        return upload

    def _made(self, data: bytes, etag: str, attributes: Attributes) -> MemoryObject:
        limits = self.limits
        return MemoryObject(
            data,
            etag,
            self._now(),
            attributes.storage_class if limits.carries_storage_class else "STANDARD",
            dict(attributes.headers) if limits.carries_headers else {},
            dict(attributes.tags) if limits.carries_tags else {},
            self._sums(data),
        )

    def _place(self, bucket: str, key: bytes, stored: MemoryObject) -> None:
        contents = self._contents(bucket)
        if key not in contents.objects:
            insort(contents.keys, key)
        contents.objects[key] = stored
