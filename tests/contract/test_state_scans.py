"""What a state promises of scans: pages, ranges, and what they make of rows."""

from __future__ import annotations

import pytest

from s3flow.errors import StateError
from s3flow.model import (
    Change,
    Discovered,
    KeyRange,
    Method,
    PageChanges,
    Proof,
    ScanSummary,
    State,
    Total,
)
from s3flow.ports import StateStore
from tests.contract.state_kit import (
    ODD_KEYS,
    Home,
    claim_keys,
    counts,
    found,
    home,
    listed,
    merge,
    state,
)

__all__ = ["home", "state"]  # fixtures


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
