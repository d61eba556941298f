"""Where each object stands, what is to be recorded of it, and what is counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from s3flow.model.objects import Listed


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


# What stands among the abandoned uploads for one whose id nobody knows: whatever is open at the key. The
# rest of it tells it from the others.
UNKNOWN_UPLOAD = "unknown:"


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
    due_at: int = (
        0  # ms: when a restore is to be looked after, or the source of a move to be deleted
    )
    upload_id: str | None = None
    part_size: int | None = None
    dropped: tuple[str, ...] = ()  # what the target could not carry: "tags", "content-type", …
    version_id: str = ""  # the source's name for the version that was copied, where it has one
    worker: int | None = None  # number of the worker process that did it; None: the daemon's own
    version: Listed | None = None  # what is at the source by now, when it is not what was listed


@dataclass(slots=True)
class Discovered:
    """A listed object that is new to the state, or changed, and what becomes of it.

    *again*: it goes once more although the state is done with this very version.
    """

    entry: Listed
    state: State = State.DISCOVERED
    reason: str = ""
    message: str = ""
    method: str = ""
    proof: str = ""
    target_etag: str = ""
    again: bool = False


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
    classes: dict[str, tuple[int, int]] = field(default_factory=dict)  # objects, bytes listed
    back: list[tuple[int, Listed]] = field(default_factory=list)  # deleted once: to be looked at


class KeyRange(NamedTuple):
    """A range of a bucket's keys that is listed by itself: start < key <= end (None: to the end).

    Its *start* names it. It is merged up to *cursor*.
    """

    start: bytes
    cursor: bytes
    end: bytes | None
    done: bool


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
