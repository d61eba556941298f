"""Families of metrics, as prometheus_client has them made, from plain numbers."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from s3flow.observe.progress import FlowSnapshot

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800, 7_200)


class Histogram:
    """Counts durations by `SECONDS`."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count a duration."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Give for each bound how many were not longer, as Prometheus wants them."""
        bounds = [*(str(float(bound)) for bound in SECONDS), "+Inf"]
        summed, buckets = 0, []
        for bound, count in zip(bounds, self.counts, strict=True):
            summed += count
            buckets.append((bound, float(summed)))
        return buckets


def backlog(snapshots: Sequence[FlowSnapshot]) -> Iterator[Metric]:
    """Make the families of what is listed and not done, and of how fast it goes."""
    waiting = [
        ((one.name, state), numbers) for one in snapshots for state, numbers in one.backlog.items()
    ]
    yield gauge(
        "s3flow_backlog_objects",
        "Objects that are listed and not done, by state. Growing: more arrives than moves.",
        ("flow", "state"),
        [(labels, objects) for labels, (objects, _) in waiting],
    )
    yield gauge(
        "s3flow_backlog_bytes",
        "Bytes that are listed and not done, by state. Compare with the throughput.",
        ("flow", "state"),
        [(labels, size) for labels, (_, size) in waiting],
    )
    yield gauge(
        "s3flow_throughput_bytes_per_second",
        "Rate over the last minute that had work. Low beside a backlog: look at throttled and lag.",
        ("flow",),
        [((one.name,), one.rates.bytes_per_s) for one in snapshots],
    )
    times = [((one.name, "0.5"), one.rates.eta_p50) for one in snapshots]
    times += [((one.name, "0.9"), one.rates.eta_p90) for one in snapshots]
    yield gauge(
        "s3flow_eta_seconds",
        "Time until the backlog is done at the median rate (0.5 likely) and at a slow one (0.9); "
        "absent while unknown. Rising: the backlog grows faster than it is worked off.",
        ("flow", "likelihood"),
        [(labels, seconds) for labels, seconds in times if seconds is not None],
    )


def spending(snapshots: Sequence[FlowSnapshot]) -> Iterator[Metric]:
    """Make the families of what flows with a `max_cost` have spent of it."""
    known = [(one.name, one.money) for one in snapshots if one.money]
    yield gauge(
        "s3flow_cost_spent",
        "What a flow with a max_cost has spent, by the prices of the configuration, in their "
        "currency. Near s3flow_cost_max: it will stop.",
        ("flow",),
        [((name,), money.spent + money.aside) for name, money in known],
    )
    yield gauge(
        "s3flow_cost_max",
        "What the flow may spend. Raise max_cost to let more be moved.",
        ("flow",),
        [((name,), money.most) for name, money in known],
    )


def tasks() -> Metric:
    """Make the family of what runs on the event loop, none while there is no loop."""
    try:
        running = len(asyncio.all_tasks())
    except RuntimeError:
        running = 0
    return gauge(
        "s3flow_tasks",
        "Tasks on the event loop of this process. Growing over hours: a leak, please report it.",
        (),
        [((), running)],
    )


def single(values: dict[str, int] | dict[str, float]) -> Iterable[tuple[tuple[str], float]]:
    """Give values with their only label as a tuple."""
    return [((label,), value) for label, value in values.items()]


def counter(
    name: str,
    text: str,
    labels: Sequence[str],
    values: Iterable[tuple[tuple[str, ...], float]],
) -> Metric:
    """Make a counter's family."""
    family = CounterMetricFamily(name, text, labels=labels)
    for label, value in values:
        family.add_metric(label, value)
    return family


def gauge(
    name: str,
    text: str,
    labels: Sequence[str],
    values: Iterable[tuple[tuple[str, ...], float]],
) -> Metric:
    """Make a gauge's family."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for label, value in values:
        family.add_metric(label, value)
    return family
