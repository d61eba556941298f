"""What tests of targets ask of them."""

from __future__ import annotations

from s3flow.model import Listed, Part
from tests.contract.kit import ATTRIBUTES, Bench

UNKNOWN_UPLOAD = "0123456789abcdef"


async def begin(target: Bench, key: bytes, size: int) -> str:
    """Begin an upload."""
    upload_id: str = await target.store.create_multipart_upload(
        target.bucket, key, ATTRIBUTES, size
    )
    return upload_id


async def list_parts(target: Bench, key: bytes, upload_id: str) -> list[Part]:
    """Give the parts that are there."""
    parts: list[Part] = await target.store.list_parts(target.bucket, key, upload_id)
    return parts


async def find(target: Bench, *keys: bytes) -> dict[bytes, Listed]:
    """Look keys up."""
    return dict(await target.store.find(target.bucket, sorted(keys)))
