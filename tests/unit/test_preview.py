"""What a plan counts: the objects of a listing by what becomes of them, and the work in them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from s3flow.engine.preview import NothingKnown, Preview, preview
from s3flow.engine.survey import Survey
from s3flow.engine.wiring import RouteMaker, Wiring
from s3flow.model import Method
from s3flow.policies import Overwrite
from s3flow.state.sqlite import open_sqlite
from s3flow.stores.crc64 import Crc64Nvme
from tests.unit.lab import PARTS, QUICK, Lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


async def planned(lab: Lab, *, is_new: bool = False) -> Preview:
    """Look at the lab's flow, with its state if there is one."""
    made = RouteMaker(QUICK, Crc64Nvme(), lambda _: None, asyncio.Event())
    survey = Survey(made.route(Wiring(lab.flow, lab.source, lab.target)), QUICK.backoff)
    if not (lab.folder / "state.db").exists():
        return await preview(survey, NothingKnown(), is_new=is_new)
    state = await open_sqlite(lab.folder / "state.db", read_only=True)
    try:
        return await preview(survey, state, is_new=is_new)
    finally:
        await state.close()


async def test_it_counts_by_class_and_method(lab: Lab) -> None:
    lab.change(**PARTS)
    lab.put(b"a", 10)
    lab.put(b"b", 20, storage_class="GLACIER")
    lab.put(b"c", 3500, storage_class="STANDARD_IA")
    seen = await planned(lab)
    found = {
        (kind.source_class, kind.method, kind.frozen): (amount.objects, amount.bytes)
        for kind, amount in seen.work.amounts.items()
    }
    assert found == {
        ("STANDARD", Method.PUT, False): (1, 10),
        ("GLACIER", Method.PUT, True): (1, 20),
        ("STANDARD_IA", Method.MULTIPART, False): (1, 3500),
    }
    assert seen.work.listings == 1
    assert seen.objects == {("transfer", "put"): 2, ("transfer", "multipart"): 1}


async def test_what_was_scanned_and_not_moved_is_still_to_be_paid(lab: Lab) -> None:
    for number in range(5):
        lab.put(b"%d" % number, 100 + number)
    before = await planned(lab)
    await lab.sync(scan_only=True)
    lab.put(b"5", 1)  # since the scan
    lab.put(b"0", 7)  # it changed since
    after = await planned(lab)
    assert after.objects == {("pending", "put"): 4, ("transfer", "put"): 2}
    assert after.work.objects == before.work.objects + 1
    assert after.work.bytes == before.work.bytes - 100 + 7 + 1
    await lab.sync()
    done = await planned(lab)
    assert done.objects == {("unchanged", "recorded before"): 6}
    assert done.bytes == {("unchanged", "recorded before"): 418}
    assert not done.work.amounts


async def test_looks_at_the_target_are_counted_where_they_are_taken(lab: Lab) -> None:
    lab.put(b"a", 10)
    assert (await planned(lab, is_new=True)).work.looks == 1
    assert (await planned(lab)).work.looks == 0
    lab.change(overwrite=Overwrite.ALWAYS)
    assert (await planned(lab, is_new=True)).work.looks == 0


async def test_what_is_adopted_or_skipped_costs_nothing(lab: Lab) -> None:
    lab.dst.put("to", b"a", lab.put(b"a", 10))
    seen = await planned(lab, is_new=True)
    assert seen.objects == {("adopt", "etag"): 1}
    assert not seen.work.amounts
