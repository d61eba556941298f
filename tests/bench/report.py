"""Medians, ratios, the table, the JSON and the picture."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

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
    results: list[Result] = field(default_factory=list)

    def find(self, contender: str) -> Result | None:
        """Give a contender's result, if it counts."""
        return next((r for r in self.results if r.contender == contender and r.counts), None)

    def best_peer(self, figure: str) -> float | None:
        """Give the lowest median among the peers."""
        peers = [r for r in self.results if r.counts and r.contender not in {OURS, FLOOR}]
        return min((r.median(figure) for r in peers), default=None)

    def unit_cost(self, result: Result) -> str:
        """Give CPU per object, or per GiB where objects are large."""
        cpu = result.median("cpu")
        if self.objects and self.bytes / self.objects < LARGE:
            return f"{cpu / self.objects * 1e6:,.0f} us/object"
        return f"{cpu / (self.bytes / GIB):.2f} s/GiB"

    def per_cpu_second(self, result: Result) -> dict[str, float]:
        """Give objects and bytes per CPU second."""
        cpu = max(result.median("cpu"), 1e-3)
        return {"objects": self.objects / cpu, "bytes": self.bytes / cpu}


def table(found: CaseResult) -> Table:
    """Lay a case out for people."""
    made = Table(title=f"{found.title} ({found.server})", title_justify="left")
    for column in ("", "wall s", "CPU s", "CPU each", "peak MiB", "server CPU s", "runs"):
        made.add_column(column, justify="right" if column else "left", no_wrap=True)
    for result in found.results:
        if result.counts:
            made.add_row(
                result.contender,
                f"{result.median('wall'):.2f}",
                f"{result.median('cpu'):.2f}",
                found.unit_cost(result),
                f"{result.median('peak') / MIB:.0f}",
                f"{result.median('server_cpu'):.2f}",
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
            compared[f"{figure} / best peer"] = ours.median(figure) / best
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
        console.print(f"  {result.contender}: {text}", style="dim", markup=False, highlight=False)
    line = ", ".join(f"{name} {value:.2f}" for name, value in ratios(found).items())
    if line:
        console.print(f"  ratios of s3flow: {line}", style="bold", highlight=False)
    console.print()


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


# --- the picture --------------------------------------------------------------------------------

_COLOURS = {OURS: "#1f6f54", FLOOR: "#9fc8b8"}
_PEER_COLOUR = "#b9b4a8"
_WIDTH, _LABEL, _BAR, _ROW = 860, 150, 500, 20


def picture(cases: Sequence[CaseResult]) -> str:
    """Draw CPU seconds of each contender as bars, one group a case, as an SVG document."""
    parts: list[str] = []
    y = 34
    for found in cases:
        shown = [r for r in found.results if r.counts]
        if not shown:
            continue
        parts.append(_text(10, y, f"{found.title} ({found.server}): CPU seconds, wall, memory", 14))
        y += 10
        most = max(r.median("cpu") for r in shown) or 1.0
        for result in shown:
            parts += _bar(y, result, most)
            y += _ROW
        y += 34
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}" font-family="sans-serif">'
    background = f'<rect width="{_WIDTH}" height="{y}" fill="white"/>'
    return "\n".join((head, background, *parts, "</svg>\n"))


def _bar(y: int, result: Result, most: float) -> list[str]:
    cpu = result.median("cpu")
    colour = _COLOURS.get(result.contender, _PEER_COLOUR)
    width = max(1.0, _BAR * cpu / most)
    figures = f"{cpu:.2f} s, {result.median('wall'):.2f} s, {result.median('peak') / MIB:.0f} MiB"
    return [
        _text(20, y + 14, result.contender, 12),
        f'<rect x="{_LABEL}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 5}" fill="{colour}"/>',
        _text(int(_LABEL + width) + 6, y + 14, figures, 11),
    ]


def _text(x: int, y: int, text: str, size: int) -> str:
    return f'<text x="{x}" y="{y}" font-size="{size}">{escape(text)}</text>'
