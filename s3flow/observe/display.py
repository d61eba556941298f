"""What a person at a terminal sees: a live view of the flows, and the table of `s3flow status`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from s3flow import events
from s3flow.model import Outcome, State
from s3flow.observe.progress import FlowSnapshot
from s3flow.observe.text import duration, percent, shown, size

REFRESH = 0.5  # seconds
_LINES = 5  # that one flow takes
_STYLES = {
    Outcome.PENDING: "",
    Outcome.VERIFIED: "green",
    Outcome.DELETED: "green",
    Outcome.SKIPPED: "yellow",
    Outcome.FAILED: "bold red",
}

Snapshots = Callable[[], Sequence[FlowSnapshot]]


class LiveDisplay:
    """Redraws the flows in place. Use as a context manager, subscribe it to events, await `run`.

    *snapshots* gives what the daemon last read; it must not do I/O.
    """

    def __init__(
        self,
        console: Console,
        snapshots: Snapshots,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._snapshots = snapshots
        self._clock = clock
        self._began = clock()
        self._blocked: dict[str, str] = {}
        self._scanning: set[str] = set()
        self._retries: dict[str, int] = {}
        self._trouble: dict[str, str] = {}
        # Its own thread would draw while the loop changes what is drawn.
        self._live = Live(console=console, auto_refresh=False, get_renderable=self.render)

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Draw once more, so that the end is on the screen, and leave the terminal as it was."""
        self._live.stop()

    async def run(self) -> None:
        """Redraw until cancelled."""
        while True:
            self._live.refresh()
            await asyncio.sleep(REFRESH)

    def __call__(self, event: events.Event) -> None:
        """Take what snapshots do not say: blocks, scans, retries and the last failure."""
        match event:
            case events.TransferEnded(change=change) if change.state is State.FAILED:
                place = f"{change.transfer.bucket}/{shown(change.transfer.key, 100)}"
                self._trouble[change.transfer.flow] = f"{change.reason}: {place}"
            case events.Retried(transfer=transfer):
                self._retries[transfer.flow] = self._retries.get(transfer.flow, 0) + 1
            case events.ScanStarted(flow=flow):
                self._scanning.add(flow)
            case events.ScanFinished(flow=flow):
                self._scanning.discard(flow)
            case events.FlowBlocked(flow=flow, reason=reason, message=message):
                self._blocked[flow] = f"{reason}: {message}"
            case events.FlowUnblocked(flow=flow):
                self._blocked.pop(flow, None)
            case events.BucketFailed(flow=flow, bucket=bucket, reason=reason):
                self._trouble[flow] = f"cannot list {bucket}: {reason}"

    def render(self) -> RenderableType:
        """Give the view as it is now; as many flows as the terminal is high, the busy ones first."""
        snapshots = self._snapshots()
        room = max(1, (self._console.height - 2) // _LINES)
        chosen = snapshots
        if len(snapshots) > room:
            chosen = sorted(snapshots, key=self._urgency)[:room]
        parts = [line for one in chosen for line in self._flow(one)]
        if len(chosen) < len(snapshots):
            rest = len(snapshots) - len(chosen)
            parts.append(_line((f"… and {rest} more flows: s3flow status", "dim")))
        return Group(*parts)

    def _urgency(self, one: FlowSnapshot) -> tuple[bool, bool, bool]:
        return (one.name not in self._blocked, not one.objects.pending, not one.objects.failed)

    def _flow(self, one: FlowSnapshot) -> Iterator[RenderableType]:
        blocked = self._blocked.get(one.name)
        head = Table.grid(expand=True, padding=(0, 1))
        head.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
        head.add_column(width=24)
        head.add_column(justify="right", width=4)
        share = _share(one)
        bar = ProgressBar(total=100, completed=share, complete_style="red" if blocked else "green")
        title = Text.assemble((shown(one.name), "bold"), (f"  {self._activity(one)}", "dim"))
        head.add_row(title, bar, f"{share}%")
        yield head
        yield _line(
            f"  objects {one.objects.done:,} / {one.objects.listed:,}",
            f" ({percent(one.objects.done, one.objects.listed)})",
            f"   bytes {size(one.bytes.done)} / {size(one.bytes.listed)}",
            f" ({percent(one.bytes.done, one.bytes.listed)})",
        )
        yield _line(
            f"  {size(one.rates.bytes_per_s)}/s, {one.rates.objects_per_s:,.1f} objects/s",
            f"   elapsed {duration(self._clock() - self._began)}",
            f"   ETA {_eta(one)}",
        )
        yield _outcomes(one, self._retries.get(one.name, 0))
        if blocked:
            yield _line((f"  blocked by {shown(blocked)}", "bold red"))
        elif one.name in self._trouble and one.objects.failed:
            yield _line((f"  last failure {shown(self._trouble[one.name])}", "red"))

    def _activity(self, one: FlowSnapshot) -> str:
        if one.name in self._blocked:
            return "blocked"
        moving = "moving" if one.objects.pending else ""
        listing = "listing" if one.name in self._scanning else ""
        return " and ".join(filter(None, (listing, moving))) or "idle"


def _share(one: FlowSnapshot) -> int:
    if not one.objects.pending:
        return 100 if one.objects.listed else 0
    # An object that is under way shows in bytes first; empty ones show in the count alone.
    part, whole = (
        (one.bytes.done, one.bytes.listed)
        if one.bytes.pending
        else (one.objects.done, one.objects.listed)
    )
    return min(99, part * 100 // whole)


def _eta(one: FlowSnapshot) -> str:
    if one.rates.eta_p50 is None:
        return "unknown"
    if not one.objects.pending:
        return "done"
    return f"{duration(one.rates.eta_p50)} (90%: {duration(one.rates.eta_p90)})"


def _outcomes(one: FlowSnapshot, retries: int) -> Text:
    line = Text("  ", no_wrap=True, overflow="ellipsis")
    words = []
    for outcome, style in _STYLES.items():
        number = getattr(one.objects, outcome)
        if number or outcome is Outcome.VERIFIED:
            words.append(Text(f"{outcome.value} {number:,}", style))
    if retries:
        words.append(Text(f"retries {retries:,}", "yellow"))
    return line.append_text(Text(" · ").join(words))


def _line(*parts: str | tuple[str, str]) -> Text:
    line = Text.assemble(*parts)
    line.no_wrap, line.overflow = True, "ellipsis"
    return line


def status_table(snapshots: Sequence[FlowSnapshot]) -> Table:
    """Make the table of `s3flow status`: per flow a line an outcome, which add up to listed."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("Flow", no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column("Outcome", no_wrap=True)
    table.add_column("Objects", justify="right", no_wrap=True)
    table.add_column("Bytes", justify="right", no_wrap=True)
    table.add_column("Why, how and when")
    for one in snapshots:
        _add_flow(table, one)
    return table


def _add_flow(table: Table, one: FlowSnapshot) -> None:
    name = shown(one.name)
    notes = {
        Outcome.PENDING: f"{size(one.rates.bytes_per_s)}/s, ETA {_eta(one)}",
        Outcome.VERIFIED: _counted(one.proofs),
        Outcome.FAILED: _counted(one.failures),
        Outcome.SKIPPED: _counted(
            {name: number - one.failures.get(name, 0) for name, number in one.reasons.items()}
        ),
    }
    for outcome, style in _STYLES.items():
        number = getattr(one.objects, outcome)
        if number:
            volume = size(getattr(one.bytes, outcome))
            note = notes.get(outcome, "")
            table.add_row(name, outcome.value, f"{number:,}", volume, Text(note), style=style)
            name = ""
    finished = one.scan.finished if one.scan else None
    scanned = "not yet listed to the end"
    if finished is not None:
        scanned = f"listed {time.strftime('%Y-%m-%d %H:%M:%SZ', time.gmtime(finished))}"
    if one.scan and one.scan.unfinished and finished is not None:
        scanned += ", listing again"
    table.add_row(
        name,
        "listed",
        f"{one.objects.listed:,}",
        size(one.bytes.listed),
        Text(scanned),
        style="bold",
        end_section=True,
    )


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in sorted(counts.items()) if number)
