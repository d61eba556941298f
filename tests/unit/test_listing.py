"""A bucket listed in ranges: the same outcome as in one, wherever it is cut, stopped or killed."""

from __future__ import annotations

import asyncio
import random
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s3flow.engine import listing as listing_module
from s3flow.engine.discovery import Discovery
from s3flow.engine.ranges import KeySpace
from s3flow.engine.survey import Survey
from s3flow.errors import ConnectionLost
from s3flow.events import BucketFailed, PageMerged, ScanFinished
from s3flow.model import OUTCOMES, KeyRange, Limits, Outcome, PageChanges, Row, Scan, State
from s3flow.stores.memory import MemoryStore
from tests.faults import Call, Faulty, Raising, Recording, Slow
from tests.unit.lab import FLOW, Lab, store
from tests.unit.test_survey import Rows, refused, survey_of

UNFINISHED = {it for it, end in OUTCOMES.items() if end is Outcome.PENDING} | {State.FAILED}

CUT_AS_OFTEN_AS_POSSIBLE = {"SEEN_FIRST": 1, "SPARE": 0, "WORTH_CUTTING": 0}


class Crash(Exception):
    """The process dies here."""


@dataclass
class Durable(Rows):
    """A state whose process dies around the transaction number *crash_at* (from 1)."""

    known_ranges: dict[bytes, KeyRange] = field(default_factory=dict)
    listed: int = 0
    vanished: list[bytes] = field(default_factory=list)
    finished: bool = False
    calls: int = 0
    crash_at: int = 0
    dies_after: bool = False
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    async def begin_scan(self, flow: str) -> tuple[Scan, bool]:
        return Scan(1, flow, False, 0.0), bool(self.known_ranges)

    async def unlisted(self, flow: str) -> list[object]:
        return []

    async def note_unlisted(self, flow: str, bucket: str, reason: str, message: str) -> None:
        raise AssertionError(message)

    async def finish_scan(self, scan: Scan) -> None:
        self.finished = True

    async def ranges(self, scan: Scan, bucket: str) -> list[KeyRange]:
        return [self.known_ranges[start] for start in sorted(self.known_ranges)]

    async def rows(
        self, flow: str, bucket: str, after: bytes, upto: bytes | None, limit: int = -1
    ) -> list[Row]:
        await self._dawdle()
        return await super().rows(flow, bucket, after, upto, limit)

    async def apply_page(self, scan: Scan, changes: PageChanges) -> None:
        self.calls += 1
        if self.calls == self.crash_at and not self.dies_after:
            raise Crash
        self._apply(changes)
        if self.calls == self.crash_at:
            raise Crash
        await self._dawdle()

    def _apply(self, changes: PageChanges) -> None:
        start = changes.start
        it = self.known_ranges.get(start) or KeyRange(b"", b"", None, done=False)
        assert it.start == start
        assert not it.done
        assert changes.cursor >= it.cursor
        end = it.end
        if changes.cut is not None:
            assert changes.cursor < changes.cut
            assert end is None or changes.cut < end
            self.known_ranges[changes.cut] = KeyRange(changes.cut, changes.cut, end, done=False)
            end = changes.cut
        self.known_ranges[start] = KeyRange(start, changes.cursor, end, changes.done)
        by_id = {row.id: row.key for row in self.rows_by_key.values()}
        for key in (
            *(found.entry.key for found in changes.new),
            *(by_id[row_id] for row_id, _ in changes.changed),
            *(by_id[row_id] for row_id in changes.vanished),
        ):
            assert it.cursor < key
            assert end is None or key <= end
        self.listed += changes.listed
        self.vanished += [by_id[row_id] for row_id in changes.vanished]
        self.apply(changes)

    async def _dawdle(self) -> None:
        for _ in range(self.chance.randint(0, 4)):
            await asyncio.sleep(0)


class Dawdling(Faulty):
    """Answers come after some turns of the loop, never in the order of their requests."""

    def __init__(self, inner: object, chance: random.Random) -> None:
        super().__init__(inner)
        self.chance = chance

    async def around(self, call: Call, go: Callable[[], object]) -> object:
        answer = await go()  # type: ignore[misc]
        for _ in range(self.chance.randint(0, 12)):
            await asyncio.sleep(0)
        return answer


def discovery(survey: Survey, state: Durable) -> Discovery:
    return Discovery(survey, state, lambda: None)  # type: ignore[arg-type]


characters = st.sampled_from("/09az-. ~\x7fé中文😀\U0010ffff")
names = st.text(characters, min_size=1, max_size=4).map(str.encode)
keyspaces = st.sets(names | names.map(lambda key: b"logs/2024/" + key), max_size=40)


@settings(max_examples=150, deadline=None)
@given(
    keys=keyspaces,
    rows=keyspaces,
    page_size=st.integers(1, 4),
    at_once=st.integers(1, 5),
    crashes=st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=6),
    seed=st.integers(0, 1000),
    anywhere=st.booleans(),
)
def test_every_key_is_merged_once_wherever_it_is_cut_and_killed(
    keys: set[bytes],
    rows: set[bytes],
    page_size: int,
    at_once: int,
    crashes: list[tuple[int, bool]],
    seed: int,
    anywhere: bool,
) -> None:
    chance = random.Random(seed)
    source = store("src", "from", page_size=page_size)
    for key in keys:
        source.put("from", key, b"x")
    state = Durable(
        {
            key: Row(n, key, 9, "old", chance.choice(list(State)), "")
            for n, key in enumerate(sorted(rows), 1)
        },
        chance=chance,
    )
    waiting = {
        key for key, row in state.rows_by_key.items() if row.state in UNFINISHED and key not in keys
    }
    places = sorted(keys | rows | {key + b"0" for key in keys})

    def cut_anywhere(space: KeySpace, cursor: bytes, end: bytes | None) -> bytes | None:
        between = places[bisect_left(places, cursor) :]
        between = [it for it in between if cursor < it and (end is None or it < end)]
        return chance.choice(between) if between else None

    with pytest.MonkeyPatch.context() as patch:
        for name, value in CUT_AS_OFTEN_AS_POSSIBLE.items():
            patch.setattr(listing_module, name, value)
        if anywhere:
            patch.setattr(KeySpace, "cut", cut_anywhere)
        flow = replace(FLOW, list_concurrency=at_once)
        dawdling = Dawdling(source, chance)
        for crash_at, dies_after in crashes:
            state.calls, state.crash_at, state.dies_after = 0, crash_at, dies_after
            try:
                asyncio.run(discovery(survey_of(flow, dawdling, store("dst", "to")), state).run())
            except Crash:
                continue
            break
        state.crash_at = 0
        if not state.finished:
            asyncio.run(discovery(survey_of(flow, dawdling, store("dst", "to")), state).run())
    assert state.finished
    assert state.listed == len(keys)
    assert sorted(state.vanished) == sorted(waiting)
    assert {key for key, row in state.rows_by_key.items() if row.etag != "old"} == keys
    ranges = [state.known_ranges[start] for start in sorted(state.known_ranges)]
    assert all(it.done for it in ranges)
    assert [it.end for it in ranges] == [*(it.start for it in ranges[1:]), None]


@settings(max_examples=60, deadline=None)
@given(
    keys=st.sets(st.text("-/abc", min_size=1, max_size=3).map(str.encode), min_size=12),
    seed=st.integers(0, 1000),
)
def test_of_rivals_the_first_in_byte_order_has_the_place_however_many_listings_there_are(
    keys: set[bytes], seed: int
) -> None:
    async def play(at_once: int, rewrite: tuple[tuple[str, str], ...]) -> set[bytes]:
        chance = random.Random(seed)
        source = store("src", "from", page_size=2)
        target = MemoryStore("dst", limits=Limits(paths=True))
        for key in keys:
            source.put("from", key, b"x")
        flow = replace(FLOW, list_concurrency=at_once, rewrite=rewrite)
        state = Durable(chance=chance)
        await discovery(survey_of(flow, Dawdling(source, chance), target), state).run()
        return refused(state)

    with pytest.MonkeyPatch.context() as patch:
        for name, value in CUT_AS_OFTEN_AS_POSSIBLE.items():
            patch.setattr(listing_module, name, value)
        for rewrite in ((), (("b", "a"),)):
            assert asyncio.run(play(6, rewrite)) == asyncio.run(play(1, rewrite))


# --- with the real state ---------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Two thousand flat names of several scripts, listed by fives."""
    source = store("src", "from", page_size=5)
    chance = random.Random(1)
    for number in range(2000):
        script = ("0123456789abcdef", "的一是不了人我在有他", "😀😁😂🤣😃😄😅")[number % 3]
        name = "".join(chance.choices(script, k=9)) + f"-{number}"
        source.put("from", name.encode(), b"x")
    return Lab(tmp_path, source=source, flow=replace(FLOW, list_concurrency=6))


async def test_several_ranges_are_listed_at_a_time(lab: Lab) -> None:
    most, slow = 0, Slow(lab.source, 0.02)  # merging a page takes less, on a busy machine too

    class Watched(Recording):
        async def around(self, call: Call, go: Callable[[], object]) -> object:
            nonlocal most
            most = max(most, slow.waiting + 1)
            return await super().around(call, go)  # type: ignore[arg-type]

    lab.source = requests = Watched(slow)
    assert await lab.sync(scan_only=True) == {Outcome.PENDING: 2000}
    assert most >= 5
    assert 400 <= len(requests.of("list_page")) <= 500
    (finished,) = lab.of(ScanFinished)
    assert finished.listed == 2000
    assert sum(event.listed for event in lab.of(PageMerged)) == 2000
    assert lab.query("SELECT count(*) FROM ranges") == [(0,)]
    before = len(requests.calls)
    assert await lab.sync(scan_only=True) == {Outcome.PENDING: 2000}
    assert not any(event.new for event in lab.of(PageMerged))
    assert len(requests.calls) - before <= 500


async def test_one_listing_at_a_time_asks_for_each_page_once(lab: Lab) -> None:
    lab.change(list_concurrency=1)
    lab.source = requests = Recording(lab.source)
    assert await lab.sync(scan_only=True) == {Outcome.PENDING: 2000}
    assert len(requests.of("list_page")) == 400


async def test_a_stopped_listing_goes_on_with_the_same_ranges(lab: Lab) -> None:
    lab.stop_at(PageMerged, 150)
    await lab.sync(scan_only=True)
    cut = lab.query("SELECT start_key FROM ranges ORDER BY start_key")
    open_ones = lab.query("SELECT count(*) FROM ranges WHERE NOT done")
    assert 2 <= open_ones[0][0] <= 6
    ((seen,),) = lab.query("SELECT listed FROM scans")
    assert seen < 2000
    lab.subscribers.clear()
    lab.stop_at(PageMerged, 1)
    await lab.sync(scan_only=True)
    again = lab.query("SELECT start_key FROM ranges ORDER BY start_key")
    assert set(cut) <= set(again)
    lab.subscribers.clear()
    assert await lab.sync(scan_only=True) == {Outcome.PENDING: 2000}
    assert lab.query("SELECT listed FROM scans") == [(2000,)]


async def test_a_range_that_cannot_be_listed_fails_the_bucket_and_is_tried_by_itself_later(
    lab: Lab,
) -> None:
    def behind(call: Call) -> bool:
        return call.method == "list_page" and call.args[2] > "😀".encode()

    whole = lab.source
    lab.source = Raising(whole, ConnectionLost("gone"), behind)
    await lab.sync(scan_only=True)
    assert len(lab.of(BucketFailed)) == 1
    told = sum(event.listed for event in lab.of(PageMerged))
    assert lab.query("SELECT listed FROM scans") == [(told,)]  # pages in hand were merged
    lab.source = whole
    assert await lab.sync(scan_only=True) == {Outcome.PENDING: 2000}
    assert lab.query("SELECT listed FROM scans") == [(2000,)]
