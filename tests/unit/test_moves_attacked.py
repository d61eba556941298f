"""Moves as an enemy sees them: what could take a source away that has no equal copy, or was not meant."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine import deleter, removing
from s3flow.engine.reverify import Copy, Looked, Result, refutal
from s3flow.errors import AccessDenied, Refused
from s3flow.events import Recorded, TransferEnded
from s3flow.model import Doomed, Filters, Outcome, Place, State
from s3flow.policies import LOST_METADATA, DeletePolicy, Guard, Mode, Overwrite
from s3flow.ports import StateStore
from s3flow.stores.local import LocalStore
from s3flow.stores.local.paths import Directory
from s3flow.stores.local.settle import Disks
from s3flow.stores.memory import MemoryStore
from tests.faults import Call, Faulty, Raising, Recording
from tests.unit.lab import PARTS, Lab, store


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(deleter, "LINGER", 0.01)
    monkeypatch.setattr(deleter, "LOOK_AGAIN", 0.01)
    return Lab(tmp_path)


async def reasons(lab: Lab) -> dict[str, int]:
    found = [one for one in await lab.totals() if one.state is State.VERIFIED and one.objects]
    return {one.reason: one.objects for one in found}


# --- what the flow means is not what it meant --------------------------------------------------


async def test_what_the_filters_leave_out_by_now_is_not_deleted(lab: Lab) -> None:
    lab.put(b"keep/a", 10)
    lab.put(b"go/a", 10)
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    lab.change(mode=Mode.MOVE, filters=Filters(exclude=("keep/*",)))
    assert await lab.sync() == {Outcome.VERIFIED: 1, Outcome.DELETED: 1}
    assert lab.src.keys("from") == [b"keep/a"]
    assert await reasons(lab) == {"delete_failed": 1}
    lab.change(filters=Filters())
    assert await lab.sync() == {Outcome.DELETED: 2}
    assert lab.differences() == []


async def test_what_waited_until_it_is_too_old_to_be_taken_is_deleted_all_the_same(
    lab: Lab,
) -> None:
    lab.put(b"a", 10)
    lab.change(mode=Mode.MOVE, filters=Filters(max_age=3600.0), delete_after=7200.0)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    lab.change(filters=Filters(max_age=0.0), delete_after=0.0)
    with contextlib.closing(sqlite3.connect(lab.folder / "state.db")) as db, db:
        db.execute("UPDATE objects SET due_at = 1")
    assert await lab.sync() == {Outcome.DELETED: 1}


async def test_buckets_that_are_left_out_by_now_are_not_touched(lab: Lab) -> None:
    for bucket in ("one", "two"):
        lab.src.put(bucket, b"key", b"bytes")
        lab.dst.make_bucket(bucket)
    lab.change(source=Place("src", "[ot][nw][eo]", b""), target=Place("dst", "{bucket}", b""))
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    lab.change(mode=Mode.MOVE, exclude_buckets=("two",))
    await lab.sync()
    assert (lab.src.keys("one"), lab.src.keys("two")) == ([], [b"key"])


# --- what a condition is worth -------------------------------------------------------------------


async def test_what_has_no_etag_is_not_deleted(lab: Lab) -> None:
    """A store may take a condition without an ETag for none."""
    lab.source = store("src", "from", with_checksums=True)
    lab.target = store("dst", "to", with_checksums=True)
    lab.put(b"a", 10)
    lab.src.peek("from", b"a").etag = ""  # type: ignore[union-attr]
    lab.change(mode=Mode.MOVE)
    await lab.sync()
    assert lab.src.keys("from") == [b"a"]
    assert lab.differences() == []
    assert await reasons(lab) == {"delete_failed": 1}


async def test_what_lacks_metadata_that_could_not_be_carried_keeps_its_source(lab: Lab) -> None:
    class Lacking(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            answer = await go()
            info = answer.info if call.method == "get_object" else answer
            if call.method in {"get_object", "head_object"} and info is not None:
                info.missing_metadata = 1
            return answer

    lab.change(mode=Mode.MOVE, **PARTS)
    lab.put(b"a", 10)
    lab.put(b"b", 5000)
    lab.source = Lacking(lab.src)
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    assert lab.src.keys("from") == [b"a", b"b"]
    assert set(await reasons(lab)) == {LOST_METADATA}


# --- files that others wrote ----------------------------------------------------------------------


async def test_what_is_adopted_from_a_disk_is_durable_before_it_is_recorded(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program that wrote it need not have synced it, and then its source is deleted."""
    disk = lab.folder / "disk"
    (disk / "to" / "sub").mkdir(parents=True)
    for key in ("a", "sub/b"):
        (disk / "to" / key).write_bytes(lab.put(key.encode(), 10))
    before: list[list[object]] = []
    flushed = Disks.flush

    def flush(disks: Disks, directory: Directory) -> None:
        before.append(lab.query("SELECT id FROM objects WHERE state = 10"))
        flushed(disks, directory)

    monkeypatch.setattr(Disks, "flush", flush)
    lab.target = LocalStore("dst", disk)
    lab.change(mode=Mode.MOVE)
    assert await lab.sync() == {Outcome.DELETED: 2}
    assert before == [[]]  # once for both: they are on one disk
    await lab.target.close()


async def test_what_cannot_be_made_durable_is_not_adopted(lab: Lab) -> None:
    disk = lab.folder / "disk"
    (disk / "to").mkdir(parents=True)
    (disk / "to" / "a").write_bytes(lab.put(b"a", 10))
    local = LocalStore("dst", disk)
    lab.target = Raising(local, Refused("a bad disk"), lambda it: it.method == "flush")
    lab.change(mode=Mode.MOVE)
    assert await lab.sync() == {}
    assert lab.src.keys("from") == [b"a"]
    await local.close()


def cut_short(path: Path) -> None:
    times = (path.stat().st_atime, path.stat().st_mtime)
    os.truncate(path, 5)
    os.utime(path, times)


def written_over(seconds: float) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        time = path.stat().st_mtime + seconds
        path.write_bytes(b"of others!")
        os.utime(path, (time, time))

    return write


@pytest.mark.parametrize(
    "change", [cut_short, written_over(60), written_over(-60)], ids=["cut", "newer", "older"]
)
async def test_a_file_that_is_not_the_copy_any_more_is_moved_again_first(
    lab: Lab, change: Callable[[Path], None]
) -> None:
    data = lab.put(b"a", 10)
    (lab.folder / "disk").mkdir()
    lab.target = LocalStore("dst", lab.folder / "disk")
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    change(lab.folder / "disk" / "to" / "a")
    lab.change(mode=Mode.MOVE)
    assert await lab.sync() == {Outcome.DELETED: 1}
    assert (lab.folder / "disk" / "to" / "a").read_bytes() == data
    await lab.target.close()


async def test_a_file_of_another_time_that_nothing_can_compare_is_moved_again_first(
    lab: Lab,
) -> None:
    class TellsOfNoParts(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if "part_number" in call.kwargs:
                raise Refused("no such parameter")
            return await go()

    data = lab.put(b"a", 10, part_size=7)
    lab.source = TellsOfNoParts(lab.src)
    (lab.folder / "disk").mkdir()
    lab.target = LocalStore("dst", lab.folder / "disk")
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    written_over(60)(lab.folder / "disk" / "to" / "a")
    lab.change(mode=Mode.MOVE)
    assert await lab.sync() == {Outcome.DELETED: 1}
    assert (lab.folder / "disk" / "to" / "a").read_bytes() == data
    await lab.target.close()


# --- versions --------------------------------------------------------------------------------------


class Versioned(Faulty):
    """Keeps versions as S3 does: one that is named is deleted, whatever the ETag, and no other."""

    def __init__(self, inner: MemoryStore) -> None:
        super().__init__(inner)
        self.current = "v1"
        self.before_look: Callable[[], object] | None = None
        self.doomed: list[Doomed] = []

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "head_object" and self.before_look is not None:
            self.before_look()
            self.before_look = None
        if call.method == "delete_objects":
            self.doomed.extend(call.args[1])
            for each in call.args[1]:
                there = self.inner.peek("from", each.key)
                if each.version_id == self.current and there is not None:
                    there.etag = each.etag
        answer = await go()
        if call.method == "head_object" and answer is not None:
            answer.version_id = self.current
        elif call.method == "get_object":
            answer.info.version_id = self.current
        return answer

    def put(self, data: bytes, *, later: int) -> None:
        """Write another version, *later* milliseconds after the one that is there."""
        time = self.inner.peek("from", b"a").modified
        self.inner.put("from", b"a", data).modified = time + later
        self.current += "+"


@pytest.fixture
async def versioned(lab: Lab) -> Versioned:
    lab.put(b"a", 10)
    lab.source = store = Versioned(lab.src)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    lab.change(mode=Mode.MOVE, delete=DeletePolicy.VERSION)
    return store


async def forget_versions(lab: Lab) -> None:
    """What was adopted has none on record."""
    with contextlib.closing(sqlite3.connect(lab.folder / "state.db")) as db, db:
        db.execute("UPDATE objects SET version_id = ''")


@pytest.mark.parametrize("known", [True, False])
async def test_a_version_that_came_before_the_last_look_is_moved_too(
    lab: Lab, versioned: Versioned, known: bool
) -> None:
    if not known:
        await forget_versions(lab)
    versioned.before_look = lambda: versioned.put(b"newer", later=1)
    assert await lab.sync() == {Outcome.DELETED: 1}
    assert lab.copy_of(b"a") == b"newer"
    assert [each.version_id for each in versioned.doomed] == ["v1+"]


@pytest.mark.parametrize("known", [True, False])
async def test_the_same_bytes_in_a_later_version_are_moved_too(
    lab: Lab, versioned: Versioned, known: bool
) -> None:
    """Their metadata may be others."""
    if not known:
        await forget_versions(lab)
    data = lab.copy_of(b"a")
    assert data is not None
    versioned.before_look = lambda: versioned.put(data, later=5000)
    assert await lab.sync() == {Outcome.DELETED: 1}
    assert [each.change.version_id for each in lab.of(TransferEnded)] == ["v1+"]


async def test_a_version_that_cannot_be_told_from_the_copied_one_is_deleted_under_its_etag(
    lab: Lab, versioned: Versioned
) -> None:
    data = lab.copy_of(b"a")
    assert data is not None
    versioned.before_look = lambda: versioned.put(data, later=1)
    etag = lab.src.peek("from", b"a").etag  # type: ignore[union-attr]
    assert await lab.sync() == {Outcome.DELETED: 1}
    assert versioned.doomed == [Doomed(b"a", etag)]


async def test_the_version_of_a_bucket_that_keeps_none_any_more_is_deleted_under_its_etag(
    lab: Lab,
) -> None:
    lab.put(b"a", 10)
    etag = lab.src.peek("from", b"a").etag  # type: ignore[union-attr]
    lab.source = source = Versioned(lab.src)
    source.current = "null"
    lab.change(mode=Mode.MOVE, delete=DeletePolicy.VERSION)
    assert await lab.sync() == {Outcome.DELETED: 1}
    assert source.doomed == [Doomed(b"a", etag)]


# --- what is found out while a batch is at work ----------------------------------------------------


async def test_what_is_proven_to_be_bad_meanwhile_keeps_its_source(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removing, "FEW", 1)
    monkeypatch.setattr(removing, "SINGLY", 1)
    states: list[StateStore] = []
    lab.wrap_state = lambda state: states.append(state) or state  # type: ignore[func-returns-value]

    class Scrubbed(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "delete_objects" and call.args[1][0].key == b"a":
                due = (await states[0].transfers("flow", "from", b"", 10))[2]
                bad = refutal(Copy(due.transfer), Looked(Result.DIFFERS, message="rotten"))
                assert lab.daemon is not None
                lab.daemon.flows["flow"].route.emit(Recorded(await states[0].refute([bad])))
            return await go()

    for key in (b"a", b"b", b"c"):
        lab.put(key, 10)
    lab.change(mode=Mode.MOVE, unguarded_delete=True)
    lab.src._guard = Guard.NOT
    lab.source = Scrubbed(lab.src)
    assert await lab.sync() == {Outcome.DELETED: 2, Outcome.FAILED: 1}
    assert lab.src.keys("from") == [b"c"]
    assert await lab.failures() == {b"c": "verification_failed"}


async def test_copies_that_nobody_may_look_at_keep_their_sources(lab: Lab) -> None:
    for key in (b"a", b"b"):
        lab.put(key, 10)
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    lab.change(mode=Mode.MOVE)
    lab.source = source = Recording(lab.src)
    lab.target = Raising(
        lab.dst,
        AccessDenied("no s3:ListBucket"),
        lambda it: it.method == "find" and it.args[1] == [b"a", b"b"],  # and for no probe
    )
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    assert lab.src.keys("from") == [b"a", b"b"]
    assert source.of("delete_objects") == []
    assert await reasons(lab) == {"delete_failed": 2}


async def test_a_stop_ends_deletes_between_two_requests(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removing, "FEW", 1)
    monkeypatch.setattr(removing, "SINGLY", 1)

    class Stopping(Recording):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            answer = await super().around(call, go)
            if len(self.of("delete_objects")) == 2:
                lab.stop.set()
            return answer

    for number in range(5):
        lab.put(b"%d" % number, 10)
    assert await lab.sync() == {Outcome.VERIFIED: 5}
    lab.change(mode=Mode.MOVE)
    lab.src._guard = Guard.ONE
    lab.source = Stopping(lab.src)
    assert await lab.sync() == {Outcome.DELETED: 2, Outcome.VERIFIED: 3}
    assert len(lab.src.keys("from")) == 3
    lab.source = lab.src
    assert await lab.sync() == {Outcome.DELETED: 5}


async def test_what_a_move_has_proven_is_not_copied_again_though_all_is_to_be_overwritten(
    lab: Lab,
) -> None:
    """A listing would take it from the delete at hand: the source went, and was on record as skipped."""
    for number in range(8):
        lab.put(b"%d" % number, 10)
    lab.change(mode=Mode.MOVE, overwrite=Overwrite.ALWAYS, delete_after=3600.0)
    assert await lab.sync() == {Outcome.VERIFIED: 8}
    target = lab.target = Recording(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 8}
    assert b"0" not in [call.args[1] for call in target.of("put_object")]
    lab.change(mode=Mode.COPY)
    assert await lab.sync() == {Outcome.VERIFIED: 8}
    assert b"0" in [call.args[1] for call in target.of("put_object")]
