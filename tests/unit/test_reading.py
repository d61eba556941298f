"""That the target has each part as it passed does not show that it passed as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3flow.events import BytesMoved, Retried
from s3flow.model import Outcome
from s3flow.policies import Mode
from tests.faults import BitFlipping, LostAnswer, Recording
from tests.unit.lab import PARTS, Lab, store

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
