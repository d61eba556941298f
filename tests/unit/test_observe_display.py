"""The terminal's view, drawn into a string: what matters is there, and keys cannot act on it."""

from __future__ import annotations

import asyncio
import io

import pytest
from rich.console import Console, RenderableType

from s3flow import events
from s3flow.model import Change, Flow, Place, Sample, ScanSummary, State, Total
from s3flow.observe.display import LiveDisplay, status_table
from s3flow.observe.progress import FlowSnapshot, snapshot
from tests.unit.test_observe_metrics import transfer
from tests.unit.test_observe_progress import NOW, SCANNED, steady

BUSY = [
    Total("b", State.VERIFIED, "", "put", "etag", 1200, 12 * 1024**2),
    Total("b", State.SKIPPED, "too_small", "", "", 30, 30),
    Total("b", State.FAILED, "access_denied", "", "", 4, 4096),
    Total("b", State.DISCOVERED, "", "", "", 600, 6 * 1024**2),
]


def take(
    totals: list[Total], name: str = "docs", samples: list[Sample] | None = None
) -> FlowSnapshot:
    flow = Flow(name=name, source=Place("src", "b", b""), target=Place("nas", "", b""))
    return snapshot(flow, totals, samples or [], {}, SCANNED, NOW)


def drawn(thing: RenderableType, *, width: int = 80) -> str:
    """Draw as to a file, without colour."""
    output = io.StringIO()
    Console(file=output, width=width).print(thing)
    return output.getvalue()


def display(*snapshots: FlowSnapshot, height: int = 40) -> LiveDisplay:
    console = Console(file=io.StringIO(), width=80, height=height, force_terminal=True)
    ticks = iter([0.0, *[125.0] * 100])
    return LiveDisplay(console, lambda: snapshots, clock=lambda: next(ticks))


def test_a_flow_shows_counts_rate_and_estimate() -> None:
    text = drawn(display(take(BUSY, samples=steady(60, 10, 1024**2))).render())
    assert "docs" in text
    assert "objects 1,234 / 1,834 (67%)" in text
    assert "bytes 12.0 MiB / 18.0 MiB (66%)" in text
    assert "1.0 MiB/s, 10.0 objects/s" in text
    assert "elapsed 2m 05s" in text
    assert "ETA 1m 00s (90%: 1m 00s)" in text
    assert "pending 600 · verified 1,200 · skipped 30 · failed 4" in text


def test_lines_fit_80_columns() -> None:
    huge = [total._replace(objects=10**12, bytes=2**60) for total in BUSY]
    text = drawn(display(take(huge, name="a" * 63, samples=steady(60, 10**6, 2**40))).render())
    assert max(len(line) for line in text.splitlines()) <= 80
    assert len(text.splitlines()) <= 5


def test_the_bar_is_full_only_when_nothing_is_left() -> None:
    almost = [
        Total("b", State.VERIFIED, "", "put", "etag", 10**6, 10**12),
        Total("b", State.DISCOVERED, "", "", "", 1, 0),
    ]
    assert " 99%" in drawn(display(take(almost)).render()).splitlines()[0]
    assert "100%" in drawn(display(take(almost[:1])).render()).splitlines()[0]
    assert " 0%" in drawn(display(take([])).render()).splitlines()[0]


def test_blocks_come_and_go() -> None:
    view = display(take(BUSY))
    view(events.FlowBlocked("docs", "target_full", "nas: no room left", 30.0))
    text = drawn(view.render())
    assert "blocked by target_full: nas: no room left" in text
    view(events.FlowUnblocked("docs", "target_full"))
    assert "blocked" not in drawn(view.render())


def test_activity() -> None:
    view = display(take(BUSY))
    assert "docs  moving" in drawn(view.render())
    view(events.ScanStarted("docs", resumed=False))
    assert "docs  listing and moving" in drawn(view.render())
    view(events.ScanFinished("docs", 3, 1.0))
    assert "docs  moving" in drawn(view.render())
    assert "docs  idle" in drawn(display(take(BUSY[:1])).render())


def test_hostile_keys_are_shown_escaped() -> None:
    view = display(take(BUSY))
    change = Change(transfer(b"a\x1b[2J\n[red]b"), State.FAILED, "access_denied", "m")
    view(events.TransferEnded(change, 1.0))
    view(events.Retried(transfer(), "stalled", "m", 1.0))
    text = drawn(view.render())
    assert "last failure access_denied: b/a\\x1b[2J\\n[red]b" in text
    assert "\x1b" not in text
    assert "retries 1" in text


def test_many_flows_show_those_that_need_eyes_first() -> None:
    flows = [take(BUSY[:1], name=f"done-{n}") for n in range(9)]
    flows += [take(BUSY, name="busy"), take(BUSY[:1], name="stuck")]
    view = display(*flows, height=17)
    view(events.FlowBlocked("stuck", "clock_skewed", "20 minutes", 30.0))
    text = drawn(view.render())
    assert len(text.splitlines()) <= 17
    assert text.index("stuck") < text.index("busy")
    assert "… and 8 more flows: s3flow status" in text


async def test_it_redraws_and_leaves_the_end_on_the_screen() -> None:
    output = io.StringIO()
    console = Console(file=output, width=80, height=24, force_terminal=True)
    current = [take(BUSY)]
    asked = 0

    def now() -> list[FlowSnapshot]:
        nonlocal asked
        asked += 1
        return current

    view = LiveDisplay(console, now)
    with view:
        running = asyncio.create_task(view.run())
        before = asked
        while asked < before + 2:
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        current[:] = [take(BUSY[:3])]
    written = output.getvalue()
    assert written.rindex("(100%)") > written.rindex("(67%)")
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1  # the cursor is back


def test_status_lines_add_up() -> None:
    text = drawn(status_table([take(BUSY), take(BUSY[:1], name="other")]))
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= 80
    counted = [int(line.split("  ")[0].replace(",", "")) for line in columns(lines[1:6])]
    assert sum(counted[:-1]) == counted[-1] == 1834
    [failed] = [line for line in lines if "failed" in line]
    [skipped] = [line for line in lines if "skipped" in line]
    assert failed.rstrip().endswith("4.0 KiB  access_denied 4")
    assert skipped.rstrip().endswith("30 B  too_small 30")
    assert "etag 1,200" in text
    assert "listed 2023-11-14 22:13:20Z" in text
    assert text.count("docs") == text.count("other") == 1


def columns(lines: list[str]) -> list[str]:
    """Cut the lines from where the objects' number begins."""
    words = ("pending", "verified", "deleted", "skipped", "failed", "listed")
    return [line.split(next(w for w in words if w in line), 1)[1].strip() for line in lines]


@pytest.mark.parametrize(
    ("scan", "words"),
    [
        (None, "not yet listed to the end"),
        (ScanSummary(None, unfinished=True, listed=1), "not yet listed to the end"),
        (ScanSummary(NOW, unfinished=True, listed=1), ", listing again"),
    ],
)
def test_status_says_how_far_listing_is(scan: ScanSummary | None, words: str) -> None:
    flow = Flow(name="docs", source=Place("src", "b", b""), target=Place("nas", "", b""))
    table = status_table([snapshot(flow, [], [], {}, scan, NOW)])
    assert words in " ".join(drawn(table, width=120).split())
