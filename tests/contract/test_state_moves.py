"""What moves ask of every state: what is due after all, what is tried again, what was listed, holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from s3flow.errors import StateError
from s3flow.model import Change, Method, Proof, State
from s3flow.policies import LOST_METADATA
from s3flow.ports import StateStore
from s3flow.records import Fact, Hold
from s3flow.state.address import SqliteAddress
from s3flow.state.holds import FileHolds
from s3flow.state.opening import open_holds
from tests.contract.state_kit import FLOW, Home, found, home, merge, state

__all__ = ["home", "state"]
NAME = FLOW.name
DONE = {"method": "put", "target_etag": "t"}


async def verified(state: StateStore, **proofs: str) -> None:
    """Have objects verified, each with its proof and without a time."""
    await merge(state, *(found(key.encode()) for key in sorted(proofs)))
    changes = []
    for it in await state.claim(NAME, 100):
        change = Change(it, State.VERIFIED, method="put", target_etag="t")
        change.proof = proofs[it.key.decode()]
        changes.append(change)
    await state.save(changes)


async def reasons(state: StateStore) -> dict[str, int]:
    found: dict[str, int] = {}
    for total in await state.totals(NAME):
        if total.state is State.VERIFIED:
            found[total.reason] = found.get(total.reason, 0) + total.objects
    return found


async def test_what_was_copied_before_is_due_unless_its_size_alone_proves_it(
    home: Home, state: StateStore
) -> None:
    await verified(state, a=Proof.ETAG, b=Proof.SIZE, c=Proof.MD5)
    adopted = replace(found(b"d"), state=State.VERIFIED, method=Method.ADOPTED, proof=Proof.ETAG)
    await merge(state, adopted)
    assert await state.next_due(NAME, State.VERIFIED) is None
    assert await state.make_due(NAME, 5_000) == 4
    assert await state.make_due(NAME, 6_000) == 0
    again = await home.open()
    due = await again.due(NAME, State.VERIFIED, 5_000, 10)
    assert sorted(it.transfer.key for it in due) == [b"a", b"c", b"d"]
    assert await reasons(again) == {"": 3, "weak_proof": 1}


async def test_what_was_copied_before_without_its_metadata_stays(state: StateStore) -> None:
    await merge(state, found(b"a"), found(b"b"))
    changes = [
        Change(it, State.VERIFIED, method="put", proof=Proof.ETAG, target_etag="t")
        for it in await state.claim(NAME, 2)
    ]
    changes[0].dropped = ("content-disposition", LOST_METADATA)
    changes[1].dropped = ("content-disposition",)
    await state.save(changes)
    assert await state.make_due(NAME, 5_000) == 2
    assert await reasons(state) == {"": 1, LOST_METADATA: 1}
    [due] = await state.due(NAME, State.VERIFIED, 5_000, 10)
    assert due.transfer.id == changes[1].transfer.id
    assert await state.retry(NAME, None) == 0


async def test_a_source_that_stays_keeps_its_proof_and_is_tried_again_when_told(
    home: Home, state: StateStore
) -> None:
    await verified(state, a=Proof.ETAG, b=Proof.SIZE, c=Proof.ETAG)
    await state.make_due(NAME, 5_000)
    first, other = await state.due(NAME, State.VERIFIED, 5_000, 10)
    denied = Change(first.transfer, State.VERIFIED, reason="delete_denied", message="no")
    failed = Change(other.transfer, State.VERIFIED, reason="delete_failed", message="never")
    await state.save([denied, failed])
    assert await state.next_due(NAME, State.VERIFIED) is None
    assert await reasons(state) == {"delete_denied": 1, "delete_failed": 1, "weak_proof": 1}
    record = (await state.records(NAME, "bucket"))[0]
    assert (record.method, record.proof, record.target_etag) == ("put", "etag", "t")
    assert (record.reason, record.message) == ("delete_denied", "no")
    told = [(it.fact, it.reason) for it in await state.audit(NAME)][-2:]
    assert told == [(Fact.KEPT, "delete_denied"), (Fact.KEPT, "delete_failed")]
    assert await state.make_due(NAME, 6_000) == 1  # another start may fare better, but not a denial
    assert await state.retry(NAME, "no_such_reason") == 0
    assert await state.retry(NAME, None) == 1
    again = await home.open()
    assert len(await again.due(NAME, State.VERIFIED, 2**60, 10)) == 2
    assert await reasons(again) == {"": 2, "weak_proof": 1}
    assert (await again.audit(NAME))[-1].fact == Fact.RETRIED


async def test_a_source_that_changed_is_pending_again_and_that_is_told(state: StateStore) -> None:
    await verified(state, a=Proof.ETAG)
    await state.make_due(NAME, 5_000)
    [due] = await state.due(NAME, State.VERIFIED, 5_000, 10)
    change = Change(due.transfer, State.DISCOVERED, reason="source_changed")
    change.version = found(b"a", size=77).entry
    await state.save([change])
    [transfer] = await state.claim(NAME, 10)
    assert (transfer.size, transfer.generation) == (77, due.transfer.generation + 1)
    last = (await state.audit(NAME))[-1]
    assert (last.fact, last.reason, last.size) == (Fact.CHANGED, "source_changed", 10)


async def test_scans_say_what_they_listed_and_what_was_deleted_since(state: StateStore) -> None:
    assert await state.last_counts(NAME) == []
    await verified(state, a=Proof.ETAG, b=Proof.ETAG, c=Proof.ETAG)
    scan, _ = await state.begin_scan(NAME)
    await state.finish_scan(scan)
    await state.make_due(NAME, 5)
    dues = await state.due(NAME, State.VERIFIED, 5, 2)
    await state.save([Change(it.transfer, State.DELETED) for it in dues])
    scan, _ = await state.begin_scan(NAME)
    await state.finish_scan(scan)
    newest, before = await state.last_counts(NAME)
    assert newest == (0, 0)
    assert before[1] == 2
    assert before[0] == 3


async def test_holds_are_there_beside_the_state_until_they_are_dropped(
    home: Home, state: StateStore
) -> None:
    ours, others = open_holds(home.address), open_holds(home.address)
    assert await ours.get(NAME) is None
    hold = Hold("something is odd", 1_700_000_000.5, tripped=True)
    await ours.put(NAME, hold)
    await ours.put(NAME, hold._replace(why="another reason"))
    assert await others.get(NAME) == hold._replace(why="another reason")
    assert await others.get("other") is None
    assert await others.drop(NAME)
    assert not await others.drop(NAME)
    assert await others.get(NAME) is None
    await home.open()


async def test_a_hold_that_cannot_be_read_holds(tmp_path: Path) -> None:
    holds = FileHolds(tmp_path / "state.db")
    file = tmp_path / "state.db.hold.flow"
    file.write_bytes(b"\xff nonsense")
    hold = await holds.get("flow")
    assert hold is not None
    assert str(file) in hold.why
    file.unlink()
    file.mkdir()
    with pytest.raises(StateError, match="cannot be used"):
        await holds.get("flow")
    with pytest.raises(StateError, match="cannot be used"):
        await holds.put("flow", hold)
    assert [it.name for it in tmp_path.iterdir()] == [file.name]
    assert isinstance(open_holds(SqliteAddress(tmp_path / "state.db")), FileHolds)
