"""Snapshots: counts that add up, rates of working time only, and estimates that stay humble."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from s3flow.model import OUTCOMES, Flow, Outcome, Place, Sample, ScanSummary, State, Total
from s3flow.observe.money import Money
from s3flow.observe.progress import FlowSnapshot, Moving, Thawing, as_json, snapshot, together
from s3flow.observe.rates import rates
from s3flow.observe.report import summary_lines
from s3flow.observe.text import duration, percent, shown, size

FLOW = Flow(name="docs", source=Place("src", "b", b""), target=Place("nas", "", b""))
SCANNED = ScanSummary(finished=1_700_000_000.0, unfinished=False, listed=3)
NOW = 1_700_000_100.0


def take(
    totals: list[Total],
    samples: list[Sample] | None = None,
    dropped: dict[str, int] | None = None,
    scan: ScanSummary | None = SCANNED,
) -> FlowSnapshot:
    return snapshot(FLOW, totals, samples or [], dropped or {}, scan, NOW)


TOTALS = st.lists(
    st.builds(
        Total,
        bucket=st.sampled_from(["a", "b"]),
        state=st.sampled_from(State),
        reason=st.sampled_from(["", "size", "access_denied"]),
        method=st.sampled_from(["", "put", "multipart"]),
        proof=st.sampled_from(["", "etag", "size"]),
        objects=st.integers(0, 10**9),
        bytes=st.integers(0, 2**60),
    )
)
SAMPLES = st.lists(
    st.builds(
        Sample,
        at=st.floats(0, 2e9),
        objects=st.integers(0, 10**9),
        bytes=st.integers(0, 2**60),
    ),
    max_size=30,
)


@given(TOTALS, SAMPLES)
def test_every_total_is_counted_exactly_once(totals: list[Total], samples: list[Sample]) -> None:
    one = take(totals, samples)
    assert one.objects.listed == sum(total.objects for total in totals)
    assert one.bytes.listed == sum(total.bytes for total in totals)
    for outcome in Outcome:
        of_it = [total for total in totals if OUTCOMES[total.state] is outcome]
        assert getattr(one.objects, outcome) == sum(total.objects for total in of_it)
        assert getattr(one.bytes, outcome) == sum(total.bytes for total in of_it)
    assert sum(objects for objects, _ in one.states.values()) == one.objects.listed
    assert sum(counts.objects.listed for counts in one.buckets.values()) == one.objects.listed
    assert sum(counts.bytes.failed for counts in one.buckets.values()) == one.bytes.failed
    assert sum(objects for objects, _ in one.backlog.values()) == one.objects.pending
    assert sum(volume for _, volume in one.backlog.values()) == one.bytes.pending


@given(TOTALS, SAMPLES)
def test_json_adds_up_and_is_json(totals: list[Total], samples: list[Sample]) -> None:
    [flow] = json.loads(json.dumps(as_json([take(totals, samples)]), allow_nan=False))["flows"]
    for kind in ("objects", "bytes"):
        listed = flow[kind].pop("listed")
        assert listed == sum(flow[kind].values())
        assert set(flow[kind]) == {"pending", "verified", "deleted", "skipped", "failed"}
    p50, p90 = flow["eta_seconds"]["p50"], flow["eta_seconds"]["p90"]
    assert (p50 is None) == (p90 is None)
    assert p50 is None or 0 <= p50 <= p90


def test_json_shape() -> None:
    totals = [
        Total("b", State.VERIFIED, "", "put", "etag", 2, 20),
        Total("b", State.DELETED, "", "multipart", "checksum", 1, 100),
        Total("b", State.SKIPPED, "too_small", "", "", 3, 3),
        Total("b", State.FAILED, "access_denied", "put", "", 1, 7),
        Total("b", State.TRANSFERRING, "connection_lost", "put", "", 1, 50),
    ]
    [flow] = as_json([take(totals, dropped={"tags": 2})])["flows"]
    assert flow == {
        "name": "docs",
        "objects": {
            "listed": 8,
            "pending": 1,
            "verified": 2,
            "deleted": 1,
            "skipped": 3,
            "failed": 1,
        },
        "bytes": {
            "listed": 180,
            "pending": 50,
            "verified": 20,
            "deleted": 100,
            "skipped": 3,
            "failed": 7,
        },
        "states": {
            "discovered": {"objects": 0, "bytes": 0},
            "restore_requested": {"objects": 0, "bytes": 0},
            "restoring": {"objects": 0, "bytes": 0},
            "transferring": {"objects": 1, "bytes": 50},
            "transferred": {"objects": 0, "bytes": 0},
            "verified": {"objects": 2, "bytes": 20},
            "deleted": {"objects": 1, "bytes": 100},
            "skipped": {"objects": 3, "bytes": 3},
            "failed": {"objects": 1, "bytes": 7},
        },
        "moving": None,
        "thawing": None,
        "methods": {"put": 2, "multipart": 1},
        "proofs": {"etag": 2, "checksum": 1},
        "reasons": {"too_small": 3, "access_denied": 1},
        "dropped": {"tags": 2},
        "cost": None,
        "routes": [],
        "deletes": {"held": None, "kept": {}},
        "storage_classes": {},
        "unlisted_buckets": {},
        "scan": {"finished": "2023-11-14T22:13:20Z", "unfinished": False},
        "rate_bytes_per_s": 0.0,
        "rate_objects_per_s": 0.0,
        "eta_seconds": {"p50": None, "p90": None},
    }


def test_json_names_buckets_on_demand() -> None:
    totals = [
        Total("b", State.VERIFIED, "", "put", "etag", 2, 20),
        Total("a", State.FAILED, "access_denied", "", "", 1, 7),
        Total("b", State.DISCOVERED, "", "", "", 3, 30),
    ]
    [flow] = as_json([take(totals)], buckets=True)["flows"]
    assert list(flow["buckets"]) == ["a", "b"]
    assert flow["buckets"]["a"]["objects"] == COUNTS | {"listed": 1, "failed": 1}
    assert flow["buckets"]["b"]["bytes"] == COUNTS | {"listed": 50, "verified": 20, "pending": 30}
    assert "buckets" not in as_json([take(totals)])["flows"][0]


COUNTS = dict.fromkeys(("listed", "pending", "verified", "deleted", "skipped", "failed"), 0)


def test_what_thaws_is_told_and_no_eta_is_before_its_last_restore() -> None:
    totals = [
        Total("b", State.RESTORING, "", "", "", 4, 400),
        Total("b", State.DISCOVERED, "", "", "", 1, 100),
    ]
    thawing = Thawing(4, 400, NOW + 60, NOW + 3600, NOW + 7200)
    work = steady(60, 1, 100)
    one = snapshot(FLOW, totals, work, {}, SCANNED, NOW, thawing=thawing)
    assert (one.rates.eta_p50, one.rates.eta_p90) == (3600.0, 7200.0)
    unknown = snapshot(FLOW, totals, [], {}, SCANNED, NOW, thawing=thawing).rates
    assert (unknown.eta_p50, unknown.eta_p90) == (3600.0, 7200.0)
    assert snapshot(FLOW, totals, work, {}, SCANNED, NOW).rates.eta_p50 == 5.0
    [flow] = as_json([one])["flows"]
    assert flow["thawing"] == {
        "objects": 4,
        "bytes": 400,
        "next_due": "2023-11-14T22:16:00Z",
        "last_due": "2023-11-14T23:15:00Z",
        "last_due_p90": "2023-11-15T00:15:00Z",
    }
    assert flow["states"]["restoring"] == {"objects": 4, "bytes": 400}


def test_what_thaws_is_not_measured_by_how_fast_the_rest_goes() -> None:
    totals = [Total("b", State.RESTORING, "", "", "", 1, 9_000_000)]
    thawing = Thawing(1, 9_000_000, NOW + 5, NOW + 5, NOW + 8)
    tiny = steady(60, 1, 100)  # at which it would take a day
    one = snapshot(FLOW, totals, tiny, {}, SCANNED, NOW, thawing=thawing)
    assert (one.rates.eta_p50, one.rates.eta_p90) == (5.0, 8.0)


def test_what_has_arrived_of_unfinished_objects_shortens_the_estimate() -> None:
    huge = [Total("b", State.TRANSFERRING, "", "", "", 1, 1000)]
    moving = Moving(1, 1000, 900)
    one = snapshot(FLOW, huge, steady(60, 0, 100), {}, SCANNED, NOW, moving=moving)
    assert one.rates.eta_p50 == 1.0
    assert as_json([one])["flows"][0]["moving"] == {"objects": 1, "bytes": 1000, "arrived": 900}


def test_flows_together() -> None:
    busy = snapshot(
        FLOW,
        [Total("b", State.DISCOVERED, "", "", "", 10, 1000)],
        steady(60, 1, 100),
        {},
        SCANNED,
        NOW,
        moving=Moving(3, 300, 30),
    )
    done = take([Total("b", State.VERIFIED, "", "put", "etag", 5, 50)])
    new = take([Total("b", State.DISCOVERED, "", "", "", 1, 1)])
    both = together([busy, done])
    assert (both.objects.listed, both.bytes.done) == (15, 50)
    assert (both.rates.bytes_per_s, both.rates.eta_p50) == (100.0, busy.rates.eta_p50)
    assert both.moving == Moving(3, 300, 30)
    assert together([busy, new]).rates.eta_p50 is None  # one of them is not known
    assert together([]).objects.listed == 0


def test_scan_that_never_finished() -> None:
    for scan in (None, ScanSummary(finished=None, unfinished=False, listed=0)):
        [flow] = as_json([take([], scan=scan)])["flows"]
        assert flow["scan"] == {"finished": None, "unfinished": False}
        assert flow["eta_seconds"] == {"p50": None, "p90": None}  # not done: nobody has looked
    assert take([]).rates.eta_p50 == 0.0


def test_a_flow_that_may_spend_no_more_has_no_eta() -> None:
    totals = [Total("b", State.DISCOVERED, "", "", "", 1, 100)]
    for blocked, eta in ((False, 1.0), (True, None)):
        money = Money(1.0, 0.0, 1.0, "USD", blocked)
        one = snapshot(FLOW, totals, steady(10, 1, 100), {}, SCANNED, NOW, money=money)
        assert (one.rates.eta_p50, one.rates.eta_p90) == (eta, eta)


def test_nothing_pending_takes_no_time() -> None:
    one = rates([], objects=0, size=0, now=NOW)
    assert (one.eta_p50, one.eta_p90) == (0.0, 0.0)


def steady(seconds: int, objects: int, volume: int, end: float = NOW) -> list[Sample]:
    """Make one sample a second, with the same work in each."""
    return [
        Sample(end - seconds + step, step * objects, step * volume) for step in range(seconds + 1)
    ]


def test_steady_work() -> None:
    one = rates(steady(120, 10, 1000), objects=50, size=20_000, now=NOW)
    assert (one.objects_per_s, one.bytes_per_s) == (10.0, 1000.0)
    assert one.eta_p50 == one.eta_p90 == 20.0  # by bytes; by objects it would be 5


def test_the_slower_of_bytes_and_objects_counts() -> None:
    one = rates(steady(60, 10, 1000), objects=1000, size=2_000, now=NOW)
    assert one.eta_p50 == 100.0


def test_empty_objects_need_no_byte_rate() -> None:
    assert rates(steady(60, 10, 0), objects=100, size=0, now=NOW).eta_p50 == 10.0
    assert rates(steady(60, 10, 0), objects=100, size=1, now=NOW).eta_p50 is None


def test_idle_time_does_not_slow_the_rate_down() -> None:
    busy = steady(10, 1, 100, end=NOW - 20)
    idle = [busy[-1]._replace(at=NOW - 20 + step) for step in range(1, 21)]
    one = rates(busy + idle, objects=1, size=500, now=NOW)
    assert one.bytes_per_s == 100.0
    assert one.eta_p50 == 5.0


def test_a_stopped_daemon_is_not_a_slow_one() -> None:
    before = steady(10, 1, 100, end=NOW - 5000)
    last = before[-1]
    after = [
        Sample(NOW - 5 + step, last.objects + step, last.bytes + step * 100) for step in (1, 2)
    ]
    assert rates(before + after, objects=1, size=1000, now=NOW).eta_p90 == 10.0


def test_old_work_gives_no_rate_but_an_estimate() -> None:
    one = rates(steady(60, 1, 100, end=NOW - 600), objects=1, size=1000, now=NOW)
    assert one.bytes_per_s == 0.0
    assert one.eta_p50 == 10.0


def test_uneven_work_is_estimated_cautiously() -> None:
    samples, volume = [], 0
    for step in range(201):
        samples.append(Sample(NOW - 200 + step, step, volume))
        volume += 100 if step // 5 % 4 else 10  # five seconds in twenty are ten times slower
    one = rates(samples, objects=1, size=1000, now=NOW)
    assert one.eta_p50 == 10.0
    assert one.eta_p90 == 100.0


def test_one_slow_second_is_not_taken_for_the_pace() -> None:
    samples, volume = [], 0
    for step in range(101):
        samples.append(Sample(NOW - 100 + step, step, volume))
        volume += 490 if step % 5 == 4 else 10  # a large object ends every fifth second
    one = rates(samples, objects=1, size=1060, now=NOW)
    assert one.eta_p50 == one.eta_p90 == 10.0


def test_a_clock_that_steps_back_is_ignored() -> None:
    samples = [Sample(NOW, 5, 500), Sample(NOW - 30, 6, 600), Sample(NOW - 29, 7, 700)]
    assert rates(samples, objects=1, size=100, now=NOW).bytes_per_s == 100.0


def test_summary_tells_outcomes_proofs_and_reasons() -> None:
    totals = [
        Total("b", State.VERIFIED, "", "put", "etag", 1200, 2048),
        Total("b", State.VERIFIED, "", "put", "size", 3, 0),
        Total("b", State.FAILED, "access_denied", "", "", 1, 7),
    ]
    assert summary_lines([take(totals, dropped={"tags": 2})]) == [
        "docs: 1,204 objects, 2.0 KiB",
        "  verified: 1,203 objects, 2.0 KiB",
        "  failed: 1 objects, 7 B",
        "  methods: put 1,203",
        "  proofs: etag 1,200, size 3",
        "  reasons: access_denied 1",
        "  not carried by the target: tags 2",
    ]
    unfinished = ScanSummary(finished=None, unfinished=True, listed=0)
    assert summary_lines([take([], scan=unfinished)])[-1].endswith("there may be more")


def test_words_for_numbers() -> None:
    assert [size(n) for n in (0, 1023, 1024, 1536, 2**40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "1.5 KiB",
        "1.0 TiB",
    ]
    assert [duration(s) for s in (None, 0, 59.6, 125, 11_400, 800_000)] == [
        "unknown",
        "0s",
        "1m 00s",
        "2m 05s",
        "3h 10m",
        "9d 6h",
    ]
    assert [percent(part, 1000) for part in (0, 999, 1000)] == ["0%", "99%", "100%"]
    assert percent(0, 0) == "100%"


@given(st.one_of(st.text(), st.binary()))
def test_shown_text_cannot_act_on_a_terminal(key: str | bytes) -> None:
    line = shown(key)
    assert len(line.splitlines()) <= 1
    line.encode()  # no half of a surrogate is left
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in line)


def test_shown_keys_stay_readable() -> None:
    assert shown("invoices/März 2024.pdf".encode()) == "invoices/März 2024.pdf"
    assert shown(b"a\r\nb\x1b[31m\xff") == "a\\r\\nb\\x1b[31m\\xff"
    assert shown("\u2764\ufe0f\U0010fffd") == "\u2764\\ufe0f\\U0010fffd"
    assert shown("a\u2028b\u202ec") == "a\\u2028b\\u202ec"
    assert len(shown(b"x" * 1024)) == 300
