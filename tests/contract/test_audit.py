"""What every state store tells of the past: its audit trail, its records, and by the old tool's names."""

from __future__ import annotations

from dataclasses import replace

from s3flow.model import Change, Method, PageChanges, Proof, State
from s3flow.ports import StateStore
from s3flow.records import Audited
from s3flow.state.store import SqlState
from tests.contract.audit_kit import facts, trail, verified
from tests.contract.state_kit import FLOW, ODD_KEYS, Home, fail, found, home, merge, row_id, state

__all__ = ["home", "state"]  # fixtures


# --- facts ----------------------------------------------------------------------------------------


async def test_an_outcome_is_a_fact_with_all_that_shows_it(home: Home, state: StateStore) -> None:
    await merge(state, found(b"a", size=11), found(b"b"))
    assert await trail(state) == []  # that something is to do is no fact
    one, two = await state.claim("documents", 9)
    home.clock.now += 5
    await state.save([verified(one, version_id="v7", worker=3), verified(two)])
    first, second = await trail(state)
    assert isinstance(state, SqlState)
    assert first == Audited(
        flow="documents",
        seq=1,
        at=1_700_000_005_000,
        fact="verified",
        bucket="bucket",
        key=b"a",
        size=11,
        etag="e1",
        target_etag="t1",
        version_id="v7",
        method="server_copy",
        proof="etag",
        reason="",
        detail="",
        worker=f"{state._process}/3",
        hash=first.hash,
    )
    assert (second.seq, second.worker) == (2, state._process)


async def test_failures_and_what_a_person_does_about_them_are_facts(state: StateStore) -> None:
    await merge(state, found(b"a"), found(b"b"))
    for transfer in await state.claim("documents", 9):
        await fail(state, transfer, "access_denied")
    assert await state.retry("documents", None) == 2
    (transfer, _) = await state.claim("documents", 9)
    await state.save([verified(transfer)])
    assert await facts(state) == [
        ("failed", b"a"),
        ("failed", b"b"),
        ("retried", b"a"),
        ("retried", b"b"),
        ("verified", b"a"),
    ]
    rows = await trail(state)
    assert (rows[0].reason, rows[0].detail) == ("access_denied", "access_denied happened")
    assert (rows[2].reason, rows[2].etag, rows[2].bucket) == ("access_denied", "e1", "bucket")


async def test_what_a_scan_decides_is_a_fact(state: StateStore) -> None:
    await merge(
        state,
        found(b"a", State.SKIPPED, reason="filtered"),
        found(b"b", State.VERIFIED, method=Method.ADOPTED, proof=Proof.ETAG, target_etag="t"),
        found(b"c"),
        found(b"d"),
    )
    await merge(state, vanished=[await row_id(state, b"d")])
    changed = await row_id(state, b"b")
    await merge(state, changed=[(changed, found(b"b", size=12))])
    pending = await row_id(state, b"c")
    await merge(state, changed=[(pending, found(b"c", size=12))])  # nothing was done of it yet
    rows = await trail(state)
    assert [(row.fact, row.key) for row in rows] == [
        ("skipped", b"a"),
        ("adopted", b"b"),
        ("vanished", b"d"),
        ("changed", b"b"),
    ]
    assert (rows[1].target_etag, rows[1].proof) == ("t", "etag")
    assert (rows[3].size, rows[3].target_etag) == (10, "t")  # of the version that was done
    assert "12 bytes" in rows[3].detail


async def test_what_changes_nothing_is_no_fact(state: StateStore) -> None:
    await merge(state, found(b"a"), found(b"b"))
    one, two = await state.claim("documents", 9)
    waiting = Change(one, State.DISCOVERED, reason="throttled", attempts=1, retry_at=5)
    begun = Change(one, State.TRANSFERRING, upload_id="u", part_size=5)
    await state.save([waiting, begun])
    await state.remember_upload(one, "other", 5)
    assert await trail(state) == []
    await state.save([verified(one), verified(one)])
    await state.save([verified(one)])
    await state.save([verified(two._replace(generation=77)), verified(two._replace(id=99))])
    assert await facts(state) == [("verified", b"a")]


async def test_a_page_that_is_applied_again_is_told_of_once(state: StateStore) -> None:
    scan, _ = await state.begin_scan("documents")
    new = [found(b"a", State.SKIPPED, reason="filtered")]
    page = PageChanges("bucket", b"a", False, 1, 10, new)
    await state.apply_page(scan, page)
    await state.apply_page(scan, page)
    assert await facts(state) == [("skipped", b"a")]


async def test_a_deletion_says_what_made_it_right(state: StateStore) -> None:
    await merge(state, found(b"a"))
    (transfer,) = await state.claim("documents", 9)
    await state.save([verified(transfer, version_id="v1")])
    gone = Change(transfer, State.DELETED, message="if its ETag is e1", target_etag="t1")
    await state.save([gone])
    row = (await trail(state))[-1]
    assert (row.fact, row.method, row.proof, row.detail) == (
        "deleted",
        "server_copy",
        "etag",
        "if its ETag is e1",
    )
    (record,) = await state.records("documents", "bucket")
    assert record.version_id == "v1"


async def test_the_trail_outlives_its_flow_and_goes_on(home: Home, state: StateStore) -> None:
    await merge(state, found(b"a"))
    (transfer,) = await state.claim("documents", 9)
    await state.save([verified(transfer)])
    assert await state.forget("documents")
    assert await facts(state) == [("verified", b"a"), ("forgotten", b"")]
    again = await home.open()
    await again.open_flow(FLOW)
    await merge(again, found(b"z", State.SKIPPED, reason="filtered"))
    rows = await trail(again)
    assert [(row.seq, row.fact) for row in rows] == [
        (1, "verified"),
        (2, "forgotten"),
        (3, "skipped"),
    ]


async def test_each_flow_has_its_own_chain(state: StateStore) -> None:
    await state.open_flow(replace(FLOW, name="other"))
    for flow in ("documents", "other", "documents"):
        key = b"%d" % len(await state.audit(flow))
        await merge(state, found(key, State.SKIPPED, reason="filtered"), flow=flow)
    assert [row.seq for row in await trail(state)] == [1, 2]
    assert [row.seq for row in await trail(state, "other")] == [1]
    assert await state.audit("never") == []


async def test_odd_keys_and_long_texts_stay_what_they_are(state: StateStore) -> None:
    await merge(state, *[found(key) for key in ODD_KEYS])
    transfers = await state.claim("documents", 99)
    text = "\u00fc'\"\\\x00\n\U0001f4a9 " * 300
    await state.save([Change(it, State.FAILED, "odd", text) for it in transfers])
    rows = await trail(state)
    assert [row.key for row in rows] == ODD_KEYS
    assert {row.detail for row in rows} == {text[:1000]}
    pages = [await state.audit("documents", after, 5) for after in range(0, len(rows), 5)]
    assert [row for page in pages for row in page] == rows


# --- records --------------------------------------------------------------------------------------


async def test_records_tell_all_that_is_known_page_by_page(home: Home, state: StateStore) -> None:
    await merge(state, *[found(key) for key in ODD_KEYS])
    await merge(state, found(b"k"), bucket="another")
    home.clock.now += 7
    (transfer, *_) = await state.claim("documents", 1)
    await state.save([verified(transfer, version_id="v", attempts=2, dropped=("tags",))])
    assert await state.buckets("documents") == ["another", "bucket"]
    assert await state.buckets("never") == []
    seen, after = [], b""
    while page := await state.records("documents", "bucket", after, 4):
        seen += page
        after = page[-1].key
    assert [record.key for record in seen] == ODD_KEYS
    (record,) = [it for it in seen if it.key == transfer.key]
    assert record._asdict() == {
        "bucket": "bucket",
        "key": transfer.key,
        "size": 10,
        "etag": "e1",
        "version_id": "v",
        "modified": 1_600_000_000_123,
        "storage_class": "STANDARD",
        "state": State.VERIFIED,
        "reason": "",
        "message": "",
        "method": "server_copy",
        "proof": "etag",
        "target_etag": "t1",
        "dropped": "tags",
        "attempts": 2,
        "discovered": 1_700_000_000_000,
        "updated": 1_700_000_007_000,
    }


async def test_a_new_version_has_not_the_id_of_the_old_one(state: StateStore) -> None:
    await merge(state, found(b"a"))
    (transfer,) = await state.claim("documents", 9)
    await state.save([verified(transfer, version_id="v1")])
    await merge(state, changed=[(transfer.id, found(b"a", size=12))])
    (record,) = await state.records("documents", "bucket")
    assert (record.version_id, record.state) == ("", State.DISCOVERED)
