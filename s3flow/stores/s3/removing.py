"""Deletes at a source: of one version and no other, many in a request where the store can be trusted."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import os
import time
from collections.abc import Sequence
from typing import Protocol
from xml.sax.saxutils import escape

from s3flow import errors
from s3flow.lanes import answers_of
from s3flow.model import Attributes, Doomed, ObjectInfo, Page, Stored
from s3flow.policies import Guard
from s3flow.ports import Body
from s3flow.probes import DELETE_BYTES, DELETE_PROBE, PROBE_LEFT, is_certain
from s3flow.stores.s3.answers import readable
from s3flow.stores.s3.rest import ERROR_LIMIT, Call, Rest
from s3flow.stores.s3.translate import Failure
from s3flow.wire.sigv4 import canonical_query, quote_value
from s3flow.wire.xml import Document, parse_document

AT_ONCE = 1000  # keys of one request
ANSWER_LIMIT = 16 * 1024 * 1024  # bytes
_ABOUT = Attributes({}, {}, "STANDARD", 0)
# DeleteObjects tells of each key by a code alone.
_STATUS = {
    "PreconditionFailed": 412,
    "NoSuchKey": 404,
    "NoSuchVersion": 404,
    "AccessDenied": 403,
    "MethodNotAllowed": 405,
    "InvalidRequest": 400,
    "InvalidArgument": 400,
    "NotImplemented": 501,
    "ConditionalRequestConflict": 409,
}
_UNKNOWN = 500  # tried again, and told by its code in the end

_log = logging.getLogger(__name__)


class Contents(Protocol):
    """What else is asked of the store that deletes."""

    async def head_object(self, bucket: str, key: bytes) -> ObjectInfo | None: ...

    async def list_page(self, bucket: str, prefix: bytes, after: bytes) -> Page: ...

    async def put_object(
        self, bucket: str, key: bytes, body: Body, attributes: Attributes, *, md5: bytes | None
    ) -> Stored: ...


class _ProbeBody:
    """The probe's bytes as a body."""

    def __init__(self) -> None:
        self.info = ObjectInfo(len(DELETE_BYTES), "")
        self.size = len(DELETE_BYTES)
        self._left = DELETE_BYTES

    async def read(self) -> memoryview:
        """Give all, then nothing."""
        chunk, self._left = self._left, b""
        return memoryview(chunk)

    def close(self) -> None:
        """Nothing is held."""


class Removals:
    """Deletes of one endpoint."""

    def __init__(self, rest: Rest, contents: Contents) -> None:
        self._rest = rest
        self._contents = contents
        self._takes_none: set[str] = set()  # buckets that refuse all conditions of a delete

    async def delete_objects(
        self, bucket: str, doomed: Sequence[Doomed], guard: Guard
    ) -> list[Exception | None]:
        """Delete versions as far as *guard* allows it at a time; one answer for each, None: done."""
        together = [each for each in doomed if guard is Guard.EACH and _is_plain(each.key)]
        answers: dict[Doomed, Exception | None] = {}
        if len(together) > 1:
            for start in range(0, len(together), AT_ONCE):
                answers.update(await self._batch(bucket, together[start : start + AT_ONCE]))
        singly = [each for each in doomed if each not in answers]
        look = guard is Guard.NOT

        async def one(each: Doomed) -> None:
            await self._one(bucket, each, look=look)

        answers.update(zip(singly, await answers_of(singly, one), strict=True))
        return [answers[each] for each in doomed]

    async def _one(self, bucket: str, doomed: Doomed, *, look: bool) -> None:
        """Delete one version. *look*: the store may delete whatever is there, so it is seen first."""
        condition = {"if-match": f'"{doomed.etag}"'}
        if doomed.version_id:
            query = f"versionId={quote_value(doomed.version_id)}"
            await self._delete(bucket, doomed.key, query, {})
        elif not look:
            await self._delete(bucket, doomed.key, "", condition)
        else:
            await self._look_and_delete(bucket, doomed, condition)

    async def _look_and_delete(
        self, bucket: str, doomed: Doomed, condition: dict[str, str]
    ) -> None:
        """Delete what is as it was, under a condition all the same: then nothing is lost that is new.

        A bucket that twice refuses the condition of what has not changed understands none.
        """
        for _ in range(2):
            await self._see(bucket, doomed)
            if bucket in self._takes_none:
                break
            with contextlib.suppress(errors.SourceChanged, errors.Refused):
                await self._delete(bucket, doomed.key, "", condition)
                return
        else:
            await self._see(bucket, doomed)
            self._takes_none.add(bucket)
        await self._delete(bucket, doomed.key, "", {})

    async def _see(self, bucket: str, doomed: Doomed) -> None:
        """Raise `SourceGone` or `SourceChanged` if this version is not there any more."""
        info = await self._contents.head_object(bucket, doomed.key)
        where = self._rest.where(bucket, doomed.key)
        if info is None:
            raise errors.SourceGone(f"DeleteObject {where}: it is gone already")
        if info.etag != doomed.etag:
            raise errors.SourceChanged(
                f"DeleteObject {where}: it changed (etag {doomed.etag} -> {info.etag}) and stays"
            )

    async def _delete(self, bucket: str, key: bytes, query: str, headers: dict[str, str]) -> None:
        response = await self._rest.send(
            Call("DeleteObject", "DELETE", bucket, key, query, headers)
        )
        await response.read_all(ERROR_LIMIT)

    async def _batch(self, bucket: str, doomed: Sequence[Doomed]) -> dict[Doomed, Exception | None]:
        body = _named(doomed)
        digest = hashlib.md5(body, usedforsecurity=False).digest()
        headers = {
            "content-md5": base64.b64encode(digest).decode(),
            "content-type": "application/xml",
        }
        call = Call("DeleteObjects", "POST", bucket, None, "delete=", headers)
        response = await self._rest.send(call, body)
        said = readable(await response.read_all(ANSWER_LIMIT))
        if b"<DeleteResult" not in said and b"<Error" in said:  # under a 200 (B-11)
            raise self._rest.error(bucket, self._rest.describe(call, response, said))
        answer = parse_document(said, "Delete")
        done = {each.text("Key").encode() for each in answer.each("Deleted")}
        failed = {each.text("Key").encode(): each for each in answer.each("Error")}
        found: dict[Doomed, Exception | None] = {}
        for each in doomed:
            where = self._rest.where(bucket, each.key)
            if each.key in failed:
                found[each] = self._refusal(bucket, where, failed[each.key])
            elif each.key in done:
                found[each] = None
            else:  # silence is no answer (B-68)
                found[each] = errors.ConnectionLost(
                    f"DeleteObjects {where}: nothing was said of it"
                )
        return found

    def _refusal(self, bucket: str, where: str, said: Document) -> Exception:
        code, message = said.text("Code"), self._rest.hidden(said.text("Message"))
        status = _STATUS.get(code, _UNKNOWN)
        if code not in _STATUS:
            code = self._rest.hidden(code)
        failure = Failure("DeleteObject", where, status, code, message, {})
        return self._rest.error(bucket, failure)

    # --- does the store keep its word? -----------------------------------------------------------

    async def guard_of(self, bucket: str, prefix: bytes, name: str) -> Guard:
        """Find out by a probe object below *prefix* how deletes are kept from hitting other versions.

        Leaves nothing behind. Raises `AccessDenied` where the probe may not be written.
        """
        await self._sweep(bucket, prefix + DELETE_PROBE)
        # What a death leaves is written over and removed by the next try of the same *name*.
        key = prefix + DELETE_PROBE + name.encode()
        is_versioned = False
        found = Guard.NOT
        try:
            # Both: also where each of many is compared, one alone or a key that XML spoils goes singly.
            for guard in (Guard.ONE, Guard.EACH):
                stored = await self._contents.put_object(
                    bucket, key, _ProbeBody(), _ABOUT, md5=None
                )
                is_versioned = is_versioned or stored.version_id is not None
                if not await self._is_kept(bucket, key, stored.etag, guard):
                    break
                found = guard
            return found
        finally:
            await self._clear(bucket, key, is_versioned=is_versioned)

    async def _is_kept(self, bucket: str, key: bytes, etag: str, guard: Guard) -> bool:
        """Say whether a delete with another ETag is refused, and one with the right one is done."""
        wrong = hashlib.md5(os.urandom(8), usedforsecurity=False).hexdigest()
        if not isinstance(await self._try(bucket, Doomed(key, wrong), guard), errors.SourceChanged):
            return False
        info = await self._contents.head_object(bucket, key)
        if info is None or info.etag != etag:
            return False
        if await self._try(bucket, Doomed(key, etag), guard) is not None:
            return False
        return await self._contents.head_object(bucket, key) is None

    async def _try(self, bucket: str, doomed: Doomed, guard: Guard) -> Exception | None:
        try:
            if guard is Guard.EACH:
                return (await self._batch(bucket, [doomed]))[doomed]
            await self._one(bucket, doomed, look=False)
        except (errors.SourceChanged, errors.SourceGone, errors.Refused) as error:
            return error
        return None

    async def _sweep(self, bucket: str, prefix: bytes) -> None:
        """Remove what dead processes left of their probes."""
        before = (time.time() - PROBE_LEFT) * 1000
        for entry in (await self._contents.list_page(bucket, prefix, b"")).entries:
            if entry.modified < before and is_certain(entry, prefix):
                await self._clear(bucket, entry.key, is_versioned=False)

    async def _clear(self, bucket: str, key: bytes, *, is_versioned: bool) -> None:
        """Remove the probe, with its versions and markers where they may be."""
        try:
            if is_versioned:
                query = canonical_query([("prefix", key.decode()), ("versions", "")])
                call = Call("ListObjectVersions", "GET", bucket, None, query, {})
                response = await self._rest.send(call)
                said = readable(await response.read_all(ANSWER_LIMIT))
                answer = parse_document(said, "ListVersions")
                for each in (*answer.each("Version"), *answer.each("DeleteMarker")):
                    version = quote_value(each.text("VersionId"))
                    await self._delete(bucket, key, f"versionId={version}", {})
            elif await self._contents.head_object(bucket, key) is not None:
                await self._delete(bucket, key, "", {})
        except errors.S3flowError as error:
            # It is below the flow's prefix and would be moved as everything else there.
            _log.warning("the probe %s was not removed: %s", self._rest.where(bucket, key), error)


def _is_plain(key: bytes) -> bool:
    """Say whether a key comes through XML, both ways, as it is."""
    text = key.decode()
    return text.isprintable() and text == text.strip()


def _named(doomed: Sequence[Doomed]) -> bytes:
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    inner = "".join(
        f"<Object><Key>{escape(each.key.decode())}</Key>"
        + (
            f"<VersionId>{escape(each.version_id)}</VersionId>"
            if each.version_id
            else f"<ETag>&quot;{escape(each.etag)}&quot;</ETag>"
        )
        + "</Object>"
        for each in doomed
    )
    return f'<Delete xmlns="{space}">{inner}</Delete>'.encode()
