"""Words on a flow that the live display and the table of `s3flow status` share."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from s3flow.model import State
from s3flow.observe.progress import FlowSnapshot, Thawing, together
from s3flow.observe.text import duration, size

STYLES: Mapping[State, str] = {
    State.DISCOVERED: "",
    State.RESTORE_REQUESTED: "cyan",
    State.RESTORING: "cyan",
    State.TRANSFERRING: "",
    State.TRANSFERRED: "",
    State.VERIFIED: "green",
    State.DELETED: "green",
    State.SKIPPED: "yellow",
    State.FAILED: "bold red",
}


def in_short(snapshots: Sequence[FlowSnapshot]) -> str:
    """Say in a few words where all flows stand."""
    whole = together(snapshots)
    words = [f"{whole.objects.verified + whole.objects.deleted:,} verified"]
    words += [f"{whole.objects.pending:,} pending"]
    if whole.objects.failed:
        words.append(f"{whole.objects.failed:,} failed")
    if whole.objects.pending:
        words += [f"{size(whole.rates.bytes_per_s)}/s", f"ETA {eta(whole)}"]
    return ", ".join(words)


def eta(one: FlowSnapshot) -> str:
    """Say when a flow may be done."""
    if one.rates.eta_p50 is None:
        return "unknown"
    if not one.objects.pending:
        return "done"
    return f"{duration(one.rates.eta_p50)} (90%: {duration(one.rates.eta_p90)})"


def due(thawing: Thawing) -> str:
    """Say when restores are due, in local time."""
    times = (("next", thawing.next_due), ("last", thawing.last_due))
    return ", ".join(f"{word} {_moment(at)}" for word, at in times if at is not None)


def _moment(at: float) -> str:
    when = time.localtime(at)
    today = when[:3] == time.localtime()[:3]
    return time.strftime("%H:%M" if today else "%d %b %H:%M", when)


def counted(counts: Mapping[str, int]) -> str:
    """Give names with their numbers, those that are not zero."""
    return ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items()) if number)


def skips(one: FlowSnapshot) -> dict[str, int]:
    """Count what was skipped by why."""
    return {name: number - one.failures.get(name, 0) for name, number in one.reasons.items()}
