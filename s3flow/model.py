"""The words of s3flow as types: what is moved, from where to where, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from s3flow.policies import MethodPolicy, Mode, Overwrite, TagPolicy

MIB = 1024 * 1024
GIB = 1024 * MIB


class State(StrEnum):
    """Where an object version stands. The values are stored."""

    DISCOVERED = "discovered"
    RESTORE_REQUESTED = "restore_requested"
    RESTORING = "restoring"
    TRANSFERRING = "transferring"
    TRANSFERRED = "transferred"
    VERIFIED = "verified"
    DELETED = "deleted"
    SKIPPED = "skipped"
    FAILED = "failed"


class Outcome(StrEnum):
    """What people count: listed = pending + verified + deleted + skipped + failed."""

    PENDING = "pending"
    VERIFIED = "verified"
    DELETED = "deleted"
    SKIPPED = "skipped"
    FAILED = "failed"


OUTCOMES: Mapping[State, Outcome] = {
    State.DISCOVERED: Outcome.PENDING,
    State.RESTORE_REQUESTED: Outcome.PENDING,
    State.RESTORING: Outcome.PENDING,
    State.TRANSFERRING: Outcome.PENDING,
    State.TRANSFERRED: Outcome.PENDING,
    State.VERIFIED: Outcome.VERIFIED,
    State.DELETED: Outcome.DELETED,
    State.SKIPPED: Outcome.SKIPPED,
    State.FAILED: Outcome.FAILED,
}


class Method(StrEnum):
    """How the bytes went. ADOPTED: they were there already and were proven equal."""

    PUT = "put"
    MULTIPART = "multipart"
    SERVER_COPY = "server_copy"
    SERVER_MULTIPART = "server_multipart"
    ADOPTED = "adopted"


class Proof(StrEnum):
    """How equality was shown, strongest first. SIZE is weak and never enough to delete."""

    CHECKSUM = "checksum"
    ETAG = "etag"
    MD5 = "md5"
    READBACK = "readback"
    SIZE = "size"


class Span(NamedTuple):
    """The half-open byte range [start, stop)."""

    start: int
    stop: int

    @property
    def size(self) -> int:
        """Bytes in the span."""
        return self.stop - self.start


class Listed(NamedTuple):
    """One entry of a listing. Keys are bytes, exactly as the store has them."""

    key: bytes
    size: int
    etag: str  # without quotes
    modified: int  # milliseconds since the epoch
    storage_class: str


class Page(NamedTuple):
    """Entries in strictly ascending byte order of their keys; *last* when no page follows."""

    entries: list[Listed]
    last: bool


class KeyRange(NamedTuple):
    """A range of a bucket's keys that is listed by itself: start < key <= end (None: to the end).

    Its *start* names it. It is merged up to *cursor*.
    """

    start: bytes
    cursor: bytes
    end: bytes | None
    done: bool


class Bucket(NamedTuple):
    """A bucket as the account lists it."""

    name: str


@dataclass(slots=True)
class ObjectInfo:
    """What GET and HEAD say of an object.

    *headers* holds what travels with the object, by S3's own lower-case header names:
    content-type, content-encoding, content-disposition, content-language, cache-control,
    expires, x-amz-website-redirect-location and every x-amz-meta-*.
    *checksums* maps an algorithm ("crc64nvme", "crc32c", "sha256", …) to its full-object value,
    base64 as S3 sends it; composite ones (with "-N") are left out.
    """

    size: int
    etag: str
    modified: int = 0  # milliseconds since the epoch
    storage_class: str = "STANDARD"
    version_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    checksums: Mapping[str, str] = field(default_factory=dict)
    tag_count: int = 0
    encryption: str = ""  # "", "AES256", "aws:kms", "aws:kms:dsse", "customer"
    parts_count: int | None = None
    missing_metadata: int = 0  # x-amz-missing-meta: metadata that HTTP could not carry


class Part(NamedTuple):
    """A part that the target holds. *checksum* is its CRC64NVME in base64, if the target says so."""

    number: int  # from 1
    size: int
    etag: str
    checksum: str = ""
    encryption: str = ""  # as in ObjectInfo


class Sealed(dict[str, str]):
    """Headers with secrets among them, which show in no repr."""

    def __repr__(self) -> str:
        """Say how many there are."""
        return f"<{len(self)} headers>"


NOT_SEALED = Sealed()


class Original(NamedTuple):
    """The object version that a store is asked to copy by itself.

    *owner* is the account id that its bucket must belong to, "" for any. *opening*: headers without
    which the store cannot read it, or will not (a customer's key, who pays).
    """

    bucket: str
    key: bytes
    etag: str
    size: int
    owner: str = ""
    opening: Sealed = NOT_SEALED


class Upload(NamedTuple):
    """An unfinished multipart upload that a target holds."""

    key: bytes
    upload_id: str
    initiated: int  # milliseconds since the epoch


@dataclass(slots=True)
class Stored:
    """What the target answered when it took an object.

    *settle* is the target's own note for `Target.settle`, None when nothing is left to do.
    """

    size: int
    etag: str = ""
    checksums: Mapping[str, str] = field(default_factory=dict)
    version_id: str | None = None
    encryption: str = ""  # as in ObjectInfo: with a key, the ETag says nothing of the bytes
    settle: object | None = None


class Attributes(NamedTuple):
    """What goes with the bytes to the target: see `ObjectInfo.headers`; times in ms."""

    headers: Mapping[str, str]
    tags: Mapping[str, str]
    storage_class: str
    modified: int
    token: str = ""  # names the source version; written to the metadata of multipart uploads


@dataclass(frozen=True, slots=True)
class Limits:
    """What a target takes. Sizes in bytes."""

    min_part_size: int = 5 * MIB
    max_part_size: int = 5 * GIB
    max_parts: int = 10_000
    max_put_size: int = 5 * GIB
    max_object_size: int = 50 * 1000**4  # S3's limit since December 2025
    carries_headers: bool = True
    carries_tags: bool = True
    carries_storage_class: bool = True
    etags: bool = True  # answers with ETags that can be compared with the source's
    paths: bool = False  # keys are paths of a file system: `a` and `a/b` exclude each other


class Transfer(NamedTuple):
    """One object version that is to go to one target key, as the state holds it."""

    id: int
    flow: str
    bucket: str
    key: bytes
    size: int
    etag: str
    modified: int  # milliseconds since the epoch
    storage_class: str
    state: State
    generation: int  # fences late writers: a newer version or claim has a higher one
    attempts: int
    upload_id: str | None
    part_size: int | None


class Row(NamedTuple):
    """What discovery needs of a recorded object to decide about a listed one."""

    id: int
    key: bytes
    size: int
    etag: str
    state: State
    reason: str


@dataclass(slots=True)
class Change:
    """A transfer's new state, to be recorded under its generation."""

    transfer: Transfer
    state: State
    reason: str = ""
    message: str = ""
    method: str = ""
    proof: str = ""
    target_etag: str = ""
    attempts: int = 0
    retry_at: int = 0  # milliseconds since the epoch; a DISCOVERED change is not claimed before
    due_at: int = 0  # ms: when a restore is to be looked after, or the source of a move to be deleted
    upload_id: str | None = None
    part_size: int | None = None
    dropped: tuple[str, ...] = ()  # what the target could not carry: "tags", "content-type", …
    version_id: str = ""  # the source's name for the version that was copied, where it has one
    worker: int | None = None  # number of the worker process that did it; None: the daemon's own
    version: Listed | None = None  # what is at the source by now, when it is not what was listed


@dataclass(slots=True)
class Discovered:
    """A listed object that is new to the state, or changed, and what becomes of it."""

    entry: Listed
    state: State = State.DISCOVERED
    reason: str = ""
    message: str = ""
    method: str = ""
    proof: str = ""
    target_etag: str = ""


@dataclass(slots=True)
class PageChanges:
    """What one merged page does to the state, in one transaction with its cursor.

    *cursor* is the last key that was merged of the range that begins at *start*; *done* says that
    the listing of this range ended. With *cut*, a key behind the cursor, the range ends there from
    now on, and what follows is a range by itself.
    """

    bucket: str
    cursor: bytes
    done: bool
    listed: int
    listed_bytes: int
    new: list[Discovered] = field(default_factory=list)
    changed: list[tuple[int, Discovered]] = field(default_factory=list)  # by row id
    vanished: list[int] = field(default_factory=list)  # ids of rows that were pending or failed
    start: bytes = b""
    cut: bytes | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """One end of a flow, parsed from "endpoint:bucket/prefix".

    A source's *bucket* may be a glob; a target's may be "{bucket}". Local targets have the bucket "".
    """

    endpoint: str
    bucket: str
    prefix: bytes

    def __str__(self) -> str:
        """Give the place back as it is written in the configuration."""
        path = self.prefix.decode(errors="backslashreplace")
        return f"{self.endpoint}:{self.bucket}/{path}" if self.bucket else f"{self.endpoint}:{path}"


@dataclass(frozen=True, slots=True)
class Filters:
    """Which listed objects a flow takes. Globs match the key without the source's prefix."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_size: int | None = None
    max_size: int | None = None
    min_age: float | None = None  # seconds
    max_age: float | None = None  # seconds
    storage_classes: tuple[str, ...] = ()  # empty: all


@dataclass(frozen=True, slots=True)
class Flow:
    """One configured movement. Durations in seconds, sizes in bytes, rates per second; 0: no limit."""

    name: str
    source: Place
    target: Place
    filters: Filters = Filters()
    overwrite: Overwrite = Overwrite.CHANGED
    mode: Mode = Mode.COPY
    every: float | None = None
    tags: TagPolicy = TagPolicy.REQUIRE
    method: MethodPolicy = MethodPolicy.SERVER_FIRST
    storage_class: str = ""  # "": kept; else every object gets this one
    storage_class_map: Mapping[str, str] = field(default_factory=dict)
    rewrite: tuple[tuple[str, str], ...] = ()  # (from prefix, to prefix), first match wins
    exclude_buckets: tuple[str, ...] = ()
    multipart_threshold: int = 256 * MIB
    part_size: int = 32 * MIB
    lanes: int = 8  # parts of one object in flight
    list_concurrency: int = 8  # ranges of one bucket's keys that are listed at a time
    max_attempts: int = 8
    concurrency: int = 0
    max_bytes_per_s: int = 0
    max_requests_per_s: int = 0


class Total(NamedTuple):
    """One line of the totals that the state keeps as it goes: the counts always add up."""

    bucket: str
    state: State
    reason: str
    method: str
    proof: str
    objects: int
    bytes: int


class Sample(NamedTuple):
    """Work done since the flow's beginning, at a moment: rates and ETA come from these."""

    at: float  # seconds since the epoch
    objects: int
    bytes: int


class Verdict(NamedTuple):
    """Which way a flow's objects of a source bucket go, and why.

    *what* is "objects", or "parts" for those that a store copies in parts. *way* is one of
    `CopyBy`. Times in seconds since the epoch; it is looked at anew at *expires*, 0: never.
    """

    flow: str
    bucket: str
    what: str
    way: str
    reason: str
    decided: float
    expires: float


class Scan(NamedTuple):
    """One walk over a flow's source. *adopting*: the state knew nothing when it began."""

    id: int
    flow: str
    adopting: bool
    started: float  # seconds since the epoch


class ScanSummary(NamedTuple):
    """The last finished scan of a flow, and whether one is unfinished."""

    finished: float | None  # seconds since the epoch
    unfinished: bool
    listed: int
    drained: bool = True  # False: what the last one found was not all done when it was last known
