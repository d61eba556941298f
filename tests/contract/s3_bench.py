"""S3Store over real servers, for the suites of the ports."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager

import pytest

from s3flow.model import MIB
from s3flow.stores.s3 import S3Settings, S3Store
from tests import servers
from tests.contract.kit import Bench

# What moto does not do, by test: with ministack the same tests run.
MOTO_GAPS = {
    "awkward_keys_are_listed": "moto routes no key with a line break",
    "beforehand[moto-line": "moto routes no key with a line break",
    "awkward_keys_are_copied": "moto routes no key with a line break",
    "another_version_is_not_copied": "moto ignores the condition on a copy's source",
    "headers_and_tags_come_back": "moto takes no & in a tag",
    "an_unknown_upload_is_named": "moto answers 500 to parts of unknown uploads",
    "an_aborted_upload_is_gone": "moto answers 500 to the end of an unknown upload",
    "goes_on_in_another_process": "moto says that every upload began in 2010",
}


def open_store(server: servers.Server, **changes: object) -> S3Store:
    """Make a store with the first account of *server*."""
    values: dict[str, object] = {
        "name": "s3",
        "url": server.url,
        "region": server.region,
        "access_key_id": server.access_key,
        "secret_access_key": server.secret_key,
    }
    return S3Store(S3Settings(**{**values, **changes}), environ={})  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def opened_store(server: servers.Server, **changes: object) -> AsyncIterator[S3Store]:
    """Give a store, and close it whatever happens."""
    store = open_store(server, **changes)
    try:
        yield store
    finally:
        await store.close()


def s3(fixture: str) -> Callable[[pytest.FixtureRequest], AbstractAsyncContextManager[Bench]]:
    """S3Store over the server that *fixture* gives, each test in a bucket of its own."""

    @contextlib.asynccontextmanager
    async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
        server: servers.Server = request.getfixturevalue(fixture)
        for test, gap in MOTO_GAPS.items():
            if server.store == "moto" and test in request.node.name:
                pytest.skip(gap)
        bucket = servers.make_bucket(server)
        opened = [open_store(server)]
        client = server.client()  # another implementation sees what ours did

        async def read(key: bytes) -> bytes | None:
            try:
                data: bytes = client.get_object(Bucket=bucket, Key=key.decode())["Body"].read()
            except client.exceptions.NoSuchKey:
                return None
            return data

        async def reopen() -> S3Store:
            opened.append(open_store(server))
            return opened[-1]

        is_moto = server.store == "moto"
        made = Bench(
            opened[0],
            bucket,
            read,
            reopen,
            part_size=5 * MIB if is_moto else 1000,
            steps=40,
            knows_part_sizes=False,  # neither does for HEAD
            checks_md5=not is_moto,
        )
        try:
            yield made
        finally:
            for store in opened:
                await store.close()
            client.close()

    return bench
