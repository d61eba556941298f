"""What the engine asks of the world. Each contract here is checked by tests/contract over every adapter.

Errors are those of `s3flow.errors`; no library's own exception crosses a port. Every method may be
cancelled at any await and leaves nothing behind that a later call cannot see or repeat.
"""

from __future__ import annotations

from s3flow.ports.state import (
    ROWS_AT_ONCE,
    Holds,
    StateStore,
    Wishes,
)
from s3flow.ports.stores import (
    Body,
    Clock,
    Crc64,
    Digest,
    Flushing,
    RestoreQueue,
    Source,
    Target,
)

__all__ = [
    "ROWS_AT_ONCE",
    "Body",
    "Clock",
    "Crc64",
    "Digest",
    "Flushing",
    "Holds",
    "RestoreQueue",
    "Source",
    "StateStore",
    "Target",
    "Wishes",
]
