"""What a flow with a `max_cost` has spent, for people and programs. Pure."""

from __future__ import annotations

from typing import NamedTuple

from s3flow.model import Flow
from s3flow.observe.text import money
from s3flow.ports import StateStore
from s3flow.records import MONEY


class Money(NamedTuple):
    """*spent* of *most*, with what is set *aside* for restored objects. *blocked*: more does not fit."""

    spent: float
    aside: float
    most: float
    currency: str
    blocked: bool = False

    def words(self) -> str:
        """Say it in a line."""
        words = f"{money(self.spent)} of {money(self.most)} {self.currency}"
        if self.aside:
            words += f", {money(self.aside)} set aside for what is being restored"
        return words + (": what comes next does not fit, raise max_cost" if self.blocked else "")

    def as_json(self) -> dict[str, object]:
        """Give the same as plain values."""
        return {
            "spent": self.spent,
            "set_aside": self.aside,
            "max_cost": self.most,
            "currency": self.currency,
            "blocked": self.blocked,
        }


async def read_money(state: StateStore, flow: Flow) -> Money | None:
    """Read what a flow has spent; None where it may spend what it likes."""
    if not flow.max_cost:
        return None
    it = await state.spending(flow.name)
    if it is None:
        return Money(0.0, 0.0, flow.max_cost, flow.currency)
    return Money(it.spent / MONEY, it.aside / MONEY, flow.max_cost, flow.currency, it.blocked)
