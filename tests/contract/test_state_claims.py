"""What a state promises of claims: each transfer is handed out once, in order, and given back."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from s3flow.model import Change, Discovered, Listed, State, Transfer
from s3flow.ports import StateStore
from tests.contract.state_kit import FLOW, Home, claim_keys, counts, found, home, merge, state

__all__ = ["home", "state"]  # fixtures


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
