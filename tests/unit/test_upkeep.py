"""Folders as targets: the right one, and no leftovers of dead runs."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from s3flow import events, upkeep
from s3flow.engine.wiring import Wiring
from s3flow.errors import ClockSkewed, TargetUnavailable
from s3flow.model import Attributes, Outcome, Place
from s3flow.state.sqlite import open_sqlite
from s3flow.stores.local import LocalStore
from s3flow.stores.memory import MemoryStore
from tests.faults import NthCallFails
from tests.unit.lab import FLOW, Lab

NOTHING = Attributes({}, {}, "STANDARD", 0)


@pytest.fixture
async def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


async def test_a_folder_that_was_written_to_is_recognised(tmp_path: Path, root: Path) -> None:
    store = LocalStore("nas", root)
    await store.recognise("flow", written=False)
    await store.sweep(time.time() + 10)
    await store.recognise("flow", written=True)
    await store.close()


async def test_a_bare_mount_point_is_not_taken_for_the_folder(tmp_path: Path, root: Path) -> None:
    store = LocalStore("nas", root)
    with pytest.raises(TargetUnavailable, match=r"touch .*\.s3flow-root"):
        await store.recognise("flow", written=True)
    assert list(root.iterdir()) == []
    await store.close()


@pytest.mark.parametrize("found", ["adopted", "only listed"])
async def test_a_flow_that_wrote_nothing_yet_refuses_another_folder_too(
    tmp_path: Path, root: Path, found: str
) -> None:
    target = LocalStore("nas", root)
    lab = Lab(tmp_path, target=target)
    lab.change(target=Place("nas", "", b""))
    lab.src.put("from", b"k", b"bytes")
    state = await open_sqlite(tmp_path / "state.db")
    wirings = [Wiring(lab.flow, lab.source, target)]
    await upkeep.recognise(state, wirings)
    await state.close()
    if found == "adopted":
        (root / "k").write_bytes(b"bytes")
        assert await lab.sync() == {Outcome.VERIFIED: 1}
        assert lab.query("SELECT DISTINCT method FROM inventory") == [("adopted",)]
    else:
        await lab.sync(scan_only=True)
    (root / ".s3flow-root").unlink()  # as when it is not mounted
    state = await open_sqlite(tmp_path / "state.db")
    with pytest.raises(TargetUnavailable, match=r"not the folder that flow .* had before"):
        await upkeep.recognise(state, wirings)
    await state.close()
    await target.close()


async def test_a_flow_refuses_another_folder_than_it_wrote_to(tmp_path: Path, root: Path) -> None:
    target = LocalStore("nas", root)
    lab = Lab(tmp_path, target=target)
    lab.change(target=Place("nas", "", b"copies/"))
    lab.src.put("from", b"k", b"bytes")
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    wirings = [Wiring(lab.flow, lab.source, target)]
    state = await open_sqlite(tmp_path / "state.db")
    try:
        with pytest.raises(TargetUnavailable, match=str(root)):
            await upkeep.recognise(state, wirings)
        (root / ".s3flow-root").touch()
        await upkeep.recognise(state, wirings)
    finally:
        await state.close()
        await target.close()


async def test_unfinished_files_of_forgotten_flows_are_removed(tmp_path: Path, root: Path) -> None:
    target = LocalStore("nas", root)
    flow = FLOW.__class__("flow", FLOW.source, Place("nas", "", b"copies/"))
    old = await target.create_multipart_upload("", b"copies/old", NOTHING, 10)
    other = await target.create_multipart_upload("", b"others/old", NOTHING, 10)
    state = await open_sqlite(tmp_path / "state.db")
    try:
        await state.open_flow(flow)
        wirings = [Wiring(flow, MemoryStore("src"), target)]
        told: list[events.Event] = []
        await upkeep.sweep(state, wirings, time.time() - 60, told.append)
        assert {each.upload_id for each in await target.list_multipart_uploads("", b"")} == {
            old,
            other,
        }
        await upkeep.sweep(state, wirings, time.time() + 60, told.append)
        left = await target.list_multipart_uploads("", b"")
    finally:
        await state.close()
        await target.close()
    assert [each.upload_id for each in left] == [other]
    assert told == []
    assert not [path for path in (root / "copies").iterdir() if old in path.name]


async def test_a_listing_that_is_blocked_blocks_the_flow_and_lifts_it(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.src.put("from", b"k", b"bytes")
    inner = lab.source
    lab.source = NthCallFails(inner, 1, ClockSkewed("the clock is an hour ahead"))
    await lab.sync()
    blocked = lab.of(events.FlowBlocked)
    assert [event.reason for event in blocked] == ["clock_skewed"]
    lab.source = inner
    assert await lab.sync() == {Outcome.VERIFIED: 1}
