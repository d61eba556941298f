"""Archive tiers of the store in memory: what is frozen, thaws when asked, and freezes again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from s3flow.errors import Archived, ExpeditedUnavailable, NotArchived, Refused
from s3flow.model import ARCHIVES, ObjectInfo, RestoreAnswer, Restored
from s3flow.stores.memory_object import Contents, MemoryObject

DAY = 86_400_000  # milliseconds


class MemoryArchive:
    """The part of a store that restores. Time is the store's clock's alone.

    *restore_seconds* is how long a restore takes, *expedites* whether Expedited can be had. *asked*
    has what was asked for and granted, in its order.
    """

    restore_seconds: float = 0.0
    expedites: bool = True
    asked: list[tuple[bytes, int | None, str]]
    _contents: Callable[[str], Contents]
    _found: Callable[[str, bytes], MemoryObject]
    _at: Callable[[str, bytes], str]
    _now: Callable[[], int]

    def restore(self, bucket: str, key: bytes) -> None:
        """Make an archived object readable, for ever."""
        found = self._contents(bucket).objects[key]
        found.thaws_at, found.freezes_at = 0, 0

    async def restore_object(
        self, bucket: str, key: bytes, *, version_id: str | None, days: int | None, tier: str
    ) -> RestoreAnswer:
        """Begin to thaw; what thaws already says so, and what is readable stays so for longer."""
        del version_id
        await asyncio.sleep(0)
        found, now = self._found(bucket, key), self._now()
        intelligent = bool(found.archive_status)
        if not intelligent and found.storage_class not in ARCHIVES:
            raise NotArchived(f"{self._at(bucket, key)} is in {found.storage_class}")
        if (days is None) is not intelligent:
            raise Refused(f"{self._at(bucket, key)}: Days are for GLACIER and DEEP_ARCHIVE alone")
        if tier == "Expedited" and not self.expedites:
            raise ExpeditedUnavailable(f"{self._at(bucket, key)}: try again later, or by Standard")
        until = 0 if days is None else days * DAY
        restored = restored_of(found, now)
        if restored is not None and restored.ongoing:
            return RestoreAnswer.IN_PROGRESS
        self.asked.append((key, days, tier))
        if restored is not None:
            found.freezes_at = now + until
            return RestoreAnswer.RESTORED
        found.thaws_at = now + int(self.restore_seconds * 1000)
        found.freezes_at = found.thaws_at + until if until else 0
        return RestoreAnswer.ACCEPTED

    def _check_readable(self, bucket: str, key: bytes, found: MemoryObject) -> None:
        info = ObjectInfo(0, "", storage_class=found.storage_class)
        note_archive(info, found, self._now())
        if info.is_frozen:
            raise Archived(f"{self._at(bucket, key)} is in {found.storage_class}; restore it first")


def restored_of(found: MemoryObject, now: int) -> Restored | None:
    """Say what HEAD says of a restore at *now* (milliseconds)."""
    if found.thaws_at is None or (found.freezes_at and now >= found.freezes_at):
        return None
    if now < found.thaws_at:
        return Restored(ongoing=True)
    return Restored(ongoing=False, expiry=found.freezes_at)


def note_archive(info: ObjectInfo, found: MemoryObject, now: int) -> None:
    """Add what HEAD alone says. What Intelligent-Tiering has thawed is in no archive any more."""
    restored = restored_of(found, now)
    if found.archive_status:
        thawed = restored is not None and not restored.ongoing
        info.archive_status = "" if thawed else found.archive_status
        info.restored = None if thawed else restored
        return
    info.restored = restored
