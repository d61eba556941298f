"""The terminal's view, drawn into a string: what matters is there, and keys cannot act on it."""

from __future__ import annotations

import io
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console, RenderableType

from s3flow import events
from s3flow.model import Change, Flow, Place, Sample, ScanSummary, State, Total
from s3flow.observe.flight import Flight
from s3flow.observe.frame import Paper, frame
from s3flow.observe.news import News
from s3flow.observe.progress import FlowSnapshot, Moving, Thawing, as_json, snapshot
from s3flow.observe.status import status_table
from s3flow.observe.text import duration, size
from s3flow.observe.wording import in_short
from tests.unit.test_observe_metrics import transfer
from tests.unit.test_observe_progress import NOW, SCANNED, steady

BUSY = [
    Total("b", State.VERIFIED, "", "put", "etag", 1200, 12 * 1024**2),
    Total("b", State.SKIPPED, "too_small", "", "", 30, 30),
    Total("b", State.FAILED, "access_denied", "", "", 4, 4096),
    Total("b", State.DISCOVERED, "", "", "", 600, 6 * 1024**2),
]


def take(
    totals: list[Total],
    name: str = "docs",
    samples: list[Sample] | None = None,
    moving: Moving | None = None,
    thawing: Thawing | None = None,
) -> FlowSnapshot:
    flow = Flow(name=name, source=Place("src", "b", b""), target=Place("nas", "", b""))
    return snapshot(flow, totals, samples or [], {}, SCANNED, NOW, moving=moving, thawing=thawing)


def drawn(thing: RenderableType, *, width: int = 80) -> str:
    """Draw as to a file, without colour."""
    output = io.StringIO()
    Console(file=output, width=width).print(thing)
    return output.getvalue()


def lines_of(
    *snapshots: FlowSnapshot,
    width: int = 80,
    height: int = 24,
    news: News | None = None,
    unicode: bool = True,
) -> list[str]:
    """Draw a run as it would be on a terminal of that size; nothing may be wider or higher."""
    told = news or heard()
    lines = frame(snapshots, told, Paper(width, height, unicode))
    assert len(lines) <= height
    assert all(line.cell_len <= width for line in lines)
    return [line.plain for line in lines]


def heard(*told: events.Event) -> News:
    """Give what is known of a run 125 seconds old in which *told* happened."""
    ticks = iter([0.0, *[125.0] * 1000])
    news = News(clock=lambda: next(ticks))
    for event in told:
        news(event)
    return news


def failed(key: bytes) -> events.TransferEnded:
    return events.TransferEnded(Change(transfer(key), State.FAILED, "access_denied", "m"), 1.0)


def test_a_flow_shows_its_states_rate_and_estimate() -> None:
    moving = Moving(64, 4 * 1024**2, 1024**2)
    one = take(BUSY, samples=steady(60, 10, 1024**2), moving=moving)
    assert lines_of(one) == [
        "docs  moving                                     ━━━━━━━━━━━━━━━━━━╸───────  72%",
        "  objects 1,234 of 1,834 (67%)   data 12.0 MiB of 18.0 MiB (66%)",
        "  1.0 MiB/s   10.0 objects/s   elapsed 2m 05s   ETA 1m 00s (90%: 1m 00s)",
        "  discovered      600    6.0 MiB  64 moving, 1.0 MiB of 4.0 MiB arrived",
        "  verified      1,200   12.0 MiB  put 1,200 · etag 1,200",
        "  skipped          30       30 B  too_small 30",
        "  failed            4    4.0 KiB  access_denied 4",
    ]


def test_40_columns_keep_every_number() -> None:
    one = take(BUSY, samples=steady(60, 10, 1024**2))
    assert lines_of(one, width=40) == [
        "docs  moving          ━━━━━━━━╸────  66%",
        "  objects 1,234 of 1,834 (67%)",
        "  data 12.0 MiB of 18.0 MiB (66%)",
        "  1.0 MiB/s   10.0 objects/s",
        "  elapsed 2m 05s",
        "  ETA 1m 00s (90%: 1m 00s)",
        "  discovered      600    6.0 MiB",
        "  verified      1,200   12.0 MiB",
        "  skipped          30       30 B",
        "  failed            4    4.0 KiB",
    ]


def test_200_columns_show_whole_keys_and_no_line_that_eyes_cannot_follow() -> None:
    news = heard(failed(b"2024/" * 25 + b"a.pdf"))
    lines = lines_of(take(BUSY), width=200, height=50, news=news)
    assert lines[-1] == f"failures   access_denied  b/{'2024/' * 25}a.pdf"
    assert len(lines[0]) == 110


def test_what_is_restored_and_until_when() -> None:
    totals = [
        *BUSY,
        Total("b", State.RESTORING, "", "", "", 40, 1024**3),
        Total("b", State.RESTORE_REQUESTED, "", "", "", 7, 1024**2),
    ]
    thawing = Thawing(47, 1024**3 + 1024**2, NOW + 600, NOW + 90_000)
    one = take(totals, samples=steady(60, 10, 1024**2), thawing=thawing)
    first, last = (
        time.strftime("%d %b %H:%M", time.localtime(NOW + wait)) for wait in (600, 90_000)
    )
    lines = lines_of(one)
    assert f"  restoring               40    1.0 GiB  next {first}, last {last}" in lines
    assert "  restore requested        7    1.0 MiB" in lines
    assert any("ETA 1d 1h" in line for line in lines)
    assert any("waiting for a restore 47" in line for line in lines_of(one, height=5))


HUGE = [
    *(total._replace(objects=10**12, bytes=2**60) for total in BUSY),
    Total("b", State.RESTORING, "", "", "", 10**12, 2**60),
]


@given(
    st.integers(1, 250),
    st.integers(1, 60),
    st.integers(0, 12),
    st.text(min_size=1, max_size=70),
    st.binary(max_size=200),
    st.booleans(),
)
def test_no_picture_is_larger_than_its_terminal(
    width: int, height: int, flows: int, name: str, key: bytes, unicode: bool
) -> None:
    news = heard(
        failed(key),
        events.FlowBlocked(f"{name}0", "target_full", name, 30.0),
        events.ThrottleChanged(name, 3, throttled=True),
        events.Retried(transfer(key), "stalled", "m", 1.0),
        events.WorkerEnded(0, "killed", 1, 1.0),
    )
    snapshots = [
        take(HUGE, name=f"{name}{n}", samples=steady(60, 10**6, 2**40)) for n in range(flows)
    ]
    lines = lines_of(*snapshots, width=width, height=height, news=news, unicode=unicode)
    assert all(
        char.isprintable() or unicodedata.category(char) == "Zs" for line in lines for char in line
    )
    assert unicode or all(line.isascii() for line in lines)


def test_a_terminal_without_unicode() -> None:
    lines = lines_of(take(BUSY), news=heard(failed("März".encode())), unicode=False)
    assert lines[0].endswith("#################>--------  66%")
    assert lines[-1] == "failures   access_denied  b/M\\xe4rz"


def test_the_bar_is_full_only_when_nothing_is_left() -> None:
    almost = [
        Total("b", State.VERIFIED, "", "put", "etag", 10**6, 10**12),
        Total("b", State.DISCOVERED, "", "", "", 1, 0),
    ]
    assert lines_of(take(almost))[0].endswith(" 99%")
    assert lines_of(take(almost[:1]))[0].endswith("━━ 100%")
    assert lines_of(take([]))[0].endswith("──   0%")


def test_what_arrived_of_one_large_object_moves_the_bar() -> None:
    large = [Total("b", State.TRANSFERRING, "", "", "", 1, 1000)]
    assert lines_of(take(large, moving=Moving(1, 1000, 400)))[0].endswith(" 40%")


def test_the_beginning_promises_nothing() -> None:
    news = heard(events.ScanStarted("docs", resumed=False))
    assert "  nothing is listed yet" in lines_of(take([]), news=news)
    assert not any("ETA" in line for line in lines_of(take([]), news=news))
    assert any("of 1,834 so far (67%)" in line for line in lines_of(take(BUSY), news=news))


def test_blocks_come_and_go() -> None:
    news = heard(events.FlowBlocked("docs", "target_full", "nas: no room left", 30.0))
    assert "docs  blocked (target_full)" in lines_of(take(BUSY), news=news)[0]
    assert "  blocked by target_full: nas: no room left" in lines_of(take(BUSY), news=news)
    news(events.FlowUnblocked("docs", "clock_skewed"))  # another worker process's
    assert news.blocked
    news(events.FlowUnblocked("docs", "target_full"))
    assert not any("blocked" in line for line in lines_of(take(BUSY), news=news))


def test_activity() -> None:
    news = heard()
    assert "docs  moving " in lines_of(take(BUSY), news=news)[0]
    news(events.ScanStarted("docs", resumed=False))
    assert "docs  listing and moving " in lines_of(take(BUSY), news=news)[0]
    news(events.ScanFinished("docs", 3, 1.0))
    assert "docs  moving " in lines_of(take(BUSY), news=news)[0]
    assert "docs  idle " in lines_of(take(BUSY[:1]))[0]
    news(events.ScanStarted("docs", resumed=False))
    news(events.BucketFailed("docs", "b", "access_denied", "m"))
    lines = lines_of(take(BUSY[:1]), news=news)
    assert lines[0].startswith("docs  1 bucket not listed ")
    assert lines[-1] == "failures   access_denied  b/(the bucket cannot be listed)"
    news(events.ScanStarted("docs", resumed=True))
    assert "docs  listing " in lines_of(take(BUSY[:1]), news=news)[0]


def test_hostile_keys_are_shown_escaped_and_by_their_ends() -> None:
    news = heard(failed(b"a\x1b[2J\n[red]b"), failed("合同/".encode() * 30 + b".pdf"))
    wide, hostile = lines_of(take(BUSY), news=news)[-2:]
    assert hostile == "           access_denied  b/a\\x1b[2J\\n[red]b"
    assert wide.startswith("failures   access_denied  …")
    assert wide.endswith("合同/合同/.pdf")


def test_what_concerns_all_flows_comes_last() -> None:
    news = heard(
        *[events.ThrottleChanged("src", 12, throttled=True)] * 3,
        events.Retried(transfer(), "stalled", "m", 1.0),
        events.WorkerStarted(0, 11),
        events.WorkerStarted(1, 12),
        events.WorkerEnded(0, "killed", 3, 1.0),
    )
    assert lines_of(take(BUSY), news=news)[-3:] == [
        "slowed     src asked 3 times to slow down, 12 at a time now",
        "workers    1 processes, 1 died and started again",
        "retries    1 (stalled 1)",
    ]
    [alarm] = [
        line.plain
        for line in frame([take(BUSY)], news, Paper(80, 24), ["the database is read-only"])
        if line.plain.startswith("attention")
    ]
    assert alarm == "attention  the database is read-only"


def test_a_store_that_recovered_is_not_shown_as_slow_for_ever() -> None:
    now = [0.0]
    news = News(clock=lambda: now[0])
    news(events.ThrottleChanged("src", 12, throttled=True))
    news(events.ThrottleChanged("src", 13, throttled=False))
    assert lines_of(take(BUSY), news=news)[-1].endswith("asked once to slow down, 13 at a time now")
    now[0] = 61.0
    assert not any("slow" in line for line in lines_of(take(BUSY), news=news))


def test_many_flows_show_those_that_need_eyes_first() -> None:
    flows = [take(BUSY[:1], name=f"done-{n}") for n in range(9)]
    flows += [take(BUSY, name="busy"), take(BUSY[:1], name="stuck")]
    news = heard(events.FlowBlocked("stuck", "clock_skewed", "20 minutes", 30.0))
    lines = lines_of(*flows, height=6, news=news)
    assert lines[0].startswith("11 flows, 1 moving, 1 blocked ")
    assert any(line.startswith("busy ") for line in lines)
    assert any(line.startswith("stuck  blocked") for line in lines)
    assert lines[-1] == "… and 9 more flows: s3flow status"
    whole = lines_of(*flows, height=40, news=news)
    assert sum(line.startswith("done-") for line in whole) == 9
    assert sum(line.startswith("  verified ") for line in whole) > 2
    total = sum(flow.objects.listed for flow in flows)
    assert f"of {total:,} (" in whole[1]


def test_the_display_and_the_json_say_the_same() -> None:
    one = take(BUSY, samples=steady(60, 10, 1024**2))
    [flow] = as_json([one])["flows"]
    lines = lines_of(one)
    done = flow["objects"]["listed"] - flow["objects"]["pending"]
    assert f"objects {done:,} of {flow['objects']['listed']:,} " in lines[1]
    for state, numbers in flow["states"].items():
        shown = [line.split()[1:2] for line in lines if line.startswith(f"  {state} ")]
        assert shown == ([[f"{numbers['objects']:,}"]] if numbers["objects"] else [])
    assert f"ETA {duration(flow['eta_seconds']['p50'])} " in lines[2]
    assert f"  {size(flow['rate_bytes_per_s'])}/s " in lines[2]


def test_flight_counts_what_is_under_way() -> None:
    flight = Flight()
    first, second = transfer(b"a"), transfer(b"b")
    for started in (first, second):
        flight(events.TransferStarted(started))
    flight(events.BytesMoved("docs", first.size))
    assert flight.of("docs") == Moving(2, first.size + second.size, first.size)
    flight(events.TransferEnded(Change(first, State.VERIFIED), 1.0))
    assert flight.of("docs") == Moving(1, second.size, 0)
    flight(events.BytesMoved("docs", 3 * second.size))  # parts of a failed attempt among them
    assert flight.of("docs") == Moving(1, second.size, second.size)
    flight(events.TransferEnded(Change(second, State.FAILED, "stalled"), 1.0))
    assert flight.of("docs") == flight.of("other") == Moving(0, 0, 0)


def test_a_few_words_for_a_supervisor() -> None:
    busy = take(BUSY, samples=steady(60, 10, 1024**2))
    assert in_short([busy, take(BUSY[:1])]) == (
        "2,400 verified, 600 pending, 4 failed, 1.0 MiB/s, ETA 1m 00s (90%: 1m 00s)"
    )
    assert in_short([]) == "0 verified, 0 pending"


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


def test_status_of_buckets_and_of_what_thaws() -> None:
    totals = [
        *BUSY,
        Total("other", State.RESTORING, "", "", "", 40, 1024**3),
        Total("other", State.VERIFIED, "", "put", "etag", 2, 20),
    ]
    thawing = Thawing(40, 1024**3, None, NOW + 90_000)
    text = drawn(status_table([take(totals, thawing=thawing)], buckets=True), width=120)
    last = time.strftime("%d %b %H:%M", time.localtime(NOW + 90_000))
    lines = [line.split() for line in text.splitlines()]
    assert ["restoring", "40", "1.0", "GiB", "last", *last.split()] in lines
    assert ["b", "pending", "600", "6.0", "MiB"] in lines
    assert ["other", "pending", "40", "1.0", "GiB"] in lines
    assert lines[-1] == ["verified", "2", "20", "B"]


def columns(lines: list[str]) -> list[str]:
    """Cut the lines from where the objects' number begins."""
    words = ("discovered", "verified", "deleted", "skipped", "failed", "listed")
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
