"""Moving from S3 to S3 and to disk holds the event loop for no more than 10 ms at a time."""

from __future__ import annotations

import asyncio
import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from s3flow.model import MIB, Flow, Outcome, Place
from s3flow.stores.local import LocalStore
from tests import servers
from tests.blocks import Blocks
from tests.contract.s3_bench import opened_store
from tests.unit.lab import QUICK, Lab

SMALL = 1100  # more than a page


def fill(server: servers.Server, bucket: str) -> None:
    """Place small objects and one that goes in parts."""
    with (
        contextlib.closing(server.client()) as client,
        ThreadPoolExecutor(8) as pool,
    ):
        list(
            pool.map(
                lambda number: client.put_object(
                    Bucket=bucket, Key=f"small/{number:06}", Body=b"%08d" % number * 512
                ),
                range(SMALL),
            )
        )
        client.put_object(Bucket=bucket, Key="large", Body=os.urandom(64 * MIB))


@pytest.mark.parametrize("kind", ["s3", "disk"])
async def test_moving_from_s3_blocks_nothing(
    ministack_server: servers.Server, kind: str, tmp_path: Path, never_blocked: Blocks
) -> None:
    source, target = servers.make_bucket(ministack_server), servers.make_bucket(ministack_server)
    await asyncio.to_thread(fill, ministack_server, source)
    (tmp_path / "nas").mkdir()
    await asyncio.sleep(0)
    never_blocked.forget()  # botocore's clients were in steps before
    async with opened_store(ministack_server) as store:
        disk = LocalStore("nas", tmp_path / "nas")
        try:
            lab = Lab(tmp_path, store, store if kind == "s3" else disk)
            lab.pace = replace(QUICK, concurrency=64, bodies=32)
            place = Place("dst", target if kind == "s3" else "", b"")
            lab.flow = Flow("flow", Place("src", source, b""), place)
            lab.change(multipart_threshold=32 * MIB, part_size=8 * MIB)
            assert await lab.sync() == {Outcome.VERIFIED: SMALL + 1}
            assert await lab.sync() == {Outcome.VERIFIED: SMALL + 1}
        finally:
            await disk.close()
    assert never_blocked.steps > SMALL
