"""What a running daemon takes of its machine, from outside: memory, files, threads, tasks, disk."""

from __future__ import annotations

import os
import re
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.torture.flatness import Judgement, Point, judge

MIB = 1024 * 1024
TICKS = os.sysconf("SC_CLK_TCK")
# What each series may grow by, in its unit, and as a share of its median.
OF_A_LIFE = {
    "memory, MiB": (6.0, 0.06),
    "file descriptors": (12.0, 0.0),
    "threads": (4.0, 0.0),
    "tasks": (16.0, 0.0),
    "CPU, %": (15.0, 0.5),
}
OF_ALL = {
    "open uploads": (4.0, 0.0),
    "database, MiB": (1.0, 0.15),
    "log of changes, MiB": (8.0, 0.0),
}
YOUNG = 180.0  # seconds; what has not been watched for much longer may grow more: it still warms up


@dataclass(slots=True)
class Samples:
    """All that was measured; times are seconds since the beginning."""

    begun: float = field(default_factory=time.monotonic)
    lives: list[float] = field(default_factory=list)  # when each began
    series: dict[str, list[Point]] = field(
        default_factory=lambda: {name: [] for name in (*OF_A_LIFE, *OF_ALL)}
    )

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self.begun

    def note(self, values: dict[str, float]) -> None:
        """Keep what was measured now."""
        at = self.now
        for name, value in values.items():
            self.series[name].append(Point(at, value))

    def judged(self) -> list[Judgement]:
        """Judge the last life, which is the longest, and what outlives them all."""
        last = self.lives[-1] if self.lives else 0.0
        return [*self._judged(OF_A_LIFE, last), *self._judged(OF_ALL, 0.0)]

    def _judged(self, bounds: dict[str, tuple[float, float]], since: float) -> Iterator[Judgement]:
        for name, (allowed, share) in bounds.items():
            points = [point for point in self.series[name] if point.at >= since]
            lenient = 1 + YOUNG / max(1.0, self.now - since)
            yield judge(name, points, allowed=lenient * allowed, share=lenient * share)


@dataclass(slots=True)
class Meter:
    """Measures one process until it ends."""

    pid: int
    url: str  # of its listener
    _spent: tuple[float, float] | None = None  # when, and the CPU seconds until then

    def read(self) -> dict[str, float]:
        """Measure; raises OSError when it is gone."""
        here = Path(f"/proc/{self.pid}")
        about = dict(re.findall(r"^(\w+):\s+(\d+)", (here / "status").read_text(), re.MULTILINE))
        # The name of the program, in brackets, may hold spaces: all is counted from its end.
        after = (here / "stat").read_text().rpartition(")")[2].split()
        found = {
            "memory, MiB": int(about.get("VmRSS", 0)) / 1024,
            "threads": float(about["Threads"]),
            "file descriptors": float(len(list((here / "fd").iterdir()))),
            "tasks": self._tasks(),
        }
        now, spent = time.monotonic(), (int(after[11]) + int(after[12])) / TICKS
        if self._spent is not None:
            found["CPU, %"] = 100 * (spent - self._spent[1]) / (now - self._spent[0])
        self._spent = (now, spent)
        return found

    def _tasks(self) -> float:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        return float(re.findall(r"^s3flow_tasks (\S+)", text, re.MULTILINE)[0])


def size_of(*places: Path) -> float:
    """Give the MiB of files, and of those in folders, together; what is not there counts nothing."""
    files = [file for place in places for file in (place.iterdir() if place.is_dir() else [place])]
    return sum(file.stat().st_size for file in files if file.exists()) / MIB
