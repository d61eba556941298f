"""The closing summary in plain text: what was listed, what became of it, and how it was proven."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from s3flow.model import Outcome
from s3flow.observe.progress import FlowSnapshot
from s3flow.observe.text import size


def summary_lines(snapshots: Sequence[FlowSnapshot]) -> list[str]:
    """Give lines for the end of a run; every object is in exactly one outcome."""
    lines: list[str] = []
    for one in snapshots:
        lines.append(f"{one.name}: {one.objects.listed:,} objects, {size(one.bytes.listed)}")
        for outcome in Outcome:
            objects, volume = getattr(one.objects, outcome), getattr(one.bytes, outcome)
            if objects:
                lines.append(f"  {outcome.value}: {objects:,} objects, {size(volume)}")
        lines += _counts("methods", one.methods)
        lines += _counts("proofs", one.proofs)
        lines += _counts("reasons", one.reasons)
        lines += _counts("not carried by the target", one.dropped)
        if one.scan and one.scan.unfinished:
            lines.append("  the source is not listed to its end: there may be more")
    return lines


def _counts(title: str, counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return []
    most_first = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [f"  {title}: " + ", ".join(f"{name} {number:,}" for name, number in most_first)]
