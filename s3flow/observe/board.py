"""Where the flows stand, read from the state: once for a command, every second for a daemon."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from s3flow.model import Flow
from s3flow.observe.progress import FlowSnapshot, as_json, snapshot
from s3flow.ports import StateStore

REFRESH = 1.0  # seconds between reads of the state for displays and metrics


async def read_snapshots(state: StateStore, flows: Sequence[Flow]) -> list[FlowSnapshot]:
    """Read from the state where the flows stand."""
    return [
        snapshot(
            flow,
            await state.totals(flow.name),
            await state.samples(flow.name),
            await state.dropped(flow.name),
            await state.last_scan(flow.name),
            time.time(),
        )
        for flow in flows
    ]


@dataclass(slots=True)
class Board:
    """The last snapshots, refreshed while the daemon runs; reading them costs no I/O."""

    state: StateStore
    flows: Sequence[Flow]
    last: list[FlowSnapshot] = field(default_factory=list)

    async def refresh(self) -> None:
        """Read the state once."""
        self.last = await read_snapshots(self.state, self.flows)

    async def run(self) -> None:
        """Refresh until cancelled."""
        while True:
            await self.refresh()
            await asyncio.sleep(REFRESH)

    async def status(self) -> dict[str, Any]:
        """Give the JSON of /api/status, fresh."""
        await self.refresh()
        return as_json(self.last)
