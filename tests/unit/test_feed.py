"""When a flow counts as drained: never while something was found since the last look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import pytest

from s3flow.engine.feed import Feed
from s3flow.model import Transfer
from s3flow.ports import StateStore
from tests.unit.test_tally import transfer


class Looked:
    """A state where the walk goes on in the midst of a look: *found* is called at the first one."""

    def __init__(self, found: Callable[[], None]) -> None:
        self.pending: list[Transfer] = []
        self.looks = 0
        self.found = found

    async def claim(self, flow: str, limit: int) -> list[Transfer]:
        """Give what is pending."""
        claimed, self.pending = self.pending[:limit], self.pending[limit:]
        return claimed

    async def next_retry(self, flow: str) -> None:
        """Say that nothing waits for a retry; by now the walk has found something."""
        self.looks += 1
        if self.looks == 1:
            self.found()

    async def next_due(self, flow: str, state: object) -> None:
        """Say that nothing waits for anything else."""


async def flushed() -> None:
    """Have nothing to write."""


async def test_a_walk_that_ends_in_the_midst_of_a_look_is_not_drained_by_it() -> None:
    idle: list[int] = []

    def found() -> None:
        state.pending = [transfer()]
        feed.wake()
        feed.close()

    async def note() -> None:
        idle.append(len(state.pending))

    state = Looked(found)
    feed = Feed(cast(StateStore, state), "docs", asyncio.Event(), flushed)
    feed.idle = note
    assert await feed.take() == transfer()
    assert idle == []
    feed.done()
    assert await feed.take() is None
    assert idle == [0]


async def test_what_a_restorer_has_in_hand_is_in_no_state_and_comes_back() -> None:
    in_hand = [True]

    async def note() -> None:
        assert not in_hand

    def recorded() -> None:
        state.pending = [transfer()]
        in_hand.clear()
        feed.wake()

    state = Looked(lambda: asyncio.get_running_loop().call_later(0.01, recorded))
    feed = Feed(cast(StateStore, state), "docs", asyncio.Event(), flushed)
    feed.idle = note
    feed.thawing = lambda: bool(in_hand)
    feed.close()
    assert await feed.take() == transfer()
    feed.done()
    assert await feed.take() is None


async def test_that_a_flow_is_drained_is_found_out_once() -> None:
    state = Looked(lambda: None)
    feed = Feed(cast(StateStore, state), "docs", asyncio.Event(), flushed)
    feed.close()
    assert await asyncio.gather(*(feed.take() for _ in range(64))) == [None] * 64
    assert state.looks == 1


class Held:
    """A state that hands out three transfers, and hangs when some are given back."""

    def __init__(self) -> None:
        self.claimed: list[Transfer] = []
        self.given_back: list[Transfer] = []
        self.hangs = asyncio.Event()

    async def claim(self, flow: str, limit: int) -> list[Transfer]:
        """Give all at once."""
        self.claimed = [transfer()._replace(id=number) for number in range(3)]
        return list(self.claimed)

    async def release(self, transfers: Sequence[Transfer]) -> None:
        """Take them back; that is done, whoever waits for it."""
        self.given_back += transfers
        if not self.hangs.is_set():
            self.hangs.set()
            await asyncio.Event().wait()


class Payer:
    """Pays two of three, or is cancelled amid it."""

    is_short = False

    def __init__(self) -> None:
        self.returned_ids: list[int] = []

    async def grant(self, transfers: Sequence[Transfer]) -> int:
        """Pay."""
        return 2

    def returned(self, transfers: Sequence[Transfer]) -> None:
        """Take back."""
        self.returned_ids += [each.id for each in transfers]

    def block(self) -> None:
        """Nobody looks."""


async def test_what_is_paid_comes_back_though_who_paid_was_cancelled_amid_the_rest() -> None:
    state, payer = Held(), Payer()
    feed = Feed(cast(StateStore, state), "docs", asyncio.Event(), flushed, payer)
    taking = asyncio.create_task(feed.take())
    await state.hangs.wait()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    await feed.give_back()
    assert sorted(each.id for each in state.given_back) == [0, 1, 2]  # each of them once
    assert payer.returned_ids == [0, 1]
