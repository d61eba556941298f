"""A folder as a target."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from s3flow.stores.local import LocalStore
from tests.contract.kit import ATTRIBUTES, body_of


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LocalStore]:
    root = tmp_path / "root"
    root.mkdir()
    opened = LocalStore("disk", root)
    yield opened
    await opened.close()


async def put(store: LocalStore, key: bytes, data: bytes, bucket: str = "") -> None:
    """Put and settle."""
    stored = await store.put_object(bucket, key, body_of(data), ATTRIBUTES, md5=None)
    for error in await store.settle([stored]):
        if error is not None:
            raise error
