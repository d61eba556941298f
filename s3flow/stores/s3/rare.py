"""What is asked once per large object, bucket or account, in s3flow's words."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from urllib.parse import unquote_to_bytes

from s3flow import errors
from s3flow.model import Bucket, Part, Stored, Upload
from s3flow.stores.s3.client import Answer, Client
from s3flow.stores.s3.headers import full_checksums, unquote_etag
from s3flow.stores.s3.rest import Rest
from s3flow.stores.s3.settings import S3Settings

ABORT_ATTEMPTS = 6
ABORT_PAUSE = 0.1  # seconds, doubled each time


class Rare:
    """Multipart bookkeeping, tags and buckets of one endpoint."""

    def __init__(self, settings: S3Settings, client: Client, rest: Rest) -> None:
        self._is_aws = settings.is_aws
        self._call = client.call
        self._text = client.text
        self._where = rest.where

    async def list_buckets(self) -> list[Bucket]:
        """Give every bucket of the account."""
        found: list[Bucket] = []
        # AWS refuses accounts with more than 10,000 buckets unless pages are asked for.
        params: dict[str, object] = {"MaxBuckets": 1000} if self._is_aws else {}
        while True:
            answer = await self._call("ListBuckets", "", None, **params)
            found += [Bucket(bucket["Name"]) for bucket in answer.get("Buckets", ())]
            token = answer.get("ContinuationToken")
            if not token:
                return found
            if token == params.get("ContinuationToken"):
                raise errors.BadAnswer(f"ListBuckets {self._where('', None)} goes in circles")
            params["ContinuationToken"] = token

    async def get_object_tagging(self, bucket: str, key: bytes) -> dict[str, str]:
        """Give the tags of an object."""
        answer = await self._call("GetObjectTagging", bucket, key)
        return {tag["Key"]: tag["Value"] for tag in answer.get("TagSet", ())}

    async def list_parts(self, bucket: str, key: bytes, upload_id: str) -> list[Part]:
        """Give the parts that arrived, ascending."""
        parts: list[Part] = []
        marker = 0
        while True:
            answer = await self._call(
                "ListParts", bucket, key, UploadId=upload_id, PartNumberMarker=marker
            )
            parts += [_part(found) for found in answer.get("Parts", ())]
            if not answer.get("IsTruncated"):
                return sorted(parts)
            reached = int(answer.get("NextPartNumberMarker") or 0)
            if reached <= marker:
                raise errors.BadAnswer(f"ListParts {self._where(bucket, key)} goes in circles")
            marker = reached

    async def complete(
        self, bucket: str, key: bytes, upload_id: str, parts: Sequence[Part]
    ) -> Stored:
        """Make the parts the object."""
        size = sum(part.size for part in parts)
        named = [{"PartNumber": part.number, "ETag": f'"{part.etag}"'} for part in parts]
        # Younger than most other stores, which may stumble over it.
        expected = {"MpuObjectSize": size} if self._is_aws else {}
        answer = await self._call(
            "CompleteMultipartUpload",
            bucket,
            key,
            UploadId=upload_id,
            MultipartUpload={"Parts": named},
            **expected,
        )
        etag = unquote_etag(answer.get("ETag", ""))
        if not etag:
            raise errors.ServerError(
                f"CompleteMultipartUpload {self._where(bucket, key)}: the answer has no ETag"
            )
        encryption = answer.get("ServerSideEncryption", "")
        return Stored(size, etag, _checksums(answer), answer.get("VersionId"), encryption)

    async def abort(self, bucket: str, key: bytes, upload_id: str) -> None:
        """Abort until the upload is gone: a part in flight may land after an abort (B-17)."""
        for attempt in range(ABORT_ATTEMPTS):
            if attempt:
                await asyncio.sleep(ABORT_PAUSE * 2**attempt)
            try:
                await self._call("AbortMultipartUpload", bucket, key, UploadId=upload_id)
            except errors.NoSuchUpload:
                return
            if not await self._is_there(bucket, key, upload_id):
                return
        raise errors.Conflict(
            f"{self._where(bucket, key)}: upload {upload_id} is still there after "
            f"{ABORT_ATTEMPTS} aborts; parts of it may still be arriving"
        )

    async def _is_there(self, bucket: str, key: bytes, upload_id: str) -> bool:
        try:
            await self._call("ListParts", bucket, key, UploadId=upload_id)
        except (errors.NoSuchUpload, errors.AccessDenied):  # or it is not ours to see
            return False
        return True

    async def list_uploads(self, bucket: str, prefix: bytes) -> list[Upload]:
        """Give the unfinished uploads whose keys start with *prefix*."""
        uploads: list[Upload] = []
        markers: dict[str, str] = {}
        while True:
            answer = await self._call(
                "ListMultipartUploads",
                bucket,
                None,
                Prefix=self._text(bucket, prefix),
                EncodingType="url",
                **markers,
            )
            is_encoded = answer.get("EncodingType") == "url"
            uploads += [
                _upload(found, is_encoded=is_encoded) for found in answer.get("Uploads", ())
            ]
            if not answer.get("IsTruncated"):
                return sorted(uploads)
            key = _key(answer.get("NextKeyMarker", ""), is_encoded=is_encoded)
            reached = {
                "KeyMarker": self._text(bucket, key),
                "UploadIdMarker": answer.get("NextUploadIdMarker", ""),
            }
            if reached == markers or not key:
                raise errors.BadAnswer(
                    f"ListMultipartUploads {self._where(bucket, prefix)} goes in circles"
                )
            markers = reached


def _part(found: Answer) -> Part:
    return Part(
        found["PartNumber"],
        found["Size"],
        unquote_etag(found["ETag"]),
        found.get("ChecksumCRC64NVME", ""),
    )


def _upload(found: Answer, *, is_encoded: bool) -> Upload:
    initiated: datetime = found["Initiated"]
    return Upload(
        _key(found["Key"], is_encoded=is_encoded),
        found["UploadId"],
        int(initiated.timestamp() * 1000),
    )


def _key(text: str, *, is_encoded: bool) -> bytes:
    return unquote_to_bytes(text.replace("+", " ")) if is_encoded else text.encode()


def _checksums(answer: Mapping[str, str]) -> dict[str, str]:
    """Read the checksums of the answer to Complete, whose names differ from the headers'."""
    headers = {
        "x-amz-checksum-" + name.removeprefix("Checksum").lower(): value
        for name, value in answer.items()
        if name.startswith("Checksum")
    }
    return full_checksums(headers)
