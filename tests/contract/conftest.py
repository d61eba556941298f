"""The stores that the contract suites run over: add yours to SOURCES and TARGETS."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from s3flow.stores.local import LocalStore
from s3flow.stores.memory import MemoryStore
from tests import servers
from tests.contract.kit import Bench
from tests.contract.s3_bench import s3

Factory = Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Bench]]


@contextlib.asynccontextmanager
async def memory(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """S3 in memory."""
    store = MemoryStore("memory", with_checksums=True)
    store.make_bucket("bucket")

    async def read(key: bytes) -> bytes | None:
        found = store.peek("bucket", key)
        return None if found is None else found.data

    async def reopen() -> MemoryStore:
        return store

    yield Bench(store, "bucket", read, reopen)


def local(bucket: str) -> Factory:
    """Local disk, with the bucket as a directory or without one."""

    @contextlib.asynccontextmanager
    async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
        root: Path = request.getfixturevalue("tmp_path")
        opened = [LocalStore("disk", root)]

        async def read(key: bytes) -> bytes | None:
            path = Path(os.fsdecode(os.fsencode(root / bucket) + b"/" + key))
            if key.endswith(b"/"):
                return b"" if path.is_dir() else None  # a marker is the directory itself
            try:
                return path.read_bytes()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return None

        async def reopen() -> LocalStore:
            opened.append(LocalStore("disk", root))
            return opened[-1]

        yield Bench(opened[0], bucket, read, reopen)
        for store in opened:
            await store.close()

    return bench


S3: dict[str, Factory] = {"ministack": s3("signing_server"), "moto": s3("moto_server")}
SOURCES: dict[str, Factory] = {"memory": memory, **S3}
TARGETS: dict[str, Factory] = {
    "memory": memory,
    "local": local(""),
    "local-bucket": local("b"),
    **S3,
}


@pytest.fixture(scope="session")
def signing_server() -> Iterator[servers.Server]:
    """Give a ministack that checks signatures and policies, for the whole session."""
    with servers.ministack(auth=True) as server:
        yield server


@pytest.fixture(params=list(SOURCES))
async def source(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Give each source in turn."""
    async with SOURCES[request.param](request) as bench:
        yield bench


@pytest.fixture(params=list(TARGETS))
async def target(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    """Give each target in turn."""
    async with TARGETS[request.param](request) as bench:
        yield bench
