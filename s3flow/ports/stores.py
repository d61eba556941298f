"""Where objects come from and go to, and the bytes on their way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from s3flow.model import (
    Attributes,
    Bucket,
    Doomed,
    Limits,
    Listed,
    ObjectInfo,
    Original,
    Page,
    Part,
    RestoreAnswer,
    RestoreNews,
    Sealed,
    Span,
    Stored,
    Upload,
)
from s3flow.policies import Guard


class Body(Protocol):
    """The bytes of an object, or of a span of it, in chunks; and what the answer said of the object.

    `read` gives the next chunk, which is valid until the next call only, and an empty one at the
    end. It raises `Truncated` when fewer than *size* bytes arrive, `BadAnswer` for more, `Stalled`
    when they stop coming. Whoever opened a body closes it; closing twice is harmless, and closing
    early drops the connection rather than reuse a dirty one.
    """

    info: ObjectInfo
    size: int

    async def read(self) -> memoryview: ...

    def close(self) -> None: ...


class Digest(Protocol):
    """A running checksum, as hashlib has them."""

    def update(self, data: memoryview, /) -> None: ...

    def digest(self) -> bytes: ...


class Crc64(Protocol):
    """CRC64NVME, which hashlib lacks: `new` starts one, `combine` joins those of adjacent spans."""

    def new(self) -> Digest: ...

    def combine(self, first: bytes, second: bytes, second_size: int) -> bytes: ...


class Source(Protocol):
    """Where objects come from. Keys are bytes and go out exactly as they came in.

    *service* names what answers: a target of the same service may copy from here by itself.
    *owner* is the account id that its buckets must belong to, "" for any; *opening* is what a copy
    from here by its store has to say as well.
    """

    name: str
    service: str
    owner: str
    opening: Sealed

    async def list_buckets(self) -> list[Bucket]: ...

    async def list_page(self, bucket: str, prefix: bytes, after: bytes) -> Page:
        """List keys that start with *prefix* and are greater than *after*, in byte order.

        Raises `BadAnswer` when the order or the paging does not advance.
        """
        ...

    async def get_object(
        self, bucket: str, key: bytes, *, etag: str, span: Span | None = None
    ) -> Body:
        """Open the version that has *etag* (If-Match), or *span* of it.

        Raises `SourceChanged` (412), `SourceGone` (404), `Archived`; `BadAnswer` when the answer's
        Content-Range is not the span that was asked for.
        """
        ...

    async def head_object(
        self, bucket: str, key: bytes, *, part_number: int | None = None
    ) -> ObjectInfo | None:
        """Say what is there, or None. With *part_number*, size is that part's, where stores know it."""
        ...

    async def get_object_tagging(self, bucket: str, key: bytes) -> dict[str, str]: ...

    async def is_website(self, bucket: str) -> bool:
        """Say whether the bucket is known to be a website, whose objects may redirect."""
        ...

    async def restore_object(
        self, bucket: str, key: bytes, *, version_id: str | None, days: int | None, tier: str
    ) -> RestoreAnswer:
        """Ask for a readable copy of an archived object, for *days*.

        None is for Intelligent-Tiering, where the object itself comes back. Raises
        `ExpeditedUnavailable`, `SourceGone`.
        """
        ...

    async def delete_object(self, bucket: str, key: bytes, *, etag: str) -> bool:
        """Delete the version that has *etag* (If-Match). False when it was gone already.

        Raises `SourceChanged` (412) and never deletes another version.
        """
        ...

    async def delete_objects(
        self, bucket: str, doomed: Sequence[Doomed], guard: Guard
    ) -> list[Exception | None]:
        """Delete up to 1,000 versions; one answer for each, None for what is done.

        An answer is `SourceGone` for what was gone already, `SourceChanged` where another version
        is there, which stays; of any but a `Permanent` one, what became of it is unknown. With
        `Guard.NOT` it is looked just before each, and nothing relies on the store's comparing.
        """
        ...

    async def guard_of(self, bucket: str, prefix: bytes, name: str) -> Guard:
        """Find out, by a probe object below *prefix*, whether the store compares before it deletes.

        At a time only one may ask for a *name*, which ends the probe's key: another would remove it.

        Raises `AccessDenied` where none may be written.
        """
        ...


class RestoreQueue(Protocol):
    """What tells of completed restores."""

    async def receive(self) -> list[RestoreNews]:
        """Wait for news, some seconds; what is not removed comes again."""
        ...

    async def remove(self, news: Sequence[RestoreNews]) -> None: ...

    async def close(self) -> None: ...


class Target(Protocol):
    """Where objects go. Nobody ever sees a partial object under its key.

    *service* names what answers, as a source's does; "" for what copies nothing by itself.
    """

    name: str
    service: str
    limits: Limits

    def refuse(self, bucket: str, key: bytes) -> None:
        """Raise `NameRefused` or a subclass if this target cannot hold *key* exactly. No I/O."""
        ...

    async def find(self, bucket: str, keys: Sequence[bytes]) -> Mapping[bytes, Listed]:
        """Say which of the ascending *keys* exist, for the price of a listing where possible.

        Stores without ETags (local files) answer with etag "".
        """
        ...

    async def head_object(self, bucket: str, key: bytes) -> ObjectInfo | None: ...

    async def put_object(
        self, bucket: str, key: bytes, body: Body, attributes: Attributes, *, md5: bytes | None
    ) -> Stored:
        """Take a whole object. With *md5* the target refuses other bytes (`Corrupted`).

        Raises `TargetFull`, `TargetUnavailable` (`Blocked`). A body that raises ends the request
        and leaves nothing at the key.
        """
        ...

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
        """Copy a whole object inside the store, with its headers and, if asked, its tags.

        Where its website *redirect* goes to is the one header that does not come by itself. The
        *storage_class* "" leaves it to the store. Raises `SourceChanged` when the original has
        another ETag (If-Match), `SourceGone`, or a `Permanent` error when the store does not do it.
        After `ConnectionLost` and `Stalled` the copy may be there; asking again does no harm.
        """
        ...

    async def create_multipart_upload(
        self, bucket: str, key: bytes, attributes: Attributes, size: int
    ) -> str:
        """Begin an upload that survives this process; returns its id."""
        ...

    async def upload_part(
        self, bucket: str, key: bytes, upload_id: str, number: int, offset: int, body: Body
    ) -> Part:
        """Take part *number*, which starts at *offset* of the object. Sending it again replaces it.

        Raises `NoSuchUpload`.
        """
        ...

    async def upload_part_copy(
        self,
        original: Original,
        bucket: str,
        key: bytes,
        upload_id: str,
        number: int,
        span: Span,
    ) -> Part:
        """Make *span* of an object inside the store part *number*; otherwise as `copy_object`.

        Raises `NoSuchUpload`.
        """
        ...

    async def list_parts(self, bucket: str, key: bytes, upload_id: str) -> list[Part]:
        """Say which parts are safely there, in ascending order. Raises `NoSuchUpload`."""
        ...

    async def complete_multipart_upload(
        self, bucket: str, key: bytes, upload_id: str, parts: Sequence[Part]
    ) -> Stored:
        """Make the parts the object. Raises `NoSuchUpload`; a lost answer is `ConnectionLost`."""
        ...

    async def abort_multipart_upload(self, bucket: str, key: bytes, upload_id: str) -> None:
        """Remove the upload and its parts; one that is gone already is no error."""
        ...

    async def list_multipart_uploads(self, bucket: str, prefix: bytes) -> list[Upload]: ...

    async def settle(self, stored: Sequence[Stored]) -> list[Exception | None]:
        """Make durable what put and complete returned, many at once; one answer for each.

        Until then an object may be missing under its key after a power loss, never partial.
        """
        ...

    async def digest(
        self, bucket: str, key: bytes, algorithm: str, part_size: int | None
    ) -> bytes | None:
        """Hash what the target holds where that costs no transfer (local files), else None.

        "md5" or "crc64nvme" of the whole; with *part_size*, MD5 over the MD5s of such parts.
        Works on an object that is stored but not settled yet.
        """
        ...

    async def discard(self, bucket: str, key: bytes, stored: Stored) -> None:
        """Remove what put or complete stored, because it is not equal to its source.

        Only that: another object at the key, older or newer, stays (If-Match where supported).
        """
        ...


Clock = Callable[[], float]


@runtime_checkable
class Flushing(Protocol):
    """A target whose objects others may have written without waiting until they are durable."""

    async def flush(self, bucket: str, keys: Sequence[bytes]) -> None:
        """Make durable what is under *keys*."""
        ...
