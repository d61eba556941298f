"""What is tried with probes, and what deaths leave of them at a target: whose it is, and when it goes."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine.probe import examine
from s3flow.engine.route import Route
from s3flow.engine.selfsame import name_of, refuse_selfsame_for_moves
from s3flow.engine.wayfinding import probe_name
from s3flow.engine.wiring import RouteMaker, Wiring
from s3flow.errors import AccessDenied
from s3flow.events import Event, Warned
from s3flow.model import Attributes, Place
from s3flow.policies import Mode
from s3flow.probes import DELETE_PROBE, DOCTOR_BYTES, DOCTOR_PROBE, PROBE_LEFT
from s3flow.state.sqlite import open_sqlite
from s3flow.stores.crc64 import Crc64Nvme
from s3flow.upkeep import sweep, sweep_probes
from tests.faults import Call, Faulty, Raising
from tests.unit.lab import QUICK, Lab, store

ABOUT = Attributes({}, {}, "STANDARD", 0)


def route_of(lab: Lab, mark: str) -> Route:
    maker = RouteMaker(QUICK, Crc64Nvme(), lambda event: None, asyncio.Event())
    return maker.route(wiring_of(lab), mark=mark)


def wiring_of(lab: Lab) -> Wiring:
    return Wiring(lab.flow, lab.source, lab.target, lab.target)  # type: ignore[arg-type]


def aged(lab: Lab) -> Lab:
    """Give the target another clock, by which all is written two hours ago."""
    lab.dst._clock = lambda: time.time() - 2 * PROBE_LEFT
    return lab


# --- names ---------------------------------------------------------------------------------------


async def test_a_state_has_one_name_at_every_start_and_no_other_state_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []
    for host in ("container-1", "container-2"):
        monkeypatch.setattr(socket, "gethostname", lambda host=host: host)
        lab = Lab(tmp_path)
        await lab.sync()
        assert lab.daemon is not None
        names.append(name_of(lab.daemon.flows["flow"].route))
    assert names[0] == names[1]
    (tmp_path / "other").mkdir()
    other = Lab(tmp_path / "other")
    await other.sync()
    assert other.daemon is not None
    assert name_of(other.daemon.flows["flow"].route) != names[0]


class Beside(Faulty):
    """Lists only after somebody else has tried the same, and has removed what it wrote."""

    def __init__(self, inner: Any, other: Callable[[], Any]) -> None:
        super().__init__(inner)
        self.other: Callable[[], Any] | None = other

    async def around(self, call: Call, go: Callable[[], Any]) -> Any:
        if call.method == "list_page" and self.other is not None:
            other, self.other = self.other, None
            await other()
        return await go()


async def test_two_daemons_with_flows_of_one_name_do_not_spoil_each_other_s_trial(
    tmp_path: Path,
) -> None:
    lab = Lab(tmp_path)
    lab.change(mode=Mode.MOVE)
    theirs = route_of(lab, "theirs")
    lab.source = Beside(lab.src, lambda: refuse_selfsame_for_moves(theirs, "from"))
    await refuse_selfsame_for_moves(route_of(lab, "ours"), "from")  # raised Conflict
    assert lab.source.other is None
    assert lab.dst.keys("to") == []


# --- what is tried -------------------------------------------------------------------------------


async def test_all_buckets_are_tried_and_what_is_in_any_of_them_is_read(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    for name in ("a-empty", "b-closed", "c-full"):
        lab.src.make_bucket(name)
    lab.src.put("c-full", b"key", b"content")
    lab.change(source=Place("src", "*", b""), target=Place("dst", "{bucket}", b""))
    closed = Raising(
        lab.src,
        AccessDenied("no"),
        lambda call: call.method == "list_page" and call.args[0] == "b-closed",
    )
    lab.source = closed
    told = {each.tried: each for each in [it async for it in examine(route_of(lab, "doctor/x"))]}
    assert told["list src:a-empty/"].ok
    assert not told["list src:b-closed/"].ok
    assert told["read 'key'"].ok


async def test_an_empty_source_is_no_proof_that_it_can_be_read(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    told = {each.tried: each for each in [it async for it in examine(route_of(lab, "doctor/x"))]}
    assert "not tried" in told["read an object"].answer


# --- what is left --------------------------------------------------------------------------------


class Mortal(Faulty):
    """Aborts nothing: who began the upload was killed."""

    async def around(self, call: Call, go: Callable[[], Any]) -> Any:
        if call.method == "abort_multipart_upload":
            raise ConnectionAbortedError
        return await go()


async def killed_doctor(lab: Lab, mark: str = "doctor/x") -> Route:
    target, lab.target = lab.target, Mortal(lab.target)
    with pytest.raises(ConnectionAbortedError):
        _ = [each async for each in examine(route_of(lab, mark))]
    lab.target = target
    assert len(lab.uploads()) == 1
    return route_of(lab, mark)


async def test_the_next_doctor_aborts_the_upload_of_a_killed_one_at_once(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    route = await killed_doctor(lab)
    assert await sweep_probes(wiring_of(lab), "to", probe_name(route)) == 1
    assert lab.uploads() == []


async def test_another_doctor_s_upload_is_left_alone_until_it_is_nobody_s(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    await killed_doctor(lab)
    other = probe_name(route_of(lab, "doctor/other"))
    assert await sweep_probes(wiring_of(lab), "to", other) == 0
    assert len(lab.uploads()) == 1
    lab.dst._uploads.clear()
    await killed_doctor(aged(lab))
    assert await sweep_probes(wiring_of(lab), "to", other) == 1
    assert lab.uploads() == []


async def test_the_next_start_of_the_flow_removes_what_doctors_and_older_states_left(
    tmp_path: Path,
) -> None:
    lab = aged(Lab(tmp_path, target=store("dst", "to")))
    lab.change(target=Place("dst", "to", b"below/"))
    await killed_doctor(lab)
    mark = b"below/" + DELETE_PROBE + b"0123456789abcdef"
    left = {b"below/" + DOCTOR_PROBE + b"fedcba9876543210": DOCTOR_BYTES, mark: mark}
    for key, data in left.items():
        lab.dst.put("to", key, data)
    # What people have may have any name; other prefixes are other flows'.
    kept = {b"below/" + DOCTOR_PROBE + b"notes": b"s3flow doctor\r\n", b"x" + mark: mark}
    kept[b"below/" + DOCTOR_PROBE + b"1"] = DOCTOR_BYTES
    kept[b"above/" + DOCTOR_PROBE + b"fedcba9876543210"] = DOCTOR_BYTES
    for key, data in kept.items():
        lab.dst.put("to", key, data)
    upload = await lab.dst.create_multipart_upload("to", b"below/other", ABOUT, 10)
    told: list[Event] = []
    state = await open_sqlite(tmp_path / "state.db")
    await sweep(state, [wiring_of(lab)], time.time(), told.append)
    await state.close()
    assert set(lab.dst.keys("to")) == set(kept)
    assert lab.uploads() == [upload]
    assert told == []


async def test_a_probe_in_use_stays(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    mark = DELETE_PROBE + hashlib.sha256(b"").hexdigest()[:16].encode()
    lab.dst.put("to", mark, mark)
    assert await sweep_probes(wiring_of(lab), "to") == 0
    assert lab.dst.keys("to") == [mark]


async def test_a_target_bucket_that_is_not_there_yet_is_no_trouble(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.change(target=Place("dst", "later", b""))
    told: list[Event] = []
    state = await open_sqlite(tmp_path / "state.db")
    await sweep(state, [wiring_of(lab)], time.time(), told.append)
    await state.close()
    assert [it for it in told if isinstance(it, Warned)] == []
