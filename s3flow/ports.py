"""What the engine asks of the world. Each contract here is checked by tests/contract over every adapter.

Errors are those of `s3flow.errors`; no library's own exception crosses a port. Every method may be
cancelled at any await and leaves nothing behind that a later call cannot see or repeat.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from s3flow.model import (
    Attributes,
    Bucket,
    Change,
    Flow,
    KeyRange,
    Limits,
    Listed,
    ObjectInfo,
    Original,
    Page,
    PageChanges,
    Part,
    Row,
    Sample,
    Scan,
    ScanSummary,
    Sealed,
    Span,
    State,
    Stored,
    Total,
    Transfer,
    Upload,
    Verdict,
)
from s3flow.records import Audited, Due, Record

# More may lie between two listed keys: those that vanished at the source, or were moved away. With
# the longest keys, eight listings that had 10,000 each in hand took 170 MiB.
ROWS_AT_ONCE = 2_500


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

    async def delete_object(self, bucket: str, key: bytes, *, etag: str) -> bool:
        """Delete the version that has *etag* (If-Match). False when it was gone already.

        Raises `SourceChanged` (412) and never deletes another version.
        """
        ...


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
        self, original: Original, bucket: str, key: bytes, *, storage_class: str, with_tags: bool
    ) -> Stored:
        """Copy a whole object inside the store, with its headers and, if asked, its tags.

        The *storage_class* "" leaves it to the store. Raises `SourceChanged` when the original has
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


class StateStore(Protocol):
    """What is known of every object, durable. One row an object; totals kept in the same transactions.

    A generation fences: a change whose transfer's generation is not the row's changes nothing.
    *trouble* says what of its database is waited for, in words without secrets; "" when it is well.
    """

    @property
    def trouble(self) -> str: ...

    async def open_flow(self, flow: Flow) -> None:
        """Begin, or continue, a flow. Raises `FlowChanged` if its source, target or mapping differ."""
        ...

    async def open_routes(self, flow: str, endpoints: str) -> list[Verdict]:
        """Give what is known of the ways that the flow's objects go.

        All of it is dropped when it was found out with other endpoints than those that *endpoints*
        tells from others.
        """
        ...

    async def keep_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Keep verdicts in the place of earlier ones about the same."""
        ...

    async def verdicts(self, flow: str) -> list[Verdict]:
        """Give what is known of the ways that the flow's objects go, by bucket; also what has expired."""
        ...

    async def begin_scan(self, flow: str) -> tuple[Scan, bool]:
        """Continue the unfinished scan (True) or begin one (False)."""
        ...

    async def ranges(self, scan: Scan, bucket: str) -> list[KeyRange]:
        """Give the ranges that the bucket's keys are listed in, in byte order and without gaps.

        None before the first page: the whole bucket is one range then.
        """
        ...

    async def rows(
        self, flow: str, bucket: str, after: bytes, upto: bytes | None, limit: int = ROWS_AT_ONCE
    ) -> list[Row]:
        """Give the first *limit* rows with after < key <= upto (None: to the end), in byte order."""
        ...

    async def known(self, flow: str, bucket: str, keys: Sequence[bytes]) -> set[bytes]:
        """Say which of *keys* have a row, skipped and failed ones left out."""
        ...

    async def apply_page(self, scan: Scan, changes: PageChanges) -> None:
        """Record a merged page, its cursor and the cut of its range in one transaction."""
        ...

    async def list_again(self, flow: str) -> None:
        """Let the unfinished scan list again the buckets that it has listed to their end.

        Those that could not be listed go on where they were.
        """
        ...

    async def finish_scan(self, scan: Scan) -> None: ...

    async def drained(self, flow: str) -> None:
        """Note that all that the last finished scan has found is done; until then it is not."""
        ...

    async def last_scan(self, flow: str) -> ScanSummary: ...

    async def claim(self, flow: str, limit: int) -> list[Transfer]:
        """Take up to *limit* pending transfers that nobody has; they stay claimed until saved.

        Interrupted ones (with an upload id) come first, then in the order of their discovery.
        """
        ...

    async def release(self, transfers: Sequence[Transfer]) -> None:
        """Give claimed transfers back unchanged."""
        ...

    async def save(self, changes: Sequence[Change]) -> None:
        """Record changes in one transaction and end their claims.

        An upload that a final change still names could not be aborted: it becomes an abandoned one.
        """
        ...

    async def remember_upload(self, transfer: Transfer, upload_id: str, part_size: int) -> Transfer:
        """Make the upload id durable before the first part is sent; the claim goes on.

        The id "" says that an upload is about to be asked for: a transfer that comes back from a
        crash as TRANSFERRING without an id may have left an upload that nobody knows.
        """
        ...

    async def uploads(self, flow: str) -> set[str]:
        """Give the upload ids that unfinished transfers of the flow will continue."""
        ...

    async def abandoned_uploads(self, flow: str) -> list[tuple[str, bytes, str]]:
        """Give (bucket, source key, upload id) of uploads whose version was superseded or is gone."""
        ...

    async def uploads_removed(self, flow: str, upload_ids: Sequence[str]) -> None:
        """Forget abandoned uploads: the target does not hold them any more."""
        ...

    async def due(self, flow: str, state: State, before: int, limit: int) -> list[Due]:
        """Give the first *limit* objects in *state* whose `due_at` is not after *before* (ms), by time.

        They are not claimed: one task of a flow has to do with each state that nobody claims from.
        """
        ...

    async def next_due(self, flow: str, state: State) -> int | None:
        """Say when the first object in *state* is due (milliseconds), None if none is."""
        ...

    async def totals(self, flow: str) -> list[Total]: ...

    async def dropped(self, flow: str) -> dict[str, int]:
        """Say of how many verified objects the target could not carry a field, by field."""
        ...

    async def failures(self, flow: str, limit: int) -> list[tuple[str, bytes, str, str]]:
        """Give (bucket, key, reason, message) of failed objects."""
        ...

    async def buckets(self, flow: str) -> list[str]:
        """Name the buckets that the flow has objects in, in the order of their names."""
        ...

    async def records(
        self, flow: str, bucket: str, after: bytes = b"", limit: int = ROWS_AT_ONCE
    ) -> list[Record]:
        """Give all that is known of the first *limit* objects with keys over *after*, in byte order."""
        ...

    async def audit(self, flow: str, after: int = 0, limit: int = ROWS_AT_ONCE) -> list[Audited]:
        """Give the first *limit* facts of the flow with numbers over *after*: also of a forgotten one.

        A fact is there if and only if the change that it tells of is.
        """
        ...

    async def sample(self, flow: str, sample: Sample) -> None:
        """Keep a sample for the rate; old ones are dropped."""
        ...

    async def samples(self, flow: str) -> list[Sample]: ...

    async def retry(self, flow: str, reason: str | None) -> int:
        """Send failed objects (of one reason) back to work; says how many."""
        ...

    async def next_retry(self, flow: str) -> float | None:
        """Say when the next waiting transfer may be claimed (seconds since the epoch), None if none waits."""
        ...

    async def forget(self, flow: str) -> bool:
        """Drop all that is known of a flow; False when nothing was."""
        ...

    async def close(self) -> None: ...


Clock = Callable[[], float]
