"""A bucket listed in ranges, over every source: cuts reach real servers as `start-after`."""

from __future__ import annotations

import asyncio
import random

import pytest

from s3flow.engine.listing import Slots, Stretch, Walk
from s3flow.engine.ranges import TOP
from s3flow.engine.survey import Range, Survey
from s3flow.engine.wiring import RouteMaker, Wiring
from s3flow.model import Flow, Page, Place
from s3flow.stores.crc64 import Crc64Nvme
from s3flow.stores.memory import MemoryStore
from s3flow.stores.s3 import listing
from tests.contract.kit import Bench
from tests.contract.test_source import put_all
from tests.unit.lab import QUICK, store

PAGE = 10
SCRIPTS = {
    "hex": "0123456789abcdef",
    "chinese": "天地玄黃宇宙洪荒日月盈昃",
    "emoji": "😀😁😂🤣😃😄😅👩‍🚀",
    "awkward": "aé&<>\"'+% =?#~\u00a0e\u0301",
}


def crowd(letters: str) -> list[bytes]:
    """Make three hundred names in a folder, and some beside it."""
    chance = random.Random(5)
    names = {"in/" + "".join(chance.choices(letters, k=6)) + f"-{n}" for n in range(300)}
    return sorted(name.encode() for name in names)


@pytest.mark.parametrize("script", SCRIPTS)
async def test_ranges_join_to_all_keys(
    source: Bench, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    monkeypatch.setattr(listing, "PAGE_SIZE", PAGE)
    if isinstance(source.store, MemoryStore):
        monkeypatch.setattr(source.store, "_page_size", PAGE)
    keys = crowd(SCRIPTS[script])
    await put_all(source, [*keys, b"in", b"io", f"in{TOP}".encode()])
    flow = Flow("flow", Place("src", source.bucket, b"in/"), Place("dst", "to", b""))
    made = RouteMaker(QUICK, Crc64Nvme(), lambda _: None, asyncio.Event())
    route = made.route(Wiring(flow, source.store, store("dst", "to")))
    merged: list[bytes] = []
    cuts: list[bytes] = []

    async def merge(it: Stretch, page: Page, keys: Range, cut: bytes | None) -> None:
        merged.extend(entry.key for entry in page.entries)
        cuts.extend([] if cut is None else [cut])

    walk = Walk(Survey(route, QUICK.backoff), source.bucket, merge, Slots(7))
    await walk.run([])
    assert sorted(merged) == keys
    assert walk.listed == len(keys)
    assert len(cuts) >= 3
