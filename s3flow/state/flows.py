"""Flows, their scans and samples: what the state keeps once per flow."""

from __future__ import annotations

import json

from s3flow.errors import FlowChanged, StateError
from s3flow.model import Flow, Sample, Scan, ScanSummary
from s3flow.records import Fact, Spending
from s3flow.state import sql
from s3flow.state.audit import Happened
from s3flow.state.steps import Execute, Fetch, Insert, Steps, first
from s3flow.state.trail import Trail

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


def find_flow(name: str) -> Steps[int | None]:
    """Give the flow's id, None if the state does not know it."""
    row = first((yield Fetch(sql.FLOW_ID, (name,))))
    return None if row is None else int(row[0])


def need_flow(name: str) -> Steps[int]:
    """Give the flow's id; raise `StateError` if it was never opened or is forgotten."""
    flow_id = yield from find_flow(name)
    if flow_id is None:
        raise StateError(f"the state knows no flow {name!r}: it was forgotten, or never opened")
    return flow_id


def open_flow(flow: Flow, now: float) -> Steps[None]:
    """Begin the flow, or check that it is the one on record."""
    row = first((yield Fetch(sql.FLOW, (flow.name,))))
    if row is None:
        yield Insert(sql.ADD_FLOW, (flow.name, json.dumps(fingerprint(flow)), now))
    else:
        refuse_difference(flow, row[1])


def check_flow(flow: Flow) -> Steps[None]:
    """Raise `FlowChanged` when another flow of this name is on record; changes nothing."""
    row = first((yield Fetch(sql.FLOW, (flow.name,))))
    if row is not None:
        refuse_difference(flow, row[1])


def identity(new: str) -> Steps[str]:
    """Give the state's name for itself; from now on that is *new* where it has none, and that is not ""."""
    row = first((yield Fetch(sql.GET_META, ("identity",))))
    if row is not None:
        return str(row[0])
    if new:
        yield Execute(sql.SET_META, ("identity", new))
    return new


def begin_scan(name: str, now: float) -> Steps[tuple[Scan, bool]]:
    """Continue the flow's unfinished scan (True) or begin one."""
    flow_id = yield from need_flow(name)
    [(_, _, adopting)] = yield Fetch(sql.FLOW, (name,))
    row = first((yield Fetch(sql.UNFINISHED_SCAN, (flow_id,))))
    if row is not None:
        return Scan(row[0], name, bool(adopting), row[1]), True
    added = yield Insert(sql.ADD_SCAN, (flow_id, now))
    return Scan(added, name, bool(adopting), now), False


def finish_scan(scan: Scan, now: float) -> Steps[None]:
    """End the scan and drop what only it needed. Ending it twice is harmless."""
    flow_id = yield from need_flow(scan.flow)
    if (yield Execute(sql.END_SCAN, (now, scan.id))):
        yield Execute(sql.SET_ADOPTED, (flow_id,))
        yield Execute(sql.DROP_RANGES, (flow_id,))
        yield Execute(sql.PRUNE_SCANS, (flow_id, scan.id - KEPT_SCANS))
        yield Execute(sql.PRUNE_BATCHES)
        yield Execute(sql.DROP_OTHER_CLASSES, (flow_id, scan.id))
        yield Execute(sql.DROP_ALL_UNLISTED, (flow_id,))
        yield Execute(sql.DROP_EMPTY_TOTALS, (flow_id,))
        yield Execute(sql.SET_META, (draining(flow_id), str(now)))


def drained(name: str) -> Steps[None]:
    """Note that all that the last finished scan has found is done."""
    flow_id = yield from find_flow(name)
    yield Execute(sql.DROP_META, (draining(flow_id),))


def endpoints_of(flow_id: int) -> str:
    """Name what says which endpoints the flow's verdicts were found out with."""
    return f"endpoints/{flow_id}"


def scrubbing(flow_id: int | None) -> str:
    """Name what says how far the flow's copies were proven again."""
    return f"scrubbing/{flow_id}"


def spending(flow_id: int | None) -> str:
    """Name what says how much the flow has spent."""
    return f"spending/{flow_id}"


def spent(name: str) -> Steps[Spending | None]:
    """Say what the flow has spent, None where nothing counts it."""
    flow_id = yield from find_flow(name)
    row = first((yield Fetch(sql.GET_META, (spending(flow_id),))))
    return None if row is None else Spending(*json.loads(row[0]))


def note_spent(name: str, it: Spending) -> Steps[None]:
    """Keep it in the place of what was noted before."""
    flow_id = yield from need_flow(name)
    yield Execute(sql.SET_META, (spending(flow_id), json.dumps(it)))


def draining(flow_id: int | None) -> str:
    """Name what says that the objects of the flow's last listing are not all done."""
    return f"draining/{flow_id}"


def last_scan(name: str) -> Steps[ScanSummary]:
    """Sum up the last finished scan."""
    flow_id = yield from find_flow(name)
    unfinished = bool((yield Fetch(sql.UNFINISHED_SCAN, (flow_id,))))
    finished, listed = first((yield Fetch(sql.FINISHED_SCAN, (flow_id,)))) or (None, 0)
    is_draining = bool((yield Fetch(sql.GET_META, (draining(flow_id),))))
    return ScanSummary(finished, unfinished, listed, drained=not is_draining)


def add_sample(name: str, sample: Sample) -> Steps[None]:
    """Keep the sample unless it follows another too closely; drop the old ones.

    Samples from the future are dropped too: the clock was put back.
    """
    flow_id = yield from need_flow(name)
    yield Execute(sql.DROP_SAMPLES, (flow_id, sample.at - SAMPLES_KEPT, sample.at))
    [(last,)] = yield Fetch(sql.LAST_SAMPLE, (flow_id,))
    if last is None or sample.at - last >= SAMPLE_SPACING:
        yield Execute(sql.ADD_SAMPLE, (flow_id, *sample))


def unname(name: str, trail: Trail, now: int) -> Steps[bool]:
    """Make the flow unknown at once; `sweep` removes its rows. False when it was so already."""
    flow_id = yield from find_flow(name)
    if flow_id is None:
        return False
    yield Execute(sql.UNNAME_FLOW, (flow_id,))
    yield Execute(sql.DROP_META, (draining(flow_id),))
    yield Execute(sql.DROP_RANGES, (flow_id,))
    yield Execute(sql.DROP_META, (endpoints_of(flow_id),))
    yield Execute(sql.DROP_META, (scrubbing(flow_id),))
    yield Execute(sql.DROP_META, (spending(flow_id),))
    for statement in (*sql.DROP_OF_FLOW, sql.DROP_VERDICTS):
        yield Execute(statement, (flow_id,))
    trail.note(name, Happened(Fact.FORGOTTEN, 0, "", b"", 0))
    yield from trail.write(now)
    return True


def sweep() -> Steps[bool]:
    """Remove a slice of the rows of forgotten flows; True while there may be more."""
    row = first((yield Fetch(sql.UNNAMED_FLOWS)))
    if row is None:
        return False
    if not (yield Execute(sql.DROP_OBJECTS, row)):
        yield Execute(sql.DROP_FLOW, row)
    return True
