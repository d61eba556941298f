"""What is asked once per large object, bucket or account.

Over the wire as well: an aiobotocore client for these few documents costs 45 MB and 0.3 s, and a
second way to translate errors. What it is used for is what it is best at: credentials.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import unquote_to_bytes
from xml.sax.saxutils import escape

from s3flow import errors
from s3flow.model import Bucket, Part, RestoreAnswer, Sealed, Stored, Upload
from s3flow.stores.s3.answers import check_answered, readable
from s3flow.stores.s3.headers import encryption_of, full_checksums, unquote_etag
from s3flow.stores.s3.rest import ERROR_LIMIT, Call, Rest
from s3flow.stores.s3.settings import S3Settings
from s3flow.wire.sigv4 import canonical_query, quote_value
from s3flow.wire.xml import Document, parse_document

ABORT_ATTEMPTS = 6
ABORT_PAUSE = 0.1  # seconds, doubled each time
COMPLETE_SECONDS = 600.0  # Complete may work for minutes, and sends blanks meanwhile (B-14)
ANSWER_LIMIT = 16 * 1024 * 1024  # bytes
_SPACE = "http://s3.amazonaws.com/doc/2006-03-01/"


class Rare:
    """Multipart bookkeeping, tags, restores and buckets of one endpoint."""

    def __init__(self, settings: S3Settings, rest: Rest, sealed: Sealed) -> None:
        self._is_aws = settings.is_aws
        self._rest = rest
        self._sealed = sealed  # what names the customer's key, which Complete has to know as well

    async def list_buckets(self) -> list[Bucket]:
        """Give every bucket of the account."""
        found: list[Bucket] = []
        token = ""
        while True:
            # AWS refuses accounts with more than 10,000 buckets unless pages are asked for.
            params = [("max-buckets", "1000")] if self._is_aws else []
            params += [("continuation-token", token)] if token else []
            call = Call("ListBuckets", "GET", "", None, canonical_query(params), {})
            answer = await self._ask(call, "ListAllMyBuckets")
            for each in answer.each("Buckets", "Bucket"):
                name, region = each.text("Name"), each.text("BucketRegion")
                found.append(Bucket(name))
                if self._is_aws and region:  # others name regions that mean nothing to them
                    self._rest.place(name, region)
            following = answer.text("ContinuationToken")
            if not following:
                return found
            if following == token:
                raise errors.BadAnswer(f"ListBuckets {self._rest.where('', None)} goes in circles")
            token = following

    async def get_object_tagging(self, bucket: str, key: bytes) -> dict[str, str]:
        """Give the tags of an object."""
        call = Call("GetObjectTagging", "GET", bucket, key, "tagging=", {})
        answer = await self._ask(call, "Tagging")
        return {tag.text("Key"): tag.text("Value") for tag in answer.each("TagSet", "Tag")}

    async def restore(
        self, bucket: str, key: bytes, version_id: str | None, days: int | None, tier: str
    ) -> RestoreAnswer:
        """Ask for a readable copy. That it is there, or under way, is as good an answer (B-75)."""
        version = f"&versionId={quote_value(version_id)}" if version_id else ""
        call = Call("RestoreObject", "POST", bucket, key, f"restore={version}", {})
        try:
            response = await self._rest.send(call, _wanted(days, tier))
        except errors.RestoreInProgress:
            return RestoreAnswer.IN_PROGRESS
        except errors.NotArchived:
            return RestoreAnswer.RESTORED
        await response.read_all(ERROR_LIMIT)
        return RestoreAnswer.ACCEPTED if response.status == 202 else RestoreAnswer.RESTORED

    async def is_website(self, bucket: str) -> bool:
        """Say whether a bucket is known to be a website."""
        call = Call("GetBucketWebsite", "GET", bucket, None, "website=", {})
        try:
            response = await self._rest.send(call)
        except errors.Permanent:
            return False  # it is none, or not for us to know
        return b"<WebsiteConfiguration" in await response.read_all(ERROR_LIMIT)

    async def list_parts(self, bucket: str, key: bytes, upload_id: str) -> list[Part]:
        """Give the parts that arrived, ascending."""
        parts: list[Part] = []
        marker = 0
        while True:
            query = canonical_query([("part-number-marker", str(marker)), ("uploadId", upload_id)])
            call = Call("ListParts", "GET", bucket, key, query, {})
            answer = await self._ask(call, "ListParts")
            check_answered(upload_id.encode(), answer.text("UploadId"), *self._named(call))
            parts += [_part(each) for each in answer.each("Part")]
            if not answer.flag("IsTruncated"):
                return sorted(parts)
            reached = answer.number("NextPartNumberMarker")
            if reached <= marker:
                where = self._rest.where(bucket, key)
                raise errors.BadAnswer(f"ListParts {where} goes in circles")
            marker = reached

    async def complete(
        self, bucket: str, key: bytes, upload_id: str, parts: Sequence[Part]
    ) -> Stored:
        """Make the parts the object."""
        size = sum(part.size for part in parts)
        # Younger than most other stores, which may stumble over it.
        headers = {"x-amz-mp-object-size": str(size)} if self._is_aws else {}
        headers |= self._sealed
        query = f"uploadId={quote_value(upload_id)}"
        call = Call("CompleteMultipartUpload", "POST", bucket, key, query, headers)
        try:
            response = await self._rest.send(call, _named(parts), patience=COMPLETE_SECONDS)
            # Blanks that kept the connection open may stand before the declaration, which XML forbids.
            body = readable(await response.read_all(ANSWER_LIMIT)).lstrip()
        except (errors.BadAnswer, errors.Stalled, errors.Truncated) as error:
            # It may well have been carried out: whoever asked must look (B-13).
            raise errors.ConnectionLost(f"the answer was lost: {error}") from error
        if b"<Error" in body:  # under a 200 (B-11)
            raise self._rest.error(bucket, self._rest.describe(call, response, body))
        answer = parse_document(body, "CompleteMultipartUpload")
        try:
            check_answered(key, answer.text("Key"), *self._named(call))
        except errors.BadAnswer as error:
            raise errors.ConnectionLost(f"the answer was lost: {error}") from error
        etag = unquote_etag(answer.text("ETag"))
        if not etag:
            raise errors.ServerError(
                f"CompleteMultipartUpload {self._rest.where(bucket, key)}: the answer has no ETag"
            )
        said = response.headers
        version = said.get("x-amz-version-id")
        return Stored(size, etag, _checksums(answer), version, encryption_of(said))

    async def abort(self, bucket: str, key: bytes, upload_id: str) -> None:
        """Abort until the upload is gone: a part in flight may land after an abort (B-17)."""
        query = f"uploadId={quote_value(upload_id)}"
        call = Call("AbortMultipartUpload", "DELETE", bucket, key, query, {})
        for attempt in range(ABORT_ATTEMPTS):
            if attempt:
                await asyncio.sleep(ABORT_PAUSE * 2**attempt)
            try:
                response = await self._rest.send(call)
                await response.read_all(ERROR_LIMIT)
            except errors.NoSuchUpload:
                return
            if not await self._is_there(bucket, key, query):
                return
        raise errors.Conflict(
            f"{self._rest.where(bucket, key)}: upload {upload_id} is still there after "
            f"{ABORT_ATTEMPTS} aborts; parts of it may still be arriving"
        )

    async def _is_there(self, bucket: str, key: bytes, query: str) -> bool:
        try:
            await self._ask(Call("ListParts", "GET", bucket, key, query, {}), "ListParts")
        except (errors.NoSuchUpload, errors.AccessDenied):  # or it is not ours to see
            return False
        return True

    async def list_uploads(self, bucket: str, prefix: bytes) -> list[Upload]:
        """Give the unfinished uploads whose keys start with *prefix*."""
        uploads: list[Upload] = []
        key_marker, id_marker = b"", ""
        while True:
            markers = f"key-marker={quote_value(key_marker)}&" if key_marker else ""
            tail = f"&upload-id-marker={quote_value(id_marker)}" if id_marker else ""
            # In canonical order: the query is signed as it is written here.
            query = f"encoding-type=url&{markers}prefix={quote_value(prefix)}{tail}&uploads="
            call = Call("ListMultipartUploads", "GET", bucket, None, query, {})
            answer = await self._ask(call, "ListMultipartUploads")
            check_answered(prefix, answer.text("Prefix"), *self._named(call))
            uploads += [_upload(each, answer) for each in answer.each("Upload")]
            if not answer.flag("IsTruncated"):
                return sorted(uploads)
            reached = _key(answer.text("NextKeyMarker"), answer), answer.text("NextUploadIdMarker")
            if reached == (key_marker, id_marker) or not reached[0]:
                where = self._rest.where(bucket, prefix)
                raise errors.BadAnswer(f"ListMultipartUploads {where} goes in circles")
            key_marker, id_marker = reached

    def _named(self, call: Call) -> tuple[str, str]:
        return call.operation, self._rest.where(call.bucket, call.key)

    async def _ask(self, call: Call, name: str) -> Document:
        response = await self._rest.send(call)
        return parse_document(readable(await response.read_all(ANSWER_LIMIT)), name)


def _wanted(days: int | None, tier: str) -> bytes:
    lasting = "" if days is None else f"<Days>{days}</Days>"
    how = f"<GlacierJobParameters><Tier>{escape(tier)}</Tier></GlacierJobParameters>"
    return f'<RestoreRequest xmlns="{_SPACE}">{lasting}{how}</RestoreRequest>'.encode()


def _named(parts: Sequence[Part]) -> bytes:
    lines = [
        f"<Part><PartNumber>{part.number}</PartNumber><ETag>&quot;{escape(part.etag)}&quot;</ETag></Part>"
        for part in parts
    ]
    inner = "".join(lines)
    return f'<CompleteMultipartUpload xmlns="{_SPACE}">{inner}</CompleteMultipartUpload>'.encode()


def _part(found: Document) -> Part:
    return Part(
        found.number("PartNumber"),
        found.number("Size"),
        unquote_etag(found.text("ETag")),
        found.text("ChecksumCRC64NVME"),
    )


def _upload(found: Document, answer: Document) -> Upload:
    try:
        initiated = datetime.fromisoformat(found.text("Initiated")).timestamp()
    except ValueError as error:
        raise errors.BadAnswer(f"an upload's date cannot be read: {error}") from error
    return Upload(_key(found.text("Key"), answer), found.text("UploadId"), int(initiated * 1000))


def _key(text: str, answer: Document) -> bytes:
    is_encoded = answer.text("EncodingType") == "url"
    return unquote_to_bytes(text.replace("+", " ")) if is_encoded else text.encode()


def _checksums(answer: Document) -> dict[str, str]:
    """Read the checksums of the answer to Complete, whose names differ from the headers'."""
    return full_checksums(
        {
            "x-amz-checksum-" + name.removeprefix("Checksum").lower(): value
            for name, value in answer.texts().items()
            if name.startswith("Checksum")
        }
    )
