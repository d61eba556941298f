"""Where a flow stands: counts that add up, and how it is told to programs. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from s3flow.model import OUTCOMES, Flow, Outcome, Sample, ScanSummary, State, Total, Verdict
from s3flow.observe.inventory import NOTHING, Inventory, classes_json, inventory_json
from s3flow.observe.money import Money
from s3flow.observe.rates import Rates, rates
from s3flow.records import Hold

_OUTCOMES = tuple(Outcome)


@dataclass(frozen=True, slots=True)
class Counts:
    """Objects, or their bytes, by outcome. *listed* is their sum, by construction."""

    pending: int = 0
    verified: int = 0
    deleted: int = 0
    skipped: int = 0
    failed: int = 0

    @property
    def listed(self) -> int:
        """All that discovery has seen."""
        return self.pending + self.verified + self.deleted + self.skipped + self.failed

    @property
    def done(self) -> int:
        """All that needs no more work."""
        return self.listed - self.pending

    def as_json(self) -> dict[str, int]:
        """Give the counts by name, *listed* first."""
        return {"listed": self.listed} | {name.value: getattr(self, name) for name in _OUTCOMES}


class Moving(NamedTuple):
    """What is being moved at the moment: objects, their bytes, and how many of these have arrived."""

    objects: int
    bytes: int
    arrived: int


class Thawing(NamedTuple):
    """What waits until it is restored, and when the next and the last may be (epoch; None: unknown).

    *last_due_p90* is by when nine in ten such waits are over, where that is known apart from *last_due*.
    """

    objects: int
    bytes: int
    next_due: float | None
    last_due: float | None
    last_due_p90: float | None = None


class BucketCounts(NamedTuple):
    """One bucket of a flow."""

    objects: Counts
    bytes: Counts


@dataclass(frozen=True, slots=True)
class FlowSnapshot:
    """One flow at one moment, for people, `/api/status` and metrics.

    *reasons* counts skipped and failed objects, *failures* the failed ones among them. *states* has
    objects and bytes of each state that any object is in, *totals* what all this was counted from.
    *moving* is known to the process that moves alone; *thawing* is None while nothing waits.
    """

    name: str
    objects: Counts
    bytes: Counts
    rates: Rates
    scan: ScanSummary | None
    methods: Mapping[str, int] = field(default_factory=dict)
    proofs: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, int] = field(default_factory=dict)
    dropped: Mapping[str, int] = field(default_factory=dict)
    states: Mapping[State, tuple[int, int]] = field(default_factory=dict)
    totals: Sequence[Total] = ()
    moving: Moving | None = None
    thawing: Thawing | None = None
    routes: Sequence[Verdict] = ()  # which way its objects go, as far as it was found out
    inventory: Inventory = NOTHING
    kept: Mapping[str, int] = field(default_factory=dict)  # verified, and the source stays: why
    held: Hold | None = None  # why no source is deleted
    money: Money | None = None  # what it has spent of its `max_cost`

    @property
    def backlog(self) -> dict[State, tuple[int, int]]:
        """Give objects and bytes of each pending state."""
        return {
            state: counts
            for state, counts in self.states.items()
            if OUTCOMES[state] is Outcome.PENDING
        }

    @property
    def has_arrived(self) -> bool:
        """Say whether the target has any of it."""
        return bool(self.objects.verified or self.objects.deleted)

    @property
    def buckets(self) -> dict[str, BucketCounts]:
        """Count each source bucket by itself, in the order of their names."""
        of: dict[str, list[Total]] = {}
        for total in self.totals:
            of.setdefault(total.bucket, []).append(total)
        return {name: BucketCounts(*_counts(_states(of[name]))) for name in sorted(of)}


def snapshot(
    flow: Flow,
    totals: Sequence[Total],
    samples: Sequence[Sample],
    dropped: Mapping[str, int],
    scan: ScanSummary | None,
    now: float,
    *,
    moving: Moving | None = None,
    thawing: Thawing | None = None,
    routes: Sequence[Verdict] = (),
    inventory: Inventory = NOTHING,
    held: Hold | None = None,
    money: Money | None = None,
) -> FlowSnapshot:
    """Put together what the state says of *flow*. *samples* ascend in time; *now* is the epoch's.

    Reasons count skipped and failed objects alone: a pending one's reason is not its outcome.
    """
    methods, proofs, reasons, failures = _words(totals)
    states = _states(totals)
    objects, volume = _counts(states)
    arrived = min(moving.arrived, volume.pending) if moving else 0
    # What thaws comes when it comes: how fast the rest goes says nothing of it.
    frozen, its_bytes = (thawing.objects, thawing.bytes) if thawing else (0, 0)
    left, left_bytes = objects.pending - frozen, volume.pending - its_bytes - arrived
    speed = rates(samples, max(0, left), max(0, left_bytes), now)
    if thawing is not None and thawing.last_due is not None:
        latest = thawing.last_due_p90 or thawing.last_due
        speed = speed.not_before(thawing.last_due - now, latest - now)
    is_unseen = not objects.pending and (scan is None or scan.finished is None)
    if is_unseen or (objects.pending and money is not None and money.blocked):
        # Nobody has seen yet what there is, or nothing moves until a person lets it.
        speed = replace(speed, eta_p50=None, eta_p90=None)
    return FlowSnapshot(
        name=flow.name,
        objects=objects,
        bytes=volume,
        rates=speed,
        scan=scan,
        methods=methods,
        proofs=proofs,
        reasons=reasons,
        failures=failures,
        dropped=dict(dropped),
        states=states,
        totals=totals,
        moving=moving,
        thawing=thawing,
        routes=routes,
        inventory=inventory,
        kept=_kept(totals),
        held=held,
        money=money,
    )


def _kept(totals: Iterable[Total]) -> dict[str, int]:
    """Count verified objects whose sources are to stay, by why."""
    kept: dict[str, int] = {}
    for total in totals:
        if total.state is State.VERIFIED:
            _add(kept, total.reason, total.objects)
    return kept


def _words(totals: Iterable[Total]) -> tuple[dict[str, int], ...]:
    """Count objects by method, proof, reason of skips and failures, of failures."""
    methods: dict[str, int] = {}
    proofs: dict[str, int] = {}
    reasons: dict[str, int] = {}
    failures: dict[str, int] = {}
    for total in totals:
        outcome = OUTCOMES[total.state]
        if outcome is Outcome.PENDING:
            continue
        if outcome in (Outcome.SKIPPED, Outcome.FAILED):
            _add(reasons, total.reason, total.objects)
            if outcome is Outcome.FAILED:
                _add(failures, total.reason, total.objects)
            continue
        _add(methods, total.method, total.objects)
        _add(proofs, total.proof, total.objects)
    return methods, proofs, reasons, failures


def _states(totals: Iterable[Total]) -> dict[State, tuple[int, int]]:
    states: dict[State, tuple[int, int]] = {}
    for total in totals:
        objects, size = states.get(total.state, (0, 0))
        states[total.state] = (objects + total.objects, size + total.bytes)
    return states


def _counts(states: Mapping[State, tuple[int, int]]) -> tuple[Counts, Counts]:
    """Give objects and bytes by outcome."""
    objects = dict.fromkeys(_OUTCOMES, 0)
    sizes = dict.fromkeys(_OUTCOMES, 0)
    for state, (number, size) in states.items():
        objects[OUTCOMES[state]] += number
        sizes[OUTCOMES[state]] += size
    return (
        Counts(**{outcome.value: objects[outcome] for outcome in _OUTCOMES}),
        Counts(**{outcome.value: sizes[outcome] for outcome in _OUTCOMES}),
    )


def together(snapshots: Sequence[FlowSnapshot]) -> FlowSnapshot:
    """Add flows up as if they were one. They run side by side, so the latest ETA is that of all."""
    totals = [total for one in snapshots for total in one.totals]
    states = _states(totals)
    objects, volume = _counts(states)
    waits = [one.rates for one in snapshots if one.objects.pending]
    p50s = [wait.eta_p50 for wait in waits if wait.eta_p50 is not None]
    p90s = [wait.eta_p90 for wait in waits if wait.eta_p90 is not None]
    known = len(p50s) == len(p90s) == len(waits)
    moving = [one.moving for one in snapshots if one.moving]
    return FlowSnapshot(
        name="",
        objects=objects,
        bytes=volume,
        rates=Rates(
            bytes_per_s=sum(one.rates.bytes_per_s for one in snapshots),
            objects_per_s=sum(one.rates.objects_per_s for one in snapshots),
            eta_p50=max(p50s, default=0.0) if known else None,
            eta_p90=max(p90s, default=0.0) if known else None,
        ),
        scan=None,
        states=states,
        totals=totals,
        moving=Moving(*map(sum, zip(*moving, strict=True))) if moving else None,
    )


def _add(counts: dict[str, int], name: str, number: int) -> None:
    if name and number:
        counts[name] = counts.get(name, 0) + number


def as_json(snapshots: Sequence[FlowSnapshot], *, buckets: bool = False) -> dict[str, Any]:
    """Give the shape that `/api/status` and `status --json` promise, on demand with *buckets*."""
    return {"flows": [_flow_json(one) | _buckets_json(one, buckets) for one in snapshots]}


def _flow_json(one: FlowSnapshot) -> dict[str, Any]:
    finished = one.scan.finished if one.scan else None
    return {
        "name": one.name,
        "objects": one.objects.as_json(),
        "bytes": one.bytes.as_json(),
        "states": {
            state.value: dict(zip(("objects", "bytes"), one.states.get(state, (0, 0)), strict=True))
            for state in State
        },
        "moving": one.moving._asdict() if one.moving else None,
        "thawing": _thawing_json(one.thawing) if one.thawing else None,
        "methods": dict(one.methods),
        "proofs": dict(one.proofs),
        "reasons": dict(one.reasons),
        "dropped": dict(one.dropped),
        "deletes": {
            "held": one.held and {"why": one.held.why, "since": _iso(one.held.since)},
            "kept": dict(one.kept),
        },
        "cost": one.money and one.money.as_json(),
        "routes": [_route_json(verdict) for verdict in one.routes],
        **inventory_json(one.inventory),
        "scan": {
            "finished": _iso(finished),
            "unfinished": bool(one.scan and one.scan.unfinished),
        },
        "rate_bytes_per_s": round(one.rates.bytes_per_s, 3),
        "rate_objects_per_s": round(one.rates.objects_per_s, 3),
        "eta_seconds": {"p50": _rounded(one.rates.eta_p50), "p90": _rounded(one.rates.eta_p90)},
    }


def _buckets_json(one: FlowSnapshot, wanted: bool) -> dict[str, Any]:
    if not wanted:
        return {}
    listed = one.inventory.buckets()
    return {
        "buckets": {
            name: {
                "objects": counts.objects.as_json(),
                "bytes": counts.bytes.as_json(),
                "storage_classes": classes_json(listed.get(name, {})),
            }
            for name, counts in one.buckets.items()
        }
    }


def _route_json(verdict: Verdict) -> dict[str, Any]:
    return {
        "bucket": verdict.bucket,
        "what": verdict.what,
        "way": verdict.way,
        "reason": verdict.reason,
        "decided": _iso(verdict.decided),
        "expires": _iso(verdict.expires or None),
    }


def _thawing_json(thawing: Thawing) -> dict[str, Any]:
    return {
        "objects": thawing.objects,
        "bytes": thawing.bytes,
        "next_due": _iso(thawing.next_due),
        "last_due": _iso(thawing.last_due),
        "last_due_p90": _iso(thawing.last_due_p90 or thawing.last_due),
    }


def _iso(at: float | None) -> str | None:
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
