"""What proving copies again asks of the state, and records of it. All are steps of the caller's work."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from s3flow.model import Change, State
from s3flow.records import Scrubbed
from s3flow.state import sql
from s3flow.state.changes import current, save
from s3flow.state.flows import find_flow, need_flow, scrubbing
from s3flow.state.steps import Execute, Fetch, Steps, first
from s3flow.state.trail import Trail

# Whatever their state: a state that few rows are in must not make one statement read millions.
TRANSFERS = sql.DUE._replace(
    rest="FROM objects WHERE flow_id = ? AND bucket_id = ? AND object_key >= ?"
    " ORDER BY object_key LIMIT ?"
)


def refute(changes: Sequence[Change], trail: Trail, now: int) -> Steps[list[Change]]:
    """Record *changes* of rows that are verified still, in the version that was looked at."""
    rows = yield from current({change.transfer.id for change in changes})
    verified = sql.CODES[State.VERIFIED]
    held = []
    for change in changes:
        row = rows.get(change.transfer.id)
        if row is not None and (row.state, row.generation) == (
            verified,
            change.transfer.generation,
        ):
            held.append(change)
    yield from save(held, trail, now)
    return held


def scrubbed(flow: str) -> Steps[Scrubbed | None]:
    """Say how far the flow's copies were proven again."""
    flow_id = yield from find_flow(flow)
    row: Sequence[Any] | None = first((yield Fetch(sql.GET_META, (scrubbing(flow_id),))))
    if row is None:
        return None
    bucket, after, at = json.loads(row[0])
    return Scrubbed(bucket, bytes.fromhex(after), at)


def note_scrubbed(flow: str, it: Scrubbed) -> Steps[None]:
    """Keep it in the place of what was noted before."""
    flow_id = yield from need_flow(flow)
    text = json.dumps([it.bucket, it.after.hex(), it.at])
    yield Execute(sql.SET_META, (scrubbing(flow_id), text))
