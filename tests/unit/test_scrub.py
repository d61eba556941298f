"""Scrubbing: at its pace, in turn, over restarts; what differs is marked and comes back by retry."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3flow.config.units import parse_pace
from s3flow.engine import scrub
from s3flow.engine.reverify import Result
from s3flow.engine.scrub import DAY, Scrubber, due
from s3flow.engine.wiring import RouteMaker, Wiring
from s3flow.errors import TargetUnavailable
from s3flow.events import Event, LookedAgain, Recorded, Warned
from s3flow.model import Outcome, State
from s3flow.policies import VERIFICATION_FAILED, Mode
from s3flow.records import Scrubbed
from s3flow.state.sqlite import open_sqlite
from s3flow.state.store import SqlState
from s3flow.stores.crc64 import Crc64Nvme
from tests.faults import Raising, Recording
from tests.unit.lab import QUICK, Lab

NOW = 1_800_000_000.0


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


class Bench:
    """A flow that was copied, and a scrubber of it whose clock is ours."""

    def __init__(self, lab: Lab, state: SqlState) -> None:
        self.lab, self.state = lab, state
        self.clock, self.events = Clock(), list[Event]()
        self.target: Any = Recording(lab.target)
        self.stop = asyncio.Event()

    def scrubber(self) -> Scrubber:
        maker = RouteMaker(QUICK, Crc64Nvme(), self.events.append, self.stop)
        lab = self.lab
        wiring = Wiring(lab.flow, lab.source, self.target)
        return Scrubber(maker.route(wiring), self.state, self.clock)

    async def day(self, days: float = 1.0) -> list[bytes]:
        """Let time pass, and what is due be done; gives the keys that were looked at."""
        self.clock.now += days * DAY
        before = len(self.target.calls)
        await self.work(self.scrubber())
        return [call.args[1] for call in self.target.calls[before:] if call.method == "head_object"]

    async def work(self, scrubber: Scrubber) -> None:
        while await scrubber._turn() <= scrub.SHORTEST_REST:
            pass

    def results(self) -> Counter[str]:
        counted: Counter[str] = Counter()
        for event in self.events:
            if isinstance(event, LookedAgain):
                counted.update(event.results)
        return counted


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    lab = Lab(tmp_path)
    for number in range(50):
        lab.put(b"%02d" % number, 100)
    await lab.sync()
    lab.change(scrub=0.1)
    state = await open_sqlite(tmp_path / "state.db")
    bench = Bench(lab, state)
    await bench.day(0)  # from now on it counts
    yield bench
    await bench.state.close()


async def test_all_are_looked_at_in_turn_and_then_again(bench: Bench) -> None:
    days = [await bench.day() for _ in range(20)]
    assert all(4 <= len(keys) <= 6 for keys in days), days
    seen = [key for keys in days for key in sorted(keys)]
    assert sorted(seen[:50]) == [b"%02d" % number for number in range(50)]
    assert bench.results()[Result.PROVEN] == len(seen)
    assert max(Counter(seen).values()) <= 3


async def test_a_restart_neither_repeats_nor_forgets(bench: Bench) -> None:
    first = await bench.day()
    assert await bench.day(0) == []
    await bench.state.close()
    bench.state = await open_sqlite(bench.lab.folder / "state.db")
    assert await bench.day(0.01) == []
    second = await bench.day()
    assert max(first) < min(second)


async def test_a_long_absence_is_made_up_for_by_one_day_alone(bench: Bench) -> None:
    assert len(await bench.day(300)) in {5, 6}


async def test_what_differs_is_marked_and_comes_back_by_retry(bench: Bench) -> None:
    dst = bench.lab.dst
    dst.put("to", b"00", b"x" * 100)
    contents = dst._contents("to")
    del contents.objects[b"01"]
    contents.keys.remove(b"01")
    await bench.day()
    assert bench.results() == {Result.DIFFERS: 1, Result.MISSING: 1, Result.PROVEN: 3}
    failed = await bench.state.failures("flow", 10)
    assert [(key, reason) for _, key, reason, _ in failed] == [
        (b"00", VERIFICATION_FAILED),
        (b"01", VERIFICATION_FAILED),
    ]
    told = [event.message for event in bench.events if isinstance(event, Warned)]
    assert len(told) == 2
    assert any("from/00" in message and "MD5" in message for message in told)
    changes = [it for event in bench.events if isinstance(event, Recorded) for it in event.changes]
    assert {it.state for it in changes} == {State.FAILED}
    assert await bench.state.retry("flow", VERIFICATION_FAILED) == 2
    await bench.state.close()
    assert await bench.lab.sync() == {Outcome.VERIFIED: 50}
    assert bench.lab.differences() == []


async def test_a_newer_version_at_the_source_is_no_failure(bench: Bench) -> None:
    bench.lab.put(b"02", 333)
    await bench.day()
    assert bench.results()[Result.SOURCE_CHANGED] == 1
    assert await bench.state.failures("flow", 10) == []


async def test_a_disk_that_is_away_marks_nothing_and_is_told_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrub, "LONGEST_REST", 0.001)
    away = Raising(bench.lab.target, TargetUnavailable("unmounted"), lambda call: True)
    bench.target = Recording(away)
    bench.clock.now += DAY
    running = asyncio.create_task(bench.scrubber().run(asyncio.Event()))
    while len(bench.target.calls) < 20:
        await asyncio.sleep(0.001)
    bench.stop.set()
    await running
    assert len([event for event in bench.events if isinstance(event, Warned)]) == 1
    assert await bench.state.failures("flow", 10) == []
    mark = await bench.state.scrubbed("flow")
    assert mark is not None
    assert (mark.bucket, mark.after) == ("", b"")


async def test_a_flow_that_scrubs_ends_when_all_is_moved(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.change(scrub=1.0)
    lab.put(b"one", 10)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.query("SELECT count(*) FROM meta WHERE name LIKE 'scrubbing/%'") == [(1,)]


async def test_what_scrubbing_finds_stops_the_deletes_of_a_move(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.change(scrub=0.1, mode=Mode.MOVE, delete_after=DAY)
    lab.put(b"one", 10)
    await lab.sync()
    assert lab.daemon is not None
    deleter = lab.daemon._deleters["flow"]
    lab.daemon._emit(LookedAgain("flow", {Result.PROVEN: 99, Result.SOURCE_CHANGED: 50}))
    assert deleter._breaker.why == ""
    lab.daemon._emit(LookedAgain("flow", {Result.MISSING: 4, Result.DIFFERS: 4}))
    assert "8 were not equal" in deleter._breaker.why


# --- paces -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "share"),
    [("1%/day", 0.01), ("0.5%/hour", 0.12), ("7%/week", 0.01), ("30%/month", 0.01), ("", 0.0)],
)
def test_paces_are_shares_of_a_day(text: str, share: float) -> None:
    assert parse_pace(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["1%", "1/day", "1%/fortnight", "101%/day", "x%/day", 5, "%/day"])
def test_what_is_no_pace_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"is (not|out)"):
        parse_pace(text)


@given(st.floats(NOW - 900 * DAY, NOW + 900 * DAY), st.integers(0, 10**12), st.floats(0.0001, 1.0))
def test_never_more_than_a_day_is_due_whatever_the_clock_does(
    at: float, copies: int, share: float
) -> None:
    found = due(Scrubbed("b", b"k", at), copies, share, NOW)
    assert 0 <= found.copies <= copies * share + 1
    assert NOW - DAY <= found.since <= NOW
