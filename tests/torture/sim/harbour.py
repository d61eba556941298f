"""A target whose objects get their names late, as files do: when they are settled."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from dataclasses import replace
from itertools import count
from typing import Any

from s3flow.errors import TargetUnavailable
from s3flow.model import Attributes, Part, Stored
from s3flow.ports import Body
from s3flow.stores.memory import MemoryStore
from s3flow.stores.memory_object import MemoryObject

_PLACE: ContextVar[int] = ContextVar(
    "place", default=0
)  # where what is taken now waits; 0: nowhere


class Harbour(MemoryStore):
    """What came waits nameless until it is settled. What a dead process left waits for ever."""

    def __init__(self, *names: str, **settings: Any) -> None:
        super().__init__(*names, **settings)
        self.service = ""  # none copies inside it
        self._waiting: dict[int, tuple[str, bytes, MemoryObject]] = {}
        self._numbers = count(1)

    async def put_object(
        self, bucket: str, key: bytes, body: Body, attributes: Attributes, *, md5: bytes | None
    ) -> Stored:
        """Take an object."""
        number = next(self._numbers)
        _PLACE.set(number)
        try:
            stored = await super().put_object(bucket, key, body, attributes, md5=md5)
        finally:
            _PLACE.set(0)
        return replace(stored, settle=number)

    async def complete_multipart_upload(
        self, bucket: str, key: bytes, upload_id: str, parts: Sequence[Part]
    ) -> Stored:
        """Take one in parts."""
        number = next(self._numbers)
        _PLACE.set(number)
        try:
            stored = await super().complete_multipart_upload(bucket, key, upload_id, parts)
        finally:
            _PLACE.set(0)
        return replace(stored, settle=number)

    async def settle(self, stored: Sequence[Stored]) -> list[Exception | None]:
        """Give them their names."""
        return [self._settled(each) for each in stored]

    async def discard(self, bucket: str, key: bytes, stored: Stored) -> None:
        """Let go of one."""
        if self._waiting.pop(_number(stored), None) is None:
            await super().discard(bucket, key, stored)

    def _settled(self, stored: Stored) -> Exception | None:
        found = self._waiting.pop(_number(stored), None)
        if found is None:
            return TargetUnavailable("nothing waits for this name")
        super()._place(*found)
        return None

    def _place(self, bucket: str, key: bytes, stored: MemoryObject) -> None:
        if number := _PLACE.get():
            self._waiting[number] = (bucket, key, stored)
        else:
            super()._place(bucket, key, stored)


def _number(stored: Stored) -> int:
    return stored.settle if isinstance(stored.settle, int) else 0
