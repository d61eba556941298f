"""Deletes of the store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from s3flow.errors import AccessDenied, Refused, S3flowError, SourceGone
from s3flow.model import Doomed
from s3flow.policies import Guard
from s3flow.stores.memory_object import Contents, MemoryObject

AT_ONCE = 1000


class MemoryRemovals:
    """The part of a store that deletes. Versions are not kept: a version id is an ETag's other name."""

    _guard: Guard
    _contents: Callable[[str], Contents]
    _check_etag: Callable[[str, bytes, MemoryObject, str], None]

    async def delete_object(self, bucket: str, key: bytes, *, etag: str) -> bool:
        """Delete under If-Match; an empty *etag* means any version."""
        await asyncio.sleep(0)
        contents = self._contents(bucket)
        found = contents.objects.get(key)
        if found is None:
            return False
        self._check_etag(bucket, key, found, etag)
        if found.locked:
            raise AccessDenied(f"{bucket}/{key!r} is under a legal hold (403 AccessDenied)")
        del contents.objects[key]
        contents.keys.remove(key)
        return True

    async def delete_objects(
        self, bucket: str, doomed: Sequence[Doomed], guard: Guard
    ) -> list[Exception | None]:
        """Delete as S3 does with per-key ETags; a store that ignores these looks itself if told to."""
        if len(doomed) > AT_ONCE:
            raise Refused(f"{len(doomed)} keys are more than a request takes (MalformedXML)")
        answers: list[Exception | None] = []
        heeded = self._guard is not Guard.NOT or guard is Guard.NOT
        for key, etag, _ in doomed:
            answer: Exception | None = None
            try:
                if not await self.delete_object(bucket, key, etag=etag if heeded else ""):
                    answer = SourceGone(f"{bucket}/{key!r} does not exist (404 NoSuchKey)")
            except S3flowError as error:
                answer = error
            answers.append(answer)
        return answers

    async def guard_of(self, bucket: str, prefix: bytes, name: str) -> Guard:
        """Say what the store was made to do."""
        del prefix, name
        await asyncio.sleep(0)
        self._contents(bucket)
        return self._guard
