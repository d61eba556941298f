"""Moves whose deletes meet trouble: what is waited out, what is told, and what goes on beside it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine import deleter, removing
from s3flow.errors import (
    ConnectionLost,
    CredentialsMissing,
    S3flowError,
    StateError,
    StateLost,
    Throttled,
)
from s3flow.events import DeletesHeld, FlowBlocked, Warned
from s3flow.model import Outcome, Place, State
from s3flow.policies import Guard, Mode
from tests.faults import Call, Faulty, Raising, Recording
from tests.unit.lab import Lab


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(deleter, "LINGER", 0.01)
    monkeypatch.setattr(deleter, "LOOK_AGAIN", 0.01)
    return Lab(tmp_path)


async def proven(lab: Lab, count: int) -> None:
    """Have copies, and a flow that moves from now on."""
    for number in range(count):
        lab.put(b"%03d" % number, 10)
    assert await lab.sync() == {Outcome.VERIFIED: count}
    lab.change(mode=Mode.MOVE)


class FirstTimes(Faulty):
    """The first *times* calls of *method* raise *error*."""

    def __init__(self, inner: Any, method: str, error: Exception, times: int) -> None:
        super().__init__(inner)
        self.method, self.error, self.times = method, error, times

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == self.method and self.times:
            self.times -= 1
            raise self.error
        return await go()


@pytest.mark.parametrize("error", [Throttled("slow down"), CredentialsMissing("expired")])
async def test_what_only_waits_costs_a_delete_no_attempt(lab: Lab, error: S3flowError) -> None:
    """Answers within an answer: each object of a request has its own."""

    class Each(Faulty):
        times = 6

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method != "delete_objects" or not self.times:
                return await go()
            self.times -= 1
            return [error] * len(call.args[1])

    await proven(lab, 3)
    lab.change(max_attempts=2)
    lab.source = Each(lab.src)
    assert await lab.sync() == {Outcome.DELETED: 3}


async def test_a_look_after_a_lost_delete_may_be_blocked(lab: Lab) -> None:
    class Lost(FirstTimes):
        lost = False

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "delete_objects" and not self.lost:
                self.lost = True
                raise ConnectionLost("no answer")
            return await (super().around(call, go) if self.lost else go())

    await proven(lab, 1)
    lab.source = Lost(lab.src, "head_object", CredentialsMissing("expired"), 1)
    assert await lab.sync() == {Outcome.DELETED: 1}
    assert [it.reason for it in lab.of(FlowBlocked)] == [CredentialsMissing.reason]


async def test_a_block_at_one_bucket_is_waited_out_before_the_next_is_asked(lab: Lab) -> None:
    for bucket in ("one", "two"):
        lab.src.put(bucket, b"key", b"bytes")
        lab.dst.make_bucket(bucket)
    lab.change(source=Place("src", "[ot][nw][eo]", b""), target=Place("dst", "{bucket}", b""))
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    lab.change(mode=Mode.MOVE)
    source = lab.source = Recording(lab.src)
    lab.source = FirstTimes(source, "guard_of", CredentialsMissing("expired"), 1)
    assert await lab.sync() == {Outcome.DELETED: 2}
    assert [call.args[0] for call in source.of("delete_objects")] == ["one", "two"]


async def test_deletes_that_wait_for_better_times_say_so(lab: Lab) -> None:
    await proven(lab, 1)
    lab.source = FirstTimes(lab.src, "delete_objects", ConnectionLost("no answer"), 1)
    assert await lab.sync() == {Outcome.DELETED: 1}
    [told] = [it.message for it in lab.of(Warned) if "wait to be deleted" in it.message]
    assert "no answer" in told


async def test_as_many_denials_as_are_tried_at_first_say_nothing_where_others_were_deleted(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removing, "FEW", 2)
    monkeypatch.setattr(deleter, "BATCH", 6)
    await proven(lab, 12)
    for key in (b"002", b"003"):
        lab.src.peek("from", key).locked = True  # type: ignore[union-attr]
    assert await lab.sync() == {Outcome.DELETED: 10, Outcome.VERIFIED: 2}


async def test_a_state_that_is_lost_ends_the_daemon_before_anything_more_is_deleted(
    lab: Lab,
) -> None:
    await proven(lab, 3)
    error = StateLost("another has it")
    lab.wrap_state = lambda state: Raising(  # type: ignore[assignment,return-value]
        state, error, lambda it: it.method == "claim_due"
    )
    with pytest.raises(BaseExceptionGroup) as caught:
        await lab.sync()
    assert caught.group_contains(StateLost)
    assert len(lab.src.keys("from")) == 3


async def test_copies_that_arrive_damaged_stop_deletes(lab: Lab) -> None:
    class Damaging(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            answer = await go()
            if call.method == "put_object" and call.args[1] < b"050":
                answer.etag = "0" * 32
            return answer

    for number in range(150):
        lab.put(b"%03d" % number, 10)
    lab.target = Damaging(lab.dst)
    lab.change(mode=Mode.MOVE, max_attempts=1)
    found = await lab.sync()
    assert found[Outcome.FAILED] == 50
    assert found[Outcome.DELETED] + found[Outcome.VERIFIED] == 100
    [held] = lab.of(DeletesHeld)
    assert held.reason == "circuit_breaker"
    assert "max_corrupted" in held.message


async def test_a_throttled_request_ends_its_batch(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removing, "FEW", 1)
    monkeypatch.setattr(removing, "SINGLY", 1)
    await proven(lab, 4)
    lab.src._guard = Guard.ONE
    source = Recording(lab.src)
    lab.source = FirstTimes(source, "delete_objects", Throttled("slow down"), 1)
    assert await lab.sync() == {Outcome.DELETED: 4}
    asked = [each.key for call in source.of("delete_objects") for each in call.args[1]]
    assert asked == [b"000", b"001", b"002", b"003"]  # none before the one that was throttled


async def test_what_was_copied_long_ago_has_its_days_of_grace_too(lab: Lab) -> None:
    await proven(lab, 3)
    lab.change(delete_after=3600.0)
    assert await lab.sync() == {Outcome.VERIFIED: 3}
    assert len(lab.src.keys("from")) == 3
    [(soonest,)] = lab.query("SELECT min(due_at) FROM objects")
    assert soonest / 1000 > time.time() + 3500


# --- claims, which a shared state keeps ------------------------------------------------------------


class Keeping(Recording):
    """Remembers what was given back; the first *in_vain* times that something is kept fail."""

    def __init__(self, inner: Any, in_vain: int) -> None:
        super().__init__(inner)
        self.in_vain = in_vain

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "save" and call.args[0][0].state is State.VERIFIED and self.in_vain:
            self.in_vain -= 1
            raise StateError("no answer")
        return await super().around(call, go)

    def given_back(self) -> list[list[bytes]]:
        found = [sorted(each.key for each in call.args[0]) for call in self.of("release")]
        return [keys for keys in found if keys]


def recording(lab: Lab, *, in_vain: int = 0) -> list[Keeping]:
    made: list[Keeping] = []

    def wrap(state: Any) -> Any:
        made.append(Keeping(state, in_vain))
        return made[-1]

    lab.wrap_state = wrap
    return made


async def test_what_is_deleted_is_not_given_back(lab: Lab) -> None:
    await proven(lab, 3)
    states = recording(lab)
    assert await lab.sync() == {Outcome.DELETED: 3}
    assert states[0].given_back() == []


async def test_what_could_not_be_deleted_is_given_back_before_the_next_try(lab: Lab) -> None:
    """Whoever stops meanwhile leaves nothing that only the end of a lease would free."""
    await proven(lab, 3)
    lab.source = FirstTimes(lab.src, "delete_objects", ConnectionLost("no answer"), 1)
    lab.stop_at(Warned)
    states = recording(lab)
    assert await lab.sync() == {Outcome.VERIFIED: 3}
    assert states[0].given_back() == [[b"000", b"001", b"002"]]


async def test_what_could_not_be_recorded_is_given_back(lab: Lab) -> None:
    await proven(lab, 3)
    lab.src.peek("from", b"001").locked = True  # type: ignore[union-attr]
    states = recording(lab, in_vain=1)
    assert await lab.sync() == {Outcome.DELETED: 2, Outcome.VERIFIED: 1}
    [again] = states[0].given_back()
    assert b"001" in again
