"""What people and programs are told of storage classes, and of buckets that could not be listed."""

from __future__ import annotations

import json
from dataclasses import replace

from rich.console import Console

from s3flow.model import Flow, Place, ScanSummary, State, Total
from s3flow.observe.inventory import Inventory, class_rows, inventory_lines
from s3flow.observe.metrics import Metrics
from s3flow.observe.progress import FlowSnapshot, Thawing, as_json, snapshot
from s3flow.observe.report import summary_lines
from s3flow.observe.status import status_table
from s3flow.records import ClassStates, ClassTotal, Hold, Unlisted

FLOW = Flow(name="all", source=Place("src", "*", b""), target=Place("nas", "{bucket}", b""))
SCANNED = ScanSummary(finished=1_700_000_000.0, unfinished=False, listed=6)
CLASSES = [
    ClassTotal("a", "DEEP_ARCHIVE", 1, 5),
    ClassTotal("a", "STANDARD", 2, 20),
    ClassTotal("b", "DEEP_ARCHIVE", 3, 30),
]
REFUSED = Unlisted(
    "closed", "access_denied", "the credentials need\ns3:ListBucket", 1_700_000_000.0
)


def take(inventory: Inventory) -> FlowSnapshot:
    totals = [
        Total("a", State.DISCOVERED, "", "", "", 3, 25),
        Total("b", State.RESTORING, "", "", "", 3, 30),
    ]
    return snapshot(FLOW, totals, [], {}, SCANNED, 1_700_000_100.0, inventory=inventory)


def table(one: FlowSnapshot) -> str:
    console = Console(width=120)
    with console.capture() as shown:
        console.print(status_table([one]))
    return shown.get()


def test_programs_are_told_of_each_class_and_refusal() -> None:
    (told,) = json.loads(json.dumps(as_json([take(Inventory(CLASSES, [REFUSED]))], buckets=True)))[
        "flows"
    ]
    assert told["storage_classes"] == {
        "DEEP_ARCHIVE": {"objects": 4, "bytes": 35, "archived": True},
        "STANDARD": {"objects": 2, "bytes": 20, "archived": False},
    }
    assert told["buckets"]["b"]["storage_classes"] == {
        "DEEP_ARCHIVE": {"objects": 3, "bytes": 30, "archived": True}
    }
    assert told["unlisted_buckets"] == {
        "closed": {
            "reason": "access_denied",
            "message": REFUSED.message,
            "since": "2023-11-14T22:13:20Z",
        }
    }


def test_programs_are_told_of_states_by_class_where_they_were_asked_for() -> None:
    states = [
        ClassStates("DEEP_ARCHIVE", State.RESTORING, 3, 30),
        ClassStates("GONE_SINCE", State.VERIFIED, 1, 1),
    ]
    (told,) = as_json([take(Inventory(CLASSES, [], states))])["flows"]
    assert told["storage_classes"]["DEEP_ARCHIVE"]["states"] == {
        "restoring": {"objects": 3, "bytes": 30}
    }
    assert told["storage_classes"]["STANDARD"]["states"] == {}
    assert told["storage_classes"]["GONE_SINCE"]["objects"] == 0


def test_the_table_shows_what_needs_a_restore_and_what_was_refused() -> None:
    shown = table(take(Inventory(CLASSES, [REFUSED])))
    (frozen,) = [line for line in shown.splitlines() if "DEEP_ARCHIVE" in line]
    assert frozen.split()[:2] == ["DEEP_ARCHIVE", "4"]
    assert "needs a restore" in frozen
    (refused,) = [line for line in shown.splitlines() if "not listed" in line]
    assert "closed: access_denied since 2023-11-14 22:13Z" in refused


def test_the_table_shows_the_classes_of_each_bucket() -> None:
    console = Console(width=120)
    with console.capture() as shown:
        console.print(status_table([take(Inventory(CLASSES))], buckets=True))
    by_bucket = {
        line.split()[0]: line for line in shown.get().splitlines() if line.startswith("  ")
    }
    assert "DEEP_ARCHIVE 1 (5 B), STANDARD 2 (20 B)" in by_bucket["a"]
    assert "DEEP_ARCHIVE 3 (30 B)" in by_bucket["b"]


def test_one_class_that_is_read_at_once_is_not_worth_a_line() -> None:
    assert not list(class_rows(Inventory([ClassTotal("a", "STANDARD", 2, 20)]), pending=True))
    assert inventory_lines(Inventory([ClassTotal("a", "STANDARD", 2, 20)]), pending=True) == []


def test_states_by_class_say_restore_only_of_what_waits() -> None:
    states = [
        ClassStates("GLACIER", State.DISCOVERED, 2, 20),
        ClassStates("GLACIER", State.VERIFIED, 1, 10),
    ]
    one = Inventory(CLASSES, [], states)
    assert [(words, bool(note)) for words, _, _, note in class_rows(one, pending=True)] == [
        ("GLACIER, discovered", True),
        ("GLACIER, verified", False),
    ]
    assert one.frozen() == {"GLACIER": (2, 20)}


def test_what_was_restored_is_not_said_to_need_it_still() -> None:
    totals = [
        Total("b", State.VERIFIED, "", "put", "md5", 5, 50),
        Total("a", State.DISCOVERED, "", "", "", 1, 5),
    ]
    one = snapshot(FLOW, totals, [], {}, SCANNED, 1_700_000_100.0, inventory=Inventory(CLASSES))
    assert "needs a restore" not in table(one)
    assert "is archived" in table(one)
    (line,) = [line for line in summary_lines([one]) if "archived" in line]
    assert line == "  archived: at most 1 objects, 5 B, need a restore before they go"


def test_the_table_tells_of_a_hold_whatever_was_moved() -> None:
    for state in (State.DISCOVERED, State.VERIFIED, State.DELETED):
        totals = [Total("a", state, "", "", "", 1, 5)]
        hold = Hold("of mine", 1_700_000_000.0)
        shown = table(snapshot(FLOW, totals, [], {}, SCANNED, 1_700_000_100.0, held=hold))
        assert "no source is deleted: of mine; to go on: s3flow release all" in shown


def test_a_command_ends_with_what_was_frozen_and_refused() -> None:
    many = [REFUSED._replace(bucket=f"closed-{number:02}") for number in range(12)]
    lines = summary_lines([take(Inventory(CLASSES, many))])
    assert "  storage classes: DEEP_ARCHIVE 4 (35 B), STANDARD 2 (20 B)" in lines
    assert "  archived: 4 objects, 35 B, need a restore before they go" in lines
    refused = [line for line in lines if "not listed" in line]
    assert len(refused) == 11
    assert refused[-1].endswith("and 2 more: s3flow status --json")


def test_a_command_ends_with_what_waits_for_restores_once_some_were_asked_for() -> None:
    some = replace(take(Inventory(CLASSES)), thawing=Thawing(3, 30, None, None))
    lines = [line for line in summary_lines([some]) if "archived" in line]
    assert lines == ["  archived: 3 objects, 30 B, wait for a restore"]


def test_a_command_ends_with_the_sources_that_stay() -> None:
    hold = Hold("of mine", 1_700_000_000.0)
    lines = summary_lines([replace(take(Inventory()), held=hold, kept={"delete_denied": 2})])
    assert "  no source is deleted: of mine; to go on: s3flow release all" in lines
    assert "  sources stay: delete_denied 2" in lines


def test_a_gauge_counts_the_buckets_that_were_refused() -> None:
    metrics = Metrics(lambda: [take(Inventory([], [REFUSED]))])
    assert 's3flow_unlisted_buckets{flow="all"} 1.0' in metrics.render().decode()


def test_nothing_needs_a_restore_when_all_is_done() -> None:
    done = [Total("a", State.VERIFIED, "", "put", "etag", 6, 55)]
    one = snapshot(FLOW, done, [], {}, SCANNED, 1_700_000_100.0, inventory=Inventory(CLASSES))
    assert "DEEP_ARCHIVE" in table(one)
    assert "restore" not in table(one)
    assert not [line for line in summary_lines([one]) if "restore" in line]
