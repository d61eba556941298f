"""What the configuration says is moved: from where, to where, and how."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from s3flow.model.objects import MIB
from s3flow.policies import (
    DeletePolicy,
    MethodPolicy,
    Mode,
    Overwrite,
    RestorePolicy,
    RestoreTier,
    TagPolicy,
)


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
    delete: DeletePolicy = DeletePolicy.MARKER
    delete_after: float = 0.0  # seconds from the proof to the delete
    unguarded_delete: bool = (
        False  # where the store knows no conditional deletes: look, then delete
    )
    max_corrupted: float = 0.05  # share of failed proofs from which on nothing is deleted
    max_missing: float = 0.5  # share that a listing lacks of the last one, likewise
    every: float | None = None
    scrub: float = 0.0  # share of the copies that is proven again each day; 0: none
    tags: TagPolicy = TagPolicy.REQUIRE
    method: MethodPolicy = MethodPolicy.SERVER_FIRST
    storage_class: str = ""  # "": kept; else every object gets this one
    storage_class_map: Mapping[str, str] = field(default_factory=dict)
    rewrite: tuple[tuple[str, str], ...] = ()  # (from prefix, to prefix), first match wins
    exclude_buckets: tuple[str, ...] = ()
    multipart_threshold: int = 256 * MIB
    part_size: int = 32 * MIB
    lanes: int = 8  # parts of one object in flight
    list_concurrency: int = 8  # buckets, or ranges of their keys, listed at a time
    max_attempts: int = 8
    concurrency: int = 0
    max_bytes_per_s: int = 0
    max_requests_per_s: int = 0
    restore: RestorePolicy = RestorePolicy.AUTO
    restore_tier: RestoreTier = RestoreTier.STANDARD
    restore_days: int = 7  # for which the readable copy stays
    restore_fallback: bool = True  # to Standard, where Expedited cannot be had
    max_restores: int = 100  # asked for and not yet readable
    restore_poll: float = 0.0  # seconds until the first look at a restore; 0: as the tier takes
    restore_objects_per_day: int = 0
    restore_bytes_per_day: int = 0
    max_cost: float = 0.0  # that may be spent, in *currency*; 0: no limit
    currency: str = "USD"  # of the prices
    restore_queue: str = ""  # URL of an SQS queue that tells of completed restores

    def reads(self, bucket: str) -> bool:
        """Say whether *bucket* is meant by the source, and not left out."""
        left_out = any(fnmatchcase(bucket, glob) for glob in self.exclude_buckets)
        return fnmatchcase(bucket, self.source.bucket) and not left_out
