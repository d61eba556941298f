"""Objects that change, come and go while a flow moves them."""

from __future__ import annotations

from collections import Counter

import pytest

from s3flow.events import (
    Event,
    ListingKept,
    PageMerged,
    ScanFinished,
    ScanStarted,
    TransferEnded,
    TransferStarted,
)
from s3flow.model import Filters, Outcome, Place
from s3flow.observe.rates import rates
from s3flow.policies import RestorePolicy
from s3flow.state.sqlite import open_sqlite
from s3flow.stores.memory import MemoryStore
from tests.faults import ChangingSource, Recording
from tests.unit.flows_kit import lab
from tests.unit.lab import PARTS, Lab

__all__ = ["lab"]  # a fixture


@pytest.mark.parametrize("parts", [None, 1000])
@pytest.mark.parametrize("after", [1, 3])
async def test_an_object_overwritten_during_its_transfer_arrives_whole_and_new(
    lab: Lab, parts: int | None, after: int
) -> None:
    lab.change(**PARTS, lanes=2)
    lab.put(b"a", 9000, part_size=parts)
    newer = b"newer" * 1500
    lab.source = ChangingSource(lab.src, "from", b"a", newer, after=after)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.copy_of(b"a") == newer
    assert lab.uploads() == []
    assert lab.claimed_nowhere() == []
    lab.source = Recording(lab.src)
    await lab.sync()
    assert lab.source.of("get_object") == []


@pytest.mark.parametrize("size", [10, 5000])
async def test_an_object_deleted_before_it_is_read_is_skipped(lab: Lab, size: int) -> None:
    lab.change(**PARTS)
    lab.put(b"a", size)
    lab.put(b"b", size)

    def delete(event: Event) -> None:
        if isinstance(event, TransferStarted):
            lab.src._contents("from").objects.pop(b"a", None)

    lab.subscribers.append(delete)
    assert await lab.sync() == {Outcome.SKIPPED: 1, Outcome.VERIFIED: 1}
    [skipped] = [total for total in await lab.totals() if total.reason]
    assert skipped.reason == "source_gone"
    assert lab.uploads() == []


async def test_a_listing_goes_on_behind_the_pages_that_were_merged(lab: Lab) -> None:
    lab.source = MemoryStore("src", page_size=3)
    for number in range(30):
        lab.put(b"%02d" % number, 1)
    lab.stop_at(PageMerged, 4)
    await lab.sync()
    merged = sum(event.listed for event in lab.of(PageMerged))
    assert 12 <= merged < 30
    lab.subscribers.clear()
    lab.source = Recording(lab.src)
    assert await lab.sync() == {Outcome.VERIFIED: 30}
    assert lab.of(ScanStarted) == [ScanStarted("flow", True)]
    assert lab.source.of("list_page")[0].args[2] == b"%02d" % (merged - 1)
    assert sum(event.listed for event in lab.of(PageMerged)) == 30 - merged
    assert lab.differences() == []


async def test_the_buckets_of_an_account_go_into_buckets_of_their_names(lab: Lab) -> None:
    lab.source = MemoryStore("src")
    lab.change(source=Place("src", "*", b""), target=Place("dst", "{bucket}", b"x/"))
    for bucket in ("one", "two"):
        lab.src.put(bucket, b"a", bucket.encode())
        lab.dst.make_bucket(bucket)
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    assert lab.dst.keys("one") == lab.dst.keys("two") == [b"x/a"]


async def test_every_listed_object_is_counted_once(lab: Lab) -> None:
    lab.change(restore=RestorePolicy.NEVER)
    lab.change(filters=Filters(exclude=("x*",)))
    for number in range(20):
        lab.put(b"%d" % number, number)
        lab.put(b"x%d" % number, number)
    lab.put(b"cold", 1, storage_class="GLACIER")
    counted = await lab.sync()
    assert counted == Counter({"verified": 20, "skipped": 20, "failed": 1})
    assert sum(event.listed for event in lab.of(ScanFinished)) == sum(counted.values())


async def test_an_interrupted_run_goes_on_without_listing_again(lab: Lab) -> None:
    for number in range(40):
        lab.src.put("from", b"%02d" % number, b"x")
    lab.stop_at(TransferEnded, 5)
    await lab.sync()
    assert lab.of(ScanFinished)
    lab.subscribers.clear()
    lab.source = Recording(lab.src)
    assert await lab.sync() == {Outcome.VERIFIED: 40}
    assert lab.source.of("list_page") == []
    assert [type(event) for event in lab.events if isinstance(event, ListingKept)] == [ListingKept]
    lab.src.put("from", b"new", b"x")
    assert await lab.sync() == {Outcome.VERIFIED: 41}
    assert len(lab.source.of("list_page")) == 1


async def test_what_an_inventory_found_is_listed_again_by_the_next_run(lab: Lab) -> None:
    lab.src.put("from", b"old", b"x")
    assert await lab.sync(scan_only=True) == {Outcome.PENDING: 1}
    lab.src.put("from", b"new", b"x")
    assert await lab.sync() == {Outcome.VERIFIED: 2}


async def test_the_first_second_has_a_rate(lab: Lab) -> None:
    for number in range(40):
        lab.put(b"%d" % number, 100)
    await lab.sync()
    state = await open_sqlite(lab.folder / "state.db", read_only=True)
    try:
        first, *_, last = await state.samples(lab.flow.name)
    finally:
        await state.close()
    assert (first.objects, last.objects, last.bytes) == (0, 40, 4000)
    assert rates([first, last], 0, 0, last.at).objects_per_s > 0
