"""Copies inside the store that go wrong in ways that an answer does not tell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.events import Retried
from s3flow.model import Limits, Outcome, Span
from tests.faults import Call, Faulty
from tests.unit.lab import Lab, store

SIZE = 9500


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Give a lab whose stores are two accounts of one service, which copies 5,000 bytes at once."""
    src = store("src", "from")
    limits = Limits(min_part_size=1, max_put_size=5000)
    made = Lab(tmp_path, src, store("dst", "to", beside=src, limits=limits))
    made.change(part_size=1000, lanes=2)
    return made


# --- parts whose ETag says nothing ------------------------------------------------------------


class IgnoresRanges(Faulty):
    """A store that takes all of the source's object for each part of it."""

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == "complete_multipart_upload":
            stored = await go()
            stored.size = sum(part.size for part in call.args[3])  # the answer has no size
            return stored
        if call.method != "upload_part_copy":
            return await go()
        original, span = call.args[0], call.args[5]
        whole = Span(0, original.size)
        part = await self.inner.upload_part_copy(*call.args[:5], whole)
        return part._replace(size=span.size)  # nor has this one


async def test_parts_with_too_many_bytes_are_no_copy(lab: Lab) -> None:
    lab.put(b"a", SIZE, encryption="aws:kms")  # no ETag to compare
    lab.target = IgnoresRanges(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert {event.reason for event in lab.of(Retried)} == {"corrupted"}
    assert lab.uploads() == []


async def test_parts_that_somebody_wrote_over_are_copied_again(lab: Lab) -> None:
    lab.put(b"a", SIZE, encryption="aws:kms")

    class WrittenOver(Faulty):
        times = 1

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            stored = await go()
            if call.method == "complete_multipart_upload" and self.times:
                self.times -= 1
                self.inner.put("to", b"a", b"?" * SIZE)
            return stored

    lab.target = WrittenOver(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert [event.reason for event in lab.of(Retried)] == ["conflict"]


async def test_parts_are_proven_by_what_the_target_says_when_it_is_asked(tmp_path: Path) -> None:
    limits = Limits(min_part_size=1, max_put_size=5000)
    src = store("src", "from", with_checksums=True)
    lab = Lab(tmp_path, src, store("dst", "to", beside=src, with_checksums=True, limits=limits))
    lab.change(part_size=1000)
    lab.put(b"a", SIZE, encryption="aws:kms")

    class SaysNothing(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            stored = await go()
            if call.method == "complete_multipart_upload":
                stored.checksums = {}
            return stored

    lab.target = SaysNothing(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert await lab.proofs() == {("server_multipart", "checksum"): 1}
