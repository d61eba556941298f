"""What was asked to be restored, and when: a budget holds, and counts go on, across restarts."""

from __future__ import annotations

from collections.abc import Sequence

from s3flow.model import Transfer
from s3flow.state import sql
from s3flow.state.flows import find_flow, need_flow
from s3flow.state.steps import Bulk, Execute, Fetch, Steps, first


def note(transfers: Sequence[Transfer], at: int) -> Steps[list[int]]:
    """Note restores of one flow's objects at *at*; give how many there were of each version."""
    if not transfers:
        return []
    flow_id = yield from need_flow(transfers[0].flow)
    rows = [(flow_id, it.id, it.generation, at, it.size) for it in transfers]
    yield Bulk(sql.ADD_RESTORE, rows)
    counts = []
    for each in transfers:
        [(count,)] = yield Fetch(sql.RESTORES_OF, (each.id, each.generation))
        counts.append(int(count))
    return counts


def hasten(flow: str, bucket: str, keys: Sequence[bytes], at: int) -> Steps[int]:
    """Let those of *keys* that are RESTORING be due at *at*, if not earlier; give their number."""
    flow_id = yield from find_flow(flow)
    found = first((yield Fetch(sql.BUCKET_ID, (bucket,))))
    if flow_id is None or found is None:
        return 0
    changed = 0
    for key in keys:
        changed += yield Execute(sql.HASTEN, (at, flow_id, found[0], key, at))
    return changed
