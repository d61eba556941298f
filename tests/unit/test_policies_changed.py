"""What settings that change, and retries, do to what was decided."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.errors import ConnectionLost
from s3flow.model import Filters, Outcome
from s3flow.policies import Overwrite
from s3flow.state.sqlite import open_sqlite
from tests.faults import Call, Faulty, Raising, Throttling
from tests.unit.lab import Lab, store


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


async def test_what_was_kept_is_replaced_once_the_policy_says_so(lab: Lab) -> None:
    data = lab.put(b"1", 10)
    lab.dst.put("to", b"1", b"another")
    lab.change(overwrite=Overwrite.NEVER)
    assert await lab.sync() == {Outcome.SKIPPED: 1}
    assert await lab.sync() == {Outcome.SKIPPED: 1}
    lab.change(overwrite=Overwrite.CHANGED)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.copy_of(b"1") == data


@pytest.mark.parametrize("nth", [1, 2])
async def test_two_answers_agree_before_an_object_is_left_for_what_is_there(
    lab: Lab, nth: int
) -> None:
    class MixedUp(Faulty):
        looks = 0

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            self.looks += call.method == "head_object"
            if call.method != "head_object" or self.looks != nth:
                return await go()
            other = await go() is None
            return await self.inner.head_object("to", b"another") if other else None

    lab.dst.put("to", b"another", b"0")
    lab.change(overwrite=Overwrite.NEVER)
    taken = nth == 2  # then the wrong answer says that it is free
    if taken:
        lab.dst.put("to", b"1", b"there")
    data = lab.put(b"1", 10)
    lab.target = MixedUp(lab.dst)
    assert await lab.sync() == {Outcome.SKIPPED if taken else Outcome.VERIFIED: 1}
    assert lab.copy_of(b"1") == (b"there" if taken else data)


async def test_always_means_always_also_for_what_is_there_already(lab: Lab) -> None:
    data = lab.put(b"1", 10, headers={"content-type": "text/plain"})
    lab.dst.put("to", b"1", data, headers={"content-type": "image/png"})
    lab.change(overwrite=Overwrite.ALWAYS)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    copy = lab.dst.peek("to", b"1")
    assert copy is not None
    assert copy.headers["content-type"] == "text/plain"


async def retry_all(lab: Lab) -> int:
    state = await open_sqlite(lab.folder / "state.db")
    try:
        return await state.retry(lab.flow.name, None)
    finally:
        await state.close()


async def test_a_retry_lets_nobody_take_the_place_of_another(lab: Lab) -> None:
    lab.change(rewrite=(("a/", "x/"), ("b/", "x/")))
    first = lab.put(b"a/1", 10)
    lab.put(b"b/1", 20)
    assert await lab.sync() == {Outcome.VERIFIED: 1, Outcome.FAILED: 1}
    assert await retry_all(lab) == 1
    assert await lab.sync() == {Outcome.VERIFIED: 1, Outcome.FAILED: 1}
    assert await lab.failures() == {b"b/1": "path_conflict"}
    assert lab.copy_of(b"a/1") == first


async def test_a_retry_gives_a_place_that_became_free(lab: Lab) -> None:
    lab.change(rewrite=(("a/", "x/"), ("b/", "x/")), max_attempts=1)
    lab.put(b"a/1", 10)
    second = lab.put(b"b/1", 20)
    lab.source = Raising(
        lab.src,
        ConnectionLost("x"),
        lambda call: call.method == "get_object" and call.args[1] == b"a/1",
    )
    assert await lab.sync() == {Outcome.FAILED: 2}
    lab.src._buckets["from"].objects.pop(b"a/1")
    lab.src._buckets["from"].keys.remove(b"a/1")
    await lab.sync()
    assert await retry_all(lab) == 1
    assert await lab.sync() == {Outcome.VERIFIED: 1, Outcome.SKIPPED: 1}
    assert lab.copy_of(b"b/1") == second


async def test_what_a_throttling_target_holds_is_adopted_all_the_same(lab: Lab) -> None:
    lab.source = store("src", "from", with_checksums=True)
    lab.target = store("dst", "to", with_checksums=True)
    for number in range(30):
        data = lab.put(b"%02d" % number, 10_000 + number, part_size=5000)
        lab.dst.put("to", b"%02d" % number, data)
    lab.target = Throttling(lab.dst, every=3, times=15)
    assert await lab.sync() == {Outcome.VERIFIED: 30}
    assert await lab.proofs() == {("adopted", "checksum"): 30}


@pytest.mark.parametrize(("left_out", "taken"), [("a/*", b"b/1"), ("b/*", b"a/1")])
async def test_what_the_filters_leave_out_takes_no_place_and_misses_none(
    lab: Lab, left_out: str, taken: bytes
) -> None:
    lab.put(b"a/1", 10)
    lab.put(b"b/1", 20)
    lab.change(rewrite=(("a/", "x/"), ("b/", "x/")), filters=Filters(exclude=(left_out,)))
    assert await lab.sync() == {Outcome.VERIFIED: 1, Outcome.SKIPPED: 1}
    assert await lab.failures() == {}
    assert lab.copy_of(b"a/1") == lab.src.peek("from", taken).data  # type: ignore[union-attr]
