"""Uploads to targets, and from sources, that hold, say or send what they should not."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine.verify import multipart_etag
from s3flow.errors import Conflict, ConnectionLost
from s3flow.events import BytesMoved
from s3flow.model import Attributes, Outcome, Part
from s3flow.policies import Overwrite
from tests.faults import BitFlipping, Call, Faulty, LostAnswer, Recording
from tests.unit.lab import PARTS, Lab, store

SIZE, COUNT = 9500, 10


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab(tmp_path)
    made.change(**PARTS, lanes=2)
    return made


class Watched(Recording):
    """Tells of every object that was at the key, however short: all there is to see of the target."""

    seen: list[bytes]

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.seen = []

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        answer = await super().around(call, go)
        if call.method in {"complete_multipart_upload", "put_object"}:
            self.seen.append(self.inner.peek("to", b"a").data)
        return answer


def part_of(number: int, data: bytes) -> tuple[bytes, Part]:
    etag = hashlib.md5(data, usedforsecurity=False).hexdigest()
    return data, Part(number, len(data), etag)


@pytest.mark.parametrize("number", [1, 10, 11])
@pytest.mark.parametrize("source", ["whole", "in parts", "sealed"])
async def test_a_part_that_is_none_of_the_plan_is_no_part_of_the_object(
    lab: Lab, number: int, source: str
) -> None:
    """Of a plan with other parts, or sent by others. Of what is sealed nothing but its size tells."""
    data = lab.put(
        b"a",
        SIZE,
        part_size=1000 if source == "in parts" else None,
        encryption="aws:kms" if source == "sealed" else "",
    )
    lab.stop_at(BytesMoved, 2)
    assert await lab.sync() == {Outcome.PENDING: 1}
    lab.subscribers.clear()
    [upload] = lab.dst._uploads.values()
    upload.parts[number] = part_of(number, b"of others")
    lab.target = target = Watched(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert target.seen == [data]


@pytest.mark.parametrize("part_size", [None, 1000])
async def test_what_the_source_s_checksum_shows_to_be_damaged_is_never_seen_at_the_target(
    lab: Lab, part_size: int | None
) -> None:
    lab.source = store("src", "from", with_checksums=True)
    data = lab.put(b"a", SIZE, part_size=part_size, encryption="" if part_size else "aws:kms")
    lab.source = BitFlipping(lab.src, 10)
    lab.target = target = Watched(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert target.seen == [data]


async def test_what_the_source_s_md5_shows_to_be_damaged_is_refused_by_the_target(lab: Lab) -> None:
    data = lab.put(b"a", 500)
    lab.source = BitFlipping(lab.src, 10)
    lab.target = target = Watched(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert target.seen == [data]


async def test_parts_are_not_sent_again_after_one_conflict(lab: Lab) -> None:
    """S3 says OperationAborted while it does something else at the key."""

    class InConflict(Recording):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            answer = super().around(call, go)
            if call.method == "complete_multipart_upload" and len(self.of(call.method)) == 0:
                self.calls.append(call)
                answer.close()
                raise Conflict("OperationAborted")
            return await answer

    lab.put(b"a", SIZE)
    lab.target = target = InConflict(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert len(target.of("upload_part")) == COUNT


async def test_parts_prove_nothing_of_an_object_whose_etag_is_not_theirs(lab: Lab) -> None:
    class Other(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            answer = await go()
            if call.method == "complete_multipart_upload":
                answer.etag = f"{'f' * 32}-{COUNT}"
            return answer

    lab.put(b"a", SIZE, encryption="aws:kms")
    lab.target = Other(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert await lab.proofs() == {("multipart", "size"): 1}


class Keyed(Faulty):
    """Encrypts each part, or one of them, under a key: its ETag has the form of an MD5, and is none."""

    def __init__(self, inner: Any, only: int = 0) -> None:
        super().__init__(inner)
        self.only = only

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        answer = await go()
        if call.method == "upload_part" and self.only in (0, answer.number):
            upload = self.inner._uploads[call.args[2]]
            data, part = upload.parts[answer.number]
            etag = hashlib.md5(b"sealed" + data, usedforsecurity=False).hexdigest()
            answer = part._replace(etag=etag, encryption="aws:kms")
            upload.parts[answer.number] = data, answer
        elif call.method == "complete_multipart_upload":
            answer.etag = multipart_etag(call.args[3])
        return answer


async def test_parts_whose_etags_say_nothing_are_not_read_again_for_them(lab: Lab) -> None:
    lab.put(b"a", SIZE, part_size=1000)
    lab.source = source = Recording(lab.src)
    lab.target = Keyed(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert len(source.of("get_object")) == COUNT


async def test_parts_that_were_compared_prove_the_whole_as_far_as_they_go(lab: Lab) -> None:
    lab.put(b"a", SIZE, encryption="aws:kms")
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert await lab.proofs() == {("multipart", "md5"): 1}


@pytest.mark.parametrize("stated", [False, True])
async def test_a_part_that_could_not_be_compared_leaves_the_whole_unproven(
    lab: Lab, stated: bool
) -> None:
    """That all was read as the source states it says nothing of what the target holds."""
    lab.source = store("src", "from", with_checksums=stated)
    lab.put(b"a", SIZE, encryption="aws:kms")
    lab.target = Keyed(lab.dst, only=3)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert await lab.proofs() == {("multipart", "size"): 1}


# --- completed by a process that died ---------------------------------------------------------------


async def completed_in_the_dark(lab: Lab) -> None:
    """Leave an object that was completed, and a row that does not know it."""

    class Dies(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            answer = await go()
            if call.method == "complete_multipart_upload":
                running.cancel()
                await asyncio.Event().wait()
            return answer

    lab.target = Dies(lab.dst)
    running = asyncio.create_task(lab.sync())
    with pytest.raises(asyncio.CancelledError):
        await running
    lab.target = lab.dst


async def test_what_was_completed_in_the_dark_is_read_back_and_sent_again_if_it_differs(
    lab: Lab,
) -> None:
    data = lab.put(b"a", SIZE)
    await completed_in_the_dark(lab)
    ours = lab.dst.peek("to", b"a")
    assert ours is not None
    lab.dst.put("to", b"a", b"!" + data[1:], part_size=1000, headers=ours.headers)
    assert lab.differences() == [b"a"]
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []


async def test_what_was_completed_in_the_dark_and_has_no_digest_is_called_unproven(
    lab: Lab,
) -> None:
    lab.put(b"a", SIZE, encryption="aws:kms")
    await completed_in_the_dark(lab)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert await lab.proofs() == {("multipart", "size"): 1}


async def test_what_was_completed_in_the_dark_is_no_object_of_others(lab: Lab) -> None:
    lab.change(overwrite=Overwrite.NEVER)
    lab.put(b"a", SIZE)
    await completed_in_the_dark(lab)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []


async def test_what_is_read_back_is_the_very_object_that_was_looked_at(lab: Lab) -> None:
    lab.put(b"a", SIZE)
    await completed_in_the_dark(lab)
    lab.target = target = Recording(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    ours = lab.dst.peek("to", b"a")
    assert ours is not None
    assert {call.kwargs["etag"] for call in target.of("get_object")} == {ours.etag}


async def test_a_part_that_others_replaced_while_an_attempt_failed_is_no_part_of_the_object(
    lab: Lab,
) -> None:
    """What was read of it and compared says nothing of the bytes that are in its place now."""
    lab.put(b"a", SIZE)

    class Replacing(Faulty):
        times = 1

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "upload_part" and call.args[3] == 5 and self.times:
                self.times -= 1
                self.inner._uploads[call.args[2]].take(2, b"!" * 1000, {})
                raise ConnectionLost("reset")
            return await go()

    lab.target = Replacing(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert lab.uploads() == []


# --- uploads of others ------------------------------------------------------------------------------


async def test_uploads_at_longer_keys_are_nobody_s_to_abort(lab: Lab) -> None:
    """Stores list uploads by what their keys begin with."""
    lab.put(b"a", SIZE)
    plain = Attributes({}, {}, "STANDARD", 0)
    theirs = await lab.dst.create_multipart_upload("to", b"a longer key", plain, 1)
    recording = Recording(lab.dst)
    lab.target = LostAnswer(recording, "create_multipart_upload")
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.uploads() == [theirs]
    aborted = [call.args[2] for call in recording.of("abort_multipart_upload")]
    assert len(aborted) == 1
    assert theirs not in aborted


# --- sources that change --------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [1000, 1_000_000], ids=["in parts", "in one piece"])
async def test_no_byte_of_a_later_version_is_taken_for_the_one_that_was_listed(
    lab: Lab, threshold: int
) -> None:
    """Of equal size, and with ETags that are no digests: only the condition on each read tells."""
    lab.put(b"a", SIZE, encryption="aws:kms")
    lab.change(multipart_threshold=threshold)
    new = bytes(SIZE)

    class Overwritten(Recording):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "get_object" and len(self.of("get_object")) == 3 * (threshold < SIZE):
                self.inner.put("from", b"a", new, encryption="aws:kms")
            return await super().around(call, go)

    lab.source = Overwritten(lab.src)
    lab.target = target = Watched(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.copy_of(b"a") == new
    assert target.seen in ([new], [])
    assert lab.query("SELECT etag FROM objects") == [(lab.src.peek("from", b"a").etag,)]  # type: ignore[union-attr]
