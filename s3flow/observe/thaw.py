"""What waits for its restore, and until when, as the state and the tiers' times let one know."""

from __future__ import annotations

from s3flow.engine.thawing import Line, forecast
from s3flow.model import Flow, State
from s3flow.observe.progress import Thawing
from s3flow.ports import StateStore

_EVER = 2**62


async def read_thawing(state: StateStore, flow: Flow, now: float) -> Thawing | None:
    """Say what of *flow* thaws, or waits to; None when nothing does."""
    counts = {State.RESTORE_REQUESTED: (0, 0), State.RESTORING: (0, 0)}
    for line in await state.totals(flow.name):
        if line.state in counts:
            objects, size = counts[line.state]
            counts[line.state] = (objects + line.objects, size + line.bytes)
    waiting, under_way = counts[State.RESTORE_REQUESTED], counts[State.RESTORING]
    if not waiting[0] and not under_way[0]:
        return None
    next_due = await state.next_due(flow.name, State.RESTORING)
    last_due = await state.last_due(flow.name, State.RESTORING)
    # What is in the line is taken to be as deep as its first.
    of = State.RESTORE_REQUESTED if waiting[0] else State.RESTORING
    sample = await state.due(flow.name, of, _EVER, 1)
    name = sample[0].transfer.storage_class if sample else ""
    after = None if last_due is None else last_due / 1000
    p50, p90 = forecast(flow, Line(*waiting, name), after, now)
    return Thawing(
        waiting[0] + under_way[0],
        waiting[1] + under_way[1],
        None if next_due is None else max(now, next_due / 1000),
        p50,
        p90,
    )
