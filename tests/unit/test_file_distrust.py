"""Copies on disk, and what shows that they are the source's bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.errors import Refused
from s3flow.events import Retried
from s3flow.model import Outcome
from s3flow.policies import Mode
from s3flow.stores.local import LocalStore
from tests.faults import BitFlipping, Call, Faulty
from tests.unit.lab import PARTS, Lab

SIZE = 9500


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab(tmp_path)
    (tmp_path / "disk").mkdir()
    made.target = LocalStore("dst", tmp_path / "disk")
    made.change(**PARTS, lanes=2)
    return made


class TellsOfNoParts(Faulty):
    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.kwargs.get("part_number") is not None:
            raise Refused("no such parameter")
        return await go()


def written(lab: Lab) -> bytes:
    return (lab.folder / "disk" / "to" / "a").read_bytes()


@pytest.mark.parametrize("in_parts", [True, False], ids=["sent in parts", "in one piece"])
@pytest.mark.parametrize("part_size", [None, 1000], ids=["md5", "multipart etag"])
@pytest.mark.parametrize("tells", [True, False])
async def test_a_file_that_was_damaged_on_its_way_is_written_again(
    lab: Lab, in_parts: bool, part_size: int | None, tells: bool
) -> None:
    data = lab.put(b"a", SIZE, part_size=part_size)
    if not in_parts:
        lab.change(multipart_threshold=1_000_000)
    damaging = BitFlipping(lab.src, 10)
    lab.source = damaging if tells else TellsOfNoParts(damaging)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert damaging.times == 0
    assert written(lab) == data
    await lab.target.close()


@pytest.mark.parametrize("in_parts", [True, False], ids=["sent in parts", "in one piece"])
async def test_a_file_whose_source_states_no_digest_is_called_unproven(
    lab: Lab, in_parts: bool
) -> None:
    if not in_parts:
        lab.change(multipart_threshold=1_000_000)
    lab.put(b"a", SIZE, encryption="aws:kms")
    lab.change(mode=Mode.MOVE)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert {proof for _, proof in await lab.proofs()} == {"size"}
    assert lab.src.keys("from") == [b"a"]
    await lab.target.close()


@pytest.mark.parametrize("part_size", [None, 1000], ids=["md5", "multipart etag"])
async def test_an_etag_that_has_no_known_form_proves_no_file(
    lab: Lab, part_size: int | None
) -> None:
    lab.put(b"a", SIZE, part_size=part_size)
    lab.src.peek("from", b"a").etag = "of its own kind"  # type: ignore[union-attr]
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert {proof for _, proof in await lab.proofs()} == {"size"}
    await lab.target.close()


async def test_a_file_that_is_gone_when_it_is_to_be_compared_is_written_again(lab: Lab) -> None:
    """Nobody tells the parts of its source, so that both are read once more."""
    lab.change(multipart_threshold=1_000_000)
    data = lab.put(b"a", SIZE, part_size=1000)
    disk = lab.target

    class Losing(Faulty):
        times = 1

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "digest" and call.args[2] == "crc64nvme" and self.times:
                self.times -= 1
                return None
            return await go()

    lab.source, lab.target = TellsOfNoParts(lab.src), Losing(disk)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert [event.reason for event in lab.of(Retried)] == ["corrupted"]
    assert written(lab) == data
    await disk.close()
