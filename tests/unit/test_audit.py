"""The audit trail's chain: what is hashed, and that nothing of it can be changed unseen."""

from __future__ import annotations

import csv
import hashlib
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3flow.records import Audited, Fact
from s3flow.state import audit
from s3flow.state.audit import Check, Happened, Head
from s3flow.state.audit_files import check_export, csv_header, csv_lines

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
KEYS = st.binary(max_size=12) | TEXTS.map(str.encode)
FACTS = st.builds(
    Happened,
    st.sampled_from(Fact),
    st.just(7),
    TEXTS,
    KEYS,
    st.integers(0, 50 * 1000**4),
    *[TEXTS] * 8,
)


def chained(facts: list[Happened], flow: str = "documents") -> list[Audited]:
    """Give facts as the state would give them back."""
    rows, _ = audit.seal(3, flow, Head(), 1_763_654_400_123, facts)
    buckets = {fact.bucket_id: fact.bucket for fact in facts}
    assert all(row[0] == 3 for row in rows)
    return [
        audit.as_fields((flow, *row[1:4], buckets[row[4]], *row[5:]))  # type: ignore[index]
        for row in rows
    ]


def some(count: int) -> list[Audited]:
    facts = [
        Happened(Fact.VERIFIED, 1, "b", b"key %d" % n, n, "e", "t", "v", "put", "etag", "", "", "w")
        for n in range(count)
    ]
    return chained(facts)


def broken(rows: list[Audited], kept: Head | None = None) -> audit.Broken | None:
    check = Check(kept)
    check.rows(rows)
    return check.end()


@given(st.lists(FACTS.map(lambda fact: fact._replace(bucket="b")), max_size=5), TEXTS)
def test_what_is_written_is_what_can_be_read_and_checked(facts: list[Happened], flow: str) -> None:
    rows = chained(facts, flow)
    assert [row[3] for row in rows] == [fact.fact for fact in facts]
    assert broken(rows) is None
    check, before = Check(), "0" * 64
    for row, fact in zip(rows, facts, strict=True):
        line = audit.as_line(row) + "\n"
        assert line.isascii()
        check.line(line)
        # As the module's docstring tells others to do it.
        content, _, rest = line.rpartition(',"hash":"')
        before = hashlib.sha256((before + content).encode()).hexdigest()
        assert rest == before + '"}\n'
        parsed = json.loads(line)
        assert list(parsed) == [
            "key_hex" if name == "key" and "key_hex" in parsed else name for name in audit.FIELDS
        ]
        named = parsed["key"].encode() if "key" in parsed else bytes.fromhex(parsed["key_hex"])
        assert named == fact.key
        assert (parsed["etag"], parsed["detail"]) == (fact.etag, fact.detail)
    assert check.end() is None
    assert check.head == Head(len(rows), before)


@given(FACTS, FACTS)
def test_two_facts_never_look_the_same(one: Happened, other: Happened) -> None:
    one, other = one._replace(bucket="b"), other._replace(bucket="b")
    (left,), (right,) = chained([one]), chained([other])
    assert (audit.content(left) == audit.content(right)) == (one == other)


@pytest.mark.parametrize("number", [0, 2, 4])
def test_any_change_of_any_field_is_found(number: int) -> None:
    rows = some(5)
    other = Audited("x", 99, 5, "failed", "x", b"x", 77, *["x"] * 8, "ab" * 32)
    for name, value in other._asdict().items():
        changed = list(rows)
        changed[number] = rows[number]._replace(**{name: value})
        found = broken(changed)
        assert found is not None, name
        assert found.seq == number + 1, name


def test_rows_that_are_missing_moved_or_put_in_are_found() -> None:
    rows = some(5)
    for changed in (
        rows[1:],
        rows[:2] + rows[3:],
        [rows[0], rows[2], rows[1], *rows[3:]],
        [*rows[:3], rows[2], *rows[3:]],
    ):
        assert broken(changed) is not None


def test_a_row_whose_hash_was_made_anew_breaks_the_next() -> None:
    rows = some(3)
    rows[1] = rows[1]._replace(size=99)
    text = rows[0].hash + audit.content(rows[1])
    rows[1] = rows[1]._replace(hash=hashlib.sha256(text.encode()).hexdigest())
    found = broken(rows)
    assert found is not None
    assert found.seq == 3


def test_an_end_that_was_cut_off_is_missed_by_a_head_that_was_kept() -> None:
    rows = some(5)
    assert broken(rows[:3]) is None
    for kept in (Head(5, rows[4].hash), Head(4, rows[3].hash)):
        found = broken(rows[:3], kept)
        assert found is not None
        assert found.seq == 4
    assert broken(rows, Head(3, rows[2].hash)) is None
    # Written anew as a whole: only who kept a head can tell.
    forged = chained([Happened(Fact.VERIFIED, 1, "b", b"other", n) for n in range(5)])
    assert broken(forged) is None
    found = broken(forged, Head(3, rows[2].hash))
    assert found is not None
    assert found.seq == 3


def test_the_state_knows_how_long_its_trail_is() -> None:
    rows = some(4)
    check = Check()
    check.rows(rows[:3])
    found = check.end(Head(4, rows[3].hash))
    assert found is not None
    assert found.seq == 4
    check = Check()
    check.rows(rows)
    found = check.end(Head(4, rows[2].hash))
    assert found is not None
    assert "notes as the last" in found.finding


@pytest.mark.parametrize(
    "line", ["", "{}", "[]", "5", '{"seq":1}', '{"seq":1,"hash":"00"}', "x", "[" * 50_000]
)
def test_lines_of_something_else_are_none_of_a_trail(line: str) -> None:
    check = Check()
    check.line(line)
    assert check.end() is not None


def test_what_follows_a_hash_is_found() -> None:
    (row,) = some(1)
    check = Check()
    check.line(audit.as_line(row)[:-1] + ',"approved":true}')
    found = check.end()
    assert found is not None
    assert "follows" in found.finding


def test_heads_are_read_as_they_are_printed() -> None:
    (row,) = some(1)
    head = Head(row.seq, row.hash)
    assert audit.parse_head(str(head)) == head
    for text in ("", "5", "5:", "0:" + "0" * 64, "5:xy", "5:" + "0" * 62):
        with pytest.raises(ValueError):
            audit.parse_head(text)


def test_each_fact_has_its_own_number() -> None:
    assert {audit.CODES[fact]: fact for fact in Fact} == audit.FACTS
    assert len(set(audit.CODES.values())) == len(Fact)


# --- exports ----------------------------------------------------------------------------------

ODD_TEXTS = [
    "a\rb",
    "\r\n",
    "=1+1",
    "+1",
    "-1",
    "@SUM(1)",
    "\t=1",
    "'",
    "'=1",
    "a\x00b",
    "\x85\u2028",
    '",',
]


@given(st.lists(FACTS, min_size=1, max_size=4), st.lists(st.sampled_from(ODD_TEXTS), min_size=1))
def test_csv_says_what_the_chain_says_and_no_spreadsheet_carries_it_out(
    facts: list[Happened], texts: list[str]
) -> None:
    facts = [fact._replace(bucket="b") for fact in facts]
    facts += [facts[0]._replace(key=it.encode(), etag=it, reason=it, detail=it) for it in texts]
    text = csv_header() + csv_lines(chained(facts))
    with io.StringIO(text, newline="") as file:
        found = check_export(iter(file), {})
    assert [(name, it.end(), it.head.seq) for name, it in found.items()] == [
        ("documents", None, len(facts))
    ]
    for row in csv.reader(io.StringIO(text, newline="")):
        assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


@pytest.mark.parametrize("line", ["", "x" * 1_000_000, "documents,1", '"' * 3])
def test_csv_that_is_none_of_an_audit_trail_is_said_to_be_none(line: str) -> None:
    found = check_export(iter([csv_header(), line + "\n", line + "\n"]), {})
    assert all(it.end() is not None for it in found.values())
    assert found or not line
