"""Folded stacks as a flame graph: an SVG that a browser shows, with the numbers in its tooltips."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from xml.sax.saxutils import escape

_WIDTH, _ROW, _LEAST = 1400, 17, 0.6  # pixels; narrower frames are not drawn
_CHARACTER = 6.6  # pixels, of the font below


@dataclass(slots=True)
class Frame:
    """A function under its callers. *samples* includes what it calls."""

    name: str
    samples: int = 0
    called: dict[str, Frame] = field(default_factory=dict)


def grow(lines: list[str]) -> Frame:
    """Join folded stacks ("a;b;c 12") into one tree."""
    root = Frame("all")
    for line in lines:
        stack, _, count = line.rpartition(" ")
        samples = int(count)
        root.samples += samples
        frame = root
        for name in stack.split(";"):
            frame = frame.called.setdefault(name, Frame(name))
            frame.samples += samples
    return root


def draw(lines: list[str], title: str) -> str:
    """Give the SVG document, callers on top."""
    root = grow(lines)
    scale = _WIDTH / max(root.samples, 1)
    boxes = list(_boxes(root, 0.0, 0, scale, root.samples))
    height = (max((depth for depth, _ in boxes), default=0) + 1) * _ROW + 30
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
        ' font-family="monospace" font-size="11">'
    )
    name = f'<text x="4" y="16">{escape(title)}: {root.samples} samples</text>'
    return "\n".join((head, name, *(box for _, box in boxes), "</svg>\n"))


def _boxes(
    frame: Frame, x: float, depth: int, scale: float, total: int
) -> Iterator[tuple[int, str]]:
    width = frame.samples * scale
    if width < _LEAST:
        return
    y = 24 + depth * _ROW
    # A function has one colour wherever it stands.
    colour = f"hsl({20 + zlib.crc32(frame.name.encode()) % 40},75%,68%)"
    tip = f"{frame.name}: {frame.samples} samples, {frame.samples / total:.1%}"
    shown = frame.name[: max(0, int(width / _CHARACTER) - 1)]
    box = f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_ROW - 1}" fill="{colour}"/>'
    text = f'<text x="{x + 2:.1f}" y="{y + 12}">{escape(shown)}</text>' if len(shown) > 2 else ""
    yield depth, f"<g><title>{escape(tip)}</title>{box}{text}</g>"
    for called in sorted(frame.called.values(), key=lambda found: found.name):
        yield from _boxes(called, x, depth + 1, scale, total)
        x += called.samples * scale
