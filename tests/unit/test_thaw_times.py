"""When restores are asked for, looked at and expected: pure, and by a clock that only this test moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from s3flow.engine.budget import DAY, THAWED, Allowance, allowance, keeps_up
from s3flow.engine.recorder import Recorder
from s3flow.engine.restorer import Restorer
from s3flow.engine.retry import Backoff
from s3flow.engine.thawing import Line, forecast, next_look, thawed, tier_for
from s3flow.engine.throttle import Blockade
from s3flow.engine.wiring import RouteMaker, Wiring
from s3flow.errors import TargetFull
from s3flow.model import (
    Change,
    Discovered,
    Flow,
    ObjectInfo,
    PageChanges,
    Restored,
    Sample,
    State,
    Total,
    Transfer,
)
from s3flow.observe.thaw import read_thawing
from s3flow.policies import RestoreTier
from s3flow.records import Spent
from s3flow.state.sqlite import open_sqlite
from s3flow.state.store import SqlState
from s3flow.stores.crc64 import Crc64Nvme
from s3flow.stores.memory import MemoryStore
from tests.unit.lab import FLOW, QUICK

HOUR = 3600.0
START = 1_800_000_000.0


# --- pure ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tier", "storage_class", "hours"),
    [
        (RestoreTier.STANDARD, "GLACIER", 4.0),
        (RestoreTier.STANDARD, "DEEP_ARCHIVE", 10.5),
        (RestoreTier.BULK, "DEEP_ARCHIVE", 36.0),
        (RestoreTier.EXPEDITED, "GLACIER", 0.05),
        (RestoreTier.EXPEDITED, "DEEP_ARCHIVE", 10.5),
        (RestoreTier.STANDARD, "INTELLIGENT_TIERING", 4.0),
    ],
)
def test_the_first_look_comes_when_the_tier_may_be_done(
    tier: RestoreTier, storage_class: str, hours: float
) -> None:
    flow = replace(FLOW, restore_tier=tier)
    assert next_look(flow, storage_class, 0) == hours * HOUR
    later = [next_look(flow, storage_class, looks) for looks in range(1, 40)]
    assert later[0] == hours * HOUR / 8
    assert later == sorted(later)
    assert later[-1] <= max(hours, 8.5) * HOUR


def test_who_sets_the_first_look_gets_it_and_a_back_off() -> None:
    flow = replace(FLOW, restore_poll=2.0)
    assert [next_look(flow, "GLACIER", looks) for looks in range(5)] == [2.0, 2.0, 4.0, 8.0, 16.0]
    assert next_look(flow, "GLACIER", 10_000) == 4 * HOUR


def test_what_is_deepest_knows_no_expedited() -> None:
    flow = replace(FLOW, restore_tier=RestoreTier.EXPEDITED)
    infos = [
        ObjectInfo(1, "e", storage_class="GLACIER"),
        ObjectInfo(1, "e", storage_class="DEEP_ARCHIVE"),
        ObjectInfo(1, "e", archive_status="ARCHIVE_ACCESS"),
        ObjectInfo(1, "e", archive_status="DEEP_ARCHIVE_ACCESS"),
    ]
    assert [tier_for(flow, info).value for info in infos] == [
        *("Expedited", "Standard", "Expedited", "Standard"),
    ]


def test_a_forecast_goes_in_waves_and_by_the_days_budget() -> None:
    flow = replace(FLOW, max_restores=10)
    assert forecast(flow, Line(0, 0, "GLACIER"), None, START) == (START, START + HOUR)
    assert forecast(flow, Line(0, 0, "GLACIER"), START + 60, START) == (
        START + 60,
        START + 60 + HOUR,
    )
    assert forecast(flow, Line(25, 0, "GLACIER"), START - 5, START) == (
        START + 12 * HOUR,
        START + 15 * HOUR,
    )
    daily = replace(flow, restore_objects_per_day=10, restore_bytes_per_day=100)
    assert forecast(daily, Line(25, 0, "GLACIER"), None, START)[0] == START + 52 * HOUR
    assert forecast(daily, Line(25, 500, "GLACIER"), None, START)[0] == START + 100 * HOUR


@dataclass
class Ledger:
    spent: Spent
    since: int = -1

    async def restores_since(self, flow: str, since: int) -> Spent:
        self.since = since
        return self.spent


async def test_without_a_budget_only_what_is_under_way_counts() -> None:
    ledger = Ledger(Spent(10**6, 10**15, 1))
    assert await allowance(FLOW, ledger, 7, 10 * DAY) == Allowance(7)
    assert not (await allowance(FLOW, ledger, -3, 10 * DAY)).is_open


async def test_a_days_budget_is_that_of_any_24_hours() -> None:
    flow = replace(FLOW, restore_objects_per_day=5, restore_bytes_per_day=100)
    now = 10 * DAY
    ledger = Ledger(Spent(3, 60, now - DAY + 1_000))
    left = await allowance(flow, ledger, 50, now)
    assert ledger.since == now - DAY
    assert [left.take(size) for size in (30, 10, 1)] == [True, True, False]  # two objects were left
    left = await allowance(flow, ledger, 50, now)
    assert [left.take(size) for size in (41, 1)] == [False, False]  # whoever is first goes first
    assert left.frees_at == now + 1_000
    for spent in (Spent(5, 10, now - 1), Spent(1, 100, now - 1)):
        left = await allowance(flow, Ledger(spent), 50, now)
        assert not left.is_open
        assert not left.take(1)
        assert left.frees_at == now + 60_000


async def test_what_is_larger_than_a_days_budget_goes_when_nothing_else_did() -> None:
    flow = replace(FLOW, restore_bytes_per_day=100)
    left = await allowance(flow, Ledger(Spent(0, 0, 0)), 50, 10 * DAY)
    assert [left.take(size) for size in (1_000, 1)] == [True, False]


def test_no_more_is_thawed_than_can_be_moved_in_time() -> None:
    flow = replace(FLOW, restore_days=2)  # a day is half of it
    samples = [Sample(0.0, 0, 0), Sample(1000.0, 10, 1000)]  # 864 objects a day, of 86,400 bytes
    assert keeps_up(flow, [], samples)
    assert keeps_up(flow, [_waiting(864, 86_400)], samples)
    assert not keeps_up(flow, [_waiting(865, 1)], samples)
    assert not keeps_up(flow, [_waiting(1, 86_401)], samples)
    assert keeps_up(flow, [_waiting(10**6, 10**9, reason="")], samples)  # never was archived
    assert keeps_up(flow, [_waiting(10**6, 10**9)], samples[:1])  # no rate is known yet
    assert keeps_up(flow, [_waiting(10**6, 10**9)], [samples[0], Sample(9.0, 0, 0)])


def _waiting(objects: int, size: int, reason: str = THAWED) -> Total:
    return Total("from", State.DISCOVERED, reason, "", "", objects, size)


async def test_nothing_is_asked_for_while_the_flow_is_blocked(bench: Bench) -> None:
    blockade = Blockade("flow", 60.0, lambda event: None, asyncio.Event())
    bench.restorer.blockade = blockade
    blockade.leave(TargetFull("no room"), scout=False)
    await bench.line_up(b"a")
    await bench.at(0)
    assert bench.store.asked == []
    blockade.lift()
    await bench.at(1)
    assert [key for key, _, _ in bench.store.asked] == [b"a"]


def test_what_expires_first_goes_first() -> None:
    transfer = Transfer(
        1, "flow", "from", b"k", 1, "e", 0, "GLACIER", State.RESTORING, 1, 0, None, None
    )
    changes = [
        thawed(transfer, _info(expiry), int(START * 1000)).retry_at
        for expiry in (START + 86_400, START + 2 * 86_400, 0.0)
    ]
    assert changes == sorted(changes)
    assert 0 < changes[0] < changes[1] < changes[2] == int(START * 1000)


def _info(expiry: float) -> ObjectInfo:
    restored = Restored(ongoing=False, expiry=int(expiry * 1000))
    return ObjectInfo(1, "e", storage_class="GLACIER", restored=restored)


# --- by a clock ------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@dataclass
class Bench:
    clock: Clock
    store: MemoryStore
    state: SqlState
    restorer: Restorer
    heads: list[bytes]

    async def line_up(self, *keys: bytes, size: int = 10) -> None:
        """Put archived objects into the line, as workers do."""
        for key in keys:
            self.store.put("from", key, bytes(size), storage_class="GLACIER")
        scan, _ = await self.state.begin_scan("flow")
        page = await self.store.list_page("from", b"", b"")
        new = [Discovered(each) for each in page.entries if each.key in keys]
        changes = PageChanges(
            "from", max(keys), done=False, listed=len(new), listed_bytes=0, new=new
        )
        await self.state.apply_page(scan, changes)
        claimed = await self.state.claim("flow", 1000)
        await self.state.save(
            [
                Change(it, State.RESTORE_REQUESTED, due_at=int(self.clock.now * 1000))
                for it in claimed
            ]
        )

    async def states(self) -> dict[State, int]:
        totals = await self.state.totals("flow")
        found: dict[State, int] = {}
        for total in totals:
            found[total.state] = found.get(total.state, 0) + total.objects
        return found

    async def at(self, hours: float) -> float:
        """Do what is due after so many hours of the test; give the pause that follows."""
        self.clock.now = START + hours * HOUR
        return await self.restorer.turn()


async def bench_of(folder: Path, flow: Flow) -> AsyncIterator[Bench]:
    clock = Clock()
    store = MemoryStore("src", clock=clock)
    store.restore_seconds = 4.5 * HOUR
    heads: list[bytes] = []
    head = store.head_object

    async def counted(bucket: str, key: bytes, **about: int | None) -> ObjectInfo | None:
        heads.append(key)
        return await head(bucket, key, **about)

    store.head_object = counted  # type: ignore[method-assign,assignment]
    state = await open_sqlite(folder / "state.db", clock=clock)
    recorder = Recorder(state, lambda event: None, lambda change, error: change)
    recording = asyncio.create_task(recorder.run())
    maker = RouteMaker(QUICK, Crc64Nvme(), lambda event: None, asyncio.Event())
    route = maker.route(Wiring(flow, store, MemoryStore("dst")))
    await state.open_flow(flow)
    restorer = Restorer(route, state, recorder, Backoff(0.001, 0.01), 10.0, clock)
    try:
        yield Bench(clock, store, state, restorer, heads)
    finally:
        recording.cancel()
        await asyncio.wait({recording})
        await state.close()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async for made in bench_of(tmp_path, replace(FLOW, max_restores=2, restore_objects_per_day=3)):
        yield made


async def test_a_day_in_the_life_of_restores(bench: Bench) -> None:
    await bench.line_up(b"a", b"b", b"c", b"d")
    assert await bench.at(0) == 30.0  # nothing is due sooner: the longest wait
    assert [key for key, _, _ in bench.store.asked] == [b"a", b"b"]
    assert await bench.states() == {State.RESTORING: 2, State.RESTORE_REQUESTED: 2}
    assert bench.heads == [b"a", b"b"]
    await bench.at(3.9)
    assert len(bench.heads) == 2  # no look before its time
    await bench.at(4.0)
    assert len(bench.heads) == 4  # the first, which is too early
    await bench.at(4.4)
    assert len(bench.heads) == 4
    await bench.at(4.5)
    assert await bench.states() == {State.DISCOVERED: 2, State.RESTORE_REQUESTED: 2}
    await bench.at(4.6)
    assert [key for key, _, _ in bench.store.asked] == [
        b"a",
        b"b",
        b"c",
    ]  # the day's third, and last
    await bench.at(12)
    assert await bench.states() == {State.DISCOVERED: 3, State.RESTORE_REQUESTED: 1}
    assert len(bench.store.asked) == 3
    await bench.at(24.1)
    assert [key for key, _, _ in bench.store.asked] == [b"a", b"b", b"c", b"d"]
    assert (
        len(bench.heads) <= 2 * len(bench.store.asked) + 4
    )  # a few looks for each, not one a minute


async def test_what_waits_is_shown_with_its_times(bench: Bench) -> None:
    flow = bench.restorer.route.flow
    assert await read_thawing(bench.state, flow, START) is None
    await bench.line_up(b"a", b"b", b"c", b"d")
    await bench.at(0)
    thawing = await read_thawing(bench.state, flow, START)
    assert thawing is not None
    assert thawing[:3] == (4, 40, START + 4 * HOUR)
    assert thawing.last_due == START + 8 * HOUR  # another wave follows
    assert thawing.last_due_p90 == START + 9 * HOUR


async def test_many_that_others_asked_for_are_looked_at_by_their_times(bench: Bench) -> None:
    await bench.line_up(b"a")
    await bench.store.restore_object("from", b"a", version_id=None, days=1, tier="Bulk")
    await bench.at(0)
    assert await bench.states() == {State.RESTORING: 1}
    assert bench.store.asked == [(b"a", 1, "Bulk")]
    assert await bench.state.next_due("flow", State.RESTORING) == int((START + HOUR / 2) * 1000)
