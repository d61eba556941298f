"""What a report counts: everything once, percentiles within a bucket, and no more room for more objects."""

from __future__ import annotations

import json
from collections import Counter
from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from s3flow import events
from s3flow.events import fan_out
from s3flow.model import (
    Change,
    Discovered,
    Flow,
    Listed,
    Method,
    Place,
    Proof,
    State,
    Transfer,
    Verdict,
)
from s3flow.observe.account import Account, End, account, why_streamed
from s3flow.observe.report import WIDTH, report_lines
from s3flow.observe.tally import BOUNDS, FAILURES, KEPT, NOTES, FlowTally, Tally, merged
from s3flow.policies import CopyBy, MethodPolicy

DOCS = Flow("docs", Place("src", "from", b""), Place("dst", "to", b""))
FILM = Flow("film", Place("src", "films", b""), Place("nas", "", b""))
FLOWS = {flow.name: flow for flow in (DOCS, FILM)}


def transfer(key: bytes = b"key", size: int = 10, flow: str = "docs") -> Transfer:
    return Transfer(
        id=1,
        flow=flow,
        bucket="from",
        key=key,
        size=size,
        etag="e",
        modified=0,
        storage_class="STANDARD",
        state=State.TRANSFERRING,
        generation=1,
        attempts=0,
        upload_id=None,
        part_size=None,
    )


class Clock:
    """Stands still until it is told."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def tell(tally: Tally, change: Change, seconds: float = 0.5) -> None:
    tally(events.TransferEnded(change, seconds))
    tally(events.Recorded([change]))


def moved(
    key: bytes = b"key", size: int = 10, flow: str = "docs", method: Method = Method.PUT
) -> Change:
    return Change(transfer(key, size, flow), State.VERIFIED, method=method, proof=Proof.ETAG)


def reported(*tallies: FlowTally, end: End | None = None) -> Account:
    made = account(end or End("sync", "all done", 0), tallies, FLOWS, {}, {})
    read: Account = json.loads(json.dumps(made))
    assert read == made  # what programs read is all of it
    return made


class Ended(NamedTuple):
    """An object's end, as hypothesis makes them up."""

    flow: str
    state: State
    method: Method
    proof: Proof
    reason: str
    size: int
    seconds: float


ENDED = st.builds(
    Ended,
    flow=st.sampled_from(["docs", "film"]),
    state=st.sampled_from([State.VERIFIED, State.FAILED, State.SKIPPED, State.DISCOVERED]),
    method=st.sampled_from([each for each in Method if each is not Method.ADOPTED]),
    proof=st.sampled_from(list(Proof)),
    reason=st.sampled_from(["access_denied", "source_gone"]),
    size=st.integers(0, 5 * 10**13),
    seconds=st.floats(0, 200_000),
)


@given(st.lists(ENDED, max_size=60))
def test_counts_add_up(ends: list[Ended]) -> None:
    tally = Tally([DOCS, FILM])
    for each in ends:
        done = each.state is State.VERIFIED
        change = Change(
            transfer(size=each.size, flow=each.flow),
            each.state,
            reason="" if done else each.reason,
            method=each.method if done else "",
            proof=each.proof if done else "",
        )
        tell(tally, change, each.seconds)
    report = reported(tally.take("docs"), tally.take("film"))
    final = [each for each in ends if each.state is not State.DISCOVERED]
    done = [each for each in final if each.state is State.VERIFIED]
    total = report["total"]
    assert total["files_processed"] == len(final)
    assert total["succeeded"] + total["skipped"] + total["failed"] == len(final)
    assert total["bytes"] == sum(each.size for each in done)
    for field in ("files_processed", "succeeded", "failed", "skipped", "bytes"):
        assert total[field] == sum(one[field] for one in report["flows"])  # type: ignore[literal-required]
    methods = Counter(each.method.value for each in done)
    assert {name: one["objects"] for name, one in total["methods"].items()} == methods
    assert sum(one["bytes"] for one in total["proofs"].values()) == total["bytes"]
    failed = Counter(each.reason for each in final if each.state is State.FAILED)
    assert total["failure_reasons"] == failed
    assert len(total["failures"]) == min(FAILURES, failed.total())
    sizes = sorted((each.size for each in done), reverse=True)[:KEPT]
    assert [one["size"] for one in total["largest"]] == sizes
    times = sorted((round(each.seconds, 6) for each in done), reverse=True)[:KEPT]
    assert [one["seconds"] for one in total["slowest"]] == times
    assert total["seconds"]["max"] == (times[0] if times else None)


@given(st.lists(st.floats(0, 200_000), min_size=1, max_size=200), st.floats(0.01, 1))
def test_percentiles_are_within_a_bucket_of_the_truth(times: list[float], share: float) -> None:
    tally = Tally([DOCS])
    for seconds in times:
        tell(tally, moved(), seconds)
    said = tally.take("docs").percentile(share)
    ascending = sorted(times)
    truth = next(time for place, time in enumerate(ascending, 1) if place >= share * len(ascending))
    assert said is not None
    assert truth <= said
    assert said <= max(truth * 1.123, BOUNDS[0]) or truth > BOUNDS[-1]


def test_nothing_has_no_percentiles_and_still_a_report() -> None:
    clock = Clock()
    tally = Tally([DOCS], clock=clock).take("docs")
    assert tally.is_empty
    assert tally.percentile(0.5) is None
    report = reported(tally)
    assert report["total"]["files_per_s"] == 0
    assert report["total"]["seconds"]["p50"] is None
    assert any("0 files in" in line for line in report_lines(report))


def test_a_report_covers_what_came_since_the_one_before() -> None:
    clock = Clock()
    drained: list[FlowTally] = []
    tally = Tally([DOCS, FILM], drained.append, clock)
    tally(events.ScanStarted("docs", resumed=False))
    tally(events.ThrottleChanged("dst", 4, throttled=True))
    tally(events.ThrottleChanged("dst", 5, throttled=False))
    tell(tally, moved())
    tell(tally, moved(flow="film"))
    clock.now += 2
    tally(events.FlowDrained("docs"))
    clock.now += 600
    tally(events.ScanStarted("docs", resumed=False))
    tally(events.ThrottleChanged("dst", 2, throttled=True))
    tally(events.ThrottleChanged("dst", 1, throttled=True))
    tally(events.ThrottleChanged("elsewhere", 1, throttled=True))
    tally(events.LoopHeld(0.3, "place", "line"))
    tell(tally, moved(size=99, method=Method.SERVER_COPY))
    clock.now += 4
    tally(events.FlowDrained("docs"))
    first, second = (reported(one)["flows"][0] for one in drained)
    assert (first["transferred"], first["bytes"], first["duration_ms"]) == (1, 10, 2000)
    assert (second["transferred"], second["bytes"], second["duration_ms"]) == (1, 99, 4000)
    assert (first["throttles"], second["throttles"]) == ({"dst": 1}, {"dst": 2})
    assert second["streamed"]["objects"] == 0
    assert [one.holds.times for one in drained] == [0, 1]
    assert reported(tally.take("film"))["flows"][0]["transferred"] == 1


def test_rates_are_of_what_was_transferred() -> None:
    clock = Clock()
    tally = Tally([DOCS], clock=clock)
    adopted = events.Decided(State.VERIFIED, "", Method.ADOPTED, Proof.ETAG, 1000, 10**9)
    skipped = events.Decided(State.SKIPPED, "excluded", "", "", 5, 50)
    merged_page = events.PageMerged("docs", "from", 1681, 1681, 0, 1000, (adopted, skipped))
    tally(events.ScanStarted("docs", resumed=False))
    tally(merged_page)
    for number in range(676):
        tell(tally, moved(b"%d" % number, 1_000_000, method=Method.SERVER_COPY))
    clock.now += 22.61
    report = reported(tally.take("docs"))
    total = report["total"]
    assert (total["files_processed"], total["succeeded"]) == (1681, 1676)
    assert round(total["files_per_s"], 1) == 29.9
    assert round(total["megabytes_per_s"], 2) == 29.90
    assert total["average_size"] == 1_000_000
    assert total["skip_reasons"] == {"excluded": 5}
    assert (total["methods"]["server_copy"]["share"], total["bytes_adopted"]) == (0.403341, 10**9)
    assert any("676 files in 22.61 s, 29.9 files/s" in line for line in report_lines(report))


def test_an_object_that_is_moved_counts_once() -> None:
    tally = Tally([DOCS])
    tell(tally, moved(size=5))
    gone = moved(size=5)
    gone.state = State.DELETED
    tally(events.Recorded([gone]))
    report = reported(tally.take("docs"))
    total = report["total"]
    assert (total["files_processed"], total["transferred"], total["bytes"]) == (1, 1, 5)
    assert total["deleted_at_source"] == 1
    assert total["methods"]["put"]["objects"] == 1
    assert any("Deleted at source" in line for line in report_lines(report))


def test_no_number_of_troubles_takes_more_room() -> None:
    tally = Tally([DOCS])
    for number in range(3 * FAILURES):
        name = str(number)
        refused = Discovered(Listed(b"k", 1, "e", 0, ""), State.FAILED, "name_refused", message="m")
        tally(events.PageMerged("docs", "from", 1, 1, 0, 0, (), (refused,) * 20))
        tell(tally, Change(transfer(), State.FAILED, reason="access_denied", message="no"))
        tally(events.Warned("docs", name))
        tally(events.Warned("docs", "again"))
        tally(events.BucketFailed("docs", name, "access_denied", "no"))
        tell(tally, moved(b"%d" % number, number), number)
    tally(events.Warned("", "of the whole process"))
    taken = tally.take("docs")
    assert len(taken.failures) == FAILURES
    assert len(taken.notes) == len(taken.unlisted) == NOTES
    assert taken.notes["again"] == 3 * FAILURES
    assert len(taken.slowest) == len(taken.largest) == KEPT
    (flow,) = reported(taken)["flows"]
    assert flow["warnings_left_out"] == 3 * FAILURES - NOTES + 2


def test_flows_add_up_and_the_process_counts_once() -> None:
    tally = Tally([DOCS, FILM])
    for flow in FLOWS:
        tell(tally, moved(flow=flow, size=7), 1.5)
        tally(events.Retried(transfer(flow=flow), "server_error", "m", 1.0))
    tally(events.ThrottleChanged("src", 4, throttled=True))
    tally(events.WorkerEnded(1, "killed by signal 9", 3, 1.0))
    total = merged([tally.take("docs"), tally.take("film")])
    assert total.retries == {"server_error": 2}
    assert total.throttles == {"src": 1}
    assert total.deaths == {"killed by signal 9": 1}
    assert sum(total.durations) == 2
    assert total.longest == 1.5


def test_the_report_says_why_objects_were_streamed() -> None:
    tally = Tally([DOCS, FILM])
    denied = Verdict("docs", "from", "objects", CopyBy.STREAMED, "403 AccessDenied", 1.0, 2.0)
    tally(events.RouteDecided(denied))
    tell(tally, moved())
    report = reported(tally.take("docs"))
    (flow,) = report["flows"]
    assert flow["streamed"]["why"] == ["objects of from: 403 AccessDenied"]
    assert flow["routes"][0]["way"] == "streamed"
    text = "\n".join(report_lines(report))
    assert "403 AccessDenied" in text
    # A verdict holds until there is another one: the next report knows it as well.
    tell(tally, moved())
    assert reported(tally.take("docs"))["flows"][0]["streamed"]["why"]


def test_why_nothing_of_a_flow_can_be_copied_inside_a_store() -> None:
    assert "folder" in why_streamed(FILM, "aws", "")
    assert "two services" in why_streamed(DOCS, "aws", "http://minio")
    assert why_streamed(DOCS, "aws", "aws") == ""
    only = Flow("docs", DOCS.source, DOCS.target, method=MethodPolicy.STREAM_ONLY)
    assert "stream-only" in why_streamed(only, "aws", "aws")


@given(st.binary(min_size=1, max_size=300), st.text(max_size=300))
def test_no_key_and_no_message_breaks_the_report(key: bytes, message: str) -> None:
    tally = Tally([DOCS])
    tell(tally, moved(key))
    tell(tally, Change(transfer(key), State.FAILED, reason="refused", message=message))
    tally(events.Warned("docs", message))
    report = reported(tally.take("docs"))
    lines = report_lines(report)
    assert not any(
        ord(char) < 32 or char in "\x7f\x85\u2028\u2029" for line in lines for char in line
    )
    (named,) = report["total"]["largest"]
    exact = bytes.fromhex(named["key_hex"]) if named["key_hex"] else named["key"].encode()
    assert exact == key


def test_usual_lines_are_no_wider_than_a_terminal() -> None:
    tally = Tally([DOCS, FILM])
    for number in range(50):
        name = b"a/long/prefix/that/many/keys/have/in/common/%05d.pdf" % number
        tell(tally, moved(name, 10**number // 7 % 10**13), number * 11.0)
    tally(events.Warned("docs", "some words " * 30))
    for lines in (report_lines(reported(tally.take("docs"), tally.take("film"))),):
        assert max(map(len, lines)) <= WIDTH
        assert any("00049.pdf" in line for line in lines)  # the end of a key tells it from others


def test_who_listens_to_some_kinds_is_told_no_other() -> None:
    heard: list[events.Event] = []
    everything: list[events.Event] = []

    class Picky:
        def __init__(self) -> None:
            self.told = {events.ScanStarted: heard.append}

        def __call__(self, event: events.Event) -> None:
            raise AssertionError("it said what it listens to")

    emit = fan_out(Picky(), everything.append)
    emit(events.ScanStarted("docs", resumed=False))
    emit(events.FlowUnblocked("docs", "target_full"))
    assert [type(event) for event in heard] == [events.ScanStarted]
    assert [type(event) for event in everything] == [events.ScanStarted, events.FlowUnblocked]
