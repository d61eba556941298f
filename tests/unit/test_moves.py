"""Moves: a source is deleted once its copy is proven and durable, and for no other reason."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from s3flow.events import Recorded, TransferEnded
from s3flow.model import Doomed, Outcome, State
from s3flow.policies import DeletePolicy, Mode
from s3flow.probes import DELETE_BYTES, DELETE_PROBE
from s3flow.records import Fact
from tests.faults import Call, Faulty, Recording
from tests.unit.lab import PARTS, Lab, left_tasks, store
from tests.unit.moves_kit import Before, arrived, facts, kept, lab, put_some, retry

__all__ = ["lab"]  # a fixture


# --- what is right --------------------------------------------------------------------------------


async def test_what_is_proven_is_deleted(lab: Lab) -> None:
    lab.change(**PARTS)
    data = {key: lab.put(key, size) for key, size in ((b"a", 10), (b"b", 0), (b"c", 2500))}
    assert await lab.sync() == {Outcome.DELETED: 3}
    assert lab.src.keys("from") == []
    assert arrived(lab, data)
    assert await left_tasks() == []
    assert await lab.sync() == {Outcome.DELETED: 3}


async def test_nothing_is_deleted_before_it_is_durable(lab: Lab) -> None:
    durable: set[bytes] = set()
    deleted: list[bytes] = []

    def record(event: object) -> None:
        if isinstance(event, Recorded):
            changes = (it for it in event.changes if it.state is State.VERIFIED)
            durable.update(it.transfer.key for it in changes)

    class Watched(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "delete_objects":
                keys = [each.key for each in call.args[1]]
                assert set(keys) <= durable
                deleted.extend(keys)
            return await go()

    data = put_some(lab, 50)
    lab.source = Watched(lab.src)
    lab.subscribers.append(record)
    assert await lab.sync() == {Outcome.DELETED: 50}
    assert sorted(deleted) == sorted(data)


async def test_the_trail_says_under_which_condition(lab: Lab) -> None:
    put_some(lab, 1)
    await lab.sync()
    verified, deleted = await facts(lab)
    assert (verified.fact, deleted.fact) == (Fact.VERIFIED, Fact.DELETED)
    assert deleted.proof == verified.proof != ""
    assert (deleted.etag, deleted.detail) == (verified.etag, "if its ETag matches")


async def test_many_are_deleted_in_one_request_where_the_store_compares_each(lab: Lab) -> None:
    put_some(lab, 300)
    lab.source = recording = Recording(lab.src)
    await lab.sync()
    sizes = [len(call.args[1]) for call in recording.of("delete_objects")]
    assert sum(sizes) == 300
    assert len(sizes) < 30
    assert len(recording.of("guard_of")) == 1


async def test_what_only_copied_is_deleted_when_the_flow_moves(lab: Lab) -> None:
    data = put_some(lab)
    lab.change(mode=Mode.COPY)
    assert await lab.sync() == {Outcome.VERIFIED: 5}
    lab.change(mode=Mode.MOVE)
    assert await lab.sync() == {Outcome.DELETED: 5}
    assert arrived(lab, data)


async def test_what_was_adopted_is_deleted(lab: Lab) -> None:
    data = put_some(lab)
    lab.change(mode=Mode.COPY)
    await lab.sync()
    lab.forget()
    lab.change(mode=Mode.MOVE)
    assert await lab.sync() == {Outcome.DELETED: 5}
    assert lab.src.keys("from") == []
    assert arrived(lab, data)


async def test_a_copy_deletes_nothing(lab: Lab) -> None:
    lab.change(mode=Mode.COPY)
    put_some(lab)
    lab.source = recording = Recording(lab.src)
    assert await lab.sync() == {Outcome.VERIFIED: 5}
    assert not recording.of("delete_objects")
    assert not recording.of("guard_of")


async def test_a_grace_period_keeps_sources_and_does_not_hold_a_sync(lab: Lab) -> None:
    put_some(lab)
    lab.change(delete_after=3600.0)
    assert await lab.sync() == {Outcome.VERIFIED: 5}
    assert len(lab.src.keys("from")) == 5
    [(due,)] = lab.query("SELECT min(due_at) - max(updated_at) FROM objects")
    assert 3_500_000 < due < 3_700_000


async def test_what_is_due_later_is_deleted_then(lab: Lab) -> None:
    put_some(lab)
    lab.change(delete_after=0.3)

    def stop_when_deleted(event: object) -> None:
        if isinstance(event, Recorded) and event.changes[0].state is State.DELETED:
            lab.stop.set()

    lab.subscribers.append(stop_when_deleted)
    assert await lab.sync(once=False) == {Outcome.DELETED: 5}


async def test_a_version_is_deleted_by_its_name(lab: Lab) -> None:
    lab.change(delete=DeletePolicy.VERSION)
    put_some(lab, 1)
    doomed: list[Doomed] = []

    class Versioned(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            answer = await go()
            if call.method == "head_object" and answer is not None:
                answer.version_id = "v1"
            elif call.method == "delete_objects":
                doomed.extend(call.args[1])
            return answer

    lab.source = Versioned(lab.src)
    assert await lab.sync() == {Outcome.DELETED: 1}
    assert [each.version_id for each in doomed] == ["v1"]
    assert (await facts(lab))[-1].detail == "by its version id"


# --- the source is another by now -----------------------------------------------------------------


async def test_what_was_overwritten_survives_and_is_moved_too(lab: Lab) -> None:
    put_some(lab)
    new: dict[bytes, bytes] = {}
    lab.source = Before(
        lab.src, "delete_objects", lambda: new.update({b"key 002": lab.put(b"key 002", 99)})
    )
    assert await lab.sync() == {Outcome.DELETED: 5}
    assert lab.copy_of(b"key 002") == new[b"key 002"]
    assert lab.src.keys("from") == []
    told = [(it.fact, it.reason) for it in await facts(lab) if it.key == b"key 002"]
    assert told == [
        ("verified", ""),
        ("changed", "source_changed"),
        ("verified", ""),
        ("deleted", ""),
    ]


async def test_what_is_gone_already_counts_as_deleted(lab: Lab) -> None:
    put_some(lab)
    lab.source = Before(
        lab.src, "delete_objects", lambda: lab.src._contents("from").objects.pop(b"key 001")
    )
    assert await lab.sync() == {Outcome.DELETED: 5}
    details = {it.key: it.detail for it in await facts(lab) if it.fact == Fact.DELETED}
    assert details[b"key 001"] == "it was gone already"


async def test_the_same_bytes_written_again_are_moved_again(lab: Lab) -> None:
    put_some(lab, 2)
    await lab.sync()
    lab.dst._contents("to").objects.pop(b"key 000")
    lab.dst._contents("to").keys.remove(b"key 000")
    data = put_some(lab, 1)
    assert await lab.sync() == {Outcome.DELETED: 2}
    assert arrived(lab, data)
    assert lab.src.keys("from") == []


async def test_a_page_older_than_the_delete_brings_nothing_back(lab: Lab) -> None:
    put_some(lab, 2)
    page = await lab.src.list_page("from", b"", b"")
    await lab.sync()

    class Stale(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            return page if call.method == "list_page" else await go()

    lab.source = Stale(lab.src)
    assert await lab.sync() == {Outcome.DELETED: 2}
    assert not lab.of(TransferEnded)


async def test_probes_for_deletes_are_none_of_the_flow_s_objects(lab: Lab) -> None:
    data = put_some(lab, 3)
    probe = DELETE_PROBE + b"0123456789abcdef"
    other = DELETE_PROBE + b"fedcba9876543210"
    lab.put(probe, len(probe))
    lab.put(other, len(DELETE_BYTES))
    lab.put(b"!before", 5)
    assert await lab.sync() == {Outcome.DELETED: 4}
    assert lab.src.keys("from") == [probe, other]
    assert arrived(lab, data)


async def test_what_people_call_like_a_probe_is_moved_as_all_else(lab: Lab) -> None:
    data = put_some(lab, 1)
    for key, size in ((b"1", 50), (b"0123456789abcdef", 5), (b"0123456789abcdef2", 50)):
        data[DELETE_PROBE + key] = lab.put(DELETE_PROBE + key, size)
    assert await lab.sync() == {Outcome.DELETED: 4}
    assert lab.src.keys("from") == []
    assert arrived(lab, data)


# --- the copy is not what it was ------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["gone", "other bytes"])
async def test_what_the_target_lost_is_moved_again_before_it_is_deleted(
    lab: Lab, loss: str
) -> None:
    data = put_some(lab)

    def lose() -> None:
        if loss == "gone":
            del lab.dst._contents("to").objects[b"key 003"]
            lab.dst._contents("to").keys.remove(b"key 003")
        else:
            lab.dst.put("to", b"key 003", b"of somebody else")

    lab.source = Before(lab.src, "guard_of", lose)
    assert await lab.sync() == {Outcome.DELETED: 5}
    assert arrived(lab, data)
    reasons = [it.reason for it in await facts(lab) if it.key == b"key 003"]
    assert reasons == ["", "target_lost", "", ""]


async def test_sizes_alone_are_not_enough(lab: Lab) -> None:
    lab.source = store("src", "from")
    lab.target = store("dst", "to", beside=lab.src)
    lab.put(b"sealed", 50, encryption="aws:kms")
    lab.put(b"plain", 50)
    assert await lab.sync() == {Outcome.DELETED: 1, Outcome.VERIFIED: 1}
    assert await kept(lab) == {"weak_proof": 1}
    assert lab.src.keys("from") == [b"sealed"]
    assert await retry(lab) == 0
    assert await lab.sync() == {Outcome.DELETED: 1, Outcome.VERIFIED: 1}
