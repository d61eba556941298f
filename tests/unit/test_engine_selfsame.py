"""Moves between two names of the same objects: found before anything is deleted, by an object of our own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from s3flow.engine.probe import examine
from s3flow.engine.retry import Backoff
from s3flow.engine.selfsame import refuse_selfsame_for_moves
from s3flow.engine.survey import Survey
from s3flow.engine.wiring import RouteMaker, Wiring
from s3flow.errors import SameObject
from s3flow.events import BucketFailed
from s3flow.model import Outcome, Place
from s3flow.policies import Mode
from s3flow.stores.crc64 import Crc64Nvme
from s3flow.stores.memory import MemoryStore
from tests.faults import Recording
from tests.unit.lab import QUICK, Lab, store


def alias(of: MemoryStore, bucket: str, name: str) -> MemoryStore:
    """Give another endpoint at which *bucket* is called *name*: the objects are the same ones."""
    made = MemoryStore("alias")
    made._buckets = {name: of._buckets[bucket]}
    return made


def moving(folder: Path, source: str, target: str) -> Lab:
    """Give a flow that moves from one prefix to another of what is one bucket by two names."""
    src = store("src", "from")
    lab = Lab(folder, src, alias(src, "from", "to"))
    lab.change(
        mode=Mode.MOVE,
        source=Place("src", "from", source.encode()),
        target=Place("dst", "to", target.encode()),
    )
    return lab


OVERLAPPING = [("", ""), ("a/", "a/"), ("", "a/"), ("a/", ""), ("a/", "a/b/")]


@pytest.mark.parametrize(("source", "target"), OVERLAPPING)
async def test_a_move_onto_itself_is_refused_at_the_start_with_both_names(
    tmp_path: Path, source: str, target: str
) -> None:
    lab = moving(tmp_path, source, target)
    lab.put(source.encode() + b"x", 100)
    before = lab.src.keys("from")
    lab.source, lab.target = Recording(lab.source), Recording(lab.target)
    assert await lab.sync() == {}
    [failed] = lab.of(BucketFailed)
    assert failed.reason == SameObject.reason
    assert str(lab.flow.source) in failed.message
    assert str(lab.flow.target) in failed.message
    assert lab.src.keys("from") == before  # and the probe is gone
    assert [call.method for call in lab.source.calls if call.method == "delete_object"] == []


async def test_two_places_of_one_bucket_are_no_trouble(tmp_path: Path) -> None:
    lab = moving(tmp_path, "in/", "out/")
    lab.put(b"in/x", 100)
    lab.target = Recording(lab.target)
    await lab.sync(scan_only=True)
    assert lab.of(BucketFailed) == []
    assert lab.target.of("put_object") == []  # that needs no probe


async def test_two_buckets_are_two(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.change(mode=Mode.MOVE)
    lab.put(b"x", 100)
    assert await lab.sync(scan_only=True) == {Outcome.PENDING: 1}
    assert lab.dst.keys("to") == []  # the probe is gone


async def test_a_copy_writes_no_probe(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.put(b"x", 100)
    lab.target = Recording(lab.target)
    await lab.sync(scan_only=True)
    assert lab.target.of("put_object") == []


async def test_a_plan_only_reads(tmp_path: Path) -> None:
    lab = moving(tmp_path, "", "")
    lab.put(b"x", 100)
    lab.target = Recording(lab.target)
    survey = Survey(_route(lab), Backoff(), may_write=False)
    assert len((await survey.page("from", b"")).entries) == 1
    assert lab.target.of("put_object") == []


async def test_the_probe_goes_even_if_nobody_can_look_for_it(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.change(mode=Mode.MOVE)
    with pytest.raises(Exception, match="no-such"):
        await refuse_selfsame_for_moves(_route(lab), "no-such")
    assert lab.dst.keys("to") == []


async def test_doctor_tells(tmp_path: Path) -> None:
    lab = moving(tmp_path, "", "")
    lab.put(b"x", 100)
    [told] = [each async for each in examine(_route(lab)) if "is not" in each.tried]
    assert not told.ok
    assert "same_object" in told.answer


def _route(lab: Lab):
    maker = RouteMaker(QUICK, Crc64Nvme(), lambda event: None, asyncio.Event())
    return maker.route(Wiring(lab.flow, lab.source, lab.target))
