"""Holds on deletes in a MySQL state: rows that are written past the daemon's lock, and fence nothing."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

from s3flow.records import Hold
from s3flow.state import sql
from s3flow.state.address import MySqlAddress
from s3flow.state.holds import as_text, from_text
from s3flow.state.mysql.dialing import ask
from s3flow.state.steps import Execute, Fetch, Steps, first

T = TypeVar("T")
REMEMBERED = 2.0  # seconds


class MySqlHolds:
    """Asks over a connection for each question: there are few, and none must wait for another work."""

    def __init__(self, address: MySqlAddress) -> None:
        self._address = address
        self._known: dict[str, tuple[float, Hold | None]] = {}  # with when that was asked

    async def get(self, flow: str) -> Hold | None:
        """Say whether the flow's deletes are held; what was heard a moment ago is good enough."""
        asked, hold = self._known.get(flow, (-math.inf, None))
        if time.monotonic() - asked > REMEMBERED:
            hold = await self._get(flow)
            self._known[flow] = (time.monotonic(), hold)
        return hold

    async def _get(self, flow: str) -> Hold | None:

        def work() -> Steps[Hold | None]:
            row = first((yield Fetch(sql.GET_META, (_name(flow),))))
            return None if row is None else from_text(str(row[0]), "a row of the state")

        return await self._run(work)

    async def put(self, flow: str, hold: Hold) -> None:
        """Hold the flow's deletes."""

        def work() -> Steps[None]:
            yield Execute(sql.SET_META, (_name(flow), as_text(hold)))

        self._known.pop(flow, None)
        await self._run(work)

    async def drop(self, flow: str) -> bool:
        """Release them; False when they were not held."""

        def work() -> Steps[bool]:
            return bool((yield Execute(sql.DROP_META, (_name(flow),))))

        self._known.pop(flow, None)
        return await self._run(work)

    async def _run(self, work: Callable[[], Steps[T]]) -> T:
        return await ask(self._address, work, "holds cannot be asked for")


def _name(flow: str) -> str:
    return f"hold/{flow}"
