"""How fast a flow goes, and when it may be done. Pure; no I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from s3flow.model import Sample

RATE_WINDOW = 60.0  # seconds of work that the shown rate is taken over
SHORTEST_WINDOW = 5.0  # seconds that a window of work should last to say something of the rest
_INSTANT = 0.001  # seconds; what seems to have been done in less says how clocks are set
LONGEST_WINDOW = 300.0  # seconds; samples further apart have a stopped daemon between them


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast it went lately, and the seconds that the rest takes; None: not known."""

    bytes_per_s: float = 0.0
    objects_per_s: float = 0.0
    eta_p50: float | None = None
    eta_p90: float | None = None

    def not_before(self, half: float, most: float) -> Rates:
        """Let nothing be done in less than *half* (p50) and *most* (p90) seconds.

        Where nothing was moved yet, that is all that is known.
        """
        return replace(
            self, eta_p50=max(self.eta_p50 or 0.0, half), eta_p90=max(self.eta_p90 or 0.0, most)
        )


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
        if not (
            _INSTANT < seconds <= LONGEST_WINDOW
            and objects >= 0
            and size >= 0
            and (objects or size)
        ):
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
