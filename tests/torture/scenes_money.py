"""Scenes of flows that may not spend what they like."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from s3flow.engine import daemon
from s3flow.engine.costs import Egress, Prices, Terms
from s3flow.engine.feed import Feed, Payer
from s3flow.engine.tariff import Tariff
from s3flow.events import Event, Recorded, TransferStarted
from s3flow.model import GIB, State
from tests.faults import Call, Faulty
from tests.torture import scenes
from tests.torture.crowds import NOTED, BusyPurse
from tests.torture.stage import Scene, Stage, sync

ENOUGH = 1e6
PAGE = (
    1000.0  # a thousand listings, so that each costs 1; and each byte that leaves costs 1 as well
)


async def _internet(bucket: str) -> Egress:
    await asyncio.sleep(0)
    return Egress.INTERNET


def _pay(stage: Stage, most: float, *, listing: float = PAGE) -> None:
    stage.change(max_cost=most)
    prices = Prices(listing=listing, egress={Egress.INTERNET: float(GIB)})
    terms = Terms(prices, Prices(listing=listing), days=1)
    tariff = Tariff(stage.flow, stage.dst.limits, terms, _internet, inside=False)
    stage.tariffs = {stage.flow.name: tariff}


def _paid(stage: Stage) -> None:
    scenes._some(stage)
    _pay(stage, ENOUGH)


def _free_to_look(stage: Stage) -> None:
    """Let nothing cost but what is moved: that is the first to be paid."""
    scenes._some(stage)
    _pay(stage, ENOUGH, listing=0.0)


def _frozen(stage: Stage) -> None:
    """Let there be nothing but archived objects, and a budget for each day."""
    stage.src.restore_seconds = 0.004
    stage.change(restore_poll=0.004, restore_objects_per_day=100, restore_bytes_per_day=10_000)
    for number in range(3):
        stage.put(b"cold %d" % number, 20, storage_class="GLACIER")


async def _in_line(stage: Stage) -> None:
    """Bring all that is frozen into the line of what is to be restored, and ask for none of it."""
    left = len(stage.written)

    def watch(event: Event) -> None:
        nonlocal left
        if isinstance(event, Recorded):
            left -= sum(each.state is State.RESTORE_REQUESTED for each in event.changes)
        if not left:
            stage.stop.set()

    stage.subscribers.append(watch)
    stage.change(max_restores=0)
    await stage.sync()
    stage.subscribers.clear()
    stage.change(max_restores=2)
    _pay(stage, ENOUGH)


def _moving_short(stage: Stage) -> None:
    """Let the money be spent before all is moved."""
    scenes._moving(stage)
    _pay(stage, 100.0)


class Late(Faulty):
    """A source whose second page comes when something is in flight, and that when no page can be paid."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage.source)
        self.stage = stage
        self.pages = 0

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        """Wait for what is to come first."""
        if call.method == "list_page":
            self.pages += 1
            if self.pages == 2:
                await self._until(lambda: bool(self.stage.of(TransferStarted)))
        elif call.method == "get_object":
            await self._until(self._is_short)
        return await go()

    def _is_short(self) -> bool:
        running = self.stage.daemon
        purses = () if running is None else running.purses.values()
        return any(isinstance(purse, BusyPurse) and purse.short for purse in purses)

    async def _until(self, done: Callable[[], bool]) -> None:
        for _ in range(400):  # where it was disturbed it may never come
            if done() or self.stage.stop.is_set():
                return
            await asyncio.sleep(0.0005)


def _just_enough(stage: Stage) -> None:
    """Let the third page be too dear while the objects of the first are in flight."""
    for number in range(7):
        stage.put(b"%d" % number, 10)
    stage.source = Late(stage)
    _pay(stage, 33.5)


class RestsOnce(Feed):
    """A feed that ends the daemon as soon as it rests because nothing more can be paid."""

    _spent = False

    async def _is_spent(self, purse: Payer, due: float | None) -> bool:
        self._spent = await super()._is_spent(purse, due)
        return self._spent

    async def _sleep(self, due: float | None) -> None:
        if self._spent and not self._wake.is_set():  # else it does not wait at all
            asyncio.get_running_loop().call_soon(self._stop.set)
        await super()._sleep(due)


async def _run_on(stage: Stage) -> object:
    """Run as a daemon."""
    return await stage.sync(once=False)


async def _with_more(stage: Stage) -> object:
    """Run with money enough."""
    _pay(stage, ENOUGH)
    return await stage.sync()


MADE = (
    Scene("noted", _paid, patches=NOTED),
    Scene("noted-late", _free_to_look, patches=NOTED),
    Scene("noted-frozen", _frozen, _in_line, patches=NOTED),
    Scene("noted-listed", _paid, None, scenes._only_list, scenes._again, patches=NOTED),
    Scene("short", _just_enough, None, sync, _with_more, patches=NOTED),
    Scene(
        "short-daemon",
        scenes._scanty,
        None,
        _run_on,
        _with_more,
        patches=((daemon, "Feed", RestsOnce),),
    ),
    Scene("short-moved", _moving_short, None, sync, _with_more, moves=True),
)
ENDLESS = {scene.name: scene for scene in MADE}
