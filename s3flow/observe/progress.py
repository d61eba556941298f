"""Where a flow stands: counts that add up, its rate, and when it may be done. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from s3flow.model import OUTCOMES, Flow, Outcome, Sample, ScanSummary, Total

RATE_WINDOW = 60.0  # seconds of work that the shown rate is taken over
SHORTEST_WINDOW = 5.0  # seconds that a window of work should last to say something of the rest
LONGEST_WINDOW = 300.0  # seconds; samples further apart have a stopped daemon between them
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


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast it went lately, and the seconds that the rest takes; None: not known."""

    bytes_per_s: float = 0.0
    objects_per_s: float = 0.0
    eta_p50: float | None = None
    eta_p90: float | None = None


@dataclass(frozen=True, slots=True)
class FlowSnapshot:
    """One flow at one moment, for people, `/api/status` and metrics.

    *reasons* counts skipped and failed objects, *failures* the failed ones among them. *backlog*
    says for each pending state how many objects and bytes wait in it.
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
    backlog: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def snapshot(
    flow: Flow,
    totals: Sequence[Total],
    samples: Sequence[Sample],
    dropped: Mapping[str, int],
    scan: ScanSummary | None,
    now: float,
) -> FlowSnapshot:
    """Put together what the state says of *flow*. *samples* ascend in time; *now* is the epoch's.

    Reasons count skipped and failed objects alone: a pending one's reason is not its outcome.
    """
    objects = dict.fromkeys(_OUTCOMES, 0)
    sizes = dict.fromkeys(_OUTCOMES, 0)
    methods: dict[str, int] = {}
    proofs: dict[str, int] = {}
    reasons: dict[str, int] = {}
    failures: dict[str, int] = {}
    backlog: dict[str, tuple[int, int]] = {}
    for total in totals:
        outcome = OUTCOMES[total.state]
        objects[outcome] += total.objects
        sizes[outcome] += total.bytes
        if outcome is Outcome.PENDING:
            waiting, waiting_bytes = backlog.get(total.state, (0, 0))
            backlog[total.state] = (waiting + total.objects, waiting_bytes + total.bytes)
            continue
        if outcome in (Outcome.SKIPPED, Outcome.FAILED):
            _add(reasons, total.reason, total.objects)
            if outcome is Outcome.FAILED:
                _add(failures, total.reason, total.objects)
            continue
        _add(methods, total.method, total.objects)
        _add(proofs, total.proof, total.objects)
    counts = Counts(**{outcome.value: objects[outcome] for outcome in _OUTCOMES})
    volume = Counts(**{outcome.value: sizes[outcome] for outcome in _OUTCOMES})
    return FlowSnapshot(
        name=flow.name,
        objects=counts,
        bytes=volume,
        rates=rates(samples, counts.pending, volume.pending, now),
        scan=scan,
        methods=methods,
        proofs=proofs,
        reasons=reasons,
        failures=failures,
        dropped=dict(dropped),
        backlog=backlog,
    )


def _add(counts: dict[str, int], name: str, number: int) -> None:
    if name and number:
        counts[name] = counts.get(name, 0) + number


def rates(samples: Sequence[Sample], objects: int, size: int, now: float) -> Rates:
    """Say how fast it goes and when *objects* of *size* bytes in all may be done.

    The rate is that of the last minute. The ETA takes every window in which work was done: p50
    assumes the median of their rates, p90 the tenth percentile, so that one good minute promises
    nothing. Bytes and objects are looked at apart and the slower of the two counts: a million tiny
    objects are not limited by bytes, nor one huge object by objects.
    """
    windows = _windows(samples)
    recent = [window for window in windows if window.end > now - RATE_WINDOW]
    seconds = sum(window.seconds for window in recent)
    moved = sum(window.bytes for window in recent)
    ended = sum(window.objects for window in recent)
    p50, p90 = _eta(windows, objects, size)
    return Rates(
        bytes_per_s=moved / seconds if seconds else 0.0,
        objects_per_s=ended / seconds if seconds else 0.0,
        eta_p50=p50,
        eta_p90=p90,
    )


@dataclass(frozen=True, slots=True)
class _Window:
    end: float
    seconds: float
    objects: int
    bytes: int


def _windows(samples: Sequence[Sample]) -> list[_Window]:
    """Give what was done between samples; idle windows and steps back in time say nothing.

    Neighbours are joined until they last long enough: a large object ends in one second of many.
    """
    found: list[_Window] = []
    for before, after in pairwise(samples):
        seconds = after.at - before.at
        objects, size = after.objects - before.objects, after.bytes - before.bytes
        if not (0 < seconds <= LONGEST_WINDOW and objects >= 0 and size >= 0 and (objects or size)):
            continue
        last = found[-1] if found else None
        if last is not None and last.end == before.at and last.seconds < SHORTEST_WINDOW:
            seconds, objects, size = (
                seconds + last.seconds,
                objects + last.objects,
                size + last.bytes,
            )
            found.pop()
        found.append(_Window(after.at, seconds, objects, size))
    return found


def _eta(
    windows: Sequence[_Window], objects: int, size: int
) -> tuple[float, float] | tuple[None, None]:
    if not objects:
        return 0.0, 0.0
    by_objects = sorted(window.objects / window.seconds for window in windows if window.objects)
    by_bytes = sorted(window.bytes / window.seconds for window in windows if window.bytes)
    if size and not by_bytes:
        return None, None
    ends = []
    for share in (0.5, 0.1):
        waits = [objects / _quantile(by_objects, share)] if by_objects else []
        if size:
            waits.append(size / _quantile(by_bytes, share))
        if not waits:
            return None, None
        ends.append(max(waits))
    return ends[0], ends[1]


def _quantile(ascending: Sequence[float], share: float) -> float:
    position = share * (len(ascending) - 1)
    low = int(position)
    high = min(low + 1, len(ascending) - 1)
    return ascending[low] + (ascending[high] - ascending[low]) * (position - low)


def as_json(snapshots: Sequence[FlowSnapshot]) -> dict[str, Any]:
    """Give the shape that `/api/status` and `status --json` promise."""
    return {"flows": [_flow_json(one) for one in snapshots]}


def _flow_json(one: FlowSnapshot) -> dict[str, Any]:
    finished = one.scan.finished if one.scan else None
    return {
        "name": one.name,
        "objects": one.objects.as_json(),
        "bytes": one.bytes.as_json(),
        "methods": dict(one.methods),
        "proofs": dict(one.proofs),
        "reasons": dict(one.reasons),
        "dropped": dict(one.dropped),
        "scan": {
            "finished": None if finished is None else _iso(finished),
            "unfinished": bool(one.scan and one.scan.unfinished),
        },
        "rate_bytes_per_s": round(one.rates.bytes_per_s, 3),
        "rate_objects_per_s": round(one.rates.objects_per_s, 3),
        "eta_seconds": {"p50": _rounded(one.rates.eta_p50), "p90": _rounded(one.rates.eta_p90)},
    }


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
