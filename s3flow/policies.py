"""What a flow may choose between."""

from __future__ import annotations

from enum import StrEnum

# Why the source of a proven copy stays, where no error says it: nothing but the sizes was compared.
WEAK_PROOF = "weak_proof"
VERIFICATION_FAILED = "verification_failed"  # of a copy that was proven, and is not equal any more
LOST_METADATA = "unreadable-metadata"  # also the name of the field that the target lacks


class Overwrite(StrEnum):
    """What happens to an object that is at the target key already."""

    CHANGED = "changed"
    NEVER = "never"
    ALWAYS = "always"


class Mode(StrEnum):
    """COPY leaves the source alone; MOVE deletes what is proven."""

    COPY = "copy"
    MOVE = "move"


class DeletePolicy(StrEnum):
    """What a move does in a versioned bucket: puts a MARKER over the object, or removes its VERSION."""

    MARKER = "marker"
    VERSION = "version"


class Guard(StrEnum):
    """How a store keeps a delete from hitting another version: EACH of many, ONE at a time, NOT at all."""

    EACH = "each"
    ONE = "one"
    NOT = "not"


class TagPolicy(StrEnum):
    """What happens to tags: REQUIRE fails an object whose tags cannot be read, DROP never reads them."""

    REQUIRE = "require"
    BEST_EFFORT = "best_effort"
    DROP = "drop"


class MethodPolicy(StrEnum):
    """Which methods a flow may use: copies inside the store where that works, never, or nothing else."""

    SERVER_FIRST = "server-first"
    STREAM_ONLY = "stream-only"
    SERVER_ONLY = "server-only"


class CopyBy(StrEnum):
    """Whose credentials ask a store for copies; or that nobody's do, and bytes pass through here."""

    TARGET = "target's credentials"
    SOURCE = "source's credentials"
    STREAMED = "streamed"


class RestorePolicy(StrEnum):
    """What happens to an archived object: AUTO has it restored, NEVER lets it fail."""

    AUTO = "auto"
    NEVER = "never"


class RestoreTier(StrEnum):
    """How fast, and for how much money, archived objects are restored; the names are S3's."""

    STANDARD = "Standard"
    BULK = "Bulk"
    EXPEDITED = "Expedited"
