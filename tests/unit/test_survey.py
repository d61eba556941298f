"""Listing against state: what is new, changed, gone, refused; and rivals for one place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3flow.engine import plan
from s3flow.engine import survey as survey_module
from s3flow.engine.survey import Range, Survey, merge
from s3flow.engine.wiring import RouteMaker, Wiring
from s3flow.errors import ConnectionLost, NoSuchBucket, SourceGone, Throttled
from s3flow.model import (
    OUTCOMES,
    Discovered,
    Filters,
    Flow,
    Limits,
    Listed,
    Outcome,
    Page,
    PageChanges,
    Place,
    Row,
    State,
)
from s3flow.policies import Overwrite
from s3flow.stores.crc64 import Crc64Nvme
from s3flow.stores.memory import MemoryStore
from tests.faults import Faulty, NthCallFails, Recording, Throttling
from tests.unit.lab import FLOW, QUICK, store

UNFINISHED = {it for it, end in OUTCOMES.items() if end is Outcome.PENDING} | {State.FAILED}

SKIPPED_BY_FILTER = "excluded"
keys = st.binary(min_size=1, max_size=3)
listings = st.dictionaries(keys, st.tuples(st.integers(0, 2), st.sampled_from("ef")), max_size=12)


@dataclass
class Rows:
    """The state as a dict: what a survey asks of it, and what becomes of it with each page."""

    rows_by_key: dict[bytes, Row] = field(default_factory=dict)

    async def rows(
        self, flow: str, bucket: str, after: bytes, upto: bytes | None, limit: int = -1
    ) -> list[Row]:
        found = self.between(after, upto)
        return found if limit < 0 else found[:limit]

    async def known(self, flow: str, bucket: str, keys: Sequence[bytes]) -> set[bytes]:
        places = {State.SKIPPED, State.FAILED}
        return {
            key
            for key in keys
            if key in self.rows_by_key and self.rows_by_key[key].state not in places
        }

    def between(self, after: bytes, upto: bytes | None) -> list[Row]:
        found = [row for key, row in self.rows_by_key.items() if key > after]
        return sorted((row for row in found if upto is None or row.key <= upto), key=_key)

    def apply(self, changes: PageChanges) -> None:
        by_id = {row.id: row for row in self.rows_by_key.values()}
        for found in changes.new:
            assert found.entry.key not in self.rows_by_key
            self._put(len(self.rows_by_key) + 1, found)
        for row_id, found in changes.changed:
            assert by_id[row_id].key == found.entry.key
            self._put(row_id, found)
        for row_id in changes.vanished:
            row = by_id[row_id]
            gone = row._replace(state=State.SKIPPED, reason=SourceGone.reason)
            self.rows_by_key[row.key] = gone

    def _put(self, row_id: int, found: Discovered) -> None:
        key, size, etag, *_ = found.entry
        self.rows_by_key[key] = Row(row_id, key, size, etag, found.state, found.reason)


def _key(row: Row) -> bytes:
    return row.key


def decider(excluded: set[bytes]) -> Callable[[Listed], Discovered]:
    def decide(entry: Listed) -> Discovered:
        if entry.key in excluded:
            return Discovered(entry, State.SKIPPED, SKIPPED_BY_FILTER)
        return Discovered(entry)

    return decide


def entries_of(listing: dict[bytes, tuple[int, str]]) -> list[Listed]:
    return [Listed(key, *listing[key], 0, "STANDARD") for key in sorted(listing)]


def expected(entry: Listed | None, row: Row | None, *, excluded: bool, overwrite: Overwrite) -> str:
    """Say what must become of one key, looking at nothing else."""
    verdict = State.SKIPPED if excluded else State.DISCOVERED
    if row is None:
        return "new"
    if entry is None:
        unfinished = row.state in UNFINISHED
        return "vanished" if unfinished else "same"
    if (entry.size, entry.etag) != (row.size, row.etag):
        return "changed"
    if overwrite is Overwrite.ALWAYS and row.state is State.VERIFIED:
        return "changed"
    kept = overwrite is Overwrite.NEVER and row.reason == "target_exists"
    filtered = row.state is State.SKIPPED and not kept
    if (filtered or row.state is State.DISCOVERED) and row.state is not verdict:
        return "changed"
    return "changed" if filtered and row.reason != SKIPPED_BY_FILTER else "same"


@st.composite
def known_rows(draw: st.DrawFn) -> dict[bytes, Row]:
    made = {}
    for number, (key, (size, etag)) in enumerate(draw(listings).items(), 1):
        state = draw(st.sampled_from(list(State)))
        reasons = [SKIPPED_BY_FILTER, "target_exists", "source_gone", "too_small"]
        reason = draw(st.sampled_from(reasons)) if state is State.SKIPPED else ""
        made[key] = Row(number, key, size, etag, state, reason)
    return made


@given(
    listing=listings,
    rows=known_rows(),
    excluded=st.sets(keys),
    overwrite=st.sampled_from(list(Overwrite)),
    page_size=st.sampled_from([1, 2, 3, 1000]),
    data=st.data(),
)
def test_each_key_gets_what_its_own_entry_and_row_say_however_the_listing_is_cut(
    listing: dict[bytes, tuple[int, str]],
    rows: dict[bytes, Row],
    excluded: set[bytes],
    overwrite: Overwrite,
    page_size: int,
    data: st.DataObject,
) -> None:
    for key in data.draw(st.sets(st.sampled_from(sorted(rows)))) if rows else ():
        listing[key] = (rows[key].size, rows[key].etag)
    excluded |= data.draw(st.sets(st.sampled_from(sorted(listing)))) if listing else set()
    entries, state, seen = entries_of(listing), Rows(rows), dict[bytes, str]()
    names = {row.id: row.key for row in rows.values()}
    listed, after = 0, b""
    for start in range(0, max(len(entries), 1), page_size):
        page = entries[start : start + page_size]
        upto = None if start + page_size >= len(entries) else page[-1].key
        changes = merge(page, state.between(after, upto), decider(excluded), overwrite)
        for kind, touched in (
            ("new", [found.entry.key for found in changes.new]),
            ("changed", [names[row_id] for row_id, _ in changes.changed]),
            ("vanished", [names[row_id] for row_id in changes.vanished]),
        ):
            for key in touched:
                assert key not in seen
                seen[key] = kind
        listed += changes.listed
        after = upto or after
    by_key = {entry.key: entry for entry in entries}
    for key in rows.keys() | listing.keys():
        word = expected(
            by_key.get(key), rows.get(key), excluded=key in excluded, overwrite=overwrite
        )
        assert seen.get(key, "same") == word, key
    assert listed == len(entries)


@given(listing=listings, excluded=st.sets(keys))
def test_merging_the_same_listing_twice_changes_nothing(
    listing: dict[bytes, tuple[int, str]], excluded: set[bytes]
) -> None:
    state, entries = Rows(), entries_of(listing)
    state.apply(merge(entries, [], decider(excluded), Overwrite.CHANGED))
    second = merge(entries, state.between(b"", None), decider(excluded), Overwrite.CHANGED)
    assert (second.new, second.changed, second.vanished) == ([], [], [])
    assert second.listed_bytes == sum(entry.size for entry in entries)


# --- rivals ----------------------------------------------------------------------------------


def survey_of(flow: Flow, source: object, target: object) -> Survey:
    made = RouteMaker(QUICK, Crc64Nvme(), lambda _: None, asyncio.Event())
    return Survey(made.route(Wiring(flow, source, target)), QUICK.backoff)  # type: ignore[arg-type]


async def walk(survey: Survey, state: Rows) -> None:
    after, last = b"", False
    while not last:
        page = await survey.page("from", after)
        last, upto = page.last, None if page.last else page.entries[-1].key
        steps = survey.changes(state, "from", page, Range(after, upto), adopting=False)
        async for changes, _ in steps:
            assert changes.cursor >= after
            after = changes.cursor
            state.apply(changes)
        assert after == (page.entries[-1].key if page.entries else after)
        assert changes.done == last


def refused(state: Rows) -> set[bytes]:
    return {key for key, row in state.rows_by_key.items() if row.reason == "path_conflict"}


T = TypeVar("T")


def cut_in_every_way(play: Callable[[int], Coroutine[None, None, T]]) -> list[T]:
    """Play with pages of several sizes, and with the state read in slices of several sizes."""
    outcomes = []
    for page_size, slice_size in ((1000, 1000), (1, 1000), (2, 1), (3, 2), (1000, 1)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(survey_module, "ROWS_AT_ONCE", slice_size)
            outcomes.append(asyncio.run(play(page_size)))
    return outcomes


pathlike = st.sets(st.text("ab/", min_size=1, max_size=5).map(str.encode), max_size=8)


@settings(max_examples=40)
@given(names=pathlike, later=pathlike)
def test_path_conflicts_are_decided_alike_for_every_page_size_and_run(
    names: set[bytes], later: set[bytes]
) -> None:
    async def play(page_size: int) -> tuple[set[bytes], set[bytes]]:
        source = store("src", "from", page_size=page_size)
        target = MemoryStore("dst", limits=Limits(paths=True))
        for name in names:
            source.put("from", name, b"x")
        state, survey = Rows(), survey_of(FLOW, source, target)
        await walk(survey, state)
        first = refused(state)
        await walk(survey, state)
        assert refused(state) == first
        for name in later - names:
            source.put("from", name, b"y")
        await walk(survey, state)
        assert first <= refused(state)
        return first, refused(state)

    outcomes = cut_in_every_way(play)
    assert all(outcome == outcomes[0] for outcome in outcomes)
    taken = names - outcomes[0][0]
    assert not any(
        one != two and two.startswith(one.rstrip(b"/") + b"/") and not one.endswith(b"/")
        for one in taken
        for two in taken
    )


rewrites = st.lists(st.tuples(st.sampled_from(["", "a/", "b/", "x/"]), st.just("x/")), max_size=3)


@settings(max_examples=40)
@given(names=pathlike, later=pathlike, rules=rewrites)
def test_no_two_objects_get_one_place_and_every_place_is_taken(
    names: set[bytes], later: set[bytes], rules: list[tuple[str, str]]
) -> None:
    flow = replace(FLOW, rewrite=tuple(rules))

    async def play(page_size: int) -> set[bytes]:
        source = store("src", "from", page_size=page_size)
        state = Rows()
        for some in (names, names | later):
            for name in sorted(some):
                source.put("from", name, b"x")
            await walk(survey_of(flow, source, store("dst", "to")), state)
            takers = [plan.target_key(flow, key) for key in some - refused(state)]
            assert len(takers) == len(set(takers))
            assert set(takers) == {plan.target_key(flow, key) for key in some}
        return refused(state)

    outcomes = cut_in_every_way(play)
    assert all(outcome == outcomes[0] for outcome in outcomes)


# --- the rest of a survey --------------------------------------------------------------------


async def test_names_that_the_target_cannot_hold_fail_before_anything_is_read() -> None:
    flow = replace(FLOW, target=Place("dst", "to", b"x" * 1000))
    source, state = store("src", "from"), Rows()
    source.put("from", b"k" * 25, b"")
    source.put("from", b"k" * 24, b"")
    await walk(survey_of(flow, source, store("dst", "to")), state)
    assert [row.reason for row in state.between(b"", None)] == ["", "name_too_long"]


async def test_filters_that_change_take_back_and_let_go() -> None:
    source, state = store("src", "from"), Rows()
    for key in (b"a", b"b"):
        source.put("from", key, b"")
    for exclude in (("a",), ("b",)):
        flow = replace(FLOW, filters=Filters(exclude=exclude))
        await walk(survey_of(flow, source, store("dst", "to")), state)
    assert [row.state for row in state.between(b"", None)] == [State.DISCOVERED, State.SKIPPED]


async def test_always_takes_again_what_was_verified() -> None:
    source, state = store("src", "from"), Rows()
    source.put("from", b"a", b"")
    survey = survey_of(replace(FLOW, overwrite=Overwrite.ALWAYS), source, store("dst", "to"))
    await walk(survey, state)
    state.rows_by_key[b"a"] = state.rows_by_key[b"a"]._replace(state=State.VERIFIED)
    await walk(survey, state)
    assert state.rows_by_key[b"a"].state is State.DISCOVERED


async def test_a_pattern_names_the_buckets_that_match_in_order() -> None:
    source = MemoryStore("src")
    for name in ("logs-b", "logs-a", "logs-x", "other"):
        source.make_bucket(name)
    flow = replace(FLOW, source=Place("src", "logs-*", b""), exclude_buckets=("*-x",))
    assert await survey_of(flow, source, store("dst", "to")).buckets() == ["logs-a", "logs-b"]


async def test_a_name_without_a_pattern_asks_for_no_list_of_buckets() -> None:
    source = Recording(store("src", "from"))
    assert await survey_of(FLOW, source, store("dst", "to")).buckets() == ["from"]
    assert source.calls == []


async def test_throttled_listings_are_waited_out_however_often() -> None:
    source = Throttling(store("src", "from"), every=1, times=20)
    page = await survey_of(FLOW, source, store("dst", "to")).page("from", b"")
    assert page == Page([], last=True)
    assert source.throttled == 20


class Failing(Faulty):
    """Every listing fails; counts them."""

    def __init__(self, inner: object, error: Exception) -> None:
        super().__init__(inner)
        self.error = error
        self.asked = 0

    async def around(self, call: object, go: Callable[[], object]) -> object:
        self.asked += 1
        raise self.error


@pytest.mark.parametrize(
    ("error", "asked"), [(ConnectionLost("x"), 8), (NoSuchBucket("x"), 1), (ValueError("x"), 1)]
)
async def test_listings_that_fail_are_tried_as_often_as_it_makes_sense(
    error: Exception, asked: int
) -> None:
    source = Failing(store("src", "from"), error)
    with pytest.raises(type(error)):
        await survey_of(FLOW, source, store("dst", "to")).page("from", b"")
    assert source.asked == asked


@pytest.mark.parametrize("error", [ConnectionLost("x"), Throttled("x")])
async def test_a_hiccup_while_looking_at_the_target_is_no_reason_to_give_up_a_bucket(
    error: Exception,
) -> None:
    source, target = store("src", "from"), NthCallFails(store("dst", "to"), 1, error)
    source.put("from", b"a", b"x")
    target.inner.put("to", b"a", b"x")
    survey = survey_of(FLOW, source, target)
    page = await survey.page("from", b"")
    steps = survey.changes(Rows(), "from", page, Range(b"", None), adopting=True)
    [(changes, adopted)] = [step async for step in steps]
    assert adopted == 1
    assert [found.state for found in changes.new] == [State.VERIFIED]


async def test_what_is_left_out_says_by_which_of_the_filters_as_they_are_now() -> None:
    source, state = store("src", "from"), Rows()
    source.put("from", b"a", b"")
    for filters, reason in (
        (Filters(exclude=("a",)), "excluded"),
        (Filters(min_size=1), "too_small"),
    ):
        flow = replace(FLOW, filters=filters)
        await walk(survey_of(flow, source, store("dst", "to")), state)
        assert [row.reason for row in state.between(b"", None)] == [reason]
