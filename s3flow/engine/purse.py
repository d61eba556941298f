"""What a flow with a `max_cost` may spend: nothing is begun that might let it pass."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from s3flow.engine.tariff import Quote, Tariff
from s3flow.errors import Archived, CostReached, StateError, StateLost, TargetExists
from s3flow.events import Emit, FlowBlocked, FlowUnblocked, Warned
from s3flow.model import ARCHIVES, Change, Flow, State, Transfer
from s3flow.ports import StateStore
from s3flow.records import MONEY, Spending

AHEAD = 100  # the part of `max_cost` that is noted before it is spent: a crash counts it as spent
LOOK_AGAIN = 0.5  # seconds
STATE_RETRY = 5.0  # seconds until a state that could not be written is tried again
_WAITING = (State.RESTORE_REQUESTED, State.RESTORING)
_LOOKED = (  # nothing was read or written
    (State.SKIPPED, TargetExists.reason),
    (State.FAILED, Archived.reason),
)
_COPIED = ("server_copy", "server_multipart")


class Granted(NamedTuple):
    """What is held for a transfer, of it *drawn* from what was set aside at its restore."""

    quote: Quote
    drawn: int


@dataclass(slots=True)
class Purse:
    """One flow's money. What it has spent, holds for what is begun, and has set aside is never too much.

    An attempt is paid in full, however it ends; what a worker only looked at, as a look. All of it is
    durable before it is spent: a crash may count too much, and never too little.
    """

    flow: Flow
    state: StateStore
    tariff: Tariff
    emit: Emit
    stop: asyncio.Event
    wake: Callable[[], None] = lambda: None  # called when a restore could not be paid
    is_blocked: bool = False
    is_short: bool = False  # a restore could not be paid, and nothing came free since
    _limit: int = field(init=False)
    _spent: int = 0
    _held: int = 0
    _aside: int = 0  # for transfers of what is being restored
    _bound: int = 0  # what is durable
    _noted: Spending | None = None
    _granted: dict[int, Granted] = field(default_factory=dict)
    _restores: set[int] = field(default_factory=set)  # paid, and not yet asked for
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._limit = int(self.flow.max_cost * MONEY)

    # --- what is durable ---------------------------------------------------------------------

    async def open(self) -> None:
        """Go on where the last run ended, or may have got to."""
        if self.tariff.is_free:
            flow = self.flow
            self.emit(
                Warned(
                    flow.name,
                    f"max_cost stops nothing: neither {flow.source.endpoint} nor {flow.target.endpoint} "
                    "charges anything; say what they do in their prices",
                )
            )
        noted = await self.state.spending(self.flow.name)
        if noted is not None:
            self._aside, self._bound = noted.aside, noted.bound
            self._spent, self._noted = noted.bound - noted.aside, noted

    async def keep(self) -> None:
        """Note what has changed, for whoever looks on."""
        await self._note(min(self._bound, self._ahead))

    async def close(self) -> None:
        """Note what was spent; what is in flight still was, and nothing more will be."""
        await self._note(self._total)

    async def _note(self, bound: int) -> None:
        async with self._writing:
            it = Spending(self._spent, self._aside, max(bound, self._total), self.is_blocked)
            if it != self._noted:
                await self.state.note_spending(self.flow.name, it)
                self._noted, self._bound = it, it.bound

    async def _make_durable(self) -> None:
        # What was set aside, and is drawn by now, must not be there again after a crash.
        drawn = self._noted is not None and self._noted.aside > self._aside
        if drawn or self._total > self._bound:
            await self._note(self._ahead)

    @property
    def _ahead(self) -> int:
        return min(self._limit, self._total + self._limit // AHEAD)

    @property
    def _total(self) -> int:
        return self._spent + self._held + self._aside

    def _fits(self, cost: int) -> bool:
        return self._total + cost <= self._limit

    # --- before something is begun -----------------------------------------------------------

    async def pay_page(self) -> None:
        """Pay for a page of the source's listing. Raises `CostReached`."""
        await self._pay(self.tariff.page)

    async def pay_look(self) -> None:
        """Pay for a look at the target. Raises `CostReached`."""
        await self._pay(self.tariff.look)

    async def _pay(self, cost: int) -> None:
        while not self._fits(cost):
            if not self._held or self.stop.is_set():
                self.block()
                raise CostReached(self._message())
            # What is in flight may cost less than is held for it.
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_AGAIN):
                    await self._changed.wait()
        self._spent += cost
        await self._make_durable()

    async def grant(self, transfers: Sequence[Transfer]) -> int:
        """Hold what the first of *transfers* may cost; says how many can be paid."""
        fresh = count = 0
        for bucket in {transfer.bucket for transfer in transfers}:
            await self.tariff.learn(bucket)
        for transfer in transfers:
            self._end(transfer.id)  # who had it is gone
            quote = self.tariff.quote(transfer)
            drawn = min(quote.most, self._aside) if transfer.storage_class in ARCHIVES else 0
            if not self._fits(quote.most - drawn):
                break
            self._aside -= drawn
            self._held += quote.most
            self._granted[transfer.id] = Granted(quote, drawn)
            fresh += quote.most - drawn
            count += 1
        noted = False
        try:
            noted = await self._made_durable()
        finally:
            if not noted:  # also where it was cancelled: nobody begins them
                self.returned(transfers[:count])
        if not noted:
            return 0
        if fresh:
            self._unblock()
        return count

    async def _made_durable(self) -> bool:
        """Try until what is to be spent is noted; False when the daemon stops before."""
        warned = False
        while True:
            try:
                await self._make_durable()
            except StateLost:
                raise
            except StateError as error:
                if not warned:
                    message = f"nothing is spent that the state does not note, all waits: {error}"
                    self.emit(Warned(self.flow.name, message))
                warned = True
            else:
                return True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STATE_RETRY):
                    await self.stop.wait()
                return False

    async def grant_restores(self, transfers: Sequence[Transfer]) -> list[Transfer]:
        """Pay the restores of the first of *transfers*, as far as their transfers can be paid then."""
        paid: list[Transfer] = []
        before = (self._spent, self._aside)
        for bucket in {transfer.bucket for transfer in transfers}:
            await self.tariff.learn(bucket)
        for transfer in transfers:
            restore, after = self.tariff.restore(transfer), self.tariff.quote(transfer).most
            if not self._fits(restore + after):
                break
            self._spent += restore
            self._aside += after
            self._restores.add(transfer.id)
            paid.append(transfer)
        spent, aside = self._spent - before[0], self._aside - before[1]
        try:
            await self._make_durable()
        except BaseException:
            self._spent -= spent
            self._aside -= aside
            self._restores.difference_update(each.id for each in paid)
            raise
        if paid:
            self._unblock()
        elif transfers:
            self.is_short = True
            self.wake()
        return paid

    def may_ask(self, transfer: Transfer) -> bool:
        """Say whether a restore is paid, which is so once."""
        return transfer.id in self._restores

    def asked(self, transfer: Transfer) -> None:
        """Note that a restore was asked for."""
        self._restores.discard(transfer.id)

    # --- after it has ended ------------------------------------------------------------------

    def recorded(self, changes: Sequence[Change]) -> bool:
        """Settle what became durable; says whether something came free."""
        before = self._total
        for change in changes:
            transfer = change.transfer
            if transfer.flow != self.flow.name:
                continue
            if transfer.id in self._granted:
                self._end(transfer.id, change)
            elif transfer.state is State.RESTORING and change.state in (
                State.FAILED,
                State.RESTORE_REQUESTED,
            ):
                self._spare(transfer)
        self._changed.set()
        if self._total == before:
            return False
        self.is_short = False
        return True

    def _spare(self, transfer: Transfer) -> None:
        """Set nothing aside any more for a transfer that will not follow its restore, or is paid anew."""
        self._restores.discard(transfer.id)
        if self.tariff.knows(transfer.bucket):  # else it is left to the next one that thaws
            self._aside -= min(self._aside, self.tariff.quote(transfer).most)

    def returned(self, transfers: Sequence[Transfer]) -> None:
        """Take back what is held for transfers that were not begun."""
        for transfer in transfers:
            granted = self._granted.pop(transfer.id, None)
            if granted is not None:
                self._held -= granted.quote.most
                self._aside += granted.drawn

    def _end(self, number: int, change: Change | None = None) -> None:
        granted = self._granted.pop(number, None)
        if granted is not None:
            self._held -= granted.quote.most
            self._spent += _cost(granted.quote, change)
            if change is not None and change.state in _WAITING:
                # It was not what had been restored. Looks are paid of it where nothing else is left.
                self._aside += granted.drawn
                self._aside -= max(0, min(granted.drawn, self._total - self._limit))

    # --- what people are told ----------------------------------------------------------------

    def block(self) -> None:
        """Say that the flow waits for a person."""
        if not self.is_blocked:
            self.is_blocked = True
            self.emit(FlowBlocked(self.flow.name, CostReached.reason, self._message(), 0.0))

    def _unblock(self) -> None:
        if self.is_blocked:
            self.is_blocked = False
            self.emit(FlowUnblocked(self.flow.name, CostReached.reason))

    def _message(self) -> str:
        currency = self.flow.currency
        spent = f"{self._spent / MONEY:,.2f}"
        if aside := self._held + self._aside:
            spent += f" (and {aside / MONEY:,.2f} for what is begun)"
        return (
            f"flow {self.flow.name} has spent {spent} of max_cost = {self._limit / MONEY:,.2f} {currency},"
            " and what comes next does not fit: raise max_cost, or let it be"
        )


def _cost(quote: Quote, change: Change | None) -> int:
    """Say what an attempt has cost."""
    if change is None:
        return quote.most
    if change.state in _WAITING or (change.state, change.reason) in _LOOKED:
        return min(quote.looked, quote.most)
    if change.state is State.VERIFIED:
        return quote.copied if change.method in _COPIED else quote.streamed
    return quote.most
