"""Whether a source that goes in parts was read as it is: its MD5, where nothing cheaper would tell."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from s3flow.errors import Corrupted
from s3flow.model import Part, Proof

if TYPE_CHECKING:
    from hashlib import _Hash


def _md5() -> _Hash:
    return hashlib.md5(usedforsecurity=False)


@dataclass(slots=True)
class Reading:
    """The MD5 of an object's first parts, as this process read them: in order, or it never comes out.

    That the target has each part as it passed here does not show that it passed as it was: over plain
    HTTP nothing guards it, and a store may hold bad bytes. A CRC64NVME of the whole is made of those of
    the parts, in whatever order they come; an MD5 is not, and it is all that many stores tell.

    It outlives an attempt that fails, with what was found of each part: what was read is not read again.
    """

    md5: _Hash = field(default_factory=_md5)
    etags: list[str] = field(default_factory=list)  # of the parts that were read, at the target
    proofs: dict[int, Proof] = field(default_factory=dict)
    crcs: dict[int, bytes] = field(default_factory=dict)

    def holds(self, done: Mapping[int, Part]) -> bool:
        """Say whether the target still has what was read."""
        return all(
            number in done and done[number].etag == etag
            for number, etag in enumerate(self.etags, 1)
        )

    def check(self, stated: bytes) -> None:
        """Compare what was read with what the source states. Raises `Corrupted`."""
        if self.md5.digest() != stated:
            raise Corrupted(f"MD5 {stated.hex()} became {self.md5.hexdigest()} on the way")


def resumed(readings: dict[str, Reading], upload_id: str, done: Mapping[int, Part]) -> Reading:
    """Give the reading of an upload to go on with, a new one if the target has other parts by now."""
    known = readings.get(upload_id)
    if known is None or not known.holds(done):
        known = readings[upload_id] = Reading()
    return known
