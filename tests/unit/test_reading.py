"""That the target has each part as it passed does not show that it passed as it was."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s3flow.errors import Refused
from s3flow.events import BytesMoved, Retried
from s3flow.model import Outcome
from s3flow.policies import Mode
from s3flow.stores.local import LocalStore
from tests.faults import BitFlipping, Call, Faulty, LostAnswer, Recording
from tests.unit.lab import PARTS, QUICK, Lab, store

SIZE, COUNT = 9500, 10


@pytest.fixture(params=[False, True], ids=["bare", "with-checksums"])
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Lab:
    """Give a lab with one object that was uploaded in one, and goes in ten parts."""
    made = Lab(tmp_path, source=store("src", "from", with_checksums=request.param))
    made.change(**PARTS, lanes=3)
    made.put(b"a", SIZE)
    return made


def reasons(lab: Lab) -> list[str]:
    return [event.reason for event in lab.of(Retried)]


@pytest.mark.parametrize("mode", list(Mode))
async def test_a_bit_that_turns_on_the_way_from_the_source_is_seen(lab: Lab, mode: Mode) -> None:
    lab.change(mode=mode)
    data = lab.src.peek("from", b"a")
    assert data is not None
    lab.source = BitFlipping(lab.src, 700)
    await lab.sync()
    assert reasons(lab) == ["corrupted"]
    assert lab.copy_of(b"a") == data.data
    assert lab.uploads() == []


async def test_one_that_turns_before_or_after_a_restart_is_seen_as_well(lab: Lab) -> None:
    lab.stop_at(BytesMoved, 3)
    source = lab.source
    assert await lab.sync() == {Outcome.PENDING: 1}
    lab.subscribers.clear()
    lab.source = BitFlipping(source, 700)  # of the part that comes next, or is read again
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert "corrupted" in reasons(lab)
    assert lab.differences() == []
    assert lab.uploads() == []


async def test_an_attempt_that_fails_is_continued_and_reads_nothing_twice(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.change(**PARTS, lanes=3)
    lab.put(b"a", SIZE)
    lab.source = source = Recording(lab.src)
    lab.target = LostAnswer(lab.dst, "upload_part", times=4)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert reasons(lab) == ["connection_lost"] * 4
    # Whose answer was lost has arrived: it is read once more, and not sent.
    assert len(source.of("get_object")) == COUNT + 4
    assert lab.differences() == []
    assert [proof for _, proof in await lab.proofs()] == ["md5"]


async def test_other_parts_at_the_target_are_read_from_the_start(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.change(**PARTS)
    lab.put(b"a", SIZE)
    lab.target = BitFlipping(lab.dst, 700)  # what is damaged there is found at once, and begun anew
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert reasons(lab) == ["corrupted"]
    assert lab.differences() == []
    assert lab.uploads() == []


class Opaque(Faulty):
    """A source whose multipart ETags are made of something else than the bytes."""

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        answer = await go()
        return None if call.method == "head_object" and "part_number" in call.kwargs else answer


@pytest.mark.parametrize("part_size", [900, 4000])
@pytest.mark.parametrize("size", [900, 4000])
async def test_a_damaged_file_of_a_source_with_a_multipart_etag_is_seen(
    tmp_path: Path, size: int, part_size: int
) -> None:
    (tmp_path / "disk").mkdir()
    lab = Lab(tmp_path, target=LocalStore("dst", tmp_path / "disk"))
    data = lab.put(b"a", size, part_size=part_size)
    lab.source = BitFlipping(lab.src, 700)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert reasons(lab) == ["corrupted"]
    assert (tmp_path / "disk" / "to" / "a").read_bytes() == data
    assert [proof for _, proof in await lab.proofs()] == ["md5"]


async def test_a_file_whose_parts_nobody_knows_is_proven_by_reading_its_source_again(
    tmp_path: Path,
) -> None:
    (tmp_path / "disk").mkdir()
    lab = Lab(tmp_path, target=LocalStore("dst", tmp_path / "disk"))
    data = lab.put(b"a", 4000, part_size=900)
    lab.source = source = Recording(Opaque(BitFlipping(lab.src, 700, times=1)))
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert reasons(lab) == ["corrupted"]
    spans = [call.kwargs["span"] for call in source.of("get_object")]
    assert [spans[0], spans[3]] == [None, None]  # and by two other ranges after each
    assert len(spans) == 6
    assert (tmp_path / "disk" / "to" / "a").read_bytes() == data
    assert [proof for _, proof in await lab.proofs()] == ["readback"]


class OnceRefusing(Faulty):
    """A source that refuses to tell of a part by its number, once, after it has told of others."""

    asked = 0

    def __init__(self, inner: Any, *, tells: bool) -> None:
        super().__init__(inner)
        self.tells = tells  # something, but not of parts

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        self.asked += call.method == "head_object" and "part_number" in call.kwargs
        if self.asked == 2:
            self.asked += 1
            if self.tells:
                return (await go())._replace(parts_count=None)
            raise Refused("a HEAD has no body that would say why")
        return await go()


@pytest.mark.parametrize("tells", [False, True])
async def test_parts_are_not_guessed_where_the_source_has_told_of_others(
    tmp_path: Path, tells: bool
) -> None:
    (tmp_path / "disk").mkdir()
    lab = Lab(tmp_path, target=LocalStore("dst", tmp_path / "disk"))
    lab.pace = replace(QUICK, concurrency=1)
    for key in (b"a", b"b"):
        lab.put(key, 4000, part_size=900)
    lab.source = OnceRefusing(lab.src, tells=tells)
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    assert {proof for _, proof in await lab.proofs()} == {"md5"}
