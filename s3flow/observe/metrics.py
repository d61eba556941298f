"""Prometheus metrics: plain integers while objects move, families only when somebody asks."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from s3flow import __version__, events
from s3flow.model import OUTCOMES, Method, Outcome
from s3flow.observe.families import Histogram, backlog, counter, gauge, single, spending, tasks
from s3flow.observe.progress import FlowSnapshot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_STREAMED = {Method.PUT.value, Method.MULTIPART.value}
_LAGS = 30  # measurements whose worst is shown: of the last 15 seconds, less with worker processes

_Pair = tuple[str, str]


class Metrics(Collector):
    """Counts events. Subscribe it with `events.fan_out`; it is called on the loop's thread only.

    *snapshots* gives what the daemon last read from the state; it is asked at every scrape and
    must not do I/O. All labels are bounded: flows, endpoints and words of s3flow, never keys.
    """

    def __init__(
        self,
        snapshots: Callable[[], Sequence[FlowSnapshot]] = tuple,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._snapshots = snapshots
        self._clock = clock
        self._objects: defaultdict[_Pair, int] = defaultdict(int)
        self._methods: defaultdict[_Pair, int] = defaultdict(int)
        self._ways: dict[tuple[str, str, str], str] = {}
        self._read: defaultdict[str, int] = defaultdict(int)
        self._written: defaultdict[str, int] = defaultdict(int)
        self._inflight: defaultdict[str, int] = defaultdict(int)
        self._seconds: defaultdict[_Pair, Histogram] = defaultdict(Histogram)
        self._retries: defaultdict[_Pair, int] = defaultdict(int)
        self._throttled: defaultdict[str, int] = defaultdict(int)
        self._limits: dict[str, int] = {}
        self._blocked: dict[_Pair, int] = {}
        self._holding: dict[_Pair, int] = {}
        self._scrubbed: defaultdict[_Pair, int] = defaultdict(int)
        self._scans: defaultdict[str, int] = defaultdict(int)
        self._unlisted: defaultdict[_Pair, int] = defaultdict(int)
        self._scanned: dict[str, float] = {}
        self._workers: dict[str, int] = {}
        self._restarts = 0
        self._cpu: defaultdict[str, float] = defaultdict(float)
        self._holds: defaultdict[str, int] = defaultdict(int)
        self._held: defaultdict[str, float] = defaultdict(float)
        self._lags: deque[float] = deque([0.0], maxlen=_LAGS)
        self.told: dict[type, Callable[..., None]] = {
            events.TransferStarted: self._started,
            events.BytesMoved: self._moved,
            events.TransferEnded: self._ended,
            events.Recorded: self._recorded,
            events.Retried: self._retried,
            events.PageMerged: self._merged,
            events.ScanFinished: self._scan_finished,
            events.BucketFailed: self._bucket_failed,
            events.ThrottleChanged: self._throttle_changed,
            events.FlowBlocked: self._flow_blocked,
            events.FlowUnblocked: self._flow_unblocked,
            events.LookedAgain: self._looked_again,
            events.DeletesHeld: self._deletes_held,
            events.DeletesResumed: self._deletes_resumed,
            events.RouteDecided: self._route_decided,
            events.LoopHeld: self._loop_held,
            events.WorkerStarted: self._worker_started,
            events.WorkerPulse: self._worker_pulse,
            events.WorkerEnded: self._worker_ended,
        }
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        ProcessCollector(registry=self.registry)

    def __call__(self, event: events.Event) -> None:
        """Count *event*; kinds that no metric shows are ignored."""
        told = self.told.get(type(event))
        if told is not None:
            told(event)

    def loop_lag(self, seconds: float) -> None:
        """Note how late the event loop was."""
        self._lags.append(seconds)

    def render(self) -> bytes:
        """Give the exposition text, of the type `CONTENT_TYPE`."""
        return generate_latest(self.registry)

    def _started(self, event: events.TransferStarted) -> None:
        self._inflight[event.transfer.flow] += 1

    def _moved(self, event: events.BytesMoved) -> None:
        self._written[event.flow] += event.bytes

    def _ended(self, event: events.TransferEnded) -> None:
        change = event.change
        flow, method = change.transfer.flow, change.method
        self._inflight[flow] -= 1
        if method:
            self._seconds[flow, method].add(event.seconds)
            if method in _STREAMED:
                self._read[flow] += change.transfer.size

    def _recorded(self, event: events.Recorded) -> None:
        for change in event.changes:
            outcome = OUTCOMES[change.state]
            if outcome is not Outcome.PENDING:
                flow = change.transfer.flow
                self._objects[flow, outcome] += 1
                if outcome is Outcome.VERIFIED and change.method:
                    self._methods[flow, change.method] += 1

    def _retried(self, event: events.Retried) -> None:
        self._retries[event.transfer.flow, event.reason] += 1

    def _merged(self, event: events.PageMerged) -> None:
        if event.adopted:
            self._objects[event.flow, Outcome.VERIFIED] += event.adopted
            self._methods[event.flow, Method.ADOPTED] += event.adopted
        for one in event.decided:
            if OUTCOMES[one.state] is not Outcome.VERIFIED:
                self._objects[event.flow, OUTCOMES[one.state]] += one.objects

    def _scan_finished(self, event: events.ScanFinished) -> None:
        self._scans[event.flow] += 1
        self._scanned[event.flow] = self._clock()

    def _bucket_failed(self, event: events.BucketFailed) -> None:
        self._unlisted[event.flow, event.reason] += 1

    def _throttle_changed(self, event: events.ThrottleChanged) -> None:
        self._limits[event.endpoint] = event.concurrency
        self._throttled[event.endpoint] += event.throttled

    def _flow_blocked(self, event: events.FlowBlocked) -> None:
        self._blocked[event.flow, event.reason] = 1

    def _flow_unblocked(self, event: events.FlowUnblocked) -> None:
        self._blocked[event.flow, event.reason] = 0

    def _looked_again(self, event: events.LookedAgain) -> None:
        for result, copies in event.results.items():
            self._scrubbed[event.flow, result] += copies

    def _deletes_held(self, event: events.DeletesHeld) -> None:
        self._holding[event.flow, event.reason] = 1

    def _deletes_resumed(self, event: events.DeletesResumed) -> None:
        self._holding.update({key: 0 for key in self._holding if key[0] == event.flow})

    def _route_decided(self, event: events.RouteDecided) -> None:
        route = event.verdict
        self._ways[route.flow, route.bucket, route.what] = route.way

    def _worker_started(self, event: events.WorkerStarted) -> None:
        self._workers[str(event.worker)] = 1

    def _worker_pulse(self, event: events.WorkerPulse) -> None:
        self._cpu[str(event.worker)] += event.seconds
        self._lags.append(event.lag)

    def _worker_ended(self, event: events.WorkerEnded) -> None:
        self._workers[str(event.worker)] = 0
        self._restarts += 1

    def _loop_held(self, event: events.LoopHeld) -> None:
        self._holds[event.place] += 1
        self._held[event.place] += event.seconds

    def collect(self) -> Iterator[Metric]:
        """Make the families; prometheus_client calls it at a scrape."""
        snapshots = self._snapshots()
        yield from self._work()
        yield from self._stores()
        yield from self._flows(snapshots)
        yield from self._processes()
        yield from backlog(snapshots)
        yield from spending(snapshots)
        yield tasks()
        yield gauge(
            "s3flow_loop_lag_seconds",
            "Worst delay of an event loop in the last 15 s. Above 0.1: something blocks it, or "
            "the machine is short of CPU.",
            (),
            [((), max(self._lags))],
        )
        yield counter(
            "s3flow_loop_blocks",
            "Times that one step was seen to hold the event loop for more than 10 ms, by function. A "
            "steady rise is a defect or a slow disk: the log has the lines.",
            ("place",),
            single(self._holds),
        )
        yield counter(
            "s3flow_loop_blocked_seconds",
            "How long they held it, at least. Nothing else moved meanwhile.",
            ("place",),
            single(self._held),
        )
        yield gauge(
            "s3flow_build_info",
            "Always 1; the version is the label.",
            ("version",),
            [((__version__,), 1)],
        )

    def _work(self) -> Iterator[Metric]:
        yield counter(
            "s3flow_objects",
            "Objects by recorded outcome since the start. When failed rises: s3flow status, then "
            "s3flow retry.",
            ("flow", "outcome"),
            self._objects.items(),
        )
        yield counter(
            "s3flow_methods",
            "Verified objects by method since the start. put and multipart where server_copy was "
            "expected: s3flow report says why objects are streamed.",
            ("flow", "method"),
            self._methods.items(),
        )
        moved = [((flow, "written"), number) for flow, number in self._written.items()]
        moved += [((flow, "read"), number) for flow, number in self._read.items()]
        yield counter(
            "s3flow_bytes",
            "Bytes read from sources (by streamed objects that ended) and written to targets (by "
            "whole bodies and parts). Flat beside a backlog: look at blocked, throttled, retries.",
            ("flow", "direction"),
            moved,
        )
        seconds = HistogramMetricFamily(
            "s3flow_transfer_seconds",
            "Time a worker spent on one object. When it grows with the same sizes: a store or the "
            "network is slow, or concurrency is too high for it.",
            labels=("flow", "method"),
        )
        for labels, histogram in self._seconds.items():
            seconds.add_metric(labels, histogram.cumulative(), histogram.total)
        yield seconds
        yield gauge(
            "s3flow_inflight_transfers",
            "Objects being moved now. 0 beside a backlog: the flow is blocked or awaits retries.",
            ("flow",),
            single(self._inflight),
        )
        yield counter(
            "s3flow_retries",
            "Attempts that failed and are tried again, by reason. A steady rise of one reason "
            "names what to look at.",
            ("flow", "reason"),
            self._retries.items(),
        )

    def _stores(self) -> Iterator[Metric]:
        yield counter(
            "s3flow_throttled",
            "Times that a flow halved its pace because an answer asked for it. A steady rise: "
            "lower concurrency or max_requests_per_s, or ask for a higher limit.",
            ("endpoint",),
            single(self._throttled),
        )
        yield gauge(
            "s3flow_concurrency_limit",
            "Requests in flight that the endpoint is believed to take. Far below concurrency: it "
            "throttles.",
            ("endpoint",),
            single(self._limits),
        )

        ways = Counter((flow, way) for (flow, *_), way in self._ways.items())
        yield gauge(
            "s3flow_routes",
            "Ways that the objects of a source bucket, and those in parts, go, as far as it is "
            "known. streamed: the store refuses to copy them, s3flow status says why.",
            ("flow", "way"),
            ways.items(),
        )

    def _processes(self) -> Iterator[Metric]:
        yield gauge(
            "s3flow_worker_processes",
            "Worker processes that live; 0 where one process does everything. Below daemon.workers "
            "for long: they die, see the log.",
            (),
            [((), sum(self._workers.values()))],
        )
        yield counter(
            "s3flow_worker_restarts",
            "Worker processes that died and were replaced; what they had went to others. Rising: "
            "the log says how they died, the kernel's whether memory was short.",
            (),
            [((), self._restarts)],
        )
        yield counter(
            "s3flow_worker_cpu_seconds",
            "CPU that worker processes used; process_cpu_seconds_total is the supervisor's. All "
            "near 1 per second: raise daemon.workers, if there are CPUs left.",
            ("worker",),
            single(self._cpu),
        )

    def _flows(self, snapshots: Sequence[FlowSnapshot]) -> Iterator[Metric]:
        yield gauge(
            "s3flow_flow_blocked",
            "1 while nothing of the flow can move, for the reason named: full or missing target, "
            "clock, credentials, max_cost. Needs a person.",
            ("flow", "reason"),
            self._blocked.items(),
        )
        yield gauge(
            "s3flow_deletes_held",
            "1 while no source of a move is deleted, for the reason named: by a person, or by the "
            "circuit breaker. status says why; s3flow release lets them go on.",
            ("flow", "reason"),
            self._holding.items(),
        )
        yield gauge(
            "s3flow_sources_kept",
            "Verified objects of moves whose sources stay, by why: denied, a store without "
            "conditional deletes, nothing but sizes compared. Needs a person.",
            ("flow", "reason"),
            [((one.name, why), number) for one in snapshots for why, number in one.kept.items()],
        )
        yield counter(
            "s3flow_scrubbed",
            "Copies that were proven again, by result. missing or differs: they are marked as failed, "
            "s3flow retry copies them again; look for who touches the target.",
            ("flow", "result"),
            self._scrubbed.items(),
        )
        yield counter(
            "s3flow_scans",
            "Finished walks over the source since the start. Flat for longer than the flow's "
            "every: listing fails or is slow.",
            ("flow",),
            single(self._scans),
        )
        yield counter(
            "s3flow_scan_failures",
            "Buckets that could not be listed, counted at each try. Rising: their new objects are "
            "not seen; the log names them.",
            ("flow", "reason"),
            self._unlisted.items(),
        )
        yield gauge(
            "s3flow_unlisted_buckets",
            "Buckets that could not be listed when that was last tried. Not 0: what is new there is "
            "not seen; s3flow status says why.",
            ("flow",),
            [((one.name,), len(one.inventory.unlisted)) for one in snapshots],
        )
        finished = {
            one.name: one.scan.finished for one in snapshots if one.scan and one.scan.finished
        }
        yield gauge(
            "s3flow_scan_last_finished_timestamp_seconds",
            "When the source was last listed to its end. Too old: new objects are not seen.",
            ("flow",),
            single(finished | self._scanned),
        )


async def watch_loop(report: Callable[[float], None], interval: float = 0.5) -> None:
    """Tell *report* every *interval* seconds how late the event loop woke this task."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        report(max(0.0, loop.time() - due))
