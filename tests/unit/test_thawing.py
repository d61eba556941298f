"""Archived objects in a flow: asked for once, looked after by their times, moved when they can be read."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from s3flow.errors import Archived, ConnectionLost, CredentialsMissing, TargetUnavailable
from s3flow.events import Recorded
from s3flow.model import Outcome, Page, RestoreAnswer, State
from s3flow.policies import Overwrite, RestorePolicy, RestoreTier
from tests.faults import Call, Raising
from tests.unit.lab import Lab, store

POLL = 0.02


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    made = Lab(tmp_path)
    made.src.restore_seconds = 0.05
    made.change(restore_poll=POLL)
    return made


def asked(lab: Lab) -> list[bytes]:
    return [key for key, _, _ in lab.src.asked]


async def test_what_is_archived_is_restored_once_and_moved_with_all_the_rest(lab: Lab) -> None:
    for number in range(30):
        frozen = ("GLACIER", "DEEP_ARCHIVE", "STANDARD")[number % 3]
        lab.put(b"%03d" % number, 100, storage_class=frozen)
    assert await lab.sync() == {Outcome.VERIFIED: 30}
    assert lab.differences() == []
    assert sorted(asked(lab)) == [b"%03d" % number for number in range(30) if number % 3 != 2]
    assert {(days, tier) for _, days, tier in lab.src.asked} == {(7, "Standard")}


async def test_no_more_than_so_many_restores_are_under_way(lab: Lab) -> None:
    lab.change(max_restores=3)
    for number in range(20):
        lab.put(b"%03d" % number, 10, storage_class="GLACIER")
    most = 0
    restore = lab.src.restore_object

    async def counting(bucket: str, key: bytes, **terms: object) -> RestoreAnswer:
        nonlocal most
        answer = await restore(bucket, key, **terms)  # type: ignore[arg-type]
        info = [await lab.src.head_object(bucket, each) for each in lab.src.keys(bucket)]
        under_way = [each for each in info if each and each.restored and each.restored.ongoing]
        most = max(most, len(under_way))
        return answer

    lab.src.restore_object = counting  # type: ignore[method-assign]
    assert await lab.sync() == {Outcome.VERIFIED: 20}
    assert most == 3
    assert len(asked(lab)) == 20


async def test_what_somebody_has_restored_goes_at_once(lab: Lab) -> None:
    lab.put(b"thawed", 10, storage_class="GLACIER")
    lab.src.restore("from", b"thawed")
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert asked(lab) == []


async def test_what_somebody_has_asked_for_is_not_asked_for_again(lab: Lab) -> None:
    lab.put(b"key", 10, storage_class="GLACIER")
    await lab.src.restore_object("from", b"key", version_id=None, days=1, tier="Bulk")
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.src.asked == [(b"key", 1, "Bulk")]


async def test_intelligent_tiering_is_found_by_reading_and_restored_without_days(lab: Lab) -> None:
    lab.put(b"deep", 10, storage_class="INTELLIGENT_TIERING")
    found = lab.src.peek("from", b"deep")
    assert found is not None
    found.archive_status = "DEEP_ARCHIVE_ACCESS"
    lab.change(restore_tier=RestoreTier.EXPEDITED)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.src.asked == [(b"deep", None, "Standard")]  # which the deepest tier has at most


async def test_where_expedited_cannot_be_had_standard_does(lab: Lab) -> None:
    lab.src.expedites = False
    lab.put(b"one", 10, storage_class="GLACIER")
    lab.put(b"two", 10, storage_class="GLACIER")
    lab.change(restore_tier=RestoreTier.EXPEDITED)
    assert await lab.sync() == {Outcome.VERIFIED: 2}
    assert {tier for _, _, tier in lab.src.asked} == {"Standard"}


async def test_nothing_is_restored_where_that_is_not_wanted(lab: Lab) -> None:
    lab.change(restore=RestorePolicy.NEVER)
    lab.put(b"cold", 10, storage_class="GLACIER")
    lab.put(b"warm", 10)
    assert await lab.sync() == {Outcome.VERIFIED: 1, Outcome.FAILED: 1}
    assert await lab.failures() == {b"cold": Archived.reason}
    assert asked(lab) == []


async def test_what_waits_is_let_go_when_restores_are_forbidden(lab: Lab) -> None:
    lab.src.restore_seconds = 3600
    lab.change(max_restores=1)
    for key in (b"one", b"two"):
        lab.put(key, 10, storage_class="GLACIER")
    lab.subscribers.append(lambda _: lab.stop.set() if asked(lab) else None)
    assert await lab.sync() == {Outcome.PENDING: 2}
    lab.subscribers.clear()
    lab.change(restore=RestorePolicy.NEVER)
    assert await lab.sync() == {Outcome.FAILED: 2}
    assert len(asked(lab)) == 1


async def test_a_copy_that_expires_unread_is_restored_thrice_and_then_fails(lab: Lab) -> None:
    lab.put(b"key", 10, storage_class="GLACIER")
    lab.src.restore_seconds = 0.0

    async def unread(bucket: str, key: bytes, **_: object) -> None:
        found = lab.src.peek(bucket, key)
        assert found is not None
        found.thaws_at = None  # gone just before it was read
        raise Archived("InvalidObjectState")

    lab.src.get_object = unread  # type: ignore[method-assign,assignment]
    assert await lab.sync() == {Outcome.FAILED: 1}
    assert await lab.failures() == {b"key": "restore_expired"}
    assert asked(lab) == [b"key"] * 3


async def test_a_stop_and_a_start_ask_for_nothing_twice(lab: Lab) -> None:
    lab.src.restore_seconds = 0.3
    for number in range(12):
        lab.put(b"%03d" % number, 10, storage_class="GLACIER")
    lab.change(max_restores=5)
    lab.subscribers.append(lambda _: lab.stop.set() if len(asked(lab)) >= 3 else None)
    assert await lab.sync() == {Outcome.PENDING: 12}
    assert len(asked(lab)) <= 5
    lab.subscribers.clear()
    assert await lab.sync() == {Outcome.VERIFIED: 12}
    assert sorted(asked(lab)) == [b"%03d" % number for number in range(12)]


async def test_requests_that_fail_are_repeated_and_counted_once(lab: Lab) -> None:
    lab.put(b"key", 10, storage_class="GLACIER")
    restore, failures = lab.src.restore_object, 6

    async def flaky(bucket: str, key: bytes, **terms: object) -> RestoreAnswer:
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise ConnectionLost("on the way")
        return await restore(bucket, key, **terms)  # type: ignore[arg-type]

    lab.src.restore_object = flaky  # type: ignore[method-assign]
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.query("SELECT count(*), sum(bytes) FROM restores") == [(1, 10)]


async def test_what_is_gone_or_new_when_it_thaws_is_treated_as_that(lab: Lab) -> None:
    lab.put(b"gone", 10, storage_class="GLACIER")
    lab.put(b"new", 10, storage_class="GLACIER")
    restore = lab.src.restore_object

    async def meanwhile(bucket: str, key: bytes, **terms: object) -> RestoreAnswer:
        answer = await restore(bucket, key, **terms)  # type: ignore[arg-type]
        if key == b"gone":
            await lab.src.delete_object(bucket, key, etag="")
        else:
            lab.src.put(bucket, key, b"written meanwhile")
        return answer

    lab.src.restore_object = meanwhile  # type: ignore[method-assign]
    assert await lab.sync() == {Outcome.VERIFIED: 1, Outcome.SKIPPED: 1}
    assert lab.copy_of(b"new") == b"written meanwhile"


async def test_what_is_not_to_be_overwritten_is_not_restored(lab: Lab) -> None:
    lab.put(b"key", 10, storage_class="GLACIER")
    lab.put(b"other", 10)
    lab.dst.put("to", b"key", b"there")
    lab.change(overwrite=Overwrite.NEVER)
    assert await lab.sync() == {Outcome.VERIFIED: 1, Outcome.SKIPPED: 1}
    assert asked(lab) == []


async def test_a_large_object_is_restored_in_the_midst_of_its_parts(lab: Lab) -> None:
    lab.change(multipart_threshold=1000, part_size=1000, lanes=1)
    lab.put(b"large", 10_000, storage_class="GLACIER", part_size=1000)
    lab.src.restore("from", b"large")
    read, parts = lab.src.get_object, 0

    async def expiring(bucket: str, key: bytes, **about: object) -> object:
        nonlocal parts
        parts += 1
        found = lab.src.peek(bucket, key)
        if parts == 4 and found is not None:
            found.thaws_at = None
        return await read(bucket, key, **about)  # type: ignore[arg-type]

    lab.src.get_object = expiring  # type: ignore[method-assign,assignment]
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert lab.differences() == []
    assert asked(lab) == [b"large"]
    assert parts <= 12  # what had arrived was not read again
    assert lab.uploads() == []
    assert [it.state for it in await lab.totals()] == [State.VERIFIED]


async def test_the_line_goes_on_when_a_block_is_lifted(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3flow.engine.restorer.LONGEST_WAIT", 3600.0)  # it would heal this
    lab.pace = replace(lab.pace, block_retry=0.3)  # longer than it takes to stand in line
    for number in range(3):
        lab.put(b"cold %d" % number, 10, storage_class="GLACIER")
    lab.put(b"warm", 10)
    blocked = 0

    def first_body(call: Call) -> bool:
        nonlocal blocked
        blocked += call.method == "get_object"
        return call.method == "get_object" and blocked == 1

    lab.source = Raising(lab.src, TargetUnavailable("nobody is there"), first_body)
    run = asyncio.create_task(lab.sync())
    await asyncio.wait({run}, timeout=60)
    lab.abandon.set()
    lab.stop.set()
    assert await run == {Outcome.VERIFIED: 4}


async def test_the_line_goes_on_when_a_listing_was_blocked_and_none_follows(lab: Lab) -> None:
    lab.source = store("src", "from", page_size=1)
    lab.src.restore_seconds = 0.05
    lab.put(b"a", 10, storage_class="GLACIER")
    lab.put(b"b", 10)
    frozen = asyncio.Event()
    list_page = lab.src.list_page

    async def blocked(bucket: str, prefix: bytes, after: bytes) -> Page:
        if not after:
            return await list_page(bucket, prefix, after)
        await frozen.wait()
        raise CredentialsMissing("for this moment")

    def watch(event: object) -> None:
        if isinstance(event, Recorded) and event.changes[0].state is State.RESTORE_REQUESTED:
            frozen.set()

    lab.src.list_page = blocked  # type: ignore[method-assign]
    lab.pace = replace(lab.pace, block_retry=60.0)
    lab.subscribers.append(watch)
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert asked(lab) == [b"a"]
