"""Uploads that nobody would have aborted."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.errors import BadAnswer, ConnectionLost, Corrupted, StateLost
from s3flow.events import BytesMoved, Recorded, Retried
from s3flow.model import Filters, Outcome
from s3flow.state.sqlite import open_sqlite
from tests.faults import Call, Faulty, LostAnswer, Raising, Recording
from tests.unit.lab import PARTS, Lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


async def test_an_upload_that_could_not_be_aborted_is_aborted_later(lab: Lab) -> None:
    lab.change(**PARTS, max_attempts=2)
    lab.put(b"1", 3000)
    down = {"upload_part", "abort_multipart_upload"}
    lab.target = Raising(lab.dst, ConnectionLost("down"), lambda call: call.method in down)
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert len(lab.uploads()) == 1
    lab.target = lab.dst
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert lab.uploads() == []


async def test_an_upload_that_began_is_continued_though_it_would_go_in_one_piece_now(
    lab: Lab,
) -> None:
    lab.change(**PARTS)
    data = lab.put(b"1", 5000)
    lab.target = Raising(
        lab.dst, ConnectionLost("x"), lambda call: call.method == "upload_part" and call.args[3] > 2
    )
    lab.stop_at(Retried)
    assert await lab.sync() == {Outcome.PENDING: 1}
    assert len(lab.uploads()) == 1
    lab.subscribers.clear()
    lab.target = lab.dst
    lab.change(multipart_threshold=1_000_000)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.copy_of(b"1") == data
    assert lab.uploads() == []


class Down(Faulty):
    """Uploads cannot be listed the first time."""

    asked = 0

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "list_multipart_uploads":
            self.asked += 1
            if self.asked == 1:
                raise ConnectionLost("down")
        return await go()


class EveryOther(Faulty):
    """Every other part is lost on its way."""

    parts = 0

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "upload_part":
            self.parts += 1
            if self.parts % 2 == 0:
                raise ConnectionLost("lost")
        return await go()


async def test_an_object_of_many_parts_may_fail_as_often_as_it_gets_on(lab: Lab) -> None:
    lab.change(**PARTS, max_attempts=3, lanes=1)
    lab.put(b"1", 40_000)
    lab.target = EveryOther(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []


async def test_parts_that_are_sent_again_and_again_for_nothing_come_to_an_end(lab: Lab) -> None:
    lab.change(**PARTS, max_attempts=3)
    lab.put(b"1", 4000)
    lab.target = target = Recording(
        Raising(lab.dst, Corrupted("x"), lambda call: call.method == "complete_multipart_upload")
    )
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert len(target.of("upload_part")) == 12
    assert lab.uploads() == []


async def test_an_upload_that_nobody_knows_is_removed_before_its_object_waits_to_thaw(
    lab: Lab,
) -> None:
    lab.change(**PARTS)
    lab.put(b"1", 3000, storage_class="GLACIER")
    lab.src.restore("from", b"1")
    lab.target = LostAnswer(lab.dst, "create_multipart_upload")
    lab.stop_at(Retried)
    assert await lab.sync() == {Outcome.PENDING: 1}
    assert len(lab.uploads()) == 1
    lab.subscribers.clear()
    lab.target = lab.dst
    lab.src.put("from", b"1", lab.src.peek("from", b"1").data, storage_class="GLACIER")
    lab.src.restore_seconds = 3600
    lab.stop_at(Recorded)
    assert await lab.sync() == {Outcome.PENDING: 1}
    assert lab.query("SELECT state FROM objects") != [(3,)]  # it waits to thaw
    assert lab.uploads() == []


async def test_an_object_fails_only_once_an_upload_that_nobody_knows_was_looked_for(
    lab: Lab,
) -> None:
    lab.change(**PARTS, max_attempts=1)
    lab.put(b"1", 3000)
    lab.target = Down(LostAnswer(lab.dst, "create_multipart_upload", times=9))
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert lab.uploads() == []


async def test_uploads_that_nobody_knows_are_removed_though_their_objects_are_left_out_by_now(
    lab: Lab,
) -> None:
    lab.change(**PARTS)
    for key in (b"1", b"2", b"3"):
        lab.put(key, 3000)
    lab.target = LostAnswer(lab.dst, "create_multipart_upload", times=3)
    lab.stop_at(Retried, 3)
    assert await lab.sync() == {Outcome.PENDING: 3}
    assert len(lab.uploads()) == 3
    lab.subscribers.clear()
    for key in (b"1", b"2", b"3"):
        lab.put(key, 4000)
    lab.change(filters=Filters(exclude=("*",)))
    state = await open_sqlite(lab.folder / "state.db")
    await state.rescan("flow", None)
    await state.close()
    assert await lab.sync(scan_only=True) == {Outcome.SKIPPED: 3}
    lab.target = Down(lab.dst)  # at the first of them
    assert await lab.sync() == {Outcome.SKIPPED: 3}
    assert len(lab.uploads()) == 1
    assert await lab.sync() == {Outcome.SKIPPED: 3}
    assert lab.uploads() == []
    assert lab.query("SELECT * FROM abandoned") == []


@pytest.mark.parametrize("error", [ConnectionLost("down"), BadAnswer("about another")])
async def test_a_target_where_uploads_neither_begin_nor_are_listed_keeps_no_flow_from_its_end(
    lab: Lab, error: Exception
) -> None:
    lab.change(**PARTS, max_attempts=2)
    lab.put(b"1", 3000)
    broken = {"create_multipart_upload", "list_multipart_uploads"}
    lab.target = Raising(lab.dst, error, lambda call: call.method in broken)
    assert await lab.sync() == {Outcome.FAILED: 1}
    [(message,)] = lab.query("SELECT message FROM objects")
    assert "an upload may be left open" in message


class Waiting(Recording):
    """Takes no part before an upload is aborted."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.aborted = asyncio.Event()

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "upload_part":
            await self.aborted.wait()
        answer = await super().around(call, go)
        if call.method == "abort_multipart_upload":
            self.aborted.set()
        return answer


async def test_an_upload_that_goes_on_is_none_of_those_that_nobody_knows(lab: Lab) -> None:
    """Both are at one key: the object was taken again before the first could be looked for."""
    lab.change(**PARTS, lanes=1)
    lab.put(b"1", 3000)
    lab.target = LostAnswer(lab.dst, "create_multipart_upload")
    lab.stop_at(Retried)
    assert await lab.sync() == {Outcome.PENDING: 1}
    [unknown] = lab.uploads()
    lab.subscribers.clear()
    lab.put(b"1", 4000)
    for left_out, outcome in ((("*",), Outcome.SKIPPED), ((), Outcome.PENDING)):
        lab.change(filters=Filters(exclude=left_out))
        state = await open_sqlite(lab.folder / "state.db")
        await state.rescan("flow", None)
        await state.close()
        assert await lab.sync(scan_only=True) == {outcome: 1}
    lab.target = Down(lab.dst)
    lab.stop_at(BytesMoved)
    assert await lab.sync() == {Outcome.PENDING: 1}
    assert len(lab.uploads()) == 2
    lab.subscribers.clear()
    lab.target = target = Waiting(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert [call.args[2] for call in target.of("abort_multipart_upload")] == [unknown]
    assert target.of("create_multipart_upload") == []
    assert lab.differences() == []
    assert lab.uploads() == []


async def test_a_state_that_another_has_by_now_ends_the_daemon_before_an_upload_begins(
    lab: Lab,
) -> None:
    """Not even once may it be written to again, though it would answer."""
    lab.change(**PARTS)
    lab.put(b"1", 3000)
    lost = iter([True])

    def once(call: Call) -> bool:
        return call.method == "remember_upload" and next(lost, False)

    error = StateLost("another has it")
    lab.wrap_state = lambda state: Raising(state, error, once)  # type: ignore[assignment,return-value]
    with pytest.raises(BaseExceptionGroup) as caught:
        await lab.sync()
    assert caught.group_contains(StateLost)
    assert lab.dst.keys("to") == []
    assert lab.uploads() == []
