"""The results as bars: an SVG with a panel for CPU, wall time and memory of each case."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from tests.bench.report import FLOOR, MIB, OURS, CaseResult, Result
from tests.bench.targets import TARGETS, Target

_COLOURS = {OURS: "#14735a", FLOOR: "#a9d3c5"}
_PEER = "#b8b2a7"
INK, FAINT, MARK = "#26241f", "#77726a", "#c2410c"
_LEFT, _PANEL, _BAR, _GAP, _ROW = 110, 250, 180, 18, 19  # pixels
_WIDTH = _LEFT + 3 * (_PANEL + _GAP)
_HEAD = 62
_PANELS = (("cpu", "CPU, s"), ("wall", "wall, s"), ("peak", "memory, MiB"))


def picture(cases: Sequence[CaseResult], below: str) -> str:
    """Draw the contenders of each case; *below* says where and when."""
    parts = [
        text(16, 28, "s3flow and its peers: less is better", 17, weight="bold"),
        text(16, 48, below, 11, colour=FAINT),
        f'<path d="M{_WIDTH - 206} 21 v14" stroke="{MARK}" stroke-width="2"/>',
        text(_WIDTH - 198, 32, "the target, from the best peer", 11, colour=FAINT),
    ]
    y = _HEAD + 12
    for found in cases:
        shown = [result for result in found.results if result.counts]
        if shown:
            parts += _case(y, found, shown)
            y += 44 + _ROW * len(shown) + 14
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y}"'
        f' viewBox="0 0 {_WIDTH} {y}" font-family="DejaVu Sans, Helvetica, Arial, sans-serif">'
    )
    back = f'<rect width="{_WIDTH}" height="{y}" fill="white"/>'
    return "\n".join((head, back, *parts, "</svg>\n"))


def _case(y: int, found: CaseResult, shown: Sequence[Result]) -> list[str]:
    parts = [
        f'<path d="M16 {y - 6} H{_WIDTH - 16}" stroke="#e4e0d8"/>',
        text(16, y + 14, f"{found.title} ({found.server})", 13, weight="bold"),
    ]
    top = y + 40
    for row, result in enumerate(shown):
        is_ours = result.contender == OURS
        where = top + row * _ROW + 12
        weight = "bold" if is_ours else "normal"
        parts.append(text(16, where, result.contender, 11, weight=weight))
    target = TARGETS.get(found.case)
    for column, (figure, title) in enumerate(_PANELS):
        x = _LEFT + column * (_PANEL + _GAP)
        parts.append(text(x, y + 33, title, 10, colour=FAINT))
        parts += _panel(x, top, figure, shown, _mark(found, target, figure))
    return parts


def _panel(x: int, top: int, figure: str, shown: Sequence[Result], mark: float) -> list[str]:
    scale = MIB if figure == "peak" else 1.0
    values = [result.median(figure) / scale for result in shown]
    most = max(*values, mark, 1e-9)
    parts = []
    for row, (result, value) in enumerate(zip(shown, values, strict=True)):
        y = top + row * _ROW
        width = max(1.0, _BAR * value / most)
        colour = _COLOURS.get(result.contender.split()[0], _PEER)
        parts.append(
            f'<rect x="{x}" y="{y}" width="{width:.1f}" height="{_ROW - 4}" rx="2" fill="{colour}"/>'
        )
        label = f"{value:.0f}" if figure == "peak" else f"{value:.2f}"
        at = x + _BAR * mark / most
        if mark and result.contender == OURS:
            path = f"M{at:.1f} {y - 3} v{_ROW + 2}"
            parts.append(f'<path d="{path}" stroke="{MARK}" stroke-width="2"/>')
            # The figure moves behind the mark that it would hide.
            width = at - x if 0 <= at - x - width < 8 * len(label) + 8 else width
        parts.append(text(x + width + 5, y + 12, label, 11))
    return parts


def _mark(found: CaseResult, target: Target | None, figure: str) -> float:
    """Give the figure that s3flow must not exceed, 0 for none."""
    if target is None:
        return 0.0
    if figure == "peak":
        return target.memory
    ratio, seconds = (
        (target.cpu, target.cpu_seconds) if figure == "cpu" else (target.wall, target.wall_seconds)
    )
    best = found.best_peer(figure)
    if ratio and best:
        return ratio * best.median(figure)
    return 0.0 if found.quick else seconds


def text(
    x: float, y: float, words: str, size: int, *, colour: str = INK, weight: str = "normal"
) -> str:
    """Write *words* at a place, from left to right."""
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" font-weight="{weight}"'
        f' fill="{colour}">{escape(words)}</text>'
    )
