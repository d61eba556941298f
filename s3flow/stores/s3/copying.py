"""Copies inside the store: one request without a body, whose answer alone says whether it was done."""

from __future__ import annotations

import re
from html import unescape

from s3flow import errors
from s3flow.model import MIB, Original, Part, Sealed, Span, Stored
from s3flow.stores.s3.headers import encryption_of, full_checksums, unquote_etag
from s3flow.stores.s3.rest import ERROR_LIMIT, Call, Rest
from s3flow.stores.s3.sealing import Acls
from s3flow.wire import Response
from s3flow.wire.sigv4 import quote_key

# S3 answers at once and sends blanks while it works, which may be minutes for gigabytes.
WORK_SECONDS = 600.0
AT_ONCE = 64 * MIB  # bytes; what a store copies within the usual time for an answer
_USUAL = re.compile(rb'<ETag>(?:&quot;|")([0-9a-f-]+)(?:&quot;|")</ETag>')
_ETAG = re.compile(rb"<ETag>([^<]*+)</ETag>")
_CHECKSUM = re.compile(rb"<Checksum(\w+)>([^<]*+)</Checksum")


class Copies:
    """CopyObject and UploadPartCopy to one endpoint.

    *written* goes with each new object, *sealed* with each part.
    """

    def __init__(self, rest: Rest, written: Sealed, sealed: Sealed, acls: Acls | None) -> None:
        self._rest = rest
        self._written = written
        self._sealed = sealed
        self._acls = acls

    async def copy_object(
        self,
        original: Original,
        bucket: str,
        key: bytes,
        storage_class: str,
        redirect: str,
        *,
        with_tags: bool,
    ) -> Stored:
        """Copy a whole object; its headers and metadata come along by default, but for one."""
        headers = _from(original)
        if self._written:
            headers |= self._written
        if storage_class:
            headers["x-amz-storage-class"] = storage_class
        if redirect:
            headers["x-amz-website-redirect-location"] = redirect
        if not with_tags:
            headers["x-amz-tagging-directive"] = "REPLACE"  # by none
        call = Call("CopyObject", "PUT", bucket, key, "", headers)
        if self._acls is None:
            response, said = await self._ask(call, original.size)
        else:
            response, said = await self._acls.send(
                bucket, headers, lambda: self._ask(call, original.size)
            )
        etag = self._etag(call, said)
        return Stored(
            original.size,
            etag,
            _checksums(said) if b"<Checksum" in said else {},
            response.headers.get("x-amz-version-id"),
            encryption_of(response.headers),
            source_version_id=response.headers.get("x-amz-copy-source-version-id"),
        )

    async def upload_part_copy(
        self, original: Original, bucket: str, key: bytes, query: str, number: int, span: Span
    ) -> Part:
        """Copy *span* of an object into part *number* of the upload that *query* names."""
        headers = _from(original)
        if self._sealed:
            headers |= self._sealed
        if span.size != original.size:
            # S3 takes no range of objects up to 5 MB, so all of one is asked for without.
            headers["x-amz-copy-source-range"] = f"bytes={span.start}-{span.stop - 1}"
        call = Call("UploadPartCopy", "PUT", bucket, key, query, headers)
        response, said = await self._ask(call, span.size)
        checksum = _checksums(said).get("crc64nvme", "") if b"<Checksum" in said else ""
        etag = self._etag(call, said)
        return Part(number, span.size, etag, checksum, encryption_of(response.headers))

    async def _ask(self, call: Call, size: int) -> tuple[Response, bytes]:
        """Send *call*; give the answer once all of it is here, and it holds no error (B-11, B-15)."""
        patience = None if size <= AT_ONCE else WORK_SECONDS
        try:
            response = await self._rest.send(call, patience=patience)
            said = await response.read_all(ERROR_LIMIT)
        except (errors.BadAnswer, errors.Truncated) as error:
            raise errors.ConnectionLost(f"the answer was lost: {error}") from error
        if b"<Error" in said:
            # Behind the declaration there may be blanks, which XML forbids before it.
            failure = self._rest.describe(call, response, said.lstrip())
            raise self._rest.error(call.bucket, failure)
        return response, said

    def _etag(self, call: Call, said: bytes) -> str:
        found = _USUAL.search(said)
        if found:
            return found[1].decode()
        found = _ETAG.search(said)
        etag = unquote_etag(unescape(found[1].strip().decode("latin-1"))) if found else ""
        if not etag:
            where = self._rest.where(call.bucket, call.key)
            raise errors.ServerError(f"{call.operation} {where}: the answer has no ETag")
        return etag


def _from(original: Original) -> dict[str, str]:
    headers = {"x-amz-copy-source": f"{original.bucket}/{quote_key(original.key)}"}
    if original.etag:
        headers["x-amz-copy-source-if-match"] = f'"{original.etag}"'
    if original.owner:
        headers["x-amz-source-expected-bucket-owner"] = original.owner
    if original.opening:
        headers |= original.opening
    return headers


def _checksums(said: bytes) -> dict[str, str]:
    """Read the checksums of an answer, whose names differ from the headers'."""
    return full_checksums(
        {
            "x-amz-checksum-" + name.decode().lower(): value.strip().decode("latin-1")
            for name, value in _CHECKSUM.findall(said)
        }
    )
