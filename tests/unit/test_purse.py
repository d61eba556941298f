"""A flow with a `max_cost` never passes it, across restarts and crashes, and says why it waits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine import purse as purse_module
from s3flow.engine.costs import Prices
from s3flow.errors import ConnectionLost, StateError, StateLost
from s3flow.events import FlowBlocked, FlowDrained, Warned
from s3flow.model import GIB, Change, Outcome, State
from s3flow.policies import Mode, Overwrite
from s3flow.records import MONEY, Spending
from s3flow.state.sqlite import open_sqlite
from s3flow.state.transport import exported, import_state
from tests.faults import Faulty
from tests.unit.lab import Lab, store
from tests.unit.priced import EGRESS, FREE, tariff

NO_END = 10.0**6
RESTORES = {"GLACIER": {"Standard": float(GIB)}}  # 1 for each byte


def limit(lab: Lab, most: float, prices: Prices = EGRESS) -> None:
    lab.change(max_cost=most)
    lab.tariffs = {lab.flow.name: tariff(lab.flow, prices, lab)}


def spending(lab: Lab) -> Spending:
    [(text,)] = lab.query("SELECT value FROM meta WHERE name LIKE 'spending/%'")
    return Spending(*json.loads(text))


def reasons(lab: Lab) -> list[str]:
    return [event.reason for event in lab.of(FlowBlocked)]


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


async def test_what_does_not_fit_waits_until_there_is_more(lab: Lab) -> None:
    for number in range(200):
        lab.put(b"%03d" % number, 10)
    limit(lab, 509.0)
    assert await lab.sync() == {Outcome.VERIFIED: 50, Outcome.PENDING: 150}
    (blocked,) = lab.of(FlowBlocked)
    assert blocked.reason == "max_cost"
    assert "has spent 500.00 of max_cost = 509.00 USD" in blocked.message
    assert "raise max_cost" in blocked.message
    assert lab.of(FlowDrained) == []
    assert spending(lab) == Spending(500 * MONEY, 0, 500 * MONEY, blocked=True)
    assert await lab.sync() == {Outcome.VERIFIED: 50, Outcome.PENDING: 150}
    limit(lab, 1_000.0)
    assert await lab.sync() == {Outcome.VERIFIED: 100, Outcome.PENDING: 100}
    limit(lab, 2_000.0)
    assert await lab.sync() == {Outcome.VERIFIED: 200}
    assert (reasons(lab), lab.differences()) == ([], [])
    assert len(lab.of(FlowDrained)) == 1


async def test_a_daemon_stays_blocked_until_it_is_stopped(lab: Lab) -> None:
    for number in range(20):
        lab.put(b"%d" % number, 10)
    limit(lab, 55.0)
    lab.stop_at(FlowBlocked)
    assert await lab.sync(once=False) == {Outcome.VERIFIED: 5, Outcome.PENDING: 15}
    assert reasons(lab) == ["max_cost"]


async def test_without_a_limit_nothing_is_counted(lab: Lab) -> None:
    lab.put(b"key", 10)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.query("SELECT value FROM meta WHERE name LIKE 'spending/%'") == []


async def test_listing_is_paid_and_stops_as_well(lab: Lab) -> None:
    lab.source = store("src", "from", page_size=10)
    for number in range(100):
        lab.put(b"%03d" % number, 10)
    limit(lab, 4.5, Prices(listing=1_000.0))
    counted = await lab.sync()
    assert counted == {Outcome.VERIFIED: 40}
    assert reasons(lab) == ["max_cost"]
    limit(lab, 20.0, Prices(listing=1_000.0))
    assert await lab.sync() == {Outcome.VERIFIED: 100}


async def test_an_attempt_that_failed_is_paid_too(lab: Lab) -> None:
    lab.put(b"key", 10)
    lab.change(max_attempts=3)
    limit(lab, NO_END)

    async def lost(*_: object, **__: object) -> Any:
        raise ConnectionLost("gone")

    lab.src.get_object = lost  # type: ignore[method-assign]
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert spending(lab).spent == 30 * MONEY


async def test_a_restore_is_asked_only_if_what_follows_can_be_paid(lab: Lab) -> None:
    lab.src.restore_seconds = 0.05
    lab.change(restore_poll=0.02)
    for number in range(20):
        lab.put(b"%03d" % number, 10, storage_class="GLACIER")
    prices = Prices(restore=RESTORES, egress=EGRESS.egress)
    limit(lab, 118.0, prices)
    assert await lab.sync() == {Outcome.VERIFIED: 5, Outcome.PENDING: 15}
    assert len(lab.src.asked) == 5
    assert reasons(lab)[-1] == "max_cost"
    assert spending(lab) == Spending(100 * MONEY, 0, 100 * MONEY, blocked=True)
    limit(lab, 10_000.0, prices)
    assert await lab.sync() == {Outcome.VERIFIED: 20}
    assert len(lab.src.asked) == 20


async def test_restores_that_are_under_way_are_paid_across_a_restart(lab: Lab) -> None:
    lab.src.restore_seconds = 0.3
    lab.change(restore_poll=0.05)
    for number in range(3):
        lab.put(b"%03d" % number, 10, storage_class="GLACIER")
    prices = Prices(restore=RESTORES, egress=EGRESS.egress)
    limit(lab, 60.0, prices)
    lab.subscribers.append(lambda _: lab.stop.set() if len(lab.src.asked) == 3 else None)
    assert await lab.sync() == {Outcome.PENDING: 3}
    assert spending(lab) == Spending(30 * MONEY, 30 * MONEY, 60 * MONEY)
    lab.subscribers.clear()
    assert await lab.sync() == {Outcome.VERIFIED: 3}
    assert len(lab.src.asked) == 3
    assert spending(lab) == Spending(60 * MONEY, 0, 60 * MONEY)


async def test_a_restore_that_a_crash_kept_from_being_asked_is_paid_anew(lab: Lab) -> None:
    lab.change(restore_poll=0.02)
    for number in range(3):
        lab.put(b"%03d" % number, 10, storage_class="GLACIER")
    prices = Prices(restore=RESTORES, egress=EGRESS.egress)
    limit(lab, 200.0, prices)
    restore = lab.src.restore_object

    async def gone(*_: object, **__: object) -> Any:
        raise StateLost("gone")

    lab.src.restore_object = gone  # type: ignore[method-assign]
    with pytest.raises(ExceptionGroup):
        await lab.sync()
    lab.src.restore_object = restore  # type: ignore[method-assign]
    assert await lab.sync() == {Outcome.VERIFIED: 3}
    assert len(lab.src.asked) == 3
    assert 60 * MONEY <= spending(lab).spent + spending(lab).aside <= 140 * MONEY


async def test_moves_pay_for_what_they_delete_early(lab: Lab) -> None:
    lab.change(mode=Mode.MOVE)
    lab.put(b"cool", 10, storage_class="STANDARD_IA")
    month = 1.0 * GIB / (128 * 1024)  # the smallest that is paid
    limit(lab, 0.9, Prices(storage={"STANDARD_IA": month}))
    assert await lab.sync() == {Outcome.PENDING: 1}
    limit(lab, 1.1, Prices(storage={"STANDARD_IA": month}))
    assert await lab.sync() == {Outcome.DELETED: 1}
    assert spending(lab).spent == pytest.approx(MONEY, rel=0.01)


class Crashed(Exception):
    """The process is gone."""


@pytest.mark.parametrize("saves", [1, 2, 5])
async def test_a_crash_counts_too_much_at_the_most(lab: Lab, saves: int) -> None:
    for number in range(100):
        lab.put(b"%03d" % number, 10)
    limit(lab, 500.0)

    class Crashing(Faulty):
        left = saves

        async def save(self, changes: list[Change]) -> None:
            if not self.left:
                raise Crashed
            self.left -= 1
            await self.inner.save(changes)

        async def note_spending(self, flow: str, it: Spending) -> None:
            if not self.left:
                raise StateError("gone")
            await self.inner.note_spending(flow, it)

    lab.wrap_state = Crashing
    lab.pace = lab.pace.__class__(concurrency=2, bodies=2, block_retry=0.01)
    done = 0
    for _ in range(4):
        try:
            await lab.sync()
        except* Crashed:
            pass
        done = sum(total.objects for total in await lab.totals() if total.state is State.VERIFIED)
        assert spending(lab).bound >= 10 * MONEY * done
        arrived = len(lab.dst.keys("to"))
        assert arrived * 10 <= 500
        assert spending(lab).bound <= 500 * MONEY
    assert done <= 50


async def test_a_state_that_cannot_be_written_spends_nothing(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purse_module, "STATE_RETRY", 0.01)
    lab.put(b"key", 10)
    limit(lab, 100.0)
    failed = 0

    class Full(Faulty):
        async def note_spending(self, flow: str, it: Spending) -> None:
            nonlocal failed
            if failed < 5:
                failed += 1
                assert lab.dst.keys("to") == []
                raise StateError("full")
            await self.inner.note_spending(flow, it)

    lab.wrap_state = Full
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert (failed, spending(lab).spent) == (5, 10 * MONEY)
    assert any("does not note" in event.message for event in lab.of(Warned))


async def test_a_stop_ends_while_the_state_cannot_be_written(lab: Lab) -> None:
    lab.put(b"key", 10)
    limit(lab, 100.0)

    class Full(Faulty):
        async def note_spending(self, flow: str, it: Spending) -> None:
            raise StateError("full")

    lab.wrap_state = Full
    lab.stop_at(Warned)
    assert await lab.sync() == {Outcome.PENDING: 1}
    assert lab.of(FlowDrained) == []
    lab.subscribers.clear()
    lab.wrap_state = lambda state: state
    assert await lab.sync() == {Outcome.VERIFIED: 1}


async def test_a_limit_that_is_left_by_what_came_free_is_used(lab: Lab) -> None:
    lab.change(overwrite=Overwrite.NEVER)
    for number in range(20):
        lab.put(b"%03d" % number, 10)
    await lab.sync(scan_only=True)
    for number in range(20):
        lab.dst.put("to", b"%03d" % number, b"another")
    lab.put(b"new", 10)
    limit(lab, 15.0)
    assert await lab.sync() == {Outcome.SKIPPED: 20, Outcome.VERIFIED: 1}
    assert spending(lab).spent == 10 * MONEY


async def test_a_limit_that_stops_nothing_is_told(lab: Lab) -> None:
    lab.put(b"key", 10)
    limit(lab, 10.0, FREE)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert any("max_cost stops nothing" in event.message for event in lab.of(Warned))


async def test_what_was_spent_goes_with_an_export_and_is_forgotten_with_its_flow(lab: Lab) -> None:
    lab.put(b"key", 10)
    limit(lab, 25.0)
    await lab.sync()

    async def unheld(flow: str, _: object) -> None:
        raise AssertionError(flow)

    state = await open_sqlite(lab.folder / "state.db")
    other = await open_sqlite(lab.folder / "other.db")
    try:
        lines = "".join([text async for text in exported(state._database, {})]).splitlines(True)
        await import_state(other._database, iter(lines), unheld)
        there = await other.spending("flow")
        assert there is not None
        assert there.spent == 10 * MONEY
        assert await state.forget("flow")
        assert lab.query("SELECT value FROM meta WHERE name LIKE 'spending/%'") == []
    finally:
        await state.close()
        await other.close()
