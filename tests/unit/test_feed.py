"""When a flow counts as drained: never while something was found since the last look."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

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
