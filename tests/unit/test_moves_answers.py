"""Moves whose stores refuse, compare nothing, or whose answers are lost."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine import deleter, removing
from s3flow.errors import AccessDenied, ConnectionLost, Refused, S3flowError, StateError, Throttled
from s3flow.events import Kept
from s3flow.model import Outcome
from s3flow.policies import DeletePolicy, Guard, Mode
from s3flow.records import Fact
from s3flow.stores.memory import MemoryStore
from tests.faults import Call, Faulty, NthCallFails, Raising, Recording
from tests.unit.lab import Lab, left_tasks, store
from tests.unit.moves_kit import arrived, facts, kept, lab, put_some, retry

__all__ = ["lab"]  # a fixture


# --- stores that refuse, or do not compare --------------------------------------------------------


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


# --- answers that are lost ------------------------------------------------------------------------


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


# --- copies that are named by nothing -----------------------------------------------------------


class Nameless(Faulty):
    """A target that answers a PUT with no ETag, and the first *looks* at the copy as well."""

    def __init__(self, inner: MemoryStore, *, looks: int) -> None:
        super().__init__(inner)
        self.looks = looks

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        answer = await go()
        if call.method == "put_object":
            answer.etag = ""
        if call.method == "find" and b"a" in answer and self.looks:
            self.looks -= 1
            return {key: it._replace(etag="") for key, it in answer.items()}
        return answer


async def test_what_is_only_as_long_as_the_copy_is_not_taken_for_it(lab: Lab) -> None:
    lab.source = store("src", "from", with_checksums=True)
    target = store("dst", "to", with_checksums=True)
    lab.target = Nameless(target, looks=1)
    lab.put(b"a", 100)
    lab.change(mode=Mode.COPY)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    target.put("to", b"a", b"!" * 100)
    data = lab.src.peek("from", b"a").data  # type: ignore[union-attr]
    lab.change(mode=Mode.MOVE)
    assert await lab.sync() == {Outcome.DELETED: 1}
    assert lab.copy_of(b"a") == data


async def test_a_copy_that_got_its_name_later_is_known_by_its_source_s(lab: Lab) -> None:
    lab.source = store("src", "from", with_checksums=True)
    lab.target = target = Recording(Nameless(store("dst", "to", with_checksums=True), looks=0))
    data = lab.put(b"a", 100)
    assert await lab.sync() == {Outcome.DELETED: 1}
    assert [call.args[1] for call in target.of("put_object")].count(b"a") == 1
    assert lab.copy_of(b"a") == data
