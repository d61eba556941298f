"""What became of objects between two reports, counted as it is told, in as much room for any number."""

from __future__ import annotations

import heapq
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from s3flow import events
from s3flow.model import OUTCOMES, Change, Flow, Outcome, State, Verdict

KEPT = 10  # objects that are named as the slowest and the largest
FAILURES = 20  # failed objects that are named with their messages
NOTES = 10  # warnings, and buckets that could not be listed, that are repeated
# From 0.1 ms to 28 hours, each 12% above the one before: what a percentile may be too high by.
BOUNDS = tuple(10.0 ** (step / 20 - 4) for step in range(181))
_VERIFIED, _FAILED = State.VERIFIED, State.FAILED


class Fate(NamedTuple):
    """How an object ended; *method* and *proof* are empty for what was not transferred."""

    state: State
    reason: str
    method: str
    proof: str


class Share(NamedTuple):
    """So many objects, of so many bytes together."""

    objects: int
    bytes: int

    def plus(self, objects: int, size: int) -> Share:
        """Add to it."""
        return Share(self.objects + objects, self.bytes + size)


NOTHING = Share(0, 0)


class Named(NamedTuple):
    """A transferred object that stands out. Compares by *value*, then by age."""

    value: float
    number: int
    bucket: str
    key: bytes
    size: int
    seconds: float
    method: str


class Failure(NamedTuple):
    """A failed object."""

    bucket: str
    key: bytes
    reason: str
    message: str


class Holds(NamedTuple):
    """How often the event loop was seen to be held, and for how long at least."""

    times: int = 0
    seconds: float = 0.0

    def since(self, before: Holds) -> Holds:
        """Take away what was there before."""
        return Holds(self.times - before.times, self.seconds - before.seconds)


NO_HOLDS = Holds()


class _Process(NamedTuple):
    """What concerns every flow, as it was at a flow's last report."""

    throttles: dict[str, int]
    deaths: dict[str, int]
    holds: Holds


@dataclass(slots=True)
class FlowTally:
    """What is counted of one flow. Times are seconds since the epoch."""

    flow: str
    began: float
    ended: float = 0.0
    fates: dict[Fate, Share] = field(default_factory=dict)
    durations: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    longest: float = 0.0
    slowest: list[Named] = field(default_factory=list)
    largest: list[Named] = field(default_factory=list)
    slow: float = -1.0  # what is slower, or larger, is kept
    large: int = -1
    failures: list[Failure] = field(default_factory=list)
    retries: dict[str, int] = field(default_factory=dict)
    blocks: dict[str, int] = field(default_factory=dict)
    unlisted: dict[str, str] = field(default_factory=dict)  # by bucket, why
    notes: dict[str, int] = field(default_factory=dict)
    notes_left_out: int = 0
    routes: list[Verdict] = field(default_factory=list)  # as far as they are known by then
    scans: int = 0
    listed: int = 0
    new: int = 0
    changed: int = 0
    throttles: dict[str, int] = field(default_factory=dict)  # by endpoint
    deaths: dict[str, int] = field(default_factory=dict)  # of worker processes, by how
    holds: Holds = NO_HOLDS

    @property
    def is_empty(self) -> bool:
        """Say whether nothing was found or done, and nothing went wrong."""
        found = self.new + self.changed
        counted = (found, self.fates, self.retries, self.blocks, self.unlisted, self.notes)
        return not any(counted)

    def stand_out(self, change: Change, seconds: float, number: int) -> None:
        """Keep an object that is among the slowest or the largest so far."""
        transfer = change.transfer
        what = (transfer.bucket, transfer.key, transfer.size, seconds, str(change.method))
        if seconds > self.slow:
            _keep(self.slowest, Named(seconds, -number, *what))
            if len(self.slowest) == KEPT:
                self.slow = self.slowest[0].value
        if transfer.size > self.large:
            _keep(self.largest, Named(transfer.size, -number, *what))
            if len(self.largest) == KEPT:
                self.large = int(self.largest[0].value)

    def note(self, message: str) -> None:
        """Keep a warning; one that comes again is counted."""
        if message not in self.notes and len(self.notes) == NOTES:
            self.notes_left_out += 1
        else:
            self.notes[message] = self.notes.get(message, 0) + 1

    def percentile(self, share: float) -> float | None:
        """Give the seconds that so many (0 to 1) of the transfers took at most, up to a bucket's width."""
        wanted, seen = share * sum(self.durations), 0
        for place, number in enumerate(self.durations):
            seen += number
            if number and seen >= wanted:
                return min(BOUNDS[place], self.longest) if place < len(BOUNDS) else self.longest
        return None


def _keep(heap: list[Named], one: Named) -> None:
    if len(heap) < KEPT:
        heapq.heappush(heap, one)
    else:
        heapq.heapreplace(heap, one)


class _Flows(dict[str, FlowTally]):
    """Begins to count a flow when something is told of it."""

    def __init__(self, begin: Callable[[str], FlowTally]) -> None:
        super().__init__()
        self._begin = begin

    def __missing__(self, flow: str) -> FlowTally:
        tally = self[flow] = self._begin(flow)
        return tally


class Tally:
    """Counts events for reports. Subscribe it with `events.fan_out`.

    *drained* is called with what was counted of a flow when all that its walk had found is done.
    """

    def __init__(
        self,
        flows: Sequence[Flow],
        drained: Callable[[FlowTally], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._ends = {flow.name: {flow.source.endpoint, flow.target.endpoint} for flow in flows}
        self._drained = drained
        self._clock = clock
        self._flows = _Flows(self._begin)
        self._fates: dict[tuple[str, State, str, str, str], list[int]] = {}
        self._numbers = 0
        # Of the whole process; each report has what came since the one before.
        self._routes: dict[tuple[str, str, str], Verdict] = {}
        self._process = _Process({}, {}, NO_HOLDS)
        self._before: dict[str, _Process] = {}
        self.told: dict[type, Callable[..., None]] = {
            events.ScanStarted: self._scan_started,
            events.PageMerged: self._merged,
            events.ScanFinished: self._scan_finished,
            events.BucketFailed: self._bucket_failed,
            events.TransferEnded: self._ended,
            events.Recorded: self._recorded,
            events.Retried: self._retried,
            events.ThrottleChanged: self._throttle_changed,
            events.FlowBlocked: self._flow_blocked,
            events.DeletesHeld: self._deletes_held,
            events.Kept: self._kept,
            events.RouteDecided: self._route_decided,
            events.Warned: self._warned,
            events.LoopHeld: self._loop_held,
            events.WorkerEnded: self._worker_ended,
        }
        if drained is not None:
            self.told[events.FlowDrained] = self._flow_drained

    def __call__(self, event: events.Event) -> None:
        """Count *event*."""
        told = self.told.get(type(event))
        if told is not None:
            told(event)

    def take(self, flow: str) -> FlowTally:
        """Give what was counted of a flow since this was called before, and begin anew."""
        tally = self._flows.pop(flow, None) or self._begin(flow)
        for key in [key for key in self._fates if key[0] == flow]:
            objects, size = self._fates.pop(key)
            if OUTCOMES[key[1]] is not Outcome.PENDING:
                fate = Fate(*key[1:])
                tally.fates[fate] = tally.fates.get(fate, NOTHING).plus(objects, size)
        now, before = self._process, self._before.get(flow, _Process({}, {}, NO_HOLDS))
        throttles = _since(now.throttles, before.throttles)
        ends = self._ends.get(flow, ())
        tally.throttles = {name: number for name, number in throttles.items() if name in ends}
        tally.deaths = _since(now.deaths, before.deaths)
        tally.holds = now.holds.since(before.holds)
        self._before[flow] = _Process(dict(now.throttles), dict(now.deaths), now.holds)
        tally.routes = [route for key, route in self._routes.items() if key[0] == flow]
        tally.ended = self._clock()
        return tally

    def _begin(self, flow: str) -> FlowTally:
        return FlowTally(flow, self._clock())

    # --- for every object ---------------------------------------------------------------------

    def _ended(self, event: events.TransferEnded) -> None:
        change, seconds = event
        if change.state is not _VERIFIED:
            return
        transfer = change.transfer
        tally = self._flows[transfer.flow]
        tally.durations[bisect_left(BOUNDS, seconds)] += 1
        if seconds > tally.slow or transfer.size > tally.large:
            self._numbers += 1
            tally.longest = max(tally.longest, seconds)
            tally.stand_out(change, seconds, self._numbers)

    def _recorded(self, event: events.Recorded) -> None:
        fates = self._fates
        for change in event.changes:
            transfer, state = change.transfer, change.state
            key = (transfer.flow, state, change.reason, change.method, change.proof)
            fate = fates.get(key)
            if fate is None:
                fate = fates[key] = [0, 0]
            fate[0] += 1
            fate[1] += transfer.size
            if state is _FAILED:
                failures = self._flows[transfer.flow].failures
                if len(failures) < FAILURES:
                    failure = (transfer.bucket, transfer.key, change.reason, change.message)
                    failures.append(Failure(*failure))

    # --- seldom -------------------------------------------------------------------------------

    def _scan_started(self, event: events.ScanStarted) -> None:
        tally = self._flows[event.flow]
        if not tally.scans and tally.is_empty:
            tally.began = self._clock()  # and not with a warning of the idle time before

    def _merged(self, event: events.PageMerged) -> None:
        tally = self._flows[event.flow]
        tally.listed += event.listed
        tally.new += event.new
        tally.changed += event.changed
        for one in event.decided:
            fate = Fate(*one[:4])
            tally.fates[fate] = tally.fates.get(fate, NOTHING).plus(one.objects, one.bytes)
        for found in event.refused[: FAILURES - len(tally.failures)]:
            failure = Failure(event.bucket, found.entry.key, found.reason, found.message)
            tally.failures.append(failure)

    def _scan_finished(self, event: events.ScanFinished) -> None:
        self._flows[event.flow].scans += 1

    def _bucket_failed(self, event: events.BucketFailed) -> None:
        unlisted = self._flows[event.flow].unlisted
        if event.bucket in unlisted or len(unlisted) < NOTES:
            unlisted[event.bucket] = f"{event.reason}: {event.message}"

    def _retried(self, event: events.Retried) -> None:
        _count(self._flows[event.transfer.flow].retries, event.reason)

    def _throttle_changed(self, event: events.ThrottleChanged) -> None:
        if event.throttled:
            _count(self._process.throttles, event.endpoint)

    def _flow_blocked(self, event: events.FlowBlocked) -> None:
        _count(self._flows[event.flow].blocks, event.reason)
        if not event.retry_after:  # it waits for whoever reads this
            self._flows[event.flow].note(event.message)

    def _deletes_held(self, event: events.DeletesHeld) -> None:
        self._flows[event.flow].note(f"no source was deleted any more: {event.message}")

    def _kept(self, event: events.Kept) -> None:
        change = event.change
        if event.first:
            why = f"{change.reason}: {change.message}"
            self._flows[change.transfer.flow].note(f"sources stay, though moved ({why})")

    def _route_decided(self, event: events.RouteDecided) -> None:
        route = event.verdict
        self._routes[route.flow, route.bucket, route.what] = route

    def _warned(self, event: events.Warned) -> None:
        for flow in [event.flow] if event.flow else self._ends:
            self._flows[flow].note(event.message)

    def _loop_held(self, event: events.LoopHeld) -> None:
        times, seconds = self._process.holds
        self._process = self._process._replace(holds=Holds(times + 1, seconds + event.seconds))

    def _worker_ended(self, event: events.WorkerEnded) -> None:
        _count(self._process.deaths, event.how)

    def _flow_drained(self, event: events.FlowDrained) -> None:
        if self._drained is not None:
            self._drained(self.take(event.flow))


def _count(counts: dict[str, int], name: str) -> None:
    counts[name] = counts.get(name, 0) + 1


def _since(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    since = {name: number - before.get(name, 0) for name, number in now.items()}
    return {name: number for name, number in since.items() if number}


def merged(tallies: Iterable[FlowTally]) -> FlowTally:
    """Add up several flows. What is the process's counts once, not once for each flow."""
    those = list(tallies)
    total = FlowTally("", min(one.began for one in those), max(one.ended for one in those))
    for one in those:
        for fate, share in one.fates.items():
            total.fates[fate] = total.fates.get(fate, NOTHING).plus(*share)
        total.durations = [a + b for a, b in zip(total.durations, one.durations, strict=True)]
        total.longest = max(total.longest, one.longest)
        total.slowest = heapq.nlargest(KEPT, total.slowest + one.slowest)
        total.largest = heapq.nlargest(KEPT, total.largest + one.largest)
        total.failures = (total.failures + one.failures)[:FAILURES]
        for mine, others in ((total.retries, one.retries), (total.blocks, one.blocks)):
            for name, number in others.items():
                mine[name] = mine.get(name, 0) + number
        total.scans += one.scans
        total.listed += one.listed
        total.new += one.new
        total.changed += one.changed
        _most(total.throttles, one.throttles)
        total.holds = max(total.holds, one.holds)
        _most(total.deaths, one.deaths)
    return total


def _most(mine: dict[str, int], others: Mapping[str, int]) -> None:
    for name, number in others.items():
        mine[name] = max(mine.get(name, 0), number)
