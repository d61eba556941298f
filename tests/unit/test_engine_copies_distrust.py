"""Copies of which something else is true than what was known when they began."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from s3flow.errors import AccessDenied
from s3flow.events import BytesMoved, Retried
from s3flow.model import Outcome
from s3flow.policies import CopyBy, MethodPolicy
from s3flow.state.sqlite import open_sqlite
from tests.faults import Call, Faulty, Raising, Recording
from tests.unit.copies_kit import COPIES, SIZE, WrittenOver, calls, lab, refusing
from tests.unit.lab import Lab

__all__ = ["lab"]  # a fixture

REDIRECT = "x-amz-website-redirect-location"


def by_source(lab: Lab) -> None:
    """Let the source's credentials copy, and not the target's."""
    lab.target, lab.copier = refusing(lab.dst), Recording(lab.dst)


async def way_of_parts(lab: Lab) -> list[str]:
    state = await open_sqlite(lab.folder / "state.db", read_only=True)
    try:
        return [it.way for it in await state.verdicts("flow") if it.what == "parts"]
    finally:
        await state.close()


# --- who began an upload --------------------------------------------------------------------------


async def begun_by_source(lab: Lab) -> None:
    by_source(lab)
    lab.put(b"a", SIZE, part_size=1000)
    lab.stop_at(BytesMoved, 5)
    assert await lab.sync() == {Outcome.PENDING: 1}
    assert len(lab.uploads()) == 1
    lab.subscribers.clear()


async def test_what_the_source_s_go_on_with_says_nothing_of_the_target_s(lab: Lab) -> None:
    await begun_by_source(lab)
    lab.endpoints = "another configuration"  # all that was found out counts for nothing
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert await way_of_parts(lab) == [CopyBy.SOURCE]
    assert lab.differences() == []


async def test_an_upload_that_its_own_may_not_remove_is_removed_by_the_bucket_s(lab: Lab) -> None:
    await begun_by_source(lab)
    lab.change(method=MethodPolicy.STREAM_ONLY)
    lab.copier = Raising(lab.dst, AccessDenied("403"), lambda call: True)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert lab.uploads() == []


async def test_parts_that_the_source_s_may_not_any_more_are_copied_anew_by_the_target_s(
    lab: Lab,
) -> None:
    by_source(lab)
    lab.put(b"a", SIZE, part_size=1000)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert await way_of_parts(lab) == [CopyBy.SOURCE]

    class Stopping(Faulty):
        left = 4

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            self.left -= call.method in COPIES
            if call.method in COPIES and self.left < 0:
                raise AccessDenied("403")
            return await go()

    lab.target, lab.copier = Recording(lab.dst), Stopping(lab.dst)
    lab.put(b"b", SIZE, part_size=1000)
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    assert await lab.proofs() == {("server_multipart", "etag"): 2}
    assert calls(lab.target)["upload_part"] == 0
    assert lab.differences() == []
    assert lab.uploads() == []


# --- what became of it meanwhile ------------------------------------------------------------------


async def test_a_copy_by_the_source_s_that_somebody_wrote_over_is_made_again(lab: Lab) -> None:
    by_source(lab)
    lab.put(b"a", 100)
    lab.copier = WrittenOver(lab.dst, "copy_object", b"?" * 100)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert [event.reason for event in lab.of(Retried)] == ["conflict"]


async def test_a_copy_of_a_version_that_was_not_meant_does_not_stay(lab: Lab) -> None:
    """The store heeds no condition on what it copies, and no ETag tells; the next copy is refused."""
    lab.put(b"a", 100, encryption="aws:kms")
    lab.change(method=MethodPolicy.SERVER_ONLY)

    class Careless(Faulty):
        times = 1

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method != "copy_object":
                return await go()
            if not self.times:
                raise AccessDenied("403")
            self.times -= 1
            new = lab.src.put("from", b"a", b"?" * 100, encryption="aws:kms")
            original = call.args[0]._replace(etag=new.etag)
            return await self.inner.copy_object(original, *call.args[1:], **call.kwargs)

    lab.target = Careless(lab.dst)
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert lab.copy_of(b"a") is None


async def test_a_redirect_is_not_taken_from_another_object_s_answer(lab: Lab) -> None:
    lab.src.websites.add("from")
    lab.put(b"a", 100)
    lab.put(b"b", 200, headers={REDIRECT: "/elsewhere"})

    class MixedUp(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "head_object":
                return await self.inner.head_object("from", b"b")
            return await go()

    lab.source = MixedUp(lab.src)
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    assert REDIRECT not in lab.dst.peek("to", b"a").headers
    assert lab.dst.peek("to", b"b").headers[REDIRECT] == "/elsewhere"
