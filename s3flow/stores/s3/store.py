"""An S3 endpoint as a source and as a target of flows."""

from __future__ import annotations

import os
import time
from base64 import b64encode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

from s3flow import errors
from s3flow.model import (
    Attributes,
    Bucket,
    Doomed,
    Limits,
    Listed,
    ObjectInfo,
    Original,
    Page,
    Part,
    RestoreAnswer,
    Span,
    Stored,
    Upload,
)
from s3flow.policies import Guard
from s3flow.ports import Body, Clock
from s3flow.stores.s3.address import service_of
from s3flow.stores.s3.answers import check_opened, upload_id_of
from s3flow.stores.s3.body import S3Body, gather
from s3flow.stores.s3.copying import Copies
from s3flow.stores.s3.credentials import Keyring
from s3flow.stores.s3.headers import (
    encryption_of,
    full_checksums,
    note_archive,
    object_info,
    unquote_etag,
    write_headers,
)
from s3flow.stores.s3.listing import Listings
from s3flow.stores.s3.rare import Rare
from s3flow.stores.s3.removing import Removals
from s3flow.stores.s3.rest import ERROR_LIMIT, Call, Rest
from s3flow.stores.s3.sealing import Acls, customer_headers, opening, written
from s3flow.stores.s3.settings import S3Settings
from s3flow.wire import Response
from s3flow.wire.sigv4 import quote_value

MAX_KEY = 1024  # bytes


class S3Store:
    """Implements `ports.Source` and `ports.Target` for one endpoint.

    All requests go over the wire. Credentials that are not in the settings or the environment come
    through aiobotocore, which is not even imported before they are needed.
    """

    def __init__(
        self,
        settings: S3Settings,
        *,
        clock: Clock = time.time,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.name = settings.name
        self.service = service_of(settings)
        self.owner = settings.expected_bucket_owner or ""
        self.opening = opening(settings)
        self.limits = Limits()
        self._is_aws = settings.is_aws
        self._asks_checksums = settings.checksums == "auto"
        keyring = Keyring(settings, environ, clock)
        self._rest = Rest(settings, keyring, environ, clock)
        self._listings = Listings(self._rest)
        self._sealed = customer_headers(settings)
        self._written = written(settings)
        self._acls = (
            Acls(self._rest, settings.acl, is_wish=settings.acl_is_wish) if settings.acl else None
        )
        self._rare = Rare(settings, self._rest, self._sealed)
        self.is_website = self._rare.is_website
        self._removals = Removals(self._rest, self)
        self._copies = Copies(self._rest, self._written, self._sealed, self._acls)
        self._reading = {"accept-encoding": "identity", **self._sealed}
        if self._asks_checksums:
            self._reading["x-amz-checksum-mode"] = "ENABLED"

    async def close(self) -> None:
        """Close all connections; requests in flight fail."""
        await self._rest.close()

    # --- Source --------------------------------------------------------------------------------

    async def list_buckets(self) -> list[Bucket]:
        """Give every bucket of the account."""
        return await self._rare.list_buckets()

    async def list_page(self, bucket: str, prefix: bytes, after: bytes) -> Page:
        """Give up to 1,000 keys that start with *prefix* and follow *after*."""
        return await self._listings.page(bucket, prefix, after)

    async def get_object(
        self, bucket: str, key: bytes, *, etag: str, span: Span | None = None
    ) -> Body:
        """Open the version that has *etag*, or *span* of it; the answer is checked for both."""
        headers = self._reading.copy()
        if etag:
            headers["if-match"] = f'"{etag}"'
        if span is not None:
            headers["range"] = f"bytes={span.start}-{span.stop - 1}"
        call = Call("GetObject", "GET", bucket, key, "", headers)
        response, total = await self._open(call, etag, span)
        if total is None:
            # A proxy rewrote the answer, and a clean end of it would prove nothing (B-02). The
            # first answer is closed, for who holds a connection must not wait for another.
            response.close()
            size = await self._size(bucket, key, etag)
            response, total = await self._open(call, etag, span)
            total = size if total is None else total
        info = object_info(response.headers, total, is_whole=span is None)
        # A name costs 1 us: it is made where one is needed.
        where = partial(self._rest.where, bucket, key)
        return S3Body(response, info, total if span is None else span.size, where)

    async def head_object(
        self, bucket: str, key: bytes, *, part_number: int | None = None
    ) -> ObjectInfo | None:
        """Say what is there, or None; with *part_number*, that part's size."""
        query = "" if part_number is None else f"partNumber={part_number}"
        call = Call("HeadObject", "HEAD", bucket, key, query, self._reading)
        try:
            response = await self._rest.send(call)
        except errors.SourceGone:
            return None
        await response.read_all()
        announced = response.headers.get("content-length")
        if announced is None:
            raise errors.BadAnswer(
                f"HeadObject {self._rest.where(bucket, key)}: the answer has no Content-Length"
            )
        info = object_info(response.headers, int(announced), is_whole=part_number is None)
        note_archive(info, response.headers)
        return info

    async def get_object_tagging(self, bucket: str, key: bytes) -> dict[str, str]:
        """Give the object's tags. Raises `AccessDenied`, `SourceGone`."""
        return await self._rare.get_object_tagging(bucket, key)

    async def restore_object(
        self, bucket: str, key: bytes, *, version_id: str | None, days: int | None, tier: str
    ) -> RestoreAnswer:
        """Ask for a readable copy of an archived object. Raises `ExpeditedUnavailable`."""
        return await self._rare.restore(bucket, key, version_id, days, tier)

    async def delete_object(self, bucket: str, key: bytes, *, etag: str) -> bool:
        """Delete the version that has *etag*; an empty one means any. False if nothing is there.

        This is one request per moved object, so it goes over the wire.
        """
        where = self._rest.where(bucket, key)
        if etag and not self._is_aws:
            # Several stores ignore If-Match on a delete: look first. A window remains with them.
            info = await self.head_object(bucket, key)
            if info is None:
                return False
            if info.etag != etag:
                raise errors.SourceChanged(
                    f"DeleteObject {where}: it changed (etag {etag} -> {info.etag}) and stays"
                )
        headers = {"if-match": f'"{etag}"'} if etag else {}
        call = Call("DeleteObject", "DELETE", bucket, key, "", headers)
        try:
            response = await self._rest.send(call)
        except errors.SourceGone:
            return False
        await response.read_all(ERROR_LIMIT)
        return True

    async def delete_objects(
        self, bucket: str, doomed: Sequence[Doomed], guard: Guard
    ) -> list[Exception | None]:
        """Delete exact versions, as many at a time as *guard* allows; one answer for each."""
        return await self._removals.delete_objects(bucket, doomed, guard)

    async def guard_of(self, bucket: str, prefix: bytes, name: str) -> Guard:
        """Find out by a probe below *prefix* how deletes are kept from hitting other versions."""
        return await self._removals.guard_of(bucket, prefix, name)

    # --- Target --------------------------------------------------------------------------------

    def refuse(self, bucket: str, key: bytes) -> None:
        """Refuse what S3 cannot name: empty keys, over 1,024 bytes, not UTF-8."""
        if not key:
            raise errors.NameRefused(f"{self.name}:{bucket}: an S3 key has at least one byte")
        if len(key) > MAX_KEY:
            where = self._rest.where(bucket, key)
            raise errors.NameTooLong(f"{where}: the key has {len(key)} bytes, S3 takes {MAX_KEY}")
        if key.isascii():
            return
        try:
            key.decode()
        except UnicodeDecodeError:
            where = self._rest.where(bucket, key)
            raise errors.NameRefused(f"{where}: S3 keys are UTF-8, and this one is not") from None

    def region(self, bucket: str) -> str:
        """Say where *bucket* is, as far as its answers have told."""
        return self._rest.region(bucket)

    async def find(self, bucket: str, keys: Sequence[bytes]) -> Mapping[bytes, Listed]:
        """Say which of the ascending *keys* exist, by listing the range between them."""
        return await self._listings.find(bucket, keys, self.head_object)

    async def put_object(
        self, bucket: str, key: bytes, body: Body, attributes: Attributes, *, md5: bytes | None
    ) -> Stored:
        """Take a whole object; with *md5* the store itself refuses other bytes."""
        self.refuse(bucket, key)
        headers = write_headers(attributes)
        if self._written:
            headers |= self._written
        if self._acls is not None:
            headers |= await self._acls.headers(bucket)
        if md5 is not None:
            headers["content-md5"] = b64encode(md5).decode()
        call = Call("PutObject", "PUT", bucket, key, "", headers)
        try:
            said, etag = await self._write(call, body)
        except errors.AclRefused as error:
            if self._acls is None:
                raise
            self._acls.refused(bucket)
            raise errors.Transient(f"{error}; the next try goes without an ACL") from error
        return Stored(
            body.size,
            etag,
            full_checksums(said),
            said.get("x-amz-version-id"),
            encryption_of(said),
        )

    async def copy_object(
        self,
        original: Original,
        bucket: str,
        key: bytes,
        *,
        storage_class: str,
        with_tags: bool,
        redirect: str = "",
    ) -> Stored:
        """Copy a whole object of this service. Raises `SourceChanged`, `SourceGone`."""
        self.refuse(bucket, key)
        return await self._copies.copy_object(
            original, bucket, key, storage_class, redirect, with_tags=with_tags
        )

    async def create_multipart_upload(
        self,
        bucket: str,
        key: bytes,
        attributes: Attributes,
        size: int,  # noqa: ARG002 - S3 learns it at the end
    ) -> str:
        """Begin an upload that names its source in its metadata.

        Over the wire, because header values must go out byte for byte and the id must survive an
        answer that is no XML: S3 repeats control characters of the key in it.
        """
        self.refuse(bucket, key)
        headers = write_headers(attributes, with_token=True) | self._written
        if self._asks_checksums and self._is_aws:
            headers["x-amz-checksum-algorithm"] = "CRC64NVME"
            headers["x-amz-checksum-type"] = "FULL_OBJECT"
        call = Call("CreateMultipartUpload", "POST", bucket, key, "uploads=", headers)
        if self._acls is None:
            response = await self._rest.send(call)
        else:
            response = await self._acls.send(bucket, headers, lambda: self._rest.send(call))
        body = await response.read_all(ERROR_LIMIT)
        self._check_success(call, response, body)
        return upload_id_of(body, key, self._rest.where(bucket, key))

    async def upload_part(
        self,
        bucket: str,
        key: bytes,
        upload_id: str,
        number: int,
        offset: int,  # noqa: ARG002 - S3 orders parts by number
        body: Body,
    ) -> Part:
        """Take a part. Raises `NoSuchUpload`."""
        query = f"partNumber={number}&uploadId={quote_value(upload_id)}"
        call = Call("UploadPart", "PUT", bucket, key, query, self._sealed)
        said, etag = await self._write(call, body)
        checksum = said.get("x-amz-checksum-crc64nvme", "")
        return Part(number, body.size, etag, checksum, encryption_of(said))

    async def upload_part_copy(
        self,
        original: Original,
        bucket: str,
        key: bytes,
        upload_id: str,
        number: int,
        span: Span,
    ) -> Part:
        """Copy *span* of an object of this service into a part. Raises `NoSuchUpload`."""
        query = f"partNumber={number}&uploadId={quote_value(upload_id)}"
        return await self._copies.upload_part_copy(original, bucket, key, query, number, span)

    async def list_parts(self, bucket: str, key: bytes, upload_id: str) -> list[Part]:
        """Give the parts that arrived, ascending. Raises `NoSuchUpload`."""
        return await self._rare.list_parts(bucket, key, upload_id)

    async def complete_multipart_upload(
        self, bucket: str, key: bytes, upload_id: str, parts: Sequence[Part]
    ) -> Stored:
        """Make the parts the object. Raises `NoSuchUpload`; a lost answer is `ConnectionLost`."""
        return await self._rare.complete(bucket, key, upload_id, parts)

    async def abort_multipart_upload(self, bucket: str, key: bytes, upload_id: str) -> None:
        """Remove the upload and its parts; one that is gone already is no error."""
        await self._rare.abort(bucket, key, upload_id)

    async def list_multipart_uploads(self, bucket: str, prefix: bytes) -> list[Upload]:
        """Give the unfinished uploads under *prefix*."""
        return await self._rare.list_uploads(bucket, prefix)

    async def discard(self, bucket: str, key: bytes, stored: Stored) -> None:
        """Delete what was stored, under If-Match."""
        with suppress(errors.SourceChanged):  # another one took its place: it stays
            try:
                await self.delete_object(bucket, key, etag=stored.etag)
            except errors.Refused:
                # The store knows no conditional deletes. This is a bad copy of ours, so that it must
                # go outweighs the moment between looking and deleting.
                info = await self.head_object(bucket, key)
                if info is not None and info.etag == stored.etag:
                    await self.delete_object(bucket, key, etag="")

    async def settle(self, stored: Sequence[Stored]) -> list[Exception | None]:
        """S3 is durable when it answers: nothing is left to do."""
        return [None] * len(stored)

    async def digest(
        self,
        bucket: str,  # noqa: ARG002
        key: bytes,  # noqa: ARG002
        algorithm: str,  # noqa: ARG002
        part_size: int | None,  # noqa: ARG002
    ) -> bytes | None:
        """Say nothing: S3 would have to be read again for this."""
        return None

    # --- inside --------------------------------------------------------------------------------

    async def _open(self, call: Call, etag: str, span: Span | None) -> tuple[Response, int | None]:
        response = await self._rest.send(call)
        try:
            where = partial(self._rest.where, call.bucket, call.key)
            return response, check_opened(response, where, etag, span)
        except BaseException:
            response.close()
            raise

    async def _size(self, bucket: str, key: bytes, etag: str) -> int:
        info = await self.head_object(bucket, key)
        if info is None or (etag and info.etag != etag):
            raise errors.SourceChanged(
                f"GetObject {self._rest.where(bucket, key)}: it changed while its size was asked for"
            )
        return info.size

    async def _write(self, call: Call, body: Body) -> tuple[Mapping[str, str], str]:
        """Send *body*; give the answer's headers and its ETag."""
        response = await self._rest.send(call, await gather(body))
        said = await response.read_all(ERROR_LIMIT)
        self._check_success(call, response, said)
        etag = unquote_etag(response.headers.get("etag", ""))
        if not etag:
            raise errors.ServerError(
                f"{call.operation} {self._rest.where(call.bucket, call.key)}: the answer has no ETag"
            )
        return response.headers, etag

    def _check_success(self, call: Call, response: Response, body: bytes) -> None:
        """Raise when a 200 carries an error (B-11)."""
        if b"<Error" in body:
            raise self._rest.error(call.bucket, self._rest.describe(call, response, body))
