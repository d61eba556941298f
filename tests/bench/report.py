"""Medians, ratios, the table for people and the JSON for programs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.measure import Run

OURS, FLOOR = "s3flow", "floor"
MIB, GIB = 1024**2, 1024**3
LARGE = 8 * MIB  # mean object size from which bytes are what is paid for


@dataclass(slots=True)
class Result:
    """What one contender did in one case: its runs that count, or why there are none."""

    contender: str
    version: str
    settings: str
    runs: list[Run] = field(default_factory=list)
    problem: str = ""

    @property
    def counts(self) -> bool:
        """Say whether there is something to compare."""
        return bool(self.runs) and not self.problem

    def median(self, of: str) -> float:
        """Give the median of a run's figure: "wall", "cpu", "peak" or "server_cpu"."""
        return statistics.median(float(getattr(run, of)) for run in self.runs)


@dataclass(slots=True)
class CaseResult:
    """All contenders of one case over one kind of endpoint."""

    case: str
    title: str
    server: str
    objects: int
    bytes: int
    quick: bool = False  # a smaller set than the case is about
    results: list[Result] = field(default_factory=list)

    def find(self, contender: str) -> Result | None:
        """Give a contender's result, if it counts."""
        return next((r for r in self.results if r.contender == contender and r.counts), None)

    def best_peer(self, figure: str) -> Result | None:
        """Give the peer with the lowest median of a figure."""
        peers = [
            r for r in self.results if r.counts and r.contender.split()[0] not in {OURS, FLOOR}
        ]
        return min(peers, key=lambda result: result.median(figure), default=None)

    @property
    def is_of_objects(self) -> bool:
        """Say whether objects are what is paid for, not their bytes."""
        return bool(self.objects) and self.bytes / self.objects < LARGE

    def unit_cost(self, result: Result) -> str:
        """Give CPU per object, or per GiB where objects are large."""
        cpu = result.median("cpu")
        if self.is_of_objects:
            return f"{cpu / self.objects * 1e6:,.0f} us/object"
        return f"{cpu / (self.bytes / GIB):.2f} s/GiB"

    def pace(self, result: Result) -> str:
        """Give objects, or MiB where objects are large, per CPU second."""
        made = self.per_cpu_second(result)
        if self.is_of_objects:
            return f"{made['objects']:,.0f} objects"
        return f"{made['bytes'] / MIB:,.0f} MiB"

    def per_cpu_second(self, result: Result) -> dict[str, float]:
        """Give objects and bytes per CPU second."""
        cpu = max(result.median("cpu"), 1e-3)
        return {"objects": self.objects / cpu, "bytes": self.bytes / cpu}


def short(problem: str) -> str:
    """Give the first line of a reason: what a program printed follows it."""
    return problem.partition("\n")[0][:200]


def table(found: CaseResult) -> Table:
    """Lay a case out for people."""
    made = Table(title=f"{found.title} ({found.server})", title_justify="left")
    for column in (
        "",
        "wall s",
        "CPU s",
        "CPU each",
        "per CPU s",
        "MiB",
        "server CPU",
        "runs",
    ):
        made.add_column(column, justify="right" if column else "left", no_wrap=True)
    for result in found.results:
        if result.counts:
            made.add_row(
                result.contender,
                f"{result.median('wall'):.2f}",
                f"{result.median('cpu'):.2f}",
                found.unit_cost(result).removesuffix("/object"),
                found.pace(result),
                f"{result.median('peak') / MIB:.0f}",
                f"{result.median('server_cpu'):.2f}" if result.median("server_cpu") else "-",
                str(len(result.runs)),
            )
    return made


def ratios(found: CaseResult) -> dict[str, float]:
    """Compare s3flow with the best peer in each figure, and with the floor."""
    ours = found.find(OURS)
    if ours is None:
        return {}
    compared = {}
    for figure in ("cpu", "wall", "peak"):
        best = found.best_peer(figure)
        if best:
            compared[f"{figure} / best peer"] = ours.median(figure) / best.median(figure)
    floor = found.find(FLOOR)
    if floor:
        compared["cpu / floor"] = ours.median("cpu") / floor.median("cpu")
        compared["wall / floor"] = ours.median("wall") / floor.median("wall")
    return compared


def show(console: Console, found: CaseResult) -> None:
    """Print a case's table and its ratios."""
    console.print(table(found))
    for result in found.results:
        text = result.settings if result.counts else result.problem
        line = f"  {result.contender}: {text}"
        console.print(line, style="dim", markup=False, highlight=False, soft_wrap=True)
    line = ", ".join(f"{name} {value:.2f}" for name, value in ratios(found).items())
    if line:
        console.print(f"  ratios of s3flow: {line}", style="bold", highlight=False)


def write_json(path: Path, about: dict[str, str], cases: Sequence[CaseResult]) -> None:
    """Write everything that was measured."""
    document = {
        "about": about,
        "cases": [
            {
                **asdict(found),
                "ratios": ratios(found),
                "per_cpu_second": {
                    r.contender: found.per_cpu_second(r) for r in found.results if r.counts
                },
            }
            for found in cases
        ],
    }
    path.write_text(json.dumps(document, indent=1) + "\n")
