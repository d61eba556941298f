"""What has a time of its own: found when it comes, in order, and never handed to workers."""

from __future__ import annotations

import pytest

from s3flow.model import Change, Proof, State
from s3flow.ports import StateStore
from tests.contract.state_kit import FLOW, Home, found, home, merge, state

__all__ = ["home", "state"]
NAME = FLOW.name


@pytest.mark.parametrize("thawing", [State.RESTORE_REQUESTED, State.RESTORING])
async def test_what_thaws_is_found_by_its_time_and_not_handed_out(
    state: StateStore, thawing: State
) -> None:
    await merge(state, *(found(key) for key in (b"a", b"b", b"c")))
    by_key = {it.key: it for it in await state.claim(NAME, 10)}
    assert await state.next_due(NAME, thawing) is None
    due = {b"a": 3_000, b"b": 1_000, b"c": 2_000}
    await state.save([Change(by_key[key], thawing, due_at=due[key]) for key in due])
    assert await state.claim(NAME, 10) == []
    assert await state.next_retry(NAME) is None
    assert await state.next_due(NAME, thawing) == 1_000
    found_due = await state.due(NAME, thawing, 2_000, 10)
    assert [(it.transfer.key, it.at) for it in found_due] == [(b"b", 1_000), (b"c", 2_000)]
    assert found_due[0].transfer == by_key[b"b"]._replace(state=thawing)
    assert [it.transfer.key for it in await state.due(NAME, thawing, 9_000, 1)] == [b"b"]
    assert await state.due(NAME, State.VERIFIED, 9_000, 10) == []


async def test_what_has_thawed_is_claimed_in_the_order_of_its_times(
    home: Home, state: StateStore
) -> None:
    await merge(state, *(found(key) for key in (b"a", b"b", b"c")))
    claimed = await state.claim(NAME, 10)
    await state.save([Change(it, State.RESTORING, due_at=5) for it in claimed])
    thawed = [it.transfer for it in await state.due(NAME, State.RESTORING, 5, 10)]
    times = {b"a": 7, b"b": 9, b"c": 8}
    await state.save([Change(it, State.DISCOVERED, retry_at=times[it.key]) for it in thawed])
    assert await state.next_due(NAME, State.RESTORING) is None
    again = await home.open()
    assert [it.key for it in await again.claim(NAME, 10)] == [b"a", b"c", b"b"]


async def test_what_was_verified_is_due_with_its_proof_until_it_is_not(
    home: Home, state: StateStore
) -> None:
    await merge(state, found(b"a"), found(b"b"))
    one, other = await state.claim(NAME, 10)
    change = Change(one, State.VERIFIED, method="put", proof=Proof.ETAG, target_etag="t1")
    change.version_id, change.due_at = "v1", 4_000
    await state.save([change, Change(other, State.VERIFIED, method="put", proof=Proof.SIZE)])
    again = await home.open()
    (due,) = await again.due(NAME, State.VERIFIED, 4_000, 10)
    assert (due.method, due.proof, due.target_etag, due.version_id) == ("put", "etag", "t1", "v1")
    await again.save([Change(due.transfer, State.DELETED)])
    assert await again.next_due(NAME, State.VERIFIED) is None
    (record, _) = await again.records(NAME, "bucket")
    assert (record.state, record.method, record.proof) == (State.DELETED, "put", "etag")


async def test_a_new_version_is_due_for_nothing(state: StateStore) -> None:
    await merge(state, found(b"a"))
    (transfer,) = await state.claim(NAME, 10)
    await state.save([Change(transfer, State.RESTORING, due_at=5)])
    await merge(state, changed=[(transfer.id, found(b"a", size=11))])
    assert await state.next_due(NAME, State.RESTORING) is None
    assert [it.size for it in await state.claim(NAME, 10)] == [11]


async def test_restores_are_noted_and_counted_across_restarts(
    home: Home, state: StateStore
) -> None:
    await merge(state, *(found(key) for key in (b"a", b"b")))
    first, second = await state.claim(NAME, 10)
    assert await state.restores_since(NAME, 0) == (0, 0, 0)
    assert await state.note_restores([first, second], 1_000) == [1, 1]
    assert await state.note_restores([second], 2_000) == [2]
    assert await state.note_restores([], 2_000) == []
    again = await home.open()
    assert await again.restores_since(NAME, 999) == (3, 30, 1_000)
    assert await again.restores_since(NAME, 1_000) == (1, 10, 2_000)
    newer = second._replace(generation=second.generation + 1)
    assert await again.note_restores([newer], 3_000) == [1]  # another version was never restored
    await again.forget(NAME)
    assert await again.restores_since(NAME, 0) == (0, 0, 0)


async def test_what_has_thawed_early_is_looked_at_at_once(state: StateStore) -> None:
    await merge(state, *(found(key) for key in (b"a", b"b", b"c")))
    by_key = {it.key: it for it in await state.claim(NAME, 10)}
    await state.save(
        [
            Change(by_key[b"a"], State.RESTORING, due_at=9_000),
            Change(by_key[b"b"], State.RESTORING, due_at=100),
            Change(by_key[b"c"], State.RESTORE_REQUESTED, due_at=9_000),
        ]
    )
    bucket = by_key[b"a"].bucket
    assert await state.last_due(NAME, State.RESTORING) == 9_000
    assert await state.hasten(NAME, bucket, [b"a", b"b", b"c", b"none"], 500) == 1
    assert await state.hasten(NAME, "no-such-bucket", [b"a"], 500) == 0
    due = await state.due(NAME, State.RESTORING, 500, 10)
    assert [(it.transfer.key, it.at) for it in due] == [(b"b", 100), (b"a", 500)]
    assert await state.next_due(NAME, State.RESTORE_REQUESTED) == 9_000
    assert await state.last_due(NAME, State.VERIFIED) is None


@pytest.mark.parametrize("released", [True, False], ids=["given back", "recorded"])
async def test_a_newer_version_waits_for_the_delete_of_the_one_before(
    state: StateStore, released: bool
) -> None:
    await merge(state, found(b"a"))
    (transfer,) = await state.claim(NAME, 10)
    await state.save([Change(transfer, State.VERIFIED, proof=Proof.ETAG, due_at=5)])
    assert await state.claim_due(NAME, 4, 10) == []
    (due,) = await state.claim_due(NAME, 5, 10)
    assert due.transfer.id == transfer.id
    await merge(state, changed=[(transfer.id, found(b"a", size=11))])
    assert await state.claim(NAME, 10) == []  # its copy is not replaced while it is relied on
    if released:
        await state.release([due.transfer])
    else:
        await state.save([Change(due.transfer, State.DELETED)])
    (newer,) = await state.claim(NAME, 10)
    assert (newer.key, newer.size) == (b"a", 11)


async def test_due_objects_of_an_answer_that_was_lost_are_given_back_by_the_next_call(
    state: StateStore,
) -> None:
    await merge(state, found(b"a"), found(b"b"))
    await state.save(
        [
            Change(transfer, State.VERIFIED, proof=Proof.ETAG, due_at=5)
            for transfer in await state.claim(NAME, 10)
        ]
    )
    lost = await state.claim_due(NAME, 5, 10)
    changed = next(due.transfer for due in lost if due.transfer.key == b"a")
    await merge(state, changed=[(changed.id, found(b"a", size=11))])
    (due,) = await state.claim_due(NAME, 5, 10)
    assert due.transfer.key == b"b"
    (newer,) = await state.claim(NAME, 10)
    assert (newer.key, newer.size) == (b"a", 11)
    await merge(state, changed=[(due.transfer.id, found(b"b", size=11))])
    assert await state.claim(NAME, 10) == []  # this one is held still
