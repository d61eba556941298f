"""Where the flows stand, read from the state: once for a command, every second for a daemon."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from s3flow.errors import StateError, StateLost
from s3flow.model import Flow
from s3flow.observe.flight import Flight
from s3flow.observe.inventory import Inventory
from s3flow.observe.money import read_money
from s3flow.observe.progress import FlowSnapshot, as_json, snapshot
from s3flow.observe.thaw import read_thawing
from s3flow.policies import Mode
from s3flow.ports import Holds, StateStore
from s3flow.records import Hold

REFRESH = 1.0  # seconds between reads of the state for displays and metrics
PATIENCE = 3.0  # seconds that a question over HTTP waits for the state

_log = logging.getLogger(__name__)


async def read_snapshots(
    state: StateStore,
    flows: Sequence[Flow],
    flight: Flight | None = None,
    holds: Holds | None = None,
) -> list[FlowSnapshot]:
    """Read from the state where the flows stand; *flight* knows what is under way."""
    return [
        snapshot(
            flow,
            await state.totals(flow.name),
            await state.samples(flow.name),
            await state.dropped(flow.name),
            await state.last_scan(flow.name),
            time.time(),
            routes=await state.verdicts(flow.name),
            moving=flight.of(flow.name) if flight else None,
            thawing=await read_thawing(state, flow, time.time()),
            held=await _held(holds, flow),
            money=await read_money(state, flow),
            inventory=Inventory(await state.classes(flow.name), await state.unlisted(flow.name)),
        )
        for flow in flows
    ]


async def _held(holds: Holds | None, flow: Flow) -> Hold | None:
    if holds is None or flow.mode is not Mode.MOVE:
        return None
    return await holds.get(flow.name)


@dataclass(slots=True)
class Board:
    """The last snapshots, refreshed while the daemon runs; reading them costs no I/O.

    *flight* is there where somebody looks on: being told of each object has its price.
    """

    state: StateStore
    flows: Sequence[Flow]
    last: list[FlowSnapshot] = field(default_factory=list)
    flight: Flight | None = None
    holds: Holds | None = None

    async def refresh(self) -> None:
        """Read the state once; while it is in trouble, what was last read stands."""
        if self.state.trouble and self.last:
            return
        try:
            self.last = await read_snapshots(self.state, self.flows, self.flight, self.holds)
        except StateLost:
            raise
        except StateError as error:
            if not self.last:
                raise
            _log.debug("the state was not read: %s", error)

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH)

    async def status(self) -> dict[str, Any]:
        """Give the JSON of /api/status, fresh where the state answers in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self.refresh()
        return as_json(self.last)

    def reasons(self) -> list[str]:
        """Say why all is not well, though the process lives and goes on by itself."""
        return [self.state.trouble] if self.state.trouble else []
