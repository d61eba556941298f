"""What stores hold and say of it: objects, their parts, and what goes with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

MIB = 1024 * 1024


GIB = 1024 * MIB


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


class Bucket(NamedTuple):
    """A bucket as the account lists it."""

    name: str


# Cannot be read before they are restored. What Intelligent-Tiering has archived, no listing shows.
ARCHIVES = frozenset({"GLACIER", "DEEP_ARCHIVE"})


class Restored(NamedTuple):
    """What HEAD says of an archived object's restore (x-amz-restore)."""

    ongoing: bool
    expiry: int = 0  # milliseconds since the epoch: when the copy goes; 0: not said


class RestoreAnswer(StrEnum):
    """What a store says to `restore_object`: all of it means that the object will be readable."""

    ACCEPTED = "accepted"  # 202
    IN_PROGRESS = "in progress"  # 409: somebody has asked before
    RESTORED = "restored"  # 200: a readable copy is there, or it never was archived


class RestoreEvent(NamedTuple):
    """Something that a store told of an object, of a completed restore or of anything else."""

    bucket: str
    key: bytes
    is_complete: bool


class RestoreNews(NamedTuple):
    """A message of a queue. *receipt* is the queue's own name for it."""

    events: tuple[RestoreEvent, ...]
    receipt: str


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
    restored: Restored | None = None  # as the next one, said by HEAD alone
    archive_status: str = ""  # of Intelligent-Tiering: "ARCHIVE_ACCESS", "DEEP_ARCHIVE_ACCESS"

    @property
    def is_frozen(self) -> bool:
        """Say whether it cannot be read now, by what HEAD says; a listing's class is no word on it."""
        if not self.archive_status and self.storage_class not in ARCHIVES:
            return False
        return self.restored is None or self.restored.ongoing


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


class Doomed(NamedTuple):
    """An object version that is to be deleted, and no other: by its *version_id*, else its ETag."""

    key: bytes
    etag: str
    version_id: str = ""


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
    source_version_id: str | None = None  # of what a store copied by itself


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
