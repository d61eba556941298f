"""Copies that are proven again: what differs is never called proven, what is equal never different."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from s3flow.engine import plan
from s3flow.engine.inspection import Inspection, is_sampled
from s3flow.engine.readback import PartsMd5
from s3flow.engine.reverify import RECORDED, Copy, Looked, Prover, Result
from s3flow.engine.route import Route
from s3flow.engine.wiring import RouteMaker, Wiring
from s3flow.errors import AccessDenied, S3flowError, TargetUnavailable
from s3flow.model import Listed, Proof, State
from s3flow.stores.crc64 import Crc64Nvme
from s3flow.stores.local import LocalStore
from s3flow.stores.memory import MemoryStore
from s3flow.stores.memory_object import cut, multipart_etag
from tests.faults import Call, Raising, Recording, Throttling
from tests.unit.lab import FLOW, QUICK, store

KEY = b"some/key"
ENCRYPTIONS = ("", "AES256", "aws:kms", "customer")


def route_of(source: Any, target: Any) -> Route:
    """Make a route; what is told on the way is dropped."""
    reader = target if hasattr(target, "get_object") else None
    maker = RouteMaker(QUICK, Crc64Nvme(), lambda event: None, asyncio.Event())
    return maker.route(Wiring(FLOW, source, target, reader))


def put(there: MemoryStore, bucket: str, data: bytes, **about: Any) -> Listed:
    made = there.put(bucket, KEY, data, **about)
    return Listed(KEY, len(data), made.etag, made.modified, made.storage_class)


def copy_of(entry: Listed, *, proof: str = "", target_etag: str = "", gone: bool = False) -> Copy:
    it = plan.as_transfer("flow", "from", entry)
    state = State.DELETED if gone else State.VERIFIED
    return Copy(it._replace(state=state), proof, target_etag)


# --- whatever the stores are -----------------------------------------------------------------------


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    size = draw(st.integers(0, 40))
    part = st.one_of(st.none(), st.integers(1, 20))
    return {
        "data": draw(st.binary(min_size=size, max_size=size)),
        "damage": draw(st.one_of(st.none(), st.binary(min_size=size, max_size=size))),
        "source": {
            "encryption": draw(st.sampled_from(ENCRYPTIONS)),
            "part_size": draw(part) if size else None,
        },
        "target": {
            "encryption": draw(st.sampled_from(ENCRYPTIONS)),
            "part_size": draw(part) if size else None,
        },
        "sums": draw(st.tuples(st.booleans(), st.booleans())),
        "reads": draw(st.booleans()),
        "gone": draw(st.booleans()),
        "recorded": draw(st.booleans()),
        "on_disk": draw(st.booleans()),
    }


@settings(max_examples=400, deadline=None)
@given(worlds())
@example(
    {
        "data": b"abc",
        "damage": b"abd",
        "source": {"encryption": "aws:kms", "part_size": None},
        "target": {"encryption": "", "part_size": None},
        "sums": (False, False),
        "reads": False,
        "gone": True,
        "recorded": False,
        "on_disk": True,
    }
)
def test_nothing_that_differs_is_proven_and_nothing_equal_differs(world: dict[str, Any]) -> None:
    asyncio.run(_look_at(world))


async def _look_at(world: dict[str, Any]) -> None:
    data, damage = world["data"], world["damage"]
    source = store("src", "from", with_checksums=world["sums"][0])
    entry = put(source, "from", data, **world["source"])
    with tempfile.TemporaryDirectory() as folder:
        target: Any = LocalStore("nas", Path(folder))
        if not world["on_disk"]:
            target = store("dst", "to", with_checksums=world["sums"][1])
        try:
            proof, etag = "", ""
            if not world["on_disk"]:
                etag = put(target, "to", data, **world["target"]).etag
                proof = Proof.CHECKSUM if world["recorded"] else ""
                if damage is not None:
                    put(target, "to", damage, **world["target"])
            else:
                place = Path(folder) / "to" / KEY.decode()
                place.parent.mkdir(parents=True)
                place.write_bytes(data if damage is None else damage)
            copy = copy_of(entry, proof=proof, target_etag=etag, gone=world["gone"])
            if world["gone"]:
                await source.delete_object("from", KEY, etag=entry.etag)
            looked = await Prover(route_of(source, target), reads=world["reads"]).prove(copy)
        finally:
            if isinstance(target, LocalStore):
                await target.close()
    equal = damage is None or damage == data
    assert looked.result in (
        {Result.PROVEN, Result.SIZE_ONLY} if equal else {Result.DIFFERS, Result.SIZE_ONLY}
    ), (looked, world)
    if world["reads"] and not world["gone"]:
        assert looked.result is not Result.SIZE_ONLY, (looked, world)


# --- one by one ------------------------------------------------------------------------------------


async def look(source: Any, target: Any, copy: Copy, *, reads: bool = False) -> Looked:
    return await Prover(route_of(source, target), reads=reads).prove(copy)


async def test_what_is_missing_cut_or_changed_is_told_with_both_values() -> None:
    source, target = store("src", "from"), store("dst", "to")
    entry = put(source, "from", b"twelve bytes")
    assert (await look(source, target, copy_of(entry))).result is Result.MISSING
    put(target, "to", b"cut")
    cut_short = await look(source, target, copy_of(entry))
    assert cut_short.result is Result.DIFFERS
    assert "3 bytes" in cut_short.message
    assert "12" in cut_short.message
    newer = put(source, "from", b"newer")
    changed = await look(source, target, copy_of(entry))
    assert changed.result is Result.SOURCE_CHANGED
    assert entry.etag in changed.message
    assert newer.etag in changed.message


async def test_the_etag_of_then_proves_what_no_sum_does() -> None:
    source, target = store("src", "from"), store("dst", "to")
    entry = put(source, "from", b"data", part_size=3)
    there = put(target, "to", b"data", encryption="customer")
    kept = copy_of(entry, proof=Proof.CHECKSUM, target_etag=there.etag)
    assert await look(source, target, kept) == (Result.PROVEN, RECORDED, "")
    weak = kept._replace(proof=Proof.SIZE)
    assert (await look(source, target, weak)).result is Result.SIZE_ONLY
    put(target, "to", b"DATA", encryption="customer")
    assert (await look(source, target, kept)).result is Result.DIFFERS
    assert (await look(source, target, weak)).result is Result.SIZE_ONLY
    assert (await look(source, target, weak, reads=True)).result is Result.DIFFERS


async def test_a_store_that_lies_of_its_sums_is_found_by_reading() -> None:
    source, target = store("src", "from"), store("dst", "to")
    entry = put(source, "from", b"data")
    put(target, "to", b"data")
    found = target.peek("to", KEY)
    assert found is not None
    found.data = b"dAta"  # its ETag stays: bits that rot tell nobody
    assert (await look(source, target, copy_of(entry))).result is Result.PROVEN
    assert (await look(source, target, copy_of(entry), reads=True)).result is Result.DIFFERS


async def test_what_may_not_be_looked_at_is_not_called_missing() -> None:
    source, target = store("src", "from"), store("dst", "to")
    entry = put(source, "from", b"data")
    put(target, "to", b"data")

    def heads(call: Call) -> bool:
        return call.method == "head_object"

    for ends in (
        (Raising(source, AccessDenied("403"), heads), target),
        (source, Raising(target, AccessDenied("403"), heads)),
    ):
        looked = await look(*ends, copy_of(entry))
        assert looked.result is Result.NOT_COMPARED
        assert "access_denied" in looked.message


async def test_an_archived_copy_is_not_read_and_not_different() -> None:
    source, target = store("src", "from"), store("dst", "to")
    entry = put(source, "from", b"data")
    put(target, "to", b"data", storage_class="GLACIER")
    assert (await look(source, target, copy_of(entry))).result is Result.PROVEN
    looked = await look(source, target, copy_of(entry), reads=True)
    assert looked.result is Result.NOT_COMPARED


async def test_throttling_is_waited_out_and_a_missing_disk_ends_it() -> None:
    source, target = store("src", "from"), store("dst", "to")
    entry = put(source, "from", b"data")
    put(target, "to", b"data")
    slow = Throttling(target, every=1, times=7)
    assert (await look(source, slow, copy_of(entry))).result is Result.PROVEN
    gone = Raising(target, TargetUnavailable("unmounted"), lambda call: True)
    with pytest.raises(TargetUnavailable):
        await look(source, gone, copy_of(entry))


@pytest.mark.parametrize("size", [1, 5, 10, 11, 30])
@pytest.mark.parametrize("chunk", [1, 3, 10, 64])
def test_part_sums_are_those_of_a_store_however_bytes_arrive(size: int, chunk: int) -> None:
    data = bytes(range(size))
    parts = PartsMd5(10)
    for start in range(0, size, chunk):
        parts.update(memoryview(data[start : start + chunk]))
    assert parts.etag() == multipart_etag(cut(data, 10))


# --- which -----------------------------------------------------------------------------------------


@given(st.text(max_size=20), st.binary(max_size=40), st.floats(0.001, 1), st.floats(0.001, 1))
def test_a_larger_sample_has_all_of_a_smaller_one(
    bucket: str, key: bytes, one: float, other: float
) -> None:
    small, large = sorted((one, other))
    assert is_sampled(bucket, key, large) or not is_sampled(bucket, key, small)
    assert is_sampled(bucket, key, 1.0)


def test_a_sample_is_about_as_large_as_it_says() -> None:
    taken = sum(is_sampled("bucket", b"%d" % number, 0.05) for number in range(20_000))
    assert 850 < taken < 1_150
    assert is_sampled("a", b"b/c", 0.5) is is_sampled("a", b"b/c", 0.5)


async def test_a_listing_is_compared_with_few_requests_and_names_what_is_left() -> None:
    source, target = store("src", "from"), store("dst", "to")
    for number in range(30):
        source.put("from", b"%02d" % number, b"%d" % number)
        if number != 7:
            target.put("to", b"%02d" % number, b"%d" % number if number != 8 else b"X")
    counting = Recording(target)
    found: dict[bytes, Result] = {}

    async def tell(copy: Copy, looked: Looked) -> None:
        found[copy.transfer.key] = looked.result

    def unlisted(bucket: str, error: S3flowError) -> None:
        raise AssertionError(bucket) from error

    prover = Prover(route_of(source, counting))
    await Inspection(prover, tell, unlisted, lanes=3).of_listing()
    assert len(found) == 30
    different = {key: it for key, it in found.items() if it is not Result.PROVEN}
    assert different == {b"07": Result.MISSING, b"08": Result.DIFFERS}
    assert len(counting.of("head_object")) == 1


async def test_a_bucket_that_cannot_be_listed_is_told() -> None:
    source, target = store("src", "from"), store("dst", "to")
    denied = Raising(source, AccessDenied("403"), lambda call: call.method == "list_page")
    told: list[tuple[str, str]] = []

    async def tell(copy: Copy, looked: Looked) -> None:
        raise AssertionError(copy)

    def unlisted(bucket: str, error: S3flowError) -> None:
        told.append((bucket, error.reason))

    await Inspection(Prover(route_of(denied, target)), tell, unlisted, lanes=2).of_listing()
    assert told == [("from", "access_denied")]


async def test_the_bytes_that_are_read_are_those_of_the_object_that_was_looked_at() -> None:
    source, inner = store("src", "from"), store("dst", "to")
    entry = put(source, "from", b"data", part_size=3)
    there = put(inner, "to", b"data")
    target = Recording(inner)
    looked = await look(source, target, copy_of(entry), reads=True)
    assert (looked.result, looked.proof) == (Result.PROVEN, Proof.READBACK)
    assert [call.kwargs for call in target.of("get_object")] == [{"etag": there.etag}]
