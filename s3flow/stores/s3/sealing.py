"""How objects are encrypted, and whose they are: the headers that say so, made once for a store."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from s3flow import errors
from s3flow.model import Sealed
from s3flow.stores.s3.rest import ERROR_LIMIT, Call, Rest
from s3flow.stores.s3.settings import S3Settings

T = TypeVar("T")
_SSE = "x-amz-server-side-encryption"
_KEY_BYTES = 32
PAYER = {"x-amz-request-payer": "requester"}


def customer_headers(settings: S3Settings, prefix: str = "x-amz-") -> Sealed:
    """Give what names the customer's key (SSE-C) in a request; nothing without one.

    Raises `ConfigError` for a key that is none.
    """
    text = settings.customer_key
    if not text:
        return Sealed()
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != _KEY_BYTES:
        raise errors.ConfigError(
            f"endpoints.{settings.name}.customer_key is not 32 bytes in base64: make one with "
            "`openssl rand -base64 32`"
        )
    digest = hashlib.md5(key, usedforsecurity=False).digest()
    name = f"{prefix}server-side-encryption-customer-"
    return Sealed(
        {
            name + "algorithm": "AES256",
            name + "key": base64.b64encode(key).decode(),
            name + "key-md5": base64.b64encode(digest).decode(),
        }
    )


def written(settings: S3Settings) -> Sealed:
    """Give what every new object is asked to be encrypted with."""
    headers = customer_headers(settings)
    if settings.encryption:
        headers[_SSE] = settings.encryption
    if settings.kms_key_id:
        headers[_SSE + "-aws-kms-key-id"] = settings.kms_key_id
    if settings.bucket_key:
        headers[_SSE + "-bucket-key-enabled"] = "true"
    return headers


def opening(settings: S3Settings) -> Sealed:
    """Give what a copy from here needs to say, whoever asks for it."""
    headers = customer_headers(settings, "x-amz-copy-source-")
    if settings.requester_pays:
        headers.update(PAYER)
    return headers


class Acls:
    """Sends an ACL with what is written, where the bucket takes one.

    Since April 2023 new buckets refuse requests that name any, with AccessControlListNotSupported.
    *is_wish*: who may write there, and no ACLs (s3:PutObjectAcl), writes without one.
    """

    def __init__(self, rest: Rest, acl: str, *, is_wish: bool) -> None:
        self._rest = rest
        self._headers = {"x-amz-acl": acl}
        self._is_wish = is_wish
        self._takes: dict[str, bool] = {}

    async def send(
        self, bucket: str, headers: dict[str, str], send: Callable[[], Awaitable[T]]
    ) -> T:
        """*send* what has these *headers*, with an ACL or, if that is refused, without."""
        headers |= await self.headers(bucket)
        try:
            return await send()
        except (errors.AclRefused, errors.AccessDenied) as error:
            is_denied = isinstance(error, errors.AccessDenied)
            if "x-amz-acl" not in headers or (is_denied and not self._is_wish):
                raise
            del headers["x-amz-acl"]
            answer = await send()
        self.refused(bucket)
        return answer

    async def headers(self, bucket: str) -> dict[str, str]:
        """Give the header for a write to *bucket*, or none."""
        takes = self._takes.get(bucket)
        if takes is None:
            takes = self._takes[bucket] = await self._ask(bucket)
        return self._headers if takes else {}

    def refused(self, bucket: str) -> None:
        """Note that *bucket* takes none."""
        self._takes[bucket] = False

    async def _ask(self, bucket: str) -> bool:
        call = Call("GetBucketOwnershipControls", "GET", bucket, None, "ownershipControls=", {})
        try:
            response = await self._rest.send(call)
        except errors.Permanent:
            return True  # not set, not known here, or not for us to see: a write will tell
        return b"BucketOwnerEnforced" not in await response.read_all(ERROR_LIMIT)
