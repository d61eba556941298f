"""What every state store promises of flows, outcomes and calls, checked on each of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from s3flow.errors import FlowChanged, StateError
from s3flow.model import (
    Change,
    Discovered,
    Flow,
    Listed,
    Method,
    PageChanges,
    Place,
    Proof,
    Sample,
    ScanSummary,
    State,
    Total,
)
from s3flow.policies import Mode
from s3flow.ports import StateStore
from tests.contract.state_kit import (
    FLOW,
    Home,
    claim_keys,
    counts,
    fail,
    found,
    home,
    listed,
    merge,
    state,
)

__all__ = ["home", "state"]  # fixtures


# --- flows -------------------------------------------------------------------------------------


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


# --- outcomes ----------------------------------------------------------------------------------


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


# --- samples, cancelling, closing --------------------------------------------------------------


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
