"""What a flow may choose between."""

from __future__ import annotations

from enum import StrEnum


class Overwrite(StrEnum):
    """What happens to an object that is at the target key already."""

    CHANGED = "changed"
    NEVER = "never"
    ALWAYS = "always"


class Mode(StrEnum):
    """COPY leaves the source alone; MOVE deletes what is proven."""

    COPY = "copy"
    MOVE = "move"


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
