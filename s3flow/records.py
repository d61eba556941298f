"""What the state tells of the past: the record of an object, and the facts of the audit trail."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from s3flow.model import State, Transfer


class Fact(StrEnum):
    """What can happen to an object that changes where it stands. The values are stored."""

    VERIFIED = "verified"  # transferred, and shown to be equal
    ADOPTED = "adopted"  # was at the target already, and was shown to be equal
    SKIPPED = "skipped"
    FAILED = "failed"
    DELETED = "deleted"  # at the source, after it was verified
    KEPT = "kept"  # at the source, though it was to be deleted after it was verified
    RETRIED = "retried"  # sent back to work by a person, after it had failed
    VANISHED = "vanished"  # at the source, before it was verified
    CHANGED = "changed"  # another version is at the source, after this one was done
    FORGOTTEN = "forgotten"  # the whole flow, by a person


class Audited(NamedTuple):
    """A row of a flow's audit trail: a fact, and the hash that chains it to the row before.

    *etag* and *size* are the source's; *version_id* is "" where it has none.
    """

    flow: str
    seq: int  # from 1, without gaps
    at: int  # milliseconds since the epoch
    fact: str
    bucket: str
    key: bytes
    size: int
    etag: str
    target_etag: str
    version_id: str
    method: str
    proof: str
    reason: str
    detail: str
    worker: str
    hash: str  # 64 hexadecimal digits


class Record(NamedTuple):
    """All that the state knows of an object. Times in milliseconds since the epoch."""

    bucket: str
    key: bytes
    size: int
    etag: str
    version_id: str
    modified: int
    storage_class: str
    state: State
    reason: str
    message: str
    method: str
    proof: str
    target_etag: str
    dropped: str  # what the target could not carry, by commas
    attempts: int
    discovered: int
    updated: int  # of a verified one: when that became durable


class Due(NamedTuple):
    """A transfer that something is to be done about by itself, and how its copy was made."""

    transfer: Transfer
    at: int  # milliseconds since the epoch
    method: str
    proof: str
    target_etag: str
    version_id: str  # "": none is known
    reason: str


class Scrubbed(NamedTuple):
    """How far a flow's copies were proven again, in the order of their keys, and when that was due."""

    bucket: str
    after: bytes  # the last key; b"" before the first of the bucket
    at: float  # seconds since the epoch


class Spent(NamedTuple):
    """What was asked to be restored within a time."""

    objects: int
    bytes: int
    first_at: int  # milliseconds since the epoch; 0: nothing was


MONEY = 10**12  # of these are one of the currency: whole numbers add up


class Spending(NamedTuple):
    """What a flow with a `max_cost` has spent, counted in `MONEY`.

    *aside* is kept for transfers of what is being restored. *bound* is what all of it may come to
    until this is noted again: what counts after a crash. *blocked*: what came next did not fit.
    """

    spent: int
    aside: int
    bound: int
    blocked: bool = False


class Hold(NamedTuple):
    """Why no source of a flow is deleted, and since when (epoch); *tripped*: no person said so."""

    why: str
    since: float
    tripped: bool = False


class ClassTotal(NamedTuple):
    """What was listed of one bucket and storage class."""

    bucket: str
    storage_class: str
    objects: int
    bytes: int


class ClassStates(NamedTuple):
    """The objects of one storage class that are in one state."""

    storage_class: str
    state: State
    objects: int
    bytes: int


class Unlisted(NamedTuple):
    """A source bucket that could not be listed to its end, and since when (epoch)."""

    bucket: str
    reason: str
    message: str
    since: float
