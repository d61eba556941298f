"""A soak as one picture: an SVG with a panel for each series, and a line where a life began."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import groupby

from tests.bench.picture import FAINT, INK, MARK, text
from tests.torture.flatness import Judgement, Point

_LINE, _GRID = "#14735a", "#e4e0d8"
_LEFT, _WIDTH, _HEIGHT, _GAP, _HEAD = 70, 860, 90, 44, 64  # pixels


def plot(
    title: str,
    series: Mapping[str, Sequence[Point]],
    lives: Sequence[float],
    judgements: Sequence[Judgement],
) -> str:
    """Draw all *series* over one time; below each stands what was judged of it."""
    end = max([point.at for points in series.values() for point in points], default=1.0) or 1.0
    said = {judgement.name: judgement for judgement in judgements}
    parts = [
        text(16, 26, title, 16, weight="bold"),
        text(16, 44, f"{_clock(end)} from left to right; a grey line where a process began", 11),
    ]
    y = _HEAD
    for name, points in series.items():
        parts += _panel(y, name, points, end, lives, said.get(name))
        y += _HEIGHT + _GAP
    size = f'width="{_LEFT + _WIDTH + 20}" height="{y}"'
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}'
        ' font-family="DejaVu Sans, Helvetica, Arial, sans-serif">'
    )
    back = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join((head, back, *parts, "</svg>\n"))


def _panel(
    y: int,
    name: str,
    points: Sequence[Point],
    end: float,
    lives: Sequence[float],
    judgement: Judgement | None,
) -> list[str]:
    most = max((point.value for point in points), default=0.0) or 1.0
    floor = y + 16 + _HEIGHT
    parts = [text(16, y + 8, name, 12, weight="bold")]
    if judgement is not None:
        told = str(judgement).partition(": ")[2]
        parts.append(text(190, y + 8, told, 11, colour=FAINT if judgement.flat else MARK))
    for share in (0.0, 0.5, 1.0):
        at = floor - share * _HEIGHT
        parts.append(f'<path d="M{_LEFT} {at:.1f} h{_WIDTH}" stroke="{_GRID}"/>')
        parts.append(text(16, at + 4, f"{share * most:,.4g}", 10, colour=INK))
    for begun in lives:
        path = f"M{_LEFT + _WIDTH * begun / end:.1f} {y + 16} v{_HEIGHT}"
        parts.append(f'<path d="{path}" stroke="{FAINT}" stroke-width="0.6"/>')
    for _, life in groupby(points, key=lambda point: bisect_right(lives, point.at)):
        line = " ".join(
            f"{_LEFT + _WIDTH * at / end:.1f},{floor - _HEIGHT * value / most:.1f}"
            for at, value in life
        )
        parts.append(f'<polyline points="{line}" fill="none" stroke="{_LINE}"/>')
    return parts


def _clock(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"
