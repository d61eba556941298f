"""What every state store tells of the source: its storage classes, buckets, and by the old tool's states."""

from __future__ import annotations

from s3flow.model import Change, Discovered, Listed, PageChanges, State
from s3flow.ports import StateStore
from s3flow.records import ClassStates, ClassTotal, Unlisted
from s3flow.state.store import SqlState
from tests.contract.audit_kit import query, text, verified
from tests.contract.state_kit import FLOW, Home, home, state

__all__ = ["home", "state"]  # fixtures
NAME = FLOW.name


async def listed(
    state: StateStore, bucket: str, classes: dict[bytes, str], *, done: bool = True
) -> None:
    """Merge a page of new objects of ten bytes, each of its class, into the scan under way."""
    scan, _ = await state.begin_scan(NAME)
    entries = [Listed(key, 10, "e", 0, classes[key]) for key in sorted(classes)]
    page = PageChanges(bucket, max(classes, default=b""), done, len(entries), 10 * len(entries))
    page.new = [Discovered(entry) for entry in entries]
    for name in set(classes.values()):
        number = sum(it == name for it in classes.values())
        page.classes[name] = (number, 10 * number)
    await state.apply_page(scan, page)


async def seen_again(state: StateStore, bucket: str, classes: dict[str, int]) -> None:
    """List a bucket again to its end, where nothing is new."""
    scan, _ = await state.begin_scan(NAME)
    number = sum(classes.values())
    page = PageChanges(bucket, b"zz", True, number, 10 * number)
    page.classes = {name: (count, 10 * count) for name, count in classes.items()}
    await state.apply_page(scan, page)


async def finish(state: StateStore) -> None:
    scan, _ = await state.begin_scan(NAME)
    await state.finish_scan(scan)


async def test_what_was_listed_is_counted_by_bucket_and_class(
    home: Home, state: StateStore
) -> None:
    await listed(state, "one", {b"a": "STANDARD", b"b": "GLACIER"}, done=False)
    await listed(state, "one", {b"c": "GLACIER"})
    await listed(state, "two", {b"x": "DEEP_ARCHIVE"})
    counted = [
        ClassTotal("one", "GLACIER", 2, 20),
        ClassTotal("one", "STANDARD", 1, 10),
        ClassTotal("two", "DEEP_ARCHIVE", 1, 10),
    ]
    assert await state.classes(NAME) == counted
    await finish(state)
    again = await home.open()
    assert await again.classes(NAME) == counted
    assert await again.classes("another") == []


async def test_a_page_that_comes_twice_counts_once(state: StateStore) -> None:
    for _ in range(2):
        await listed(state, "one", {b"a": "STANDARD"})
    assert await state.classes(NAME) == [ClassTotal("one", "STANDARD", 1, 10)]


async def test_a_bucket_shows_by_the_last_walk_that_saw_all_of_it(state: StateStore) -> None:
    await listed(state, "one", {b"a": "STANDARD"})
    await listed(state, "two", {b"x": "STANDARD"})
    await finish(state)
    await seen_again(state, "one", {"STANDARD": 5})
    scan, _ = await state.begin_scan(NAME)
    half = PageChanges("two", b"h", done=False, listed=3, listed_bytes=30)
    half.classes = {"STANDARD": (3, 30)}
    await state.apply_page(scan, half)
    assert [(it.bucket, it.objects) for it in await state.classes(NAME)] == [("one", 5), ("two", 1)]
    await finish(state)
    assert [(it.bucket, it.objects) for it in await state.classes(NAME)] == [("one", 5), ("two", 3)]
    assert len(await query(state, "SELECT * FROM classes")) == 2


async def test_what_is_listed_again_within_one_walk_counts_once(state: StateStore) -> None:
    await listed(state, "one", {b"a": "STANDARD", b"b": "GLACIER"})
    before = await state.classes(NAME)
    await state.list_again(NAME)
    assert await state.classes(NAME) == before  # it is known until it is known better
    await seen_again(state, "one", {"GLACIER": 3})
    assert await state.classes(NAME) == [ClassTotal("one", "GLACIER", 3, 30)]
    await state.list_again(NAME)
    await seen_again(state, "one", {})
    assert await state.classes(NAME) == []
    await finish(state)
    assert (await state.last_scan(NAME)).listed == 0


async def test_each_state_is_counted_by_class_on_demand(state: StateStore) -> None:
    assert isinstance(state, SqlState)
    await listed(state, "one", {b"a": "STANDARD", b"b": "GLACIER", b"c": "GLACIER"})
    one, two, _ = await state.claim(NAME, 3)
    await state.save([verified(one), Change(two, State.RESTORING, due_at=5)])
    assert await state.class_states(NAME) == [
        ClassStates("GLACIER", State.DISCOVERED, 1, 10),
        ClassStates("GLACIER", State.RESTORING, 1, 10),
        ClassStates("STANDARD", State.VERIFIED, 1, 10),
    ]


async def test_a_bucket_that_refuses_is_kept_with_its_reason_until_it_is_listed(
    home: Home, state: StateStore
) -> None:
    now = home.clock.now
    await state.note_unlisted(NAME, "closed", "access_denied", "no \N{PILE OF POO}")
    home.clock.now += 60
    await state.note_unlisted(NAME, "closed", "no_such_bucket", "gone")
    await state.note_unlisted(NAME, "other", "access_denied", "x" * 9000)
    again = await home.open()
    found = await again.unlisted(NAME)
    assert found[0] == Unlisted("closed", "no_such_bucket", "gone", now)
    assert (found[1].bucket, len(found[1].message)) == ("other", 1000)
    await again.forget_unlisted(NAME, ["closed", "never heard of"])
    assert [it.bucket for it in await again.unlisted(NAME)] == ["other"]
    await finish(again)
    assert await again.unlisted(NAME) == []


async def test_forgetting_a_flow_forgets_its_inventory(state: StateStore) -> None:
    await listed(state, "one", {b"a": "STANDARD"})
    await state.note_unlisted(NAME, "closed", "access_denied", "no")
    assert await state.forget(NAME)
    assert await query(state, "SELECT * FROM classes") == []
    assert await query(state, "SELECT * FROM unlisted") == []


# --- listing again -----------------------------------------------------------------------------


async def test_a_rescan_lists_again_what_is_being_drained(home: Home, state: StateStore) -> None:
    assert isinstance(state, SqlState)
    await listed(state, "one", {b"a": "STANDARD"})
    await finish(state)
    assert not (await state.last_scan(NAME)).drained
    await state.rescan(NAME, None)
    assert (await state.last_scan(NAME)).drained  # so that the next start begins a walk
    assert not (await state.last_scan(NAME)).unfinished


async def test_a_rescan_of_all_begins_an_unfinished_walk_anew(state: StateStore) -> None:
    assert isinstance(state, SqlState)
    await listed(state, "one", {b"a": "STANDARD"})
    await state.rescan(NAME, None)
    scan, resumed = await state.begin_scan(NAME)
    assert resumed
    assert await state.ranges(scan, "one") == []
    await seen_again(state, "one", {"STANDARD": 1})
    await finish(state)
    assert (await state.last_scan(NAME)).listed == 1


async def test_a_rescan_of_one_bucket_lists_no_other(state: StateStore) -> None:
    assert isinstance(state, SqlState)
    await listed(state, "one", {b"a": "STANDARD"})
    await listed(state, "two", {b"x": "GLACIER", b"y": "STANDARD"})
    await seen_again(state, "empty", {})
    await finish(state)
    await state.rescan(NAME, "one")
    scan, resumed = await state.begin_scan(NAME)
    assert resumed
    assert await state.ranges(scan, "one") == []
    (two,) = await state.ranges(scan, "two")
    assert two.done
    await seen_again(state, "one", {"STANDARD": 4})
    await finish(state)
    assert (await state.last_scan(NAME)).listed == 6  # what others had still counts
    assert [(it.bucket, it.objects) for it in await state.classes(NAME)] == [
        ("one", 4),
        ("two", 1),
        ("two", 1),
    ]


async def test_a_rescan_of_one_bucket_joins_the_walk_under_way(state: StateStore) -> None:
    assert isinstance(state, SqlState)
    await listed(state, "one", {b"a": "STANDARD"})
    await listed(state, "two", {b"x": "STANDARD"}, done=False)
    await state.rescan(NAME, "one")
    scan, resumed = await state.begin_scan(NAME)
    assert resumed
    assert await state.ranges(scan, "one") == []
    (two,) = await state.ranges(scan, "two")
    assert (two.cursor, two.done) == (b"x", False)
    await seen_again(state, "one", {"GLACIER": 1})
    assert await state.classes(NAME) == [
        ClassTotal("one", "GLACIER", 1, 10),
        ClassTotal("two", "STANDARD", 1, 10),
    ]


# --- the old tool's states -----------------------------------------------------------------------


async def test_the_old_tools_states_answer_its_queries(home: Home, state: StateStore) -> None:
    states = {
        b"a": State.DISCOVERED,
        b"b": State.TRANSFERRING,
        b"c": State.TRANSFERRED,
        b"d": State.VERIFIED,
        b"e": State.DELETED,
        b"f": State.RESTORE_REQUESTED,
        b"g": State.RESTORING,
        b"h": State.SKIPPED,
        b"i": State.FAILED,
        b"j": State.FAILED,
        b"\xff": State.DISCOVERED,
    }
    await listed(state, "one", dict.fromkeys(states, "GLACIER"))
    claimed = {it.key: it for it in await state.claim(NAME, 20)}
    await state.note_restores([claimed[b"g"]], 1_700_000_000_000)
    await state.save(
        [
            Change(
                claimed[key],
                it,
                "broken" if it is State.FAILED else "",
                "it broke"[: 8 * (key == b"i")],
            )
            for key, it in states.items()
            if it is not State.DISCOVERED
        ]
    )
    counted = await query(state, "SELECT state, COUNT(*) FROM files GROUP BY state;".rstrip(";"))
    assert {str(name): int(number) for name, number in counted} == {
        "discovered": 2,
        "downloading": 1,
        "downloaded": 1,
        "verified": 1,
        "deleted": 1,
        "glacier_restore_requested": 1,
        "glacier_restoring": 1,
        "skipped": 1,
        "error": 2,
    }
    failed = text(
        await query(state, "SELECT * FROM files WHERE state = 'error' ORDER BY error_message")
    )
    assert [row[:2] for row in failed] == [("one", "j"), ("one", "i")]
    columns = "bucket, size, etag, storage_class, last_modified, error_message, created_at"
    (row,) = text(
        await query(state, f"SELECT {columns} FROM files WHERE error_message = 'it broke'")
    )
    assert row[:4] == ("one", "10", "e", "GLACIER")
    assert row[4:6] == ("1970-01-01 00:00:00", "it broke")
    asked = "SELECT glacier_restore_requested_at FROM files WHERE state = 'glacier_restoring'"
    assert text(await query(state, asked)) == [("2023-11-14 22:13:20",)]
    odd = text(await query(state, "SELECT state FROM files WHERE `key` = 'hex:FF'"))
    assert odd == [("discovered",)]
    ours = await query(
        state, "SELECT state, COUNT(*) FROM inventory WHERE reason = 'broken' GROUP BY state"
    )
    assert [(str(name), int(number)) for name, number in ours] == [("failed", 2)]
