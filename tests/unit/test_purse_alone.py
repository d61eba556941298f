"""The purse by itself: whatever is asked of it, and whenever it crashes, its sum is never passed."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3flow.engine.costs import Egress, Prices, Terms, estimate
from s3flow.engine.purse import Purse
from s3flow.engine.workload import Workload
from s3flow.events import FlowBlocked, FlowUnblocked
from s3flow.model import GIB, Change, Flow, Listed, Method, State, Transfer
from s3flow.records import MONEY, Spending
from tests.unit.lab import FLOW, Lab
from tests.unit.priced import FREE, tariff


class Notes:
    """What a purse has made durable."""

    def __init__(self) -> None:
        self.noted: Spending | None = None

    async def spending(self, flow: str) -> Spending | None:
        return self.noted

    async def note_spending(self, flow: str, it: Spending) -> None:
        await asyncio.sleep(0)
        self.noted = it


CLASSES = ("STANDARD", "STANDARD_IA", "GLACIER", "DEEP_ARCHIVE")
PRICE = st.just(0.0) | st.floats(1e-12, 1_000)  # less is nothing, divided by a thousand
BY_CLASS = st.dictionaries(st.sampled_from(CLASSES), PRICE)
BY_TIER = st.dictionaries(
    st.sampled_from(CLASSES[2:]), st.dictionaries(st.sampled_from(["Standard", "Bulk"]), PRICE)
)
PRICES = st.builds(
    Prices,
    listing=PRICE,
    get=BY_CLASS,
    put=BY_CLASS,
    retrieval=BY_CLASS,
    storage=BY_CLASS,
    restore=BY_TIER,
    restore_requests=BY_TIER,
    egress=st.fixed_dictionaries({Egress.INTERNET: PRICE}),
)
OBJECTS = st.lists(
    st.tuples(st.integers(0, 50 * GIB), st.sampled_from(CLASSES)), min_size=1, max_size=20
)
ENDS = [
    lambda it: Change(it, State.VERIFIED, method="multipart"),
    lambda it: Change(it, State.FAILED, reason="refused"),
    lambda it: Change(it, State.DISCOVERED, attempts=1),
    lambda it: Change(it, State.RESTORE_REQUESTED),
]


def transfer_of(number: int, size: int, storage_class: str) -> Transfer:
    return Transfer(
        *(number, "flow", "from", b"%d" % number, size, "etag", 0, storage_class),
        *(State.DISCOVERED, 1, 0, None, None),
    )


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(prices=PRICES, objects=OBJECTS, most=st.floats(0.01, 100_000), seed=st.integers())
def test_the_sum_never_passes(
    prices: Prices, objects: list[tuple[int, str]], most: float, seed: int
) -> None:
    asyncio.run(_spend(prices, objects, most, random.Random(seed)))


async def _spend(
    prices: Prices, objects: list[tuple[int, str]], most: float, dice: random.Random
) -> None:
    flow = Flow("flow", FLOW.source, FLOW.target, max_cost=most)
    notes: Any = Notes()

    async def opened() -> Purse:
        made = Purse(flow, notes, tariff(flow, prices), lambda _: None, asyncio.Event())
        await made.open()
        return made

    purse = await opened()
    truly = 0.0  # what the store would charge for all that was let through
    in_flight: dict[int, Transfer] = {}
    for number in range(40):
        it = transfer_of(number, *dice.choice(objects))
        cost = _truly(flow, prices, it, asked=True)
        frozen = it.storage_class in CLASSES[2:]
        if frozen and dice.random() < 0.5:
            if await purse.grant_restores([it]):
                truly += _truly(flow, prices, it, asked=False) - cost
        elif await purse.grant([it]):
            in_flight[number] = it
        if in_flight and dice.random() < 0.5:
            _, ended = in_flight.popitem()
            change = dice.choice(ENDS)(ended)
            if change.state is not State.RESTORE_REQUESTED:
                truly += _truly(flow, prices, ended, asked=True)
            purse.recorded([change])
        if dice.random() < 0.1:
            truly += sum(_truly(flow, prices, each, asked=True) for each in in_flight.values())
            in_flight.clear()
            purse = await opened()  # after a crash
        limit = int(most * MONEY)
        noted = notes.noted.bound if notes.noted else 0
        assert max(noted, purse._total) <= limit
        assert truly * (1 - 1e-9) <= noted / MONEY


def _truly(flow: Flow, prices: Prices, it: Transfer, *, asked: bool) -> float:
    """Price a transfer as `plan` does."""
    work = Workload()
    limits = Lab(Path()).dst.limits
    entry = Listed(it.key, it.size, it.etag, it.modified, it.storage_class)
    method = Method.MULTIPART if it.size > flow.multipart_threshold else Method.PUT
    work.add(flow, limits, it.bucket, entry, method, now=0.0, asked=asked)
    return estimate(flow, limits, work, Terms(prices, FREE, days=1)).total


async def test_it_goes_on_after_being_blocked() -> None:
    told: list[object] = []
    flow = Flow("flow", FLOW.source, FLOW.target, max_cost=10.0)
    notes: Any = Notes()
    purse = Purse(flow, notes, tariff(flow), told.append, asyncio.Event())
    large, small = transfer_of(1, 8, "STANDARD"), transfer_of(2, 3, "STANDARD")
    assert await purse.grant([large, small]) == 1
    assert await purse.grant([small]) == 0
    purse.block()
    purse.recorded([Change(large, State.RESTORE_REQUESTED)])
    assert await purse.grant([small]) == 1
    assert [type(event) for event in told] == [FlowBlocked, FlowUnblocked]


async def test_what_a_cancelled_claim_has_not_begun_is_neither_held_nor_paid_twice() -> None:
    class Hanging(Notes):
        hangs = False

        async def note_spending(self, flow: str, it: Spending) -> None:
            if self.hangs:
                await asyncio.Event().wait()
            await super().note_spending(flow, it)

    notes: Any = Hanging()
    flow = Flow("flow", FLOW.source, FLOW.target, max_cost=100.0)
    purse = Purse(flow, notes, tariff(flow), lambda _: None, asyncio.Event())
    await purse.open()
    batch = [transfer_of(number, 10, "STANDARD") for number in range(3)]
    frozen = [transfer_of(9, 10, "GLACIER")]
    for grant in (partial(purse.grant, batch), partial(purse.grant_restores, frozen)):
        notes.hangs = True
        granting = asyncio.ensure_future(grant())
        await asyncio.sleep(0.01)
        granting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await granting
        assert purse._total == 0
    assert not purse.may_ask(frozen[0])
    notes.hangs = False
    assert await purse.grant(batch) == 3
    purse.recorded([Change(each, State.VERIFIED, method="multipart") for each in batch])
    await purse.close()
    assert notes.noted.bound == notes.noted.spent == 30 * MONEY
