"""Moves: a source is deleted once its copy is proven and durable, and for no other reason."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine import breaker, deleter, removing
from s3flow.errors import (
    AccessDenied,
    ConnectionLost,
    CredentialsMissing,
    Refused,
    S3flowError,
    StateError,
    Throttled,
)
from s3flow.events import (
    DeletesHeld,
    DeletesResumed,
    FlowBlocked,
    FlowUnblocked,
    Kept,
    Recorded,
    TransferEnded,
)
from s3flow.model import Change, Doomed, Outcome, State
from s3flow.policies import DeletePolicy, Guard, Mode
from s3flow.probes import DELETE_BYTES, DELETE_PROBE
from s3flow.records import Audited, Fact, Hold
from s3flow.state.sqlite import open_sqlite
from tests.faults import Call, Faulty, NthCallFails, Raising, Recording
from tests.unit.lab import PARTS, Lab, left_tasks, store


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(deleter, "LINGER", 0.01)
    monkeypatch.setattr(deleter, "LOOK_AGAIN", 0.01)
    lab = Lab(tmp_path)
    lab.change(mode=Mode.MOVE)
    return lab


def put_some(lab: Lab, count: int = 5) -> dict[bytes, bytes]:
    return {key: lab.put(key, 10 + n) for n in range(count) if (key := b"key %03d" % n)}


def arrived(lab: Lab, data: dict[bytes, bytes]) -> bool:
    return {key: lab.copy_of(key) for key in data} == data


async def facts(lab: Lab) -> list[Audited]:
    state = await open_sqlite(lab.folder / "state.db", read_only=True)
    try:
        return await state.audit(lab.flow.name)
    finally:
        await state.close()


async def kept(lab: Lab) -> dict[str, int]:
    found = [one for one in await lab.totals() if one.state is State.VERIFIED and one.objects]
    return {one.reason: one.objects for one in found}


async def retry(lab: Lab) -> int:
    state = await open_sqlite(lab.folder / "state.db")
    try:
        return await state.retry(lab.flow.name, None)
    finally:
        await state.close()


class Before(Faulty):
    """Does something before a call of one method, once."""

    def __init__(self, inner: Any, method: str, what: Callable[[], object]) -> None:
        super().__init__(inner)
        self.method, self.what, self.done = method, what, False

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == self.method and not self.done:
            self.done = True
            self.what()
        return await go()


# --- what is right ---------------------------------------------------------------------------


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


# --- the source is another by now --------------------------------------------------------------


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


# --- the copy is not what it was ----------------------------------------------------------------


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


# --- stores that refuse, or do not compare -------------------------------------------------------


async def test_a_store_that_ignores_the_condition_deletes_nothing(lab: Lab) -> None:
    lab.source = recording = Recording(store("src", "from", guard=Guard.NOT))
    data = put_some(lab)
    assert await lab.sync() == {Outcome.VERIFIED: 5}
    assert not recording.of("delete_objects")
    assert await kept(lab) == {"unguarded_delete": 5}
    assert arrived(lab, data)
    first = lab.of(Kept)[0]
    assert first.first
    assert "unguarded_delete = true" in first.change.message
    lab.change(unguarded_delete=True)
    assert await lab.sync() == {Outcome.DELETED: 5}
    assert {it.detail for it in await facts(lab) if it.fact == Fact.DELETED} == {
        "looked at just before, unguarded"
    }


@pytest.mark.parametrize("odd", [Refused("a redirect to nowhere"), None], ids=["refused", "none"])
async def test_one_odd_answer_takes_no_guard_away(lab: Lab, odd: Exception | None) -> None:
    class OddAtFirst(Recording):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            answer = await super().around(call, go)
            if call.method != "guard_of" or len(self.of("guard_of")) > 1:
                return answer
            if odd is not None:
                raise odd
            return Guard.NOT

    lab.source = OddAtFirst(lab.src)
    put_some(lab)
    assert await lab.sync() == {Outcome.DELETED: 5}
    assert {it.detail for it in await facts(lab) if it.fact == Fact.DELETED} == {
        "if its ETag matches"
    }


async def test_where_no_probe_may_be_written_nothing_is_deleted_unless_told(lab: Lab) -> None:
    lab.source = Raising(lab.src, AccessDenied("no PUT here"), lambda it: it.method == "guard_of")
    put_some(lab)
    assert await lab.sync() == {Outcome.VERIFIED: 5}
    assert "s3:PutObject" in lab.of(Kept)[0].change.message
    lab.change(unguarded_delete=True)
    assert await lab.sync() == {Outcome.DELETED: 5}


async def test_what_is_locked_stays_without_a_storm_and_until_it_is_retried(lab: Lab) -> None:
    put_some(lab)
    lab.src.peek("from", b"key 002").locked = True  # type: ignore[union-attr]
    lab.source = recording = Recording(lab.src)
    assert await lab.sync() == {Outcome.DELETED: 4, Outcome.VERIFIED: 1}
    assert await kept(lab) == {"delete_denied": 1}
    [told] = [it for it in await facts(lab) if it.fact == Fact.KEPT]
    assert (told.key, told.reason) == (b"key 002", "delete_denied")
    assert "legal hold" in told.detail
    recording.calls.clear()
    assert await lab.sync() == {Outcome.DELETED: 4, Outcome.VERIFIED: 1}
    assert not recording.of("delete_objects")
    lab.src.peek("from", b"key 002").locked = False  # type: ignore[union-attr]
    assert await retry(lab) == 1
    assert await lab.sync() == {Outcome.DELETED: 5}


async def test_a_bucket_that_denies_all_is_not_asked_for_each(lab: Lab) -> None:
    for key in put_some(lab, 200):
        lab.src.peek("from", key).locked = True  # type: ignore[union-attr]
    lab.source = recording = Recording(lab.src)
    assert await lab.sync() == {Outcome.VERIFIED: 200}
    assert await kept(lab) == {"delete_denied": 200}
    asked = sum(len(call.args[1]) for call in recording.of("delete_objects"))
    assert asked < 3 * removing.FEW


# --- answers that are lost -----------------------------------------------------------------------


@pytest.mark.parametrize("done", [True, False])
async def test_a_lost_answer_is_resolved_by_looking(lab: Lab, done: bool) -> None:
    class Loses(Faulty):
        lost = 0

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method != "delete_objects" or self.lost > 1:
                return await go()
            self.lost += 1
            if done:
                await go()
            raise ConnectionLost("no answer")

    put_some(lab)
    lab.source = Loses(lab.src)
    assert await lab.sync() == {Outcome.DELETED: 5}
    assert lab.src.keys("from") == []


class GoneOnce(Faulty):
    """Says once, when the source is looked at for its delete, that it is not there, as a proxy may."""

    lied = False

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "head_object" and call.args[1] == b"key 000" and not self.lied:
            self.lied = True
            return None
        return await go()


async def test_one_answer_that_a_source_is_gone_is_not_believed_after_a_lost_delete(
    lab: Lab,
) -> None:
    class Lost(GoneOnce):
        lost = False

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "delete_objects" and not self.lost:
                self.lost = True
                raise ConnectionLost("never arrived")
            return await (super().around(call, go) if self.lost else go())

    put_some(lab, 1)
    lab.source = source = Lost(lab.src)
    assert await lab.sync() == {Outcome.DELETED: 1}
    assert source.lied
    assert lab.src.keys("from") == []


async def test_nor_before_a_version_is_deleted(lab: Lab) -> None:
    put_some(lab, 1)
    lab.change(delete=DeletePolicy.VERSION)
    lab.source = source = GoneOnce(lab.src)
    assert await lab.sync() == {Outcome.DELETED: 1}
    assert source.lied
    assert lab.src.keys("from") == []
    assert (await facts(lab))[-1].detail == "if its ETag matches"


async def test_what_can_never_be_deleted_stays_in_the_end_and_is_tried_by_the_next_run(
    lab: Lab,
) -> None:
    put_some(lab)
    error = ConnectionLost("never an answer")
    lab.source = Raising(lab.src, error, lambda it: it.method == "delete_objects")
    lab.change(max_attempts=3)
    assert await lab.sync() == {Outcome.VERIFIED: 5}
    assert await kept(lab) == {"delete_failed": 5}
    lab.source = lab.src
    assert await lab.sync() == {Outcome.DELETED: 5}


async def test_a_flow_that_ends_without_deletes_finds_nothing_more_to_move(lab: Lab) -> None:
    class Recovers(Faulty):
        calls = 0

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "guard_of":
                self.calls += 1
                if self.calls <= deleter.FAILURES:
                    raise ConnectionLost("not now")
                # A look at the copies now would find one to be moved again, and nobody who does it.
                del lab.dst._contents("to").objects[b"key 003"]
                lab.dst._contents("to").keys.remove(b"key 003")
            return await go()

    put_some(lab)
    lab.source = Recovers(lab.src)
    assert await lab.sync() == {Outcome.VERIFIED: 5}
    lab.source = lab.src
    lab.dst.put("to", b"key 003", b"of somebody else")
    assert await lab.sync() == {Outcome.DELETED: 5}


@pytest.mark.parametrize("end", ["source", "target"])
@pytest.mark.parametrize("error", [ConnectionLost("x"), Throttled("x")])
async def test_any_call_of_a_store_may_fail(
    tmp_path: Path, end: str, error: S3flowError, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deleter, "LINGER", 0.001)
    n, calls = 1, 0
    while n == 1 or n <= calls:
        lab = fresh(tmp_path / str(n))
        data = put_some(lab, 3)
        faulty = NthCallFails(getattr(lab, end), n, error)
        setattr(lab, end, faulty)
        assert await lab.sync() == {Outcome.DELETED: 3}, f"call {n}"
        calls = faulty.calls
        assert lab.src.keys("from") == []
        assert arrived(lab, data), f"call {n}"
        assert await left_tasks() == []
        n += 1
    assert n > 6


async def test_any_call_of_the_state_may_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3flow.engine.recorder.STATE_RETRY", 0.001)
    monkeypatch.setattr(deleter, "LINGER", 0.001)
    made: list[NthCallFails] = []

    async def run(n: int) -> tuple[Lab, dict[bytes, bytes]]:
        lab = fresh(tmp_path / str(n))
        data = put_some(lab, 3)

        def wrap(inner: Any) -> Any:
            made.append(NthCallFails(inner, n, StateError("x")))
            return made[-1]

        lab.wrap_state = wrap
        try:
            await lab.sync()
        except (BaseExceptionGroup, StateError):
            there = set(lab.src.keys("from"))
            assert all(key in there or lab.copy_of(key) == data[key] for key in data), n
        lab.wrap_state = lambda state: state
        return lab, data

    await run(0)
    for n in range(1, made[0].calls + 1):
        lab, data = await run(n)
        assert await lab.sync() == {Outcome.DELETED: 3}, f"call {n}"
        assert lab.src.keys("from") == []
        assert arrived(lab, data), f"call {n}"
    assert made[0].calls > 15


class Killed(BaseException):
    """The process dies here."""


def fresh(folder: Path) -> Lab:
    folder.mkdir()
    lab = Lab(folder)
    lab.change(mode=Mode.MOVE)
    return lab


@pytest.mark.parametrize("before", [True, False])
async def test_death_around_a_delete_loses_nothing(lab: Lab, before: bool) -> None:
    data = put_some(lab)

    class Dies(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "delete_objects":
                if not before:
                    await go()
                raise Killed
            return await go()

    lab.source = Dies(lab.src)
    with pytest.raises(BaseException):  # noqa: B017  in a group or by itself
        await lab.sync()
    assert await kept(lab) == {"": 5}
    lab.source = lab.src
    assert await lab.sync() == {Outcome.DELETED: 5}
    assert arrived(lab, data)


# --- catches ---------------------------------------------------------------------------------------


async def test_a_flow_that_is_held_copies_and_deletes_nothing_until_released(lab: Lab) -> None:
    put_some(lab)
    await lab.holds.put("flow", Hold("of mine", 1.0))
    assert await lab.sync() == {Outcome.VERIFIED: 5}
    [held] = lab.of(DeletesHeld)
    assert (held.reason, held.message) == ("hold", "of mine")
    assert await lab.holds.drop("flow")
    assert await lab.sync() == {Outcome.DELETED: 5}


async def test_a_running_flow_is_held_and_released(lab: Lab) -> None:
    put_some(lab, 3)
    await lab.holds.put("flow", Hold("of mine", 1.0))
    held, resumed = asyncio.Event(), asyncio.Event()

    def watch(event: object) -> None:
        if isinstance(event, DeletesHeld):
            held.set()
        elif isinstance(event, DeletesResumed):
            resumed.set()
        elif isinstance(event, Recorded) and event.changes[0].state is State.DELETED:
            lab.stop.set()

    lab.subscribers.append(watch)
    running = asyncio.create_task(lab.sync(once=False))
    await held.wait()
    assert len(lab.src.keys("from")) == 3
    await lab.holds.drop("flow")
    assert await running == {Outcome.DELETED: 3}
    assert resumed.is_set()


async def test_a_block_ends_when_what_was_blocked_is_held(lab: Lab) -> None:
    class Blocked(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "guard_of":
                await lab.holds.put("flow", Hold("of mine", 1.0))
                raise CredentialsMissing("none")
            return await go()

    def watch(event: object) -> None:
        if isinstance(event, FlowUnblocked):  # or nothing archived would ever be asked for
            lab.stop.set()

    put_some(lab)
    lab.source = Blocked(lab.src)
    lab.subscribers.append(watch)
    assert await lab.sync(once=False) == {Outcome.VERIFIED: 5}
    assert [it.reason for it in lab.of(FlowBlocked)] == [CredentialsMissing.reason]


async def test_a_flow_does_not_end_because_its_hold_could_not_be_read_once(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deleter, "FAILURES", 1_000_000)  # however long the copies take
    put_some(lab)
    in_vain = 0

    class FailsFirst(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            nonlocal in_vain
            if call.method == "get":
                proven = sum(len(event.changes) for event in lab.of(Recorded))
                in_vain += proven >= 5
                if in_vain <= 2:
                    raise StateError("no answer")
            return await go()

    lab.holds = FailsFirst(lab.holds)
    assert await lab.sync() == {Outcome.DELETED: 5}
    assert in_vain > 2


async def test_holds_that_cannot_be_read_hold(lab: Lab) -> None:
    put_some(lab)
    lab.holds = Raising(lab.holds, StateError("no answer"), lambda it: it.method == "get")
    assert await lab.sync() == {Outcome.VERIFIED: 5}
    assert "no answer" in lab.of(DeletesHeld)[0].message


def outcome(lab: Lab, state: State, reason: str = "") -> Change:
    transfer: Any = type("Transfer", (), {"flow": lab.flow.name})()
    return Change(transfer, state, reason)


@pytest.mark.parametrize(("wrong", "trips"), [(5, False), (6, True)])
def test_the_breaker_trips_on_its_share_of_bad_copies(lab: Lab, wrong: int, trips: bool) -> None:
    tried = breaker.Breaker(lab.flow)
    right = [outcome(lab, State.VERIFIED)] * (breaker.LEAST - wrong)
    tried.recorded([outcome(lab, State.FAILED, "corrupted")] * wrong)
    assert tried.why == ""  # a few prove nothing
    tried.recorded(right)
    assert bool(tried.why) is trips
    tried.closed()
    assert tried.why == ""


@pytest.mark.parametrize(
    ("counts", "trips"),
    [
        ([(500, 0)], False),
        ([(500, 0), (1000, 0)], True),
        ([(501, 0), (1000, 0)], False),
        ([(0, 0), (1000, 1000)], False),  # all that was there was moved
        ([(0, 0), (1000, 800)], True),
        ([(100, 100), (1000, 800)], False),
        ([(0, 0), (99, 0)], False),
    ],
)
def test_the_breaker_trips_on_a_listing_that_lacks_too_much(
    lab: Lab, counts: Sequence[tuple[int, int]], trips: bool
) -> None:
    tried = breaker.Breaker(lab.flow)
    tried.listed(counts)
    assert bool(tried.why) is trips


async def test_a_listing_that_comes_back_half_empty_stops_deletes_until_released(lab: Lab) -> None:
    lab.change(delete_after=3600.0)
    put_some(lab, 200)
    assert await lab.sync() == {Outcome.VERIFIED: 200}

    class HalfEmpty(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            answer = await go()
            if call.method == "list_page":
                answer = answer._replace(entries=answer.entries[::2])
            return answer

    lab.source = HalfEmpty(lab.src)
    lab.change(delete_after=0.0)
    found = await lab.sync()
    assert found[Outcome.VERIFIED] >= 200
    [held] = lab.of(DeletesHeld)
    assert held.reason == "circuit_breaker"
    assert "max_missing" in held.message
    assert len(lab.src.keys("from")) >= 200
    lab.source = lab.src
    assert (await lab.sync())[Outcome.VERIFIED] >= 200  # another start does not forget it
    await lab.holds.drop("flow")
    await lab.sync()
    assert not lab.of(DeletesHeld)


async def test_a_target_that_loses_what_it_took_stops_deletes(lab: Lab) -> None:
    put_some(lab, 150)
    lab.change(mode=Mode.COPY)
    await lab.sync()
    lab.change(mode=Mode.MOVE)
    contents = lab.dst._contents("to")
    for key in contents.keys[::2]:
        del contents.objects[key]
    contents.keys[:] = sorted(contents.objects)
    await lab.sync()
    [held] = lab.of(DeletesHeld)
    assert held.reason == "circuit_breaker"
    assert lab.differences() == []
    assert len(lab.src.keys("from")) >= 75
