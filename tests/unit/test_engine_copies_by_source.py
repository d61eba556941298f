"""Copies that the source's credentials ask for, where the target's may not; and how long that is known."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine import verdicts
from s3flow.engine.route import BY_SOURCE
from s3flow.engine.verdicts import REFUSALS
from s3flow.errors import AccessDenied
from s3flow.events import BytesMoved, Retried, RouteDecided, Warned
from s3flow.model import Outcome, Verdict
from s3flow.policies import CopyBy, MethodPolicy
from s3flow.state.sqlite import open_sqlite
from tests.faults import Call, Faulty, LostAnswer, Raising, Recording
from tests.unit.lab import Lab, store

SIZE, COUNT = 9500, 10
COPIES = {"copy_object", "upload_part_copy"}
NO = AccessDenied("no (403)")


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Give a lab whose target's credentials may copy nothing, and whose source's may."""
    src = store("src", "from")
    dst = store("dst", "to", beside=src)
    made = Lab(tmp_path, src, dst)
    made.change(part_size=1000, lanes=2)
    made.target = Recording(denying(dst))
    # As a store has it: one set of uploads, whoever looks.
    made.copier = Recording(dst)
    return made


def denying(inner: Any, chosen: Callable[[Call], bool] | None = None) -> Raising:
    """Give a store that denies copies, or the *chosen* calls."""
    return Raising(inner, NO, chosen or (lambda call: call.method in COPIES))


def calls(recording: Any) -> Counter[str]:
    return Counter(call.method for call in recording.calls)


async def known(lab: Lab) -> list[Verdict]:
    """Read what the state has."""
    state = await open_sqlite(lab.folder / "state.db", read_only=True)
    try:
        return await state.verdicts("flow")
    finally:
        await state.close()


async def test_what_the_target_s_may_not_the_source_s_do(lab: Lab) -> None:
    for number in range(20):
        lab.put(b"%d" % number, 100 + number)
    assert await lab.sync() == {Outcome.VERIFIED: 20}
    assert lab.differences() == []
    assert await lab.proofs() == {("server_copy", "etag"): 20}
    assert calls(lab.copier) == {"copy_object": 20}
    assert calls(lab.target)["copy_object"] == 1  # not each object in vain
    assert calls(lab.target)["head_object"] == 20  # the target's account sees each of them
    assert lab.of(Warned) == []
    [verdict] = await known(lab)
    assert (verdict.bucket, verdict.what, verdict.way) == ("from", "objects", CopyBy.SOURCE)
    assert "no (403)" in verdict.reason
    assert verdict.decided < verdict.expires


async def test_where_neither_may_all_is_streamed_for_both_reasons(lab: Lab) -> None:
    for number in range(40):
        lab.put(b"%d" % number, 100)
    lab.copier = Recording(Raising(lab.dst, AccessDenied("nor they"), lambda call: True))
    assert await lab.sync() == {Outcome.VERIFIED: 40}
    assert await lab.proofs() == {("put", "etag"): 40}
    assert calls(lab.target)["copy_object"] <= REFUSALS
    assert calls(lab.copier)["copy_object"] <= REFUSALS
    assert len(lab.of(Warned)) == 1
    [verdict] = await known(lab)
    assert verdict.way == CopyBy.STREAMED
    assert "no (403)" in verdict.reason
    assert "nor they" in verdict.reason


async def test_the_target_s_go_first_and_the_source_s_are_not_asked_in_vain(lab: Lab) -> None:
    lab.target = Recording(lab.dst)
    for number in range(10):
        lab.put(b"%d" % number, 100)
    assert await lab.sync() == {Outcome.VERIFIED: 10}
    assert calls(lab.copier) == {}
    assert [verdict.way for verdict in await known(lab)] == [CopyBy.TARGET]


async def test_one_odd_object_changes_nothing_for_the_others(lab: Lab) -> None:
    lab.change(lanes=1, concurrency=1)
    lab.target = Recording(
        denying(lab.dst, lambda call: call.method in COPIES and call.args[0].key == b"05")
    )
    for number in range(10):
        lab.put(b"%02d" % number, 100)
    assert await lab.sync() == {Outcome.VERIFIED: 10}
    assert await lab.proofs() == {("server_copy", "etag"): 10}
    assert calls(lab.copier) == {"copy_object": 1}
    assert [event.verdict.way for event in lab.of(RouteDecided)] == [CopyBy.TARGET]


async def test_a_bucket_that_turns_is_followed(lab: Lab) -> None:
    lab.change(concurrency=1)
    late = {b"%02d" % number for number in range(10, 30)}
    lab.target = Recording(
        denying(lab.dst, lambda call: call.method in COPIES and call.args[0].key in late)
    )
    for number in range(30):
        lab.put(b"%02d" % number, 100)
    assert await lab.sync() == {Outcome.VERIFIED: 30}
    assert await lab.proofs() == {("server_copy", "etag"): 30}
    assert calls(lab.target)["copy_object"] == 10 + REFUSALS
    assert [each.way for each in await known(lab)] == [CopyBy.SOURCE]


# --- parts ------------------------------------------------------------------------------------


async def test_all_of_an_upload_is_one_principal_s(lab: Lab) -> None:
    lab.put(b"a", SIZE, part_size=1000, headers={"content-type": "text/x"}, tags={"k": "v"})
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert await lab.proofs() == {("server_multipart", "etag"): 1}
    assert calls(lab.copier)["upload_part_copy"] == COUNT
    assert calls(lab.copier)["complete_multipart_upload"] == 1
    assert calls(lab.target)["complete_multipart_upload"] == 0
    assert lab.uploads() == []  # what the target's had begun is gone
    copy = lab.dst.peek("to", b"a")
    assert copy is not None
    assert (copy.tags, copy.headers["content-type"]) == ({"k": "v"}, "text/x")


@pytest.mark.parametrize("after", [1, 5])
async def test_an_interrupted_copy_goes_on_with_the_source_s(lab: Lab, after: int) -> None:
    lab.put(b"a", SIZE, part_size=1000)
    lab.stop_at(BytesMoved, after)
    assert await lab.sync() == {Outcome.PENDING: 1}
    [[upload_id]] = lab.query("SELECT upload_id FROM objects")
    assert upload_id.startswith(BY_SOURCE)
    lab.subscribers.clear()
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    numbers = [call.args[4] for call in lab.copier.of("upload_part_copy")]
    assert sorted(numbers) == [*range(1, COUNT + 1)]
    assert calls(lab.copier)["create_multipart_upload"] == 1
    assert lab.differences() == []
    assert lab.uploads() == []


async def test_an_interrupted_copy_begins_again_where_the_source_s_are_gone(lab: Lab) -> None:
    lab.put(b"a", SIZE, part_size=1000)
    lab.stop_at(BytesMoved, 5)
    await lab.sync()
    lab.subscribers.clear()
    lab.copier = None
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert lab.uploads() == []


async def test_an_interrupted_copy_that_is_to_be_streamed_begins_again(lab: Lab) -> None:
    lab.put(b"a", SIZE, part_size=1000)
    lab.stop_at(BytesMoved, 5)
    await lab.sync()
    lab.subscribers.clear()
    lab.change(method=MethodPolicy.STREAM_ONLY)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert await lab.proofs() == {("multipart", "etag"): 1}
    assert calls(lab.target)["upload_part"] == COUNT  # so that the copy is the target's own
    assert lab.differences() == []
    assert lab.uploads() == []


async def test_parts_refused_on_the_way_are_streamed_anew_by_the_target_s(lab: Lab) -> None:
    lab.put(b"a", SIZE, part_size=1000)

    class Stopping(Recording):
        left = 4

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "upload_part_copy":
                self.left -= 1
                if self.left < 0:
                    raise NO
            return await super().around(call, go)

    lab.copier = Stopping(lab.dst)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert await lab.proofs() == {("multipart", "etag"): 1}
    assert lab.differences() == []
    assert lab.uploads() == []
    assert calls(lab.target)["upload_part"] == COUNT


@pytest.mark.parametrize("method", ["copy_object", "upload_part_copy", "complete_multipart_upload"])
async def test_a_lost_answer_is_found_out(lab: Lab, method: str) -> None:
    lab.put(b"a", SIZE, part_size=None if method == "copy_object" else 1000)
    lab.copier = LostAnswer(lab.dst, method)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert lab.uploads() == []


# --- whose the copy is ------------------------------------------------------------------------


class Unreadable(Faulty):
    """The target's account cannot look at what others wrote: it learns of those keys by *foreign*."""

    def __init__(self, inner: Any, foreign: set[bytes]) -> None:
        super().__init__(inner)
        self.foreign = foreign

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method in COPIES:
            raise NO
        if call.method in ("head_object", "get_object") and call.args[1] in self.foreign:
            raise AccessDenied("not yours (403)")
        if call.method in ("put_object", "complete_multipart_upload"):
            self.foreign.discard(call.args[1])
        return await go()


class Owning(Recording):
    """What it writes belongs to the source's account."""

    def __init__(self, inner: Any, foreign: set[bytes]) -> None:
        super().__init__(inner)
        self.foreign = foreign

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        answer = await super().around(call, go)
        if call.method == "copy_object":
            self.foreign.add(call.args[2])
        if call.method == "complete_multipart_upload":
            self.foreign.add(call.args[1])
        if call.method == "discard":
            self.foreign.discard(call.args[1])
        return answer


@pytest.mark.parametrize("part_size", [None, 1000])
async def test_what_the_target_s_account_cannot_read_is_removed_and_streamed(
    lab: Lab, part_size: int | None
) -> None:
    foreign: set[bytes] = set()
    lab.target = Recording(Unreadable(lab.dst, foreign))
    lab.copier = Owning(lab.dst, foreign)
    for number in range(10):
        lab.put(b"%d" % number, SIZE, part_size=part_size)
    assert await lab.sync() == {Outcome.VERIFIED: 10}
    assert lab.differences() == []
    assert {method for method, _ in await lab.proofs()} == {"multipart" if part_size else "put"}
    assert foreign == set()
    assert calls(lab.copier)["discard"] <= REFUSALS
    [verdict] = await known(lab)
    assert verdict.way == CopyBy.STREAMED
    assert "not readable by the target's account" in verdict.reason
    assert lab.of(Retried) == []
    assert lab.uploads() == []


async def test_server_only_leaves_nothing_that_cannot_be_read(lab: Lab) -> None:
    lab.change(method=MethodPolicy.SERVER_ONLY)
    foreign: set[bytes] = set()
    lab.target, lab.copier = Unreadable(lab.dst, foreign), Owning(lab.dst, foreign)
    lab.put(b"a", 100)
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert await lab.failures() == {b"a": "copy_refused"}
    assert lab.dst.peek("to", b"a") is None


# --- how long it is known ---------------------------------------------------------------------


async def test_the_next_run_asks_nobody_in_vain(lab: Lab) -> None:
    lab.put(b"a", 100)
    await lab.sync()
    lab.put(b"b", 100)
    lab.target.calls.clear()
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    assert calls(lab.target)["copy_object"] == 0
    assert calls(lab.copier)["copy_object"] == 2


async def test_a_refusal_is_known_to_the_next_run_until_it_expires(lab: Lab) -> None:
    lab.copier = None
    for number in range(REFUSALS + 2):
        lab.put(b"%d" % number, 100)
    await lab.sync()
    lab.target.calls.clear()
    lab.put(b"more", 100)
    await lab.sync()
    assert calls(lab.target)["copy_object"] == 0
    with contextlib.closing(sqlite3.connect(lab.folder / "state.db")) as db, db:
        db.execute("UPDATE verdicts SET expires = decided")
    lab.put(b"later", 100)
    await lab.sync()
    assert calls(lab.target)["copy_object"] == 1


async def test_what_was_found_out_with_other_endpoints_counts_for_nothing(lab: Lab) -> None:
    lab.put(b"a", 100)
    await lab.sync()
    lab.endpoints = "another configuration"
    lab.target.calls.clear()
    lab.put(b"b", 100)
    await lab.sync()
    assert calls(lab.target)["copy_object"] == 1


async def test_what_is_streamed_from_the_start_says_so(tmp_path: Path) -> None:
    apart = Lab(tmp_path)
    apart.put(b"a", 100)
    await apart.sync()
    [verdict] = await known(apart)
    assert (verdict.bucket, verdict.way, verdict.expires) == ("from", CopyBy.STREAMED, 0)
    assert "two services" in verdict.reason


async def test_a_forgotten_flow_leaves_no_verdicts(lab: Lab) -> None:
    lab.put(b"a", 100)
    await lab.sync()
    state = await open_sqlite(lab.folder / "state.db")
    try:
        await state.forget("flow")
        assert await state.verdicts("flow") == []
        await state.open_flow(lab.flow)
        assert await state.verdicts("flow") == []
    finally:
        await state.close()
    assert lab.query("SELECT * FROM verdicts") == []


async def test_a_verdict_of_credentials_that_are_gone_is_not_followed(lab: Lab) -> None:
    made = verdicts.Verdicts(flow="flow")
    given = Verdict("flow", "b", "objects", CopyBy.SOURCE, "", 0.0, 1e12)
    made.take(given)
    assert made.works == {}
    made.take(replace_way(given, CopyBy.STREAMED))
    assert not await made.ask("b")


def replace_way(verdict: Verdict, way: CopyBy) -> Verdict:
    return verdict._replace(way=way)


async def test_what_has_worked_for_long_is_looked_at_anew() -> None:
    now = [1000.0]
    told: list[Verdict] = []
    made = verdicts.Verdicts(
        lambda: now[0], flow="flow", ways=(CopyBy.TARGET, CopyBy.SOURCE), tell=told.append
    )
    made.copied("b", CopyBy.SOURCE, "why")
    assert made.ways("b") == (CopyBy.SOURCE, CopyBy.TARGET)
    now[0] += verdicts.WORKS - 1
    made.review()
    assert made.works == {"b": CopyBy.SOURCE}
    now[0] += 1
    made.review()
    assert made.works == {}
    assert made.ways("b") == (CopyBy.TARGET, CopyBy.SOURCE)
    made.copied("b")
    assert [verdict.way for verdict in told] == [CopyBy.SOURCE, CopyBy.TARGET]
