"""Moves between two names of the same objects: found before anything is deleted, by an object of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine.probe import examine
from s3flow.engine.retry import Backoff
from s3flow.engine.selfsame import refuse_selfsame_for_moves
from s3flow.engine.survey import Survey
from s3flow.engine.wiring import RouteMaker, Wiring
from s3flow.errors import Conflict, ConnectionLost, SameObject, TargetUnavailable
from s3flow.events import BucketFailed
from s3flow.model import Listed, Outcome, Page, Place
from s3flow.policies import Mode
from s3flow.stores.crc64 import Crc64Nvme
from s3flow.stores.local import LocalStore
from s3flow.stores.local.paths import ROOT_MARK
from s3flow.stores.memory import MemoryStore
from tests.faults import Call, Faulty, Recording
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


async def test_what_was_copied_onto_itself_is_not_deleted_once_the_flow_moves(
    tmp_path: Path,
) -> None:
    """Its copies are found at once, all of them equal: they are the sources."""
    lab = moving(tmp_path, "", "")
    lab.change(mode=Mode.COPY)
    lab.put(b"x", 100)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    lab.change(mode=Mode.MOVE)
    lab.source = Recording(lab.source)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.src.keys("from") == [b"x"]
    assert lab.source.of("delete_objects") == []


class Gateway(Faulty):
    """Serves a folder: each bucket is one in it, and each file below an object."""

    def __init__(self, inner: MemoryStore, folder: Path) -> None:
        super().__init__(inner)
        self.folder = folder

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "list_page":
            bucket, prefix, after = call.args
            root = self.folder / bucket
            files = {str(it.relative_to(root)).encode(): it for it in root.rglob("*")}
            for key in sorted(files):
                if key.startswith(prefix) and key > after and files[key].is_file():
                    self.inner.put(bucket, key, files[key].read_bytes())
        return await go()


@pytest.mark.parametrize(("source", "target"), [("", ""), ("a/", "a/")])
async def test_a_move_from_a_gateway_into_the_folder_behind_it_is_refused(
    tmp_path: Path, source: str, target: str
) -> None:
    folder = tmp_path / "served"
    (folder / "from" / "a").mkdir(parents=True)
    (folder / "from" / "a" / "x").write_bytes(b"the only bytes")
    lab = Lab(tmp_path, Gateway(store("src", "from"), folder), LocalStore("nas", folder))
    lab.change(
        mode=Mode.MOVE,
        source=Place("src", "from", source.encode()),
        target=Place("nas", "from", target.encode()),
    )
    lab.source.inner.put("from", b"a/x", b"the only bytes")
    assert await lab.sync() == {}
    [failed] = lab.of(BucketFailed)
    assert failed.reason == SameObject.reason
    assert (folder / "from" / "a" / "x").read_bytes() == b"the only bytes"
    assert [it.name for it in (folder / "from").rglob("*")] == ["a", "x"]  # the probe is gone
    await lab.target.close()


async def test_a_move_to_a_folder_leaves_no_probe(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    lab = Lab(tmp_path, target=LocalStore("nas", folder))
    lab.change(mode=Mode.MOVE, target=Place("nas", "", b"here/"), rewrite=(("in/", "out/"),))
    data = lab.put(b"in/x", 100)
    assert await lab.sync() == {Outcome.DELETED: 1}
    found = {str(it.relative_to(folder)) for it in folder.rglob("*") if it.is_file()}
    assert found - {ROOT_MARK.decode()} == {"here/out/x"}
    assert (folder / "here/out/x").read_bytes() == data
    await lab.target.close()


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


class AwayOnce(Faulty):
    """Cannot remove anything the first time."""

    def __init__(self, inner: Any, error: BaseException) -> None:
        super().__init__(inner)
        self.errors = [error]

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "discard" and self.errors:
            raise self.errors.pop()
        return await go()


@pytest.mark.parametrize(
    "error",
    [TargetUnavailable("away"), ConnectionLost("cut"), asyncio.CancelledError(), RuntimeError()],
)
async def test_a_target_that_was_away_for_a_moment_keeps_no_probe(
    tmp_path: Path, error: BaseException
) -> None:
    lab = Lab(tmp_path)
    lab.target = AwayOnce(lab.target, error)
    await refuse_selfsame_for_moves(_route(lab), "from")
    assert lab.dst.keys("to") == []


class Dying(Faulty):
    """Is never heard of again once it has written a probe."""

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "discard":
            raise ConnectionAbortedError
        return await go()


@pytest.mark.parametrize("to_disk", [True, False])
async def test_the_probe_of_who_died_goes_with_the_next_one(tmp_path: Path, to_disk: bool) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    lab = Lab(tmp_path, target=LocalStore("dst", folder)) if to_disk else Lab(tmp_path)
    lab.change(mode=Mode.MOVE, target=Place("dst", "to", b""))
    target, lab.target = lab.target, Dying(lab.target)

    def there() -> list[object]:
        if to_disk:
            return [it.name for it in (folder / "to").iterdir()]
        return list(lab.dst.keys("to"))

    with pytest.raises(ConnectionAbortedError):
        await refuse_selfsame_for_moves(_route(lab), "from")
    assert len(there()) == 1
    lab.target = target
    await refuse_selfsame_for_moves(_route(lab), "from")
    assert there() == []
    if to_disk:
        await target.close()


async def test_what_a_killed_doctor_left_goes_with_the_next_one(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.put(b"x", 100)
    target, lab.target = lab.target, Dying(lab.target)
    with pytest.raises(ConnectionAbortedError):
        _ = [each async for each in examine(_route(lab))]
    assert len(lab.dst.keys("to")) == 1
    lab.target = target
    told = [each async for each in examine(_route(lab))]
    assert all(each.ok for each in told)
    assert any("a killed doctor left" in each.answer for each in told)
    assert lab.dst.keys("to") == []


class Meeting(Faulty):
    """Lists only after somebody else, who tries the same, has removed the probe of both."""

    def __init__(self, inner: MemoryStore, target: MemoryStore) -> None:
        super().__init__(inner)
        self.target = target
        self.times = 1

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "list_page" and b"s3flow-probe-" in call.args[1] and self.times:
            self.times -= 1
            [probe] = [key for key in self.target.keys("to") if b"s3flow-probe-" in key]
            await self.target.delete_object("to", probe, etag="")
        return await go()


async def test_a_probe_that_another_one_removed_proves_nothing(tmp_path: Path) -> None:
    lab = moving(tmp_path, "", "")
    lab.source = Meeting(lab.src, lab.dst)
    with pytest.raises(Conflict, match="s3flow-probe-"):
        await refuse_selfsame_for_moves(_route(lab), "from")
    with pytest.raises(SameObject):
        await refuse_selfsame_for_moves(_route(lab), "from")
    assert lab.dst.keys("to") == []


async def test_a_probe_that_the_target_could_not_keep_is_told_for_what_it_is(
    tmp_path: Path,
) -> None:
    lab = moving(tmp_path, "", "")

    class Full(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            return [TargetUnavailable("full")] if call.method == "settle" else await go()

    lab.target = Full(lab.dst)
    with pytest.raises(TargetUnavailable, match="full"):
        await refuse_selfsame_for_moves(_route(lab), "from")
    assert lab.dst.keys("to") == []


async def test_another_object_of_the_probe_s_name_is_not_the_probe(tmp_path: Path) -> None:
    """As a flow of that name has left it at the source, for another target."""
    lab = Lab(tmp_path)
    lab.change(mode=Mode.MOVE)

    class Left(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method != "list_page" or b"s3flow-probe-" not in call.args[1]:
                return await go()
            return Page([Listed(call.args[1], 1, "etag", 1, "STANDARD")], last=True)

    lab.source = Left(lab.src)
    await refuse_selfsame_for_moves(_route(lab), "from")
    assert lab.dst.keys("to") == []


async def test_a_copy_to_another_bucket_of_the_account_may_have_any_prefix(tmp_path: Path) -> None:
    src = store("src", "from")
    lab = Lab(tmp_path, src, store("dst", "to", beside=src))
    lab.change(target=Place("dst", "to", b"b/"))
    lab.put(b"a", 10)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []


async def test_a_rewrite_does_not_copy_a_bucket_into_itself_either(tmp_path: Path) -> None:
    src = store("src", "from")
    lab = Lab(tmp_path, src, alias(src, "from", "from"))
    lab.change(target=Place("dst", "from", b""), rewrite=(("", "x/"),))
    lab.put(b"a", 10)
    assert await lab.sync() == {}
    assert [failed.reason for failed in lab.of(BucketFailed)] == [SameObject.reason]
    assert src.keys("from") == [b"a"]


async def test_doctor_tells(tmp_path: Path) -> None:
    lab = moving(tmp_path, "", "")
    lab.put(b"x", 100)
    [told] = [each async for each in examine(_route(lab)) if "is not" in each.tried]
    assert not told.ok
    assert "same_object" in told.answer


def _route(lab: Lab):
    maker = RouteMaker(QUICK, Crc64Nvme(), lambda event: None, asyncio.Event())
    return maker.route(Wiring(lab.flow, lab.source, lab.target))
