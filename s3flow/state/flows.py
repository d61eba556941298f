"""Flows, their scans and samples: what the state keeps once per flow."""

from __future__ import annotations

import json
import sqlite3

from s3flow.errors import FlowChanged, StateError
from s3flow.model import Flow, Sample, Scan, ScanSummary
from s3flow.state import sql

KEPT_SCANS = 100
SAMPLE_SPACING = 1.0  # seconds
SAMPLES_KEPT = 3600.0  # seconds


def fingerprint(flow: Flow) -> dict[str, str]:
    """Say where the flow's objects come from and go to: rows mean nothing under another mapping."""
    return {
        "source": str(flow.source),
        "target": str(flow.target),
        "rewrite": json.dumps([list(rule) for rule in flow.rewrite]),
    }


def refuse_difference(flow: Flow, recorded: str) -> None:
    """Raise `FlowChanged` when the *recorded* fingerprint is not the flow's."""
    before, now = json.loads(recorded), fingerprint(flow)
    differences = [
        f"{setting} was {before.get(setting, '')!r} and is now {value!r}"
        for setting, value in now.items()
        if before.get(setting, "") != value
    ]
    if differences:
        raise FlowChanged(
            f"flow {flow.name!r} moves something else than the state has on record:"
            f" {'; '.join(differences)}. Put it back; or give the flow a new name; or run"
            f" `s3flow forget {flow.name}` to start over: what is at the target is then adopted,"
            " not copied again"
        )


def find_flow(db: sqlite3.Connection, name: str) -> int | None:
    """Give the flow's id, None if the state does not know it."""
    row = db.execute(sql.FLOW_ID, (name,)).fetchone()
    return None if row is None else int(row[0])


def need_flow(db: sqlite3.Connection, name: str) -> int:
    """Give the flow's id; raise `StateError` if it was never opened or is forgotten."""
    flow_id = find_flow(db, name)
    if flow_id is None:
        raise StateError(f"the state knows no flow {name!r}: it was forgotten, or never opened")
    return flow_id


def open_flow(db: sqlite3.Connection, flow: Flow, now: float) -> None:
    """Begin the flow, or check that it is the one on record."""
    row = db.execute(sql.FLOW, (flow.name,)).fetchone()
    if row is None:
        db.execute(sql.ADD_FLOW, (flow.name, json.dumps(fingerprint(flow)), now))
    else:
        refuse_difference(flow, row[1])


def begin_scan(db: sqlite3.Connection, name: str, now: float) -> tuple[Scan, bool]:
    """Continue the flow's unfinished scan (True) or begin one."""
    flow_id = need_flow(db, name)
    _, _, adopting = db.execute(sql.FLOW, (name,)).fetchone()
    row = db.execute(sql.UNFINISHED_SCAN, (flow_id,)).fetchone()
    if row is not None:
        return Scan(row[0], name, bool(adopting), row[1]), True
    added = db.execute(sql.ADD_SCAN, (flow_id, now)).lastrowid
    return Scan(added or 0, name, bool(adopting), now), False


def list_again(db: sqlite3.Connection, name: str) -> None:
    """Forget which buckets the unfinished scan has listed to their end."""
    row = db.execute(sql.UNFINISHED_SCAN, (find_flow(db, name),)).fetchone()
    if row is not None:
        db.execute(sql.DROP_DONE_RANGES, (row[0], row[0]))


def finish_scan(db: sqlite3.Connection, scan: Scan, now: float) -> None:
    """End the scan and drop what only it needed. Ending it twice is harmless."""
    flow_id = need_flow(db, scan.flow)
    if db.execute(sql.END_SCAN, (now, scan.id)).rowcount:
        db.execute(sql.SET_ADOPTED, (flow_id,))
        db.execute(sql.DROP_RANGES, (flow_id,))
        db.execute(sql.PRUNE_SCANS, (flow_id, scan.id - KEPT_SCANS))
        db.execute(sql.DROP_EMPTY_TOTALS, (flow_id,))
        db.execute(sql.SET_META, (_draining(flow_id), str(now)))


def drained(db: sqlite3.Connection, name: str) -> None:
    """Note that all that the last finished scan has found is done."""
    db.execute(sql.DROP_META, (_draining(find_flow(db, name)),))


def _draining(flow_id: int | None) -> str:
    return f"draining/{flow_id}"


def last_scan(db: sqlite3.Connection, name: str) -> ScanSummary:
    """Sum up the last finished scan."""
    flow_id = find_flow(db, name)
    unfinished = db.execute(sql.UNFINISHED_SCAN, (flow_id,)).fetchone() is not None
    finished, listed = db.execute(sql.FINISHED_SCAN, (flow_id,)).fetchone() or (None, 0)
    draining = db.execute(sql.GET_META, (_draining(flow_id),)).fetchone() is not None
    return ScanSummary(finished, unfinished, listed, drained=not draining)


def add_sample(db: sqlite3.Connection, name: str, sample: Sample) -> None:
    """Keep the sample unless it follows another too closely; drop the old ones.

    Samples from the future are dropped too: the clock was put back.
    """
    flow_id = need_flow(db, name)
    db.execute(sql.DROP_SAMPLES, (flow_id, sample.at - SAMPLES_KEPT, sample.at))
    (last,) = db.execute(sql.LAST_SAMPLE, (flow_id,)).fetchone()
    if last is None or sample.at - last >= SAMPLE_SPACING:
        db.execute(sql.ADD_SAMPLE, (flow_id, *sample))


def unname(db: sqlite3.Connection, name: str) -> bool:
    """Make the flow unknown at once; `sweep` removes its rows. False when it was so already."""
    flow_id = find_flow(db, name)
    if flow_id is None:
        return False
    db.execute(sql.UNNAME_FLOW, (flow_id,))
    db.execute(sql.DROP_META, (_draining(flow_id),))
    db.execute(sql.DROP_RANGES, (flow_id,))
    for statement in sql.DROP_OF_FLOW:
        db.execute(statement, (flow_id,))
    return True


def sweep(db: sqlite3.Connection) -> bool:
    """Remove a slice of the rows of forgotten flows; True while there may be more."""
    row = db.execute(sql.UNNAMED_FLOWS).fetchone()
    if row is None:
        return False
    if not db.execute(sql.DROP_OBJECTS, row).rowcount:
        db.execute(sql.DROP_FLOW, row)
    return True
