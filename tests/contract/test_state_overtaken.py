"""What is late: changes and pages that a newer version has overtaken. The simulation found each of these."""

from __future__ import annotations

from s3flow.model import UNKNOWN_UPLOAD, Change, Discovered, Proof, State
from s3flow.ports import StateStore
from tests.contract.state_kit import FLOW, claim_keys, counts, found, home, listed, merge, state

__all__ = ["home", "state"]
NAME = FLOW.name


async def verified(state: StateStore) -> int:
    """Have an object verified that is due to be deleted; gives its row."""
    await merge(state, found(b"a"))
    (first,) = await state.claim(NAME, 9)
    done = Change(first, State.VERIFIED, method="put", proof=Proof.ETAG, due_at=1)
    await state.save([done])
    return first.id


async def test_a_delete_that_is_overtaken_does_not_end_the_claim_of_the_new_version(
    state: StateStore,
) -> None:
    row = await verified(state)
    (due,) = await state.due(NAME, State.VERIFIED, 10, 10)
    await merge(state, changed=[(row, Discovered(listed(b"a", 5, "e2")))])
    (at_work,) = await state.claim(NAME, 9)
    late = Change(due.transfer, State.DISCOVERED, version=listed(b"a", 5, "e2"))
    await state.save([late])
    assert await claim_keys(state) == []
    await state.save([Change(at_work, State.VERIFIED)])
    assert await claim_keys(state) == []
    assert await counts(state) == {(State.VERIFIED, ""): 1}


async def test_a_page_that_lists_what_was_moved_meanwhile_does_not_send_it_again(
    state: StateStore,
) -> None:
    row = await verified(state)
    page = [(row, Discovered(listed(b"a", 5, "e2")))]  # compared with the row as it is now
    (due,) = await state.due(NAME, State.VERIFIED, 10, 10)
    found_so = Change(due.transfer, State.DISCOVERED, version=listed(b"a", 5, "e2"))
    await state.save([found_so])
    (again,) = await state.claim(NAME, 9)
    await merge(state, changed=page)
    await state.save([Change(again, State.VERIFIED)])
    assert await counts(state) == {(State.VERIFIED, ""): 1}
    await merge(state, changed=page)
    assert await claim_keys(state) == []
    assert await counts(state) == {(State.VERIFIED, ""): 1}


async def test_what_is_to_go_again_goes_again(state: StateStore) -> None:
    row = await verified(state)
    await merge(state, changed=[(row, Discovered(listed(b"a"), again=True))])
    assert await claim_keys(state) == [b"a"]


async def test_what_vanished_and_may_have_an_upload_that_nobody_knows_is_left_to_a_worker(
    state: StateStore,
) -> None:
    await merge(state, found(b"a"))
    (first,) = await state.claim(NAME, 9)
    await state.remember_upload(first, "", 1000)
    await state.save([Change(first, State.TRANSFERRING)])
    await merge(state, vanished=[first.id])
    (left,) = await state.claim(NAME, 9)
    assert left.state is State.TRANSFERRING
    assert left.upload_id is None


async def test_the_upload_of_a_version_that_was_replaced_is_not_forgotten_with_it(
    state: StateStore,
) -> None:
    await merge(state, found(b"a"))
    (first,) = await state.claim(NAME, 9)
    begun = await state.remember_upload(first, "u1", 5)
    newer = Change(
        begun, State.TRANSFERRING, version=listed(b"a", 5, "e2")
    )  # u1 could not be aborted
    await state.save([newer])
    assert await state.abandoned_uploads(NAME) == [("bucket", b"a", "u1")]


async def test_an_upload_that_an_overtaken_claim_asks_for_is_known_before_it_can_be_open(
    state: StateStore,
) -> None:
    await merge(state, found(b"a"))
    (first,) = await state.claim(NAME, 9)
    await merge(state, changed=[(first.id, Discovered(listed(b"a", 5, "e2")))])
    await state.remember_upload(first, "", 1000)
    ((_, key, unknown),) = await state.abandoned_uploads(NAME)
    assert (key, unknown.startswith(UNKNOWN_UPLOAD)) == (b"a", True)
    await state.remember_upload(first, "u1", 1000)
    assert await state.abandoned_uploads(NAME) == [("bucket", b"a", "u1")]


async def test_a_delete_that_is_overtaken_was_done_and_stands_in_the_trail(
    state: StateStore,
) -> None:
    row = await verified(state)
    (due,) = await state.claim_due(NAME, 10, 10)
    await merge(state, changed=[(row, Discovered(listed(b"a", 5, "e2")))])
    await state.save([Change(due.transfer, State.DELETED, message="if its ETag matches")])
    assert await counts(state) == {(State.DISCOVERED, ""): 1}
    trail = await state.audit(NAME)
    assert [(each.fact, each.etag) for each in trail][-1] == ("deleted", due.transfer.etag)
    assert await claim_keys(state) == [b"a"]
