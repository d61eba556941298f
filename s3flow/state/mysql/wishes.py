"""What a person asks of a running daemon: rows of a MySQL state, written past the daemon's lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from s3flow.state import sql
from s3flow.state.address import MySqlAddress
from s3flow.state.mysql.dialing import ask
from s3flow.state.steps import Execute, Fetch, Steps

T = TypeVar("T")
LOOK_AGAIN = 15.0  # seconds; it costs a connection
_WISHES = "SELECT name FROM meta WHERE name >= ? AND name < ? ORDER BY name"


class MySqlWishes:
    """A row for each flow and bucket that is to be listed again."""

    interval = LOOK_AGAIN

    def __init__(self, address: MySqlAddress) -> None:
        self._address = address

    async def put(self, flow: str, bucket: str | None) -> None:
        """Ask for *bucket*, or all of the flow's, to be listed again."""

        def work() -> Steps[None]:
            yield Execute(sql.SET_META, (f"rescan/{flow}/{bucket or ''}", ""))

        await self._run(work)

    async def take(self, flow: str) -> list[str | None]:
        """Give what was asked for since the last time."""
        prefix = f"rescan/{flow}/"

        def work() -> Steps[list[str | None]]:
            names = [str(row[0]) for row in (yield Fetch(_WISHES, (prefix, f"rescan/{flow}0")))]
            for name in names:
                yield Execute(sql.DROP_META, (name,))
            return [name.removeprefix(prefix) or None for name in names]

        return await self._run(work)

    async def _run(self, work: Callable[[], Steps[T]]) -> T:
        return await ask(self._address, work, "listings cannot be asked for")
