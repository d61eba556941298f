"""Nothing holds the event loop for more than 10 ms; and who does is found and named."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

from s3flow.model import MIB, Outcome
from s3flow.stores.local import LocalStore
from tests.blocks import Blocks, blocks_found, burn
from tests.unit.lab import Lab

SMALL = 3000


def fill(lab: Lab) -> None:
    """Place three pages of small objects."""
    data = random.Random(1).randbytes(4096)
    for number in range(SMALL):
        lab.src.put("from", b"small/%06d" % number, data)


def test_who_holds_the_loop_is_named() -> None:
    async def main() -> None:
        await asyncio.sleep(0)
        burn(0.1)

    with blocks_found() as blocks:
        asyncio.run(main())
    (found,) = blocks.found
    assert found.seconds >= 0.1
    assert found.place.startswith("tests.blocks:")
    assert "burn" in found.place


def test_waiting_holds_nobody() -> None:
    with blocks_found() as blocks:
        asyncio.run(asyncio.sleep(0.1))
    assert blocks.steps > 0
    assert not blocks.found


async def test_discovery_and_state_block_nothing(tmp_path: Path, never_blocked: Blocks) -> None:
    lab = Lab(tmp_path)
    await asyncio.to_thread(fill, lab)
    assert await lab.sync() == {Outcome.VERIFIED: SMALL}
    assert await lab.sync() == {Outcome.VERIFIED: SMALL}
    assert never_blocked.steps > SMALL


async def test_moving_to_disk_blocks_nothing(tmp_path: Path, never_blocked: Blocks) -> None:
    root = tmp_path / "nas"
    root.mkdir()
    store = LocalStore("nas", root)
    try:
        lab = Lab(tmp_path, target=store)
        lab.change(multipart_threshold=32 * MIB, part_size=8 * MIB)
        await asyncio.to_thread(fill, lab)
        large = await asyncio.to_thread(os.urandom, 64 * MIB)
        await asyncio.to_thread(lab.src.put, "from", b"large", large)  # hashes it
        assert await lab.sync() == {Outcome.VERIFIED: SMALL + 1}
    finally:
        await store.close()
    assert never_blocked.steps > SMALL
