"""Holds that nobody else sees: of flows without a place for them."""

from __future__ import annotations

from s3flow.records import Hold


class OwnHolds:
    """Keeps holds for as long as it lives."""

    def __init__(self) -> None:
        self._holds: dict[str, Hold] = {}

    async def get(self, flow: str) -> Hold | None:
        """Say whether the flow's deletes are held."""
        return self._holds.get(flow)

    async def put(self, flow: str, hold: Hold) -> None:
        """Hold the flow's deletes."""
        self._holds[flow] = hold

    async def drop(self, flow: str) -> bool:
        """Release them; False when they were not held."""
        return self._holds.pop(flow, None) is not None
