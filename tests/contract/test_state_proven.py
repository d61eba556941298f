"""What proving copies again asks of the state: rows by key, refutals behind a fence, a mark that stays."""

from __future__ import annotations

from s3flow.model import Change, Proof, State, Transfer
from s3flow.policies import VERIFICATION_FAILED
from s3flow.ports import StateStore
from s3flow.records import Fact, Scrubbed
from tests.contract.state_kit import FLOW, ODD_KEYS, Home, found, home, merge, state

__all__ = ["home", "state"]
NAME = FLOW.name


def verified(transfer: Transfer) -> Change:
    return Change(transfer, State.VERIFIED, method="put", proof=Proof.ETAG, target_etag="t")


def refuted(transfer: Transfer) -> Change:
    return Change(transfer, State.FAILED, reason=VERIFICATION_FAILED, message="not equal")


async def test_transfers_are_given_by_key_from_a_start_on(state: StateStore) -> None:
    await merge(state, *(found(key) for key in ODD_KEYS))
    walked: list[bytes] = []
    start = b""
    while page := await state.transfers(NAME, "bucket", start, 5):
        walked += [it.transfer.key for it in page]
        start = walked[-1] + b"\x00"
    assert walked == ODD_KEYS
    for key in ODD_KEYS:
        (one,) = await state.transfers(NAME, "bucket", key, 1)
        assert (one.transfer.key, one.transfer.bucket) == (key, "bucket")
    assert await state.transfers(NAME, "other", b"") == []
    assert await state.transfers("nobody", "bucket", b"") == []


async def test_a_refuted_copy_has_failed_and_can_be_retried(state: StateStore) -> None:
    await merge(state, found(b"a"), found(b"b"))
    one, other = await state.claim(NAME, 10)
    await state.save([verified(one), verified(other)])
    (looked_at, _) = await state.transfers(NAME, "bucket", b"")
    assert (looked_at.transfer.state, looked_at.target_etag) == (State.VERIFIED, "t")
    held = await state.refute([refuted(looked_at.transfer)])
    assert [it.transfer.key for it in held] == [b"a"]
    assert await state.failures(NAME, 10) == [("bucket", b"a", VERIFICATION_FAILED, "not equal")]
    counted = {it.state: it.objects for it in await state.totals(NAME)}
    assert counted == {State.VERIFIED: 1, State.FAILED: 1}
    assert [it.fact for it in await state.audit(NAME)][-1] == Fact.FAILED
    assert await state.refute([refuted(looked_at.transfer)]) == []  # it is failed already
    assert await state.retry(NAME, VERIFICATION_FAILED) == 1
    assert [it.key for it in await state.claim(NAME, 10)] == [b"a"]


async def test_what_is_not_verified_in_that_version_is_not_refuted(state: StateStore) -> None:
    await merge(state, *(found(key) for key in (b"a", b"b", b"c")))
    by_key = {it.key: it for it in await state.claim(NAME, 10)}
    await state.save([verified(by_key[b"a"]), verified(by_key[b"b"])])
    seen = [it.transfer for it in await state.transfers(NAME, "bucket", b"")]
    await merge(state, changed=[(by_key[b"a"].id, found(b"a", size=11))])
    await state.save([Change(by_key[b"b"], State.DELETED)])
    before = await state.totals(NAME)
    assert await state.refute([refuted(it) for it in seen]) == []
    assert await state.totals(NAME) == before
    assert await state.failures(NAME, 10) == []


async def test_how_far_it_got_outlives_the_process_and_not_the_flow(
    home: Home, state: StateStore
) -> None:
    assert await state.scrubbed(NAME) is None
    for mark in (Scrubbed("b", b"", 1.5), Scrubbed("bucket", b"\xff\x00", 2.25)):
        await state.note_scrubbed(NAME, mark)
    again = await home.open()
    assert await again.scrubbed(NAME) == Scrubbed("bucket", b"\xff\x00", 2.25)
    await again.forget(NAME)
    await again.open_flow(FLOW)
    assert await again.scrubbed(NAME) is None
