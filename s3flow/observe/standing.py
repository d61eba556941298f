"""What a run without a terminal logs of itself: where its flows stand, and that it stops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from s3flow.observe import text
from s3flow.observe.progress import FlowSnapshot


class ProgressLine:
    """Logs where each flow stands, for runs without a terminal; silent while nothing changes."""

    def __init__(self) -> None:
        self._log = structlog.get_logger("s3flow.progress")
        self._last: dict[str, tuple[int, int, int]] = {}

    def __call__(self, snapshots: Sequence[FlowSnapshot]) -> None:
        """Log one line for each flow that moved since the last call."""
        for one in snapshots:
            stand = (one.objects.listed, one.objects.done, one.bytes.done)
            if not one.objects.listed or self._last.get(one.name) == stand:
                continue
            self._last[one.name] = stand
            self._log.info(
                "progress",
                flow=one.name,
                done=one.objects.done,
                listed=one.objects.listed,
                failed=one.objects.failed,
                percent=text.percent(one.bytes.done, one.bytes.listed),
                bytes_done=one.bytes.done,
                bytes_listed=one.bytes.listed,
                rate=text.size(one.rates.bytes_per_s) + "/s",
                objects_rate=f"{one.rates.objects_per_s:,.1f}/s",
                eta=text.duration(one.rates.eta_p50),
                eta_p90=text.duration(one.rates.eta_p90),
                states={state.value: objects for state, (objects, _) in one.states.items()},
                **_thaw(one),
            )

    async def run(self, snapshots: Callable[[], Sequence[FlowSnapshot]], interval: float) -> None:
        """Log every *interval* seconds until cancelled."""
        while True:
            await asyncio.sleep(interval)
            self(snapshots())


async def tell_stop(stop: asyncio.Event, drain_timeout: float) -> None:
    """Log that what is begun is being finished, once *stop* is set; it may take *drain_timeout* seconds."""
    await stop.wait()
    log = structlog.get_logger("s3flow")
    log.info("stopping: what is begun is finished; asked again, it is left", at_most=drain_timeout)


def _thaw(one: FlowSnapshot) -> dict[str, Any]:
    """Say what waits for a restore and until when, where anything does."""
    thawing = one.thawing
    if thawing is None:
        return {}
    found: dict[str, Any] = {"thawing": thawing.objects, "thawing_bytes": thawing.bytes}
    for name, at in (("thaw_next", thawing.next_due), ("thaw_last", thawing.last_due)):
        if at is not None:
            found[name] = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
    return found
