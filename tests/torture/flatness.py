"""Whether a series of measurements is flat: what leaks grows, however slowly, and whatever the noise."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

POINTS = 200  # that slopes are taken between; more are joined by their medians
FEWEST = 8  # measurements; less show nothing
WARM_UP = 0.25  # of the time, at its beginning: caches fill, pools grow


class Point(NamedTuple):
    """A measurement: seconds since the beginning, and what was measured."""

    at: float
    value: float


class Judgement(NamedTuple):
    """How much a series has grown while it was watched, and how much it may."""

    name: str
    growth: float  # in its own unit, over all the time
    allowed: float
    median: float
    points: int

    @property
    def flat(self) -> bool:
        """Whether it grew no more than it may, and there was enough to see."""
        return self.points >= FEWEST and self.growth <= self.allowed

    def __str__(self) -> str:
        if self.points < FEWEST:
            return f"{self.name}: only {self.points} measurements"
        word = "flat" if self.flat else "NOT FLAT"
        return (
            f"{self.name}: {word}, median {self.median:,.1f}, grew by {self.growth:,.1f}"
            f" of {self.allowed:,.1f} that it may, {self.points} measurements"
        )


def judge(name: str, series: Sequence[Point], *, allowed: float, share: float = 0.0) -> Judgement:
    """Say how *series* has grown after its warm-up; it may by *allowed*, or a *share* of its median."""
    points = _joined(_warm(series))
    if len(points) < FEWEST:
        return Judgement(name, 0.0, allowed, 0.0, len(points))
    median = statistics.median(point.value for point in points)
    growth = max(_slope(points) * (points[-1].at - points[0].at), _step(points))
    return Judgement(name, growth, max(allowed, share * median), median, len(points))


def _warm(series: Sequence[Point]) -> list[Point]:
    if not series:
        return []
    begin = series[0].at + WARM_UP * (series[-1].at - series[0].at)
    return [point for point in series if point.at >= begin]


def _joined(series: Sequence[Point]) -> list[Point]:
    """Join neighbours by their medians, so that no more than `POINTS` are left."""
    size = -(-len(series) // POINTS) or 1
    groups = [series[start : start + size] for start in range(0, len(series), size)]
    return [
        Point(*(statistics.median(values) for values in zip(*group, strict=True)))
        for group in groups
    ]


def _slope(points: Sequence[Point]) -> float:
    """The median of the slopes between all pairs (Theil and Sen): a third may be outliers."""
    pairs = combinations(points, 2)
    return statistics.median(
        (later.value - earlier.value) / (later.at - earlier.at) for earlier, later in pairs
    )


def _step(points: Sequence[Point]) -> float:
    """How much more the last third is than the first: one step has no slope, nor has a stair's."""
    third = len(points) // 3
    first, last = points[:third], points[-third:]
    return statistics.median(p.value for p in last) - statistics.median(p.value for p in first)
