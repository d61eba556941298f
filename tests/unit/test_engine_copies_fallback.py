"""Copies that a store refuses: what is streamed instead, and for how long."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from s3flow.engine import verdicts
from s3flow.engine.copying import ATTEMPTS
from s3flow.engine.verdicts import BOTH_KINDS, REFUSALS
from s3flow.errors import (
    AccessDenied,
    KeyRefused,
    NoSuchUpload,
    Refused,
    ServerError,
    SourceChanged,
    SourceGone,
    Throttled,
)
from s3flow.events import Retried, Warned
from s3flow.model import Outcome
from tests.faults import Call, Faulty, Raising, Recording
from tests.unit.copies_kit import COPIES, COUNT, SIZE, calls, lab, refusing
from tests.unit.lab import QUICK, Lab

__all__ = ["lab"]  # a fixture


@pytest.mark.parametrize(
    "error",
    [
        AccessDenied("no (403)"),
        Refused("501 NotImplemented"),
        SourceGone("404"),
        SourceChanged("412"),
        KeyRefused("400 KMS.DisabledException"),
    ],
)
async def test_where_copies_are_refused_everything_is_streamed_and_nothing_fails(
    lab: Lab, error: Exception
) -> None:
    for number in range(40):
        lab.put(b"%d" % number, 100)
    lab.target = target = refusing(lab.dst, error)
    assert await lab.sync() == {Outcome.VERIFIED: 40}
    assert lab.differences() == []
    assert await lab.proofs() == {("put", "etag"): 40}
    assert sum(calls(target)[name] for name in COPIES) <= REFUSALS
    assert lab.of(Retried) == []
    [warned] = lab.of(Warned)
    assert "streamed" in warned.message
    assert str(error) in warned.message
    assert lab.uploads() == []


async def test_where_parts_alone_are_refused_whole_objects_are_still_copied(lab: Lab) -> None:
    lab.change(lanes=1)
    for number in range(20):
        lab.put(b"%02d" % number, 100)
        lab.put(b"%02d-parts" % number, SIZE, part_size=1000)
    denied = AccessDenied("no (403)")
    lab.target = target = Recording(
        Raising(lab.dst, denied, lambda call: call.method == "upload_part_copy")
    )
    assert await lab.sync() == {Outcome.VERIFIED: 40}
    assert lab.differences() == []
    assert await lab.proofs() == {("server_copy", "etag"): 20, ("multipart", "etag"): 20}
    assert calls(target)["upload_part_copy"] <= REFUSALS
    assert len(target.of("create_multipart_upload")) == 20
    [warned] = lab.of(Warned)
    assert "objects in parts" in warned.message
    assert lab.uploads() == []


class RefusesFrom(Recording):
    """Makes copies up to the *nth*, and none from then on."""

    def __init__(self, inner: Any, nth: int) -> None:
        super().__init__(inner)
        self.nth = nth

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method in COPIES:
            self.nth -= 1
            if self.nth < 0:
                self.calls.append(call)
                raise AccessDenied("not any more (403)")
        return await super().around(call, go)


async def test_a_route_that_starts_refusing_falls_back_for_the_objects_at_hand(lab: Lab) -> None:
    for number in range(100):
        lab.put(b"%d" % number, 100)
    lab.target = target = RefusesFrom(lab.dst, 50)
    assert await lab.sync() == {Outcome.VERIFIED: 100}
    assert lab.differences() == []
    assert await lab.proofs() == {("server_copy", "etag"): 50, ("put", "etag"): 50}
    assert calls(target)["copy_object"] <= 50 + BOTH_KINDS + QUICK.concurrency
    assert len(lab.of(Warned)) == 1


@pytest.mark.parametrize("nth", [1, 4])
async def test_parts_copied_before_a_refusal_are_not_sent_again(lab: Lab, nth: int) -> None:
    lab.put(b"a", SIZE, part_size=1000)
    lab.target = target = RefusesFrom(lab.dst, nth)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert await lab.proofs() == {("multipart", "etag"): 1}
    assert len(target.of("upload_part")) == COUNT - nth
    assert len(target.of("create_multipart_upload")) == 1
    assert lab.of(Retried) == []


async def test_objects_that_are_refused_for_their_own_sake_change_nothing_for_others(
    lab: Lab,
) -> None:
    for number in range(30):
        lab.put(b"%02d" % number, 100)
    chosen = {b"07", b"20"}
    lab.target = Raising(
        lab.dst,
        Refused("400 InvalidRequest: a customer's key"),
        lambda call: call.method == "copy_object" and call.args[0].key in chosen,
    )
    assert await lab.sync() == {Outcome.VERIFIED: 30}
    assert await lab.proofs() == {("server_copy", "etag"): 28, ("put", "etag"): 2}
    assert lab.of(Warned) == []


async def test_a_throttled_copy_is_no_refused_one(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verdicts, "PATIENCE", 3600.0)  # who waits for it in vain hangs
    for number in range(10):
        lab.put(b"%d" % number, 100)

    class Busy(Faulty):
        times = 5

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "copy_object" and self.times:
                self.times -= 1
                raise Throttled("slow down", endpoint="dst")
            return await go()

    lab.target = Busy(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 10}
    assert await lab.proofs() == {("server_copy", "etag"): 10}
    assert {event.reason for event in lab.of(Retried)} == {"throttled"}


async def test_a_store_that_fails_at_every_copy_gets_them_streamed(lab: Lab) -> None:
    lab.put(b"a", 100)
    error = ServerError("200 InternalError")
    lab.target = target = refusing(lab.dst, error)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert calls(target)["copy_object"] == ATTEMPTS
    assert await lab.proofs() == {("put", "etag"): 1}


async def test_an_upload_that_the_target_forgets_begins_again(lab: Lab) -> None:
    lab.put(b"a", SIZE, part_size=1000)

    class Forgetting(Faulty):
        parts = 0

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "upload_part_copy":
                self.parts += 1
                if self.parts == 5:
                    self.inner._uploads.clear()
                    raise NoSuchUpload("gone")
            return await go()

    lab.target = Forgetting(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert await lab.proofs() == {("server_multipart", "etag"): 1}
    assert lab.differences() == []
