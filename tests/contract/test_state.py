"""What every state store promises, checked on each of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import pytest

from s3flow.errors import FlowChanged, StateError
from s3flow.model import (
    Change,
    Discovered,
    Flow,
    KeyRange,
    Listed,
    Method,
    PageChanges,
    Place,
    Proof,
    Sample,
    Scan,
    ScanSummary,
    State,
    Total,
    Transfer,
)
from s3flow.policies import Mode
from s3flow.ports import StateStore
from s3flow.state.address import SqliteAddress, StateAddress
from s3flow.state.opening import open_state
from tests import mariadb

FLOW = Flow("documents", Place("src", "bucket", b"in/"), Place("dst", "other", b"out/"))

ODD_KEYS = sorted(
    [
        b"A.txt",
        b"a.txt",
        b"a",
        b"a ",
        b"a  ",
        b"a\x00",
        b"a\x00b",
        b"a//b",
        b"./a",
        b"a/",
        b"%25",
        b"'; DROP TABLE objects; --",
        "caf\u00e9".encode(),
        "cafe\u0301".encode(),
        "CAF\u00c9".encode(),
        "\U0001f4a9".encode(),
        "\u00df".encode(),
        b"ss",
        b"\xff\xfe",
        b"\x80",
        b"x" * 1024,
        b"x" * 1023 + b"y",
    ]
)


class FakeClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


Where = Callable[[pytest.FixtureRequest], StateAddress]


def _sqlite(request: pytest.FixtureRequest) -> StateAddress:
    return SqliteAddress(request.getfixturevalue("tmp_path") / "state.db")


def _mysql(request: pytest.FixtureRequest) -> StateAddress:
    schemas: mariadb.Schemas = request.getfixturevalue("mysql_schemas")
    return schemas.make()


PLACES: dict[str, Where] = {"sqlite": _sqlite, "mysql": _mysql}


class Home:
    """A place where the state lives on while processes come and go."""

    def __init__(self, address: StateAddress) -> None:
        self.clock = FakeClock()
        self.address = address
        self._state: StateStore | None = None

    async def open(self) -> StateStore:
        """Open the state anew, as the next process does."""
        await self.close()
        self._state = await open_state(self.address, clock=self.clock)
        return self._state

    async def close(self) -> None:
        if self._state is not None:
            await self._state.close()
            self._state = None


@pytest.fixture(params=PLACES)
async def home(request: pytest.FixtureRequest) -> AsyncIterator[Home]:
    place = Home(PLACES[request.param](request))
    yield place
    await place.close()


@pytest.fixture
async def state(home: Home) -> StateStore:
    opened = await home.open()
    await opened.open_flow(FLOW)
    return opened


def listed(key: bytes, size: int = 10, etag: str = "e1") -> Listed:
    return Listed(key, size, etag, 1_600_000_000_123, "STANDARD")


def found(key: bytes, state: State = State.DISCOVERED, size: int = 10, **more: str) -> Discovered:
    return Discovered(listed(key, size), state, **more)


async def merge(
    state: StateStore,
    *new: Discovered,
    flow: str = "documents",
    bucket: str = "bucket",
    changed: list[tuple[int, Discovered]] | None = None,
    vanished: list[int] | None = None,
    done: bool = False,
) -> Scan:
    """Apply a page to a bucket's only range: one scan sees many such pages."""
    scan, _ = await state.begin_scan(flow)
    before = max((it.cursor for it in await state.ranges(scan, bucket)), default=b"")
    cursor = max([item.entry.key for item in new] + [before + b"\x00"])
    page = PageChanges(bucket, cursor, done, len(new), sum(item.entry.size for item in new))
    page.new, page.changed, page.vanished = list(new), changed or [], vanished or []
    await state.apply_page(scan, page)
    return scan


async def claim_keys(state: StateStore, limit: int = 100, flow: str = "documents") -> list[bytes]:
    return [transfer.key for transfer in await state.claim(flow, limit)]


async def counts(state: StateStore, flow: str = "documents") -> dict[tuple[State, str], int]:
    lines: Counter[tuple[State, str]] = Counter()
    for line in await state.totals(flow):
        lines[line.state, line.reason] += line.objects
    return dict(lines)


async def row_id(state: StateStore, key: bytes, bucket: str = "bucket") -> int:
    (row,) = [row for row in await state.rows("documents", bucket, b"", key) if row.key == key]
    return row.id


async def fail(state: StateStore, transfer: Transfer, reason: str) -> None:
    await state.save([Change(transfer, State.FAILED, reason, f"{reason} happened")])


# --- flows -----------------------------------------------------------------------------------


async def test_a_flow_goes_on_when_its_policy_changes(home: Home, state: StateStore) -> None:
    await merge(state, found(b"a"))
    again = await home.open()
    await again.open_flow(replace(FLOW, mode=Mode.MOVE, every=60.0, lanes=2))
    assert await claim_keys(again) == [b"a"]


@pytest.mark.parametrize(
    ("setting", "changed"),
    [
        ("source", replace(FLOW, source=Place("src", "bucket", b"elsewhere/"))),
        ("source", replace(FLOW, source=Place("src2", "bucket", b"in/"))),
        ("target", replace(FLOW, target=Place("dst", "another", b"out/"))),
        ("rewrite", replace(FLOW, rewrite=(("a/", "b/"),))),
    ],
)
async def test_a_flow_with_another_mapping_is_refused_with_the_ways_on(
    state: StateStore, setting: str, changed: Flow
) -> None:
    with pytest.raises(FlowChanged, match=rf"{setting} was .* and is now") as told:
        await state.open_flow(changed)
    assert "s3flow forget documents" in str(told.value)
    await state.open_flow(FLOW)


async def test_a_forgotten_flow_may_mean_something_else(state: StateStore) -> None:
    await state.open_flow(replace(FLOW, name="other"))
    await merge(state, found(b"a"), found(b"b", State.FAILED, reason="refused"))
    await merge(state, found(b"a"), flow="other")
    await state.sample("documents", Sample(1.0, 1, 1))

    await state.forget("documents")

    assert await state.totals("documents") == []
    assert await state.rows("documents", "bucket", b"", None) == []
    assert await state.samples("documents") == []
    assert await state.failures("documents", 10) == []
    assert await claim_keys(state) == []
    await state.open_flow(replace(FLOW, target=Place("dst", "new", b"")))
    scan, resumed = await state.begin_scan("documents")
    assert (scan.adopting, resumed) == (True, False)
    await merge(state, found(b"c"))
    assert await claim_keys(state) == [b"c"]
    assert await claim_keys(state, flow="other") == [b"a"]


async def test_a_change_of_a_forgotten_flow_meets_no_other_object(state: StateStore) -> None:
    await merge(state, found(b"a"))
    (old,) = await state.claim("documents", 1)
    await state.forget("documents")
    await state.open_flow(FLOW)
    await merge(state, found(b"b"))
    await state.save([Change(old, State.VERIFIED)])
    assert await counts(state) == {(State.DISCOVERED, ""): 1}


async def test_unknown_flows_are_empty_and_cannot_be_written_to(state: StateStore) -> None:
    assert await state.totals("nobody") == []
    assert await state.claim("nobody", 5) == []
    assert await state.uploads("nobody") == set()
    assert await state.next_retry("nobody") is None
    assert await state.retry("nobody", None) == 0
    assert await state.last_scan("nobody") == ScanSummary(None, False, 0)
    await state.forget("nobody")
    with pytest.raises(StateError, match="nobody"):
        await state.begin_scan("nobody")


# --- scans and pages -------------------------------------------------------------------------


async def test_an_unfinished_scan_is_continued_where_it_was(home: Home, state: StateStore) -> None:
    scan, resumed = await state.begin_scan("documents")
    assert not resumed
    assert scan.adopting
    assert await state.ranges(scan, "bucket") == []
    await merge(state, found(b"a"), found(b"b"))
    await merge(state, found(b"z"), bucket="other", done=True)
    again = await home.open()
    same, resumed = await again.begin_scan("documents")
    assert resumed
    assert (same.id, same.adopting, same.started) == (scan.id, True, scan.started)
    assert await again.ranges(same, "bucket") == [KeyRange(b"", b"b", None, done=False)]
    assert await again.ranges(same, "other") == [KeyRange(b"", b"z", None, done=True)]
    assert await again.ranges(same, "never") == []


async def test_the_next_scan_begins_at_the_beginning_and_adopts_nothing(
    home: Home, state: StateStore
) -> None:
    assert await state.last_scan("documents") == ScanSummary(None, False, 0)
    scan = await merge(state, found(b"a"), done=True)
    assert await state.last_scan("documents") == ScanSummary(None, True, 0)
    home.clock.now += 60
    await state.finish_scan(scan)
    await state.finish_scan(scan)
    assert await state.last_scan("documents") == ScanSummary(home.clock.now, False, 1, False)
    await state.drained("documents")
    await state.drained("documents")
    assert await state.last_scan("documents") == ScanSummary(home.clock.now, False, 1)
    following, resumed = await state.begin_scan("documents")
    assert (following.adopting, resumed) == (False, False)
    assert following.id != scan.id
    assert await state.ranges(following, "bucket") == []
    assert await state.last_scan("documents") == ScanSummary(home.clock.now, True, 1)


async def test_a_page_applied_twice_counts_once(state: StateStore) -> None:
    scan, _ = await state.begin_scan("documents")
    page = PageChanges("bucket", b"b", False, 2, 20, [found(b"a"), found(b"b")])
    await state.apply_page(scan, page)
    await state.apply_page(scan, page)
    await state.apply_page(scan, PageChanges("bucket", b"", True, 0, 0))
    await state.apply_page(scan, PageChanges("bucket", b"b", True, 0, 0))
    assert await state.ranges(scan, "bucket") == [KeyRange(b"", b"b", None, done=True)]
    await state.finish_scan(scan)
    assert (await state.last_scan("documents")).listed == 2
    assert await counts(state) == {(State.DISCOVERED, ""): 2}


def piece(
    start: bytes, cursor: bytes, cut: bytes | None = None, *, done: bool = False
) -> PageChanges:
    """Make a page without changes of the range from *start*."""
    return PageChanges("bucket", cursor, done, 0, 0, start=start, cut=cut)


async def test_a_range_is_cut_with_its_page_and_both_are_listed_by_themselves(
    home: Home, state: StateStore
) -> None:
    scan, _ = await state.begin_scan("documents")
    page = PageChanges("bucket", b"b", False, 1, 10, [found(b"b")], cut=b"m")
    await state.apply_page(scan, page)
    await state.apply_page(scan, page)
    await state.apply_page(scan, piece(b"m", b"p", b"t"))
    await state.apply_page(scan, piece(b"t", b"t", done=True))
    await state.apply_page(scan, piece(b"", b"k", done=True))
    again = await home.open()
    scan, _ = await again.begin_scan("documents")
    assert await again.ranges(scan, "bucket") == [
        KeyRange(b"", b"k", b"m", done=True),
        KeyRange(b"m", b"p", b"t", done=False),
        KeyRange(b"t", b"t", None, done=True),
    ]
    assert await counts(again) == {(State.DISCOVERED, ""): 1}


@pytest.mark.parametrize(
    "bad",
    [
        piece(b"", b"c", b"c"),
        piece(b"", b"c", b"b"),
        piece(b"", b"c", b"m"),
        piece(b"", b"c", b"x"),
        piece(b"", b"c", b"d", done=True),
        piece(b"a", b"c"),
    ],
)
async def test_ranges_never_overlap_nor_leave_gaps(state: StateStore, bad: PageChanges) -> None:
    scan, _ = await state.begin_scan("documents")
    await state.apply_page(scan, piece(b"", b"b", b"m"))
    before = await state.ranges(scan, "bucket")
    with pytest.raises(StateError):
        await state.apply_page(scan, bad)
    assert await state.ranges(scan, "bucket") == before


async def test_only_buckets_of_which_every_range_was_listed_are_listed_again(
    state: StateStore,
) -> None:
    scan, _ = await state.begin_scan("documents")
    await state.apply_page(scan, piece(b"", b"b", b"m"))
    await state.apply_page(scan, piece(b"m", b"p", done=True))
    await state.apply_page(scan, PageChanges("other", b"", True, 0, 0))
    await state.list_again("documents")
    assert len(await state.ranges(scan, "bucket")) == 2
    assert await state.ranges(scan, "other") == []
    await state.apply_page(scan, piece(b"", b"k", done=True))
    await state.list_again("documents")
    assert await state.ranges(scan, "bucket") == []


async def test_new_entries_that_are_known_already_become_new_versions(state: StateStore) -> None:
    await merge(state, found(b"a"), found(b"b"))
    await state.save([Change(it, State.VERIFIED) for it in await state.claim("documents", 9)])
    newer = Discovered(listed(b"b", 99, "e2"))
    await merge(state, found(b"a"), newer, found(b"c"))
    rows = await state.rows("documents", "bucket", b"", None)
    assert [(row.key, row.size, row.etag) for row in rows] == [
        (b"a", 10, "e1"),
        (b"b", 99, "e2"),
        (b"c", 10, "e1"),
    ]
    assert [(line.state, line.objects, line.bytes) for line in await state.totals("documents")] == [
        (State.DISCOVERED, 2, 109),
        (State.VERIFIED, 1, 10),
    ]
    assert await claim_keys(state) == [b"b", b"c"]


async def test_a_new_version_of_a_finished_object_is_claimed(state: StateStore) -> None:
    await merge(state, found(b"a"), found(b"b"))
    claimed = await state.claim("documents", 9)
    await state.save([Change(it, State.VERIFIED) for it in claimed])
    await merge(state, changed=[(claimed[0].id, Discovered(listed(b"a", 5, "e2")))])
    assert await claim_keys(state) == [b"a"]


async def test_an_ended_scan_takes_no_pages(state: StateStore) -> None:
    scan = await merge(state, found(b"a"))
    await state.finish_scan(scan)
    with pytest.raises(StateError, match="over or was forgotten"):
        await state.apply_page(scan, PageChanges("bucket", b"b", False, 1, 10, [found(b"b")]))
    assert await counts(state) == {(State.DISCOVERED, ""): 1}


async def test_a_page_that_cannot_be_applied_leaves_nothing(state: StateStore) -> None:
    scan, _ = await state.begin_scan("documents")
    twice = PageChanges("bucket", b"b", False, 2, 20, [found(b"b"), found(b"b")])
    with pytest.raises(StateError):
        await state.apply_page(scan, twice)
    assert await state.totals("documents") == []
    assert await state.ranges(scan, "bucket") == []
    await merge(state, found(b"b"))
    assert await counts(state) == {(State.DISCOVERED, ""): 1}


async def test_rows_come_in_byte_order_from_behind_after_up_to_upto(state: StateStore) -> None:
    await merge(state, *(found(key) for key in ODD_KEYS))
    await merge(state, found(b"m"), bucket="other")
    everything = await state.rows("documents", "bucket", b"", None)
    assert [row.key for row in everything] == ODD_KEYS
    after, upto = ODD_KEYS[3], ODD_KEYS[9]
    some = await state.rows("documents", "bucket", after, upto)
    assert [row.key for row in some] == ODD_KEYS[4:10]
    assert await state.rows("documents", "bucket", ODD_KEYS[-1], None) == []
    assert await state.rows("documents", "nowhere", b"", None) == []
    assert await state.rows("nobody", "bucket", b"", None) == []


async def test_keys_are_bytes_and_every_one_is_its_own_object(state: StateStore) -> None:
    await merge(state, *(found(key, size=n) for n, key in enumerate(ODD_KEYS)))
    claimed = await state.claim("documents", 100)
    assert {transfer.key: transfer.size for transfer in claimed} == {
        key: n for n, key in enumerate(ODD_KEYS)
    }
    await state.save([Change(it, State.VERIFIED) for it in claimed if it.key == b"a "])
    rows = await state.rows("documents", "bucket", b"", None)
    assert [row.key for row in rows if row.state is State.VERIFIED] == [b"a "]


async def test_known_leaves_out_skipped_and_failed_rows(state: StateStore) -> None:
    await merge(
        state,
        *(found(key) for key in ODD_KEYS),
        found(b"zz-failed", State.FAILED),
        found(b"zz-skipped", State.SKIPPED),
    )
    asked = [*ODD_KEYS, b"A.TXT", b"A", b"zz-failed", b"zz-skipped"]
    assert await state.known("documents", "bucket", asked) == set(ODD_KEYS)
    assert await state.known("documents", "other", asked) == set()
    assert await state.known("documents", "bucket", []) == set()
    many = [b"%d" % n for n in range(3000)] + [b"a"]
    assert await state.known("documents", "bucket", many) == {b"a"}


async def test_discovered_outcomes_are_recorded_as_they_are(state: StateStore) -> None:
    adopted = found(b"b", State.VERIFIED, method=Method.ADOPTED, proof=Proof.ETAG, target_etag="e1")
    refused = found(b"c", State.FAILED, reason="name_refused", message="no such name")
    await merge(state, found(b"a"), adopted, refused, found(b"d", State.SKIPPED, reason="exclude"))
    assert await state.totals("documents") == [
        Total("bucket", State.DISCOVERED, "", "", "", 1, 10),
        Total("bucket", State.VERIFIED, "", "adopted", "etag", 1, 10),
        Total("bucket", State.SKIPPED, "exclude", "", "", 1, 10),
        Total("bucket", State.FAILED, "name_refused", "", "", 1, 10),
    ]
    failed = [("bucket", b"c", "name_refused", "no such name")]
    assert await state.failures("documents", 10) == failed
    assert await claim_keys(state) == [b"a"]


async def test_a_vanished_object_is_skipped_unless_it_arrived_or_is_at_work(
    state: StateStore,
) -> None:
    await merge(state, found(b"arrived"), found(b"at-work"))
    arrived, at_work = await state.claim("documents", 2)
    await state.save([Change(arrived, State.VERIFIED)])
    await merge(state, found(b"idle"), found(b"lost", State.FAILED, reason="refused"))
    ids = [row.id for row in await state.rows("documents", "bucket", b"", None)]
    await merge(state, vanished=ids)
    assert await counts(state) == {
        (State.VERIFIED, ""): 1,
        (State.DISCOVERED, ""): 1,
        (State.SKIPPED, "source_gone"): 2,
    }
    await state.save([Change(at_work, State.VERIFIED)])
    assert await claim_keys(state) == []
    assert (await counts(state))[State.VERIFIED, ""] == 2


# --- claims ----------------------------------------------------------------------------------


async def test_claims_hand_out_each_transfer_once_in_order(state: StateStore) -> None:
    await state.open_flow(replace(FLOW, name="other"))
    await merge(state, found(b"c"), bucket="second")
    await merge(state, found(b"a"), found(b"b", State.SKIPPED), found(b"d"))
    await merge(state, found(b"x"), flow="other")
    assert await state.claim("documents", 0) == []
    first = await state.claim("documents", 2)
    assert [(it.bucket, it.key) for it in first] == [("second", b"c"), ("bucket", b"a")]
    assert await claim_keys(state) == [b"d"]
    assert await claim_keys(state) == []
    assert await claim_keys(state, flow="other") == [b"x"]


async def test_a_claimed_transfer_holds_all_that_was_listed(state: StateStore) -> None:
    entry = Listed(b"k\xff", 7, "abc-2", 1_600_000_000_123, "GLACIER")
    await merge(state, Discovered(entry))
    (transfer,) = await state.claim("documents", 1)
    assert transfer == Transfer(
        transfer.id,
        "documents",
        "bucket",
        b"k\xff",
        7,
        "abc-2",
        1_600_000_000_123,
        "GLACIER",
        State.DISCOVERED,
        1,
        0,
        None,
        None,
    )


async def test_released_transfers_are_claimed_again_in_order(state: StateStore) -> None:
    await merge(state, *(found(b"%d" % n) for n in range(6)))
    claimed = await state.claim("documents", 5)
    await state.release([claimed[3], claimed[1]])
    assert await claim_keys(state) == [b"1", b"3", b"5"]
    await state.release([])


async def test_what_a_dead_process_had_claimed_is_claimed_again(
    home: Home, state: StateStore
) -> None:
    await merge(state, found(b"a"), found(b"b"))
    assert await claim_keys(state) == [b"a", b"b"]
    assert await claim_keys(await home.open()) == [b"a", b"b"]


async def test_interrupted_transfers_come_first(home: Home, state: StateStore) -> None:
    await merge(state, found(b"a"), found(b"b"), found(b"c"))
    _, b, c = await state.claim("documents", 3)
    remembered = await state.remember_upload(c, "upload-c", 5)
    assert remembered == c._replace(state=State.TRANSFERRING, upload_id="upload-c", part_size=5)
    assert await claim_keys(state) == []
    await state.save([Change(b, State.TRANSFERRING, upload_id="upload-b", part_size=6)])
    again = await home.open()
    assert await again.uploads("documents") == {"upload-b", "upload-c"}
    claimed = await again.claim("documents", 2)
    assert claimed == [
        b._replace(state=State.TRANSFERRING, upload_id="upload-b", part_size=6),
        remembered,
    ]
    assert await claim_keys(again) == [b"a"]


async def test_an_upload_that_is_about_to_be_asked_for_leaves_its_mark(
    home: Home, state: StateStore
) -> None:
    await merge(state, found(b"a"))
    (transfer,) = await state.claim("documents", 1)
    intent = await state.remember_upload(transfer, "", 5)
    assert (intent.state, intent.upload_id) == (State.TRANSFERRING, None)
    again = await home.open()
    assert await again.uploads("documents") == set()
    (claimed,) = await again.claim("documents", 1)
    assert (claimed.state, claimed.upload_id) == (State.TRANSFERRING, None)
    assert await counts(again) == {(State.TRANSFERRING, ""): 1}


async def test_a_transfer_that_waits_is_claimed_when_its_time_has_come(
    home: Home, state: StateStore
) -> None:
    await merge(state, found(b"a"), found(b"b"), found(b"c"))
    a, b, c = await state.claim("documents", 3)
    now = int(home.clock.now * 1000)
    assert await state.next_retry("documents") is None
    await state.save(
        [
            Change(a, State.DISCOVERED, "stalled", attempts=2, retry_at=now + 5_000),
            Change(b, State.DISCOVERED, retry_at=now + 3_000),
            Change(c, State.DISCOVERED, upload_id="u", part_size=5, retry_at=now + 4_000),
        ]
    )
    state = await home.open()
    assert await claim_keys(state) == []
    assert await state.next_retry("documents") == home.clock.now + 3
    home.clock.now += 4
    claimed = await state.claim("documents", 10)
    assert [(it.key, it.state) for it in claimed] == [
        (b"c", State.DISCOVERED),
        (b"b", State.DISCOVERED),
    ]
    assert await state.next_retry("documents") == home.clock.now + 1
    home.clock.now += 1
    (late,) = await state.claim("documents", 10)
    assert (late.key, late.attempts) == (b"a", 2)
    assert await state.next_retry("documents") is None
    await state.release([late])
    assert await state.next_retry("documents") == home.clock.now


async def test_a_pending_change_without_a_wait_is_claimed_at_once(state: StateStore) -> None:
    await merge(state, found(b"a"), found(b"b"))
    a, _ = await state.claim("documents", 2)
    await state.save([Change(a, State.TRANSFERRED, attempts=1)])
    (again,) = await state.claim("documents", 2)
    assert again == a._replace(state=State.TRANSFERRED, attempts=1)


async def test_a_cancelled_claim_gives_back_what_it_took(state: StateStore) -> None:
    await merge(state, *(found(b"%03d" % n) for n in range(100)))
    for steps in range(6):
        task = asyncio.create_task(state.claim("documents", 10))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            await state.release(task.result())
    # The way back is queued behind the claim; one more call is behind both.
    await asyncio.sleep(0)
    assert await claim_keys(state) == [b"%03d" % n for n in range(100)]


# --- outcomes --------------------------------------------------------------------------------


async def test_saved_outcomes_are_final_and_counted(home: Home, state: StateStore) -> None:
    await merge(state, *(found(key, size=100) for key in (b"a", b"b", b"c")))
    a, b, c = await state.claim("documents", 3)
    await state.save(
        [
            Change(a, State.VERIFIED, method=Method.PUT, proof=Proof.ETAG, target_etag="t"),
            Change(b, State.FAILED, "access_denied", "403 for b", attempts=8),
            Change(c, State.SKIPPED, "target_exists"),
        ]
    )
    await state.save([])
    again = await home.open()
    assert await again.claim("documents", 5) == []
    assert await again.totals("documents") == [
        Total("bucket", State.VERIFIED, "", "put", "etag", 1, 100),
        Total("bucket", State.SKIPPED, "target_exists", "", "", 1, 100),
        Total("bucket", State.FAILED, "access_denied", "", "", 1, 100),
    ]
    rows = await again.rows("documents", "bucket", b"", None)
    assert [(row.state, row.reason) for row in rows] == [
        (State.VERIFIED, ""),
        (State.FAILED, "access_denied"),
        (State.SKIPPED, "target_exists"),
    ]


async def test_changes_of_one_batch_apply_in_their_order(state: StateStore) -> None:
    await merge(state, found(b"a"))
    (a,) = await state.claim("documents", 1)
    verified = Change(a, State.VERIFIED, method=Method.PUT, proof=Proof.MD5, dropped=("tags",))
    await state.save([verified, Change(a, State.DELETED)])
    assert await state.totals("documents") == [
        Total("bucket", State.DELETED, "", "put", "md5", 1, 10)
    ]
    assert await state.dropped("documents") == {"tags": 1}


async def test_a_deleted_object_keeps_its_proof(state: StateStore) -> None:
    await merge(state, found(b"a"))
    (a,) = await state.claim("documents", 1)
    await state.save([Change(a, State.VERIFIED, method=Method.MULTIPART, proof=Proof.CHECKSUM)])
    await state.save([Change(a, State.DELETED)])
    (line,) = await state.totals("documents")
    assert (line.state, line.method, line.proof) == (State.DELETED, "multipart", "checksum")


async def test_a_late_writer_changes_nothing_of_a_newer_version(state: StateStore) -> None:
    await merge(state, found(b"a"), found(b"b"))
    old, other = await state.claim("documents", 2)
    newer = Discovered(listed(b"a", 20, "e2"))
    await merge(state, changed=[(old.id, newer)])
    # One worker at a time on a key: the new version waits until the old one's worker is back.
    assert await claim_keys(state) == []
    await state.remember_upload(old, "late", 5)
    assert await state.uploads("documents") == set()
    await state.save([Change(old, State.VERIFIED), Change(other, State.VERIFIED)])
    (line, verified) = await state.totals("documents")
    assert (line.state, line.objects, line.bytes) == (State.DISCOVERED, 1, 20)
    assert (verified.state, verified.objects, verified.bytes) == (State.VERIFIED, 1, 10)
    (new,) = await state.claim("documents", 5)
    assert (new.id, new.etag, new.size) == (old.id, "e2", 20)
    assert new.generation > old.generation
    await state.save([Change(new, State.VERIFIED)])
    assert await counts(state) == {(State.VERIFIED, ""): 2}


async def test_a_new_version_forgets_the_old_ones_work(home: Home, state: StateStore) -> None:
    await merge(state, found(b"a"), found(b"b"), found(b"c"))
    a, b, c = await state.claim("documents", 3)
    later = int(home.clock.now * 1000) + 60_000
    await state.save(
        [
            Change(a, State.DISCOVERED, "stalled", "m", attempts=5, retry_at=later),
            Change(b, State.VERIFIED, method=Method.PUT, proof=Proof.ETAG, dropped=("tags",)),
            Change(c, State.FAILED, "refused", "no"),
        ]
    )
    assert await state.dropped("documents") == {"tags": 1}
    await merge(state, changed=[(it.id, Discovered(listed(it.key, 1, "e2"))) for it in (a, b, c)])
    claimed = await state.claim("documents", 10)
    assert [(it.key, it.etag, it.attempts, it.generation) for it in claimed] == [
        (b"a", "e2", 0, 2),
        (b"b", "e2", 0, 2),
        (b"c", "e2", 0, 2),
    ]
    assert await state.totals("documents") == [Total("bucket", State.DISCOVERED, "", "", "", 3, 3)]
    assert await state.dropped("documents") == {}
    assert await state.failures("documents", 5) == []


async def test_a_new_version_over_an_open_upload_is_marked_for_its_worker(
    home: Home, state: StateStore
) -> None:
    await merge(state, found(b"a"), found(b"b"))
    a, b = await state.claim("documents", 2)
    await state.remember_upload(a, "upload-a", 5)
    await state.remember_upload(b, "", 5)
    state = await home.open()
    newer = [(it.id, Discovered(listed(it.key, 1, "e2"))) for it in (a, b)]
    await merge(state, changed=newer)
    assert await state.uploads("documents") == set()
    claimed = await state.claim("documents", 5)
    assert [(it.state, it.upload_id) for it in claimed] == [(State.TRANSFERRING, None)] * 2


async def test_a_worker_can_go_on_with_the_version_it_met(state: StateStore) -> None:
    await merge(state, found(b"a"))
    (old,) = await state.claim("documents", 1)
    there = Listed(b"a", 33, "e9", 1_700_000_000_001, "STANDARD_IA")
    await state.save([Change(old, State.DISCOVERED, attempts=1, version=there)])
    (new,) = await state.claim("documents", 1)
    assert (new.size, new.etag, new.modified, new.storage_class) == there[1:]
    assert (new.attempts, new.generation) == (1, old.generation + 1)
    await state.save([Change(old, State.VERIFIED)])
    (line,) = await state.totals("documents")
    assert (line.state, line.objects, line.bytes) == (State.DISCOVERED, 1, 33)


async def test_dropped_fields_are_counted_once_an_object(state: StateStore) -> None:
    await merge(state, found(b"a"), found(b"b"), found(b"c"))
    a, b, c = await state.claim("documents", 3)
    await state.save(
        [
            Change(a, State.VERIFIED, dropped=("tags", "content-type")),
            Change(b, State.VERIFIED, dropped=("tags",)),
            Change(c, State.FAILED, "refused", dropped=("tags",)),
        ]
    )
    await state.save([Change(a, State.VERIFIED, dropped=("tags", "content-type"))])
    assert await state.dropped("documents") == {"tags": 2, "content-type": 1}


async def test_failures_can_be_read_and_retried_by_reason(home: Home, state: StateStore) -> None:
    await merge(state, *(found(b"%d" % n) for n in range(5)))
    claimed = await state.claim("documents", 5)
    for transfer in claimed[:3]:
        await fail(state, transfer, "access_denied")
    await fail(state, claimed[3], "too_large")
    assert await state.failures("documents", 2) == [
        ("bucket", b"0", "access_denied", "access_denied happened"),
        ("bucket", b"1", "access_denied", "access_denied happened"),
    ]
    assert await state.retry("documents", "no_such_reason") == 0
    assert await state.retry("documents", "access_denied") == 3
    assert await counts(state) == {
        (State.DISCOVERED, ""): 4,
        (State.FAILED, "too_large"): 1,
    }
    again = await state.claim("documents", 10)
    assert [(it.key, it.attempts) for it in again] == [(b"0", 0), (b"1", 0), (b"2", 0)]
    assert await state.retry("documents", None) == 1
    assert await claim_keys(state) == [b"3"]
    assert await state.failures("documents", 10) == []
    assert await claim_keys(await home.open()) == [b"%d" % n for n in range(5)]


# --- samples, cancelling, closing ------------------------------------------------------------


async def test_samples_are_kept_for_an_hour_a_second_apart(home: Home, state: StateStore) -> None:
    for at in (0.0, 0.4, 1.0, 1.9, 2.5, 3000.0):
        await state.sample("documents", Sample(at, int(at), 7))
    kept = [0.0, 1.0, 2.5, 3000.0]
    assert await state.samples("documents") == [Sample(at, int(at), 7) for at in kept]
    await state.sample("documents", Sample(3602.0, 9, 9))
    again = await home.open()
    assert [sample.at for sample in await again.samples("documents")] == [2.5, 3000.0, 3602.0]
    await again.sample("documents", Sample(2000.0, 9, 9))  # the clock was put back
    assert [sample.at for sample in await again.samples("documents")] == [2.5, 2000.0]


async def test_a_cancelled_write_happens_wholly_or_not_at_all(state: StateStore) -> None:
    await merge(state, *(found(b"%04d" % n, size=1) for n in range(1000)))
    for steps in range(8):
        claimed = await state.claim("documents", 100)
        before = (await counts(state)).get((State.VERIFIED, ""), 0)
        task = asyncio.create_task(state.save([Change(it, State.VERIFIED) for it in claimed]))
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        after = (await counts(state)).get((State.VERIFIED, ""), 0)
        rows = await state.rows("documents", "bucket", b"", None)
        assert after == sum(row.state is State.VERIFIED for row in rows)
        assert after - before in {0, len(claimed)}
        if after == before:
            await state.release(claimed)


async def test_a_cancelled_page_can_be_applied_again(state: StateStore) -> None:
    scan, _ = await state.begin_scan("documents")
    for number in range(8):
        keys = [b"%d-%03d" % (number, n) for n in range(200)]
        page = PageChanges("bucket", keys[-1], False, 200, 2000, [found(key) for key in keys])
        task = asyncio.create_task(state.apply_page(scan, page))
        for _ in range(number):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await state.apply_page(scan, page)
        assert await counts(state) == {(State.DISCOVERED, ""): 200 * (number + 1)}


async def test_concurrent_calls_take_turns(state: StateStore) -> None:
    await merge(state, *(found(b"%04d" % n) for n in range(400)))

    async def work() -> int:
        done = 0
        while claimed := await state.claim("documents", 7):
            await state.save([Change(it, State.VERIFIED) for it in claimed])
            done += len(claimed)
        return done

    assert sum(await asyncio.gather(*(work() for _ in range(8)))) == 400
    assert await counts(state) == {(State.VERIFIED, ""): 400}


async def test_a_closed_state_says_so(state: StateStore) -> None:
    await state.close()
    await state.close()
    with pytest.raises(StateError, match="closed"):
        await state.totals("documents")
    with pytest.raises(StateError, match="closed"):
        await state.begin_scan("documents")
