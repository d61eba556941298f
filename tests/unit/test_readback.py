"""What is read a second time is asked for otherwise: who answers wrongly may do so each time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine.readback import ReadAnew
from s3flow.model import Outcome, Span
from s3flow.policies import Mode
from tests.faults import BitFlipping, Call, Faulty, FaultyBody
from tests.unit.lab import PARTS, Lab, store


class Mistaken(Faulty):
    """The first *times* ranges arrive one byte further on, and say that they are those asked for."""

    def __init__(self, inner: Any, times: int) -> None:
        super().__init__(inner)
        self.times = times

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        body = await go()
        if call.method != "get_object" or call.kwargs.get("span") is None or not self.times:
            return body
        self.times -= 1
        data = b""
        while chunk := await body.read():
            data += bytes(chunk)
        body.close()
        turned = iter([memoryview(data[1:] + data[:1])])

        async def read(inner: object, offset: int) -> memoryview:
            del inner, offset
            return next(turned, memoryview(b""))

        return FaultyBody(body, read)


@pytest.mark.parametrize("size", [2, 700, 1500, 2000])
@pytest.mark.parametrize("times", [2, 3, 4])
async def test_bytes_that_are_wrong_in_the_same_way_twice_are_no_proof(
    tmp_path: Path, size: int, times: int
) -> None:
    lab = Lab(tmp_path)
    lab.change(**PARTS, lanes=1)
    lab.put(b"a", size, part_size=1000)
    lab.source = Mistaken(lab.src, times)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert lab.uploads() == []


@pytest.mark.parametrize("fault", [lambda it: BitFlipping(it, 250), lambda it: Mistaken(it, 1)])
@pytest.mark.parametrize(("size", "part_size"), [(1500, 400), (1500, 1500), (700, 700)])
async def test_that_the_target_holds_what_passed_says_nothing_of_what_was_read(
    tmp_path: Path, fault: Callable[[Any], Any], size: int, part_size: int
) -> None:
    lab = Lab(tmp_path, target=store("dst", "to", with_checksums=True))
    lab.change(**PARTS, mode=Mode.MOVE)
    data = lab.put(b"a", size, part_size=part_size)
    lab.source = fault(lab.src)
    assert await lab.sync() == {Outcome.DELETED: 1}
    assert lab.copy_of(b"a") == data


async def test_one_odd_answer_about_its_parts_does_not_leave_an_object_without_them(
    tmp_path: Path,
) -> None:
    class NotThereAtFirst(BitFlipping):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.kwargs.get("part_number") and not asked:
                asked.append(call.method)
                return None
            return await super().around(call, go)

    asked: list[str] = []
    lab = Lab(tmp_path)
    lab.change(**PARTS, mode=Mode.MOVE)
    data = lab.put(b"a", 1500, part_size=400)
    lab.source = NotThereAtFirst(lab.src, 450)
    assert await lab.sync() == {Outcome.DELETED: 1}
    assert lab.copy_of(b"a") == data


async def test_ranges_that_are_always_wrong_leave_nothing_at_the_target(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.change(**PARTS, max_attempts=2)
    lab.put(b"a", 1500, part_size=1000)
    lab.source = Mistaken(lab.src, -1)
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert await lab.failures() == {b"a": "corrupted"}
    assert lab.copy_of(b"a") is None


@pytest.mark.parametrize("size", [0, 1, 2, 3, 1000])
async def test_all_of_a_span_is_read_in_other_ranges(tmp_path: Path, size: int) -> None:
    lab = Lab(tmp_path)
    data = lab.put(b"a", size + 2)
    asked: list[Span] = []

    class Roads:
        async def turn(self) -> None:
            """Wait for nothing."""

        async def open(self, transfer: object, span: Span) -> Any:
            asked.append(span)
            return await lab.src.get_object("from", b"a", etag="", span=span)

    info = await lab.src.head_object("from", b"a")
    roads, nothing, span = Roads(), None, Span(1, size + 1)
    body = ReadAnew(roads, nothing, info, span)  # type: ignore[arg-type]
    read = b""
    while chunk := await body.read():
        read += bytes(chunk)
    assert read == data[1:-1]
    assert body.size == size
    assert size < 2 or span not in asked
