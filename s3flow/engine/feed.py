"""Hands a flow's pending transfers to its workers, a claimed batch at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from s3flow.crashpoints import passing
from s3flow.model import State, Transfer
from s3flow.ports import StateStore

CLAIM = 500
CLAIM_PAID = 25  # where each is paid before it is begun: after a crash all of them count
LONGEST_WAIT = 30.0  # seconds; a wait ends by an event, this only heals a missed one


class Supply(Protocol):
    """Where a worker gets its transfers from."""

    async def take(self) -> Transfer | None: ...

    def done(self) -> None: ...


class Payer(Protocol):
    """What a flow may spend: see `Purse`."""

    is_short: bool

    async def grant(self, transfers: Sequence[Transfer]) -> int: ...

    def returned(self, transfers: Sequence[Transfer]) -> None: ...

    def block(self) -> None: ...


class Feed:
    """The one place that decides whether a flow has work left.

    Drained means: closed (the scan has ended), nothing claimed, nothing in flight, nothing that
    waits for its retry or thaws, and all of that durable.
    """

    def __init__(
        self,
        state: StateStore,
        flow: str,
        stop: asyncio.Event,
        flush: Callable[[], Awaitable[None]],
        purse: Payer | None = None,
    ) -> None:
        self._state = state
        self._flow = flow
        self._stop = stop
        self._flush = flush
        self._purse = purse
        self._unpaid = False  # what could be claimed could not be paid
        self._ready: deque[Transfer] = deque()
        self._filling = asyncio.Lock()
        self._wake = asyncio.Event()
        self._closed = False
        self._over = False  # drained: who waits for work need not find that out once more
        self.in_flight = 0
        self.idle: Callable[[], Awaitable[None]] | None = None  # called when nothing is left to do
        self.deleting: Callable[[], Awaitable[bool]] | None = (
            None  # what is found changed comes back
        )
        self.thawing: Callable[[], bool] | None = None  # rows are on their way from state to state

    def wake(self) -> None:
        """Look again: there may be something to claim, or nothing left."""
        self._wake.set()

    def close(self) -> None:
        """Say that no new transfers will be discovered; workers end when the rest is done."""
        self._closed = True
        self._wake.set()

    async def take(self) -> Transfer | None:
        """Give the next transfer; None when the flow is drained or the daemon stops."""
        if self._stop.is_set():
            return None
        if not self._ready:
            async with self._filling:  # one fills, the others queue behind it
                while not self._ready:
                    if self._over or self._stop.is_set():
                        return None
                    self._over = not await self._fill()
        self.in_flight += 1
        return self._ready.popleft()

    def done(self) -> None:
        """Say that a taken transfer was recorded."""
        self.in_flight -= 1
        if not self.in_flight:
            self._wake.set()

    async def _fill(self) -> bool:
        """Claim, or wait until there may be something to claim. False when there never will be."""
        self._wake.clear()
        closed = self._closed
        if await self._claim() or (not self.in_flight and await self._claim_the_last()):
            return True
        due = None if self._unpaid else await self._state.next_retry(self._flow)
        if self._purse is not None and await self._is_spent(self._purse, due):
            if closed or self._stop.is_set():
                return False
            await self._sleep(None)
            return True
        thaws = due is None and not self.in_flight and await self._may_come_back()
        # Woken since the first look: a walk may have found something, and even have ended, after it.
        if not self.in_flight and due is None and not thaws and not self._wake.is_set():
            if self.idle is not None:
                await self.idle()
            if closed:
                return False
        await self._sleep(due)
        return True

    async def _claim_the_last(self) -> bool:
        """Claim once more, when nothing can come back any more of what was in flight."""
        await self._flush()
        return await self._claim()

    async def _claim(self) -> bool:
        self._unpaid = False
        limit = CLAIM if self._purse is None else CLAIM_PAID
        claimed = await self._state.claim(self._flow, limit)
        passing("claim.taken")
        if self._purse is None:
            self._ready.extend(claimed)
        elif claimed:
            await self._pay(self._purse, claimed)
        return bool(self._ready)

    async def _pay(self, purse: Payer, claimed: list[Transfer]) -> None:
        """Make the first of *claimed* ready, as far as they can be paid; the others are not taken yet."""
        count = 0
        try:
            count = await purse.grant(claimed)
            self._unpaid = not count
            # Before the others are released: who is cancelled there has paid these, see `give_back`.
            self._ready.extend(claimed[:count])
        finally:
            await self._state.release(claimed[count:])

    async def _is_spent(self, purse: Payer, due: float | None) -> bool:
        """Say whether nothing more can be paid, and nothing is under way that may change that.

        At a stop nothing more is.
        """
        if self._stop.is_set():
            return True
        if self.in_flight or due is not None or not (self._unpaid or purse.is_short):
            return False
        purse.block()
        if self.deleting is not None and await self.deleting():
            return False
        return await self._state.next_due(self._flow, State.RESTORING) is None

    async def _may_come_back(self) -> bool:
        if self.deleting is not None and await self.deleting():
            return True
        for state in (State.RESTORING, State.RESTORE_REQUESTED):
            if await self._state.next_due(self._flow, state) is not None:
                return True
        # What went from one state to another between these looks was seen in none: who moves it knows.
        return self.thawing is not None and self.thawing()

    async def _sleep(self, due: float | None) -> None:
        delay = LONGEST_WAIT if due is None else min(LONGEST_WAIT, max(0.01, due - time.time()))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._wake.wait()

    async def returned(self, transfers: Sequence[Transfer]) -> None:
        """Release transfers that were taken, because who had them is gone."""
        await self._state.release(transfers)
        self.in_flight -= len(transfers)
        self._wake.set()

    async def give_back(self) -> None:
        """Release what was claimed and not taken."""
        left = list(self._ready)
        self._ready.clear()
        if self._purse is not None:
            self._purse.returned(left)
        await self._state.release(left)
