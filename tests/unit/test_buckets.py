"""An account of many buckets: listed side by side, each for itself, new ones found by the next scan."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from s3flow.errors import AccessDenied, CredentialsMissing, NoSuchBucket
from s3flow.events import BucketFailed, FlowBlocked, FlowDrained, PageMerged, ScanFinished
from s3flow.model import Outcome, Place
from s3flow.stores.memory import MemoryStore
from tests.faults import Call, Faulty, Raising, Recording
from tests.unit.lab import Lab

NAMES = [f"bucket-{number:02}" for number in range(20)]


class Counting(Faulty):
    """Lets pages take their time, and counts how many are asked for at a time."""

    def __init__(self, inner: object) -> None:
        super().__init__(inner)
        self.now: dict[str, int] = {}
        self.most = 0
        self.most_buckets = 0
        self.most_of: dict[str, int] = {}

    async def around(self, call: Call, go: Callable[[], object]) -> object:
        if call.method != "list_page":
            return await go()  # type: ignore[misc]
        bucket = str(call.args[0])
        self.now[bucket] = self.now.get(bucket, 0) + 1
        self.most = max(self.most, sum(self.now.values()))
        self.most_buckets = max(self.most_buckets, sum(1 for at in self.now.values() if at))
        self.most_of[bucket] = max(self.most_of.get(bucket, 0), self.now[bucket])
        await asyncio.sleep(0.02)
        try:
            return await go()  # type: ignore[misc]
        finally:
            self.now[bucket] -= 1


@pytest.fixture
def account(tmp_path: Path) -> Lab:
    """Twenty buckets of three objects each."""
    lab = Lab(tmp_path)
    lab.change(source=Place("src", "*", b""), target=Place("dst", "{bucket}", b""))
    lab.src._buckets.clear()
    for name in NAMES:
        add(lab, name)
    return lab


def add(lab: Lab, name: str, objects: int = 3) -> None:
    """Make a bucket with objects at the source, and its place at the target."""
    lab.src.make_bucket(name)
    lab.dst.make_bucket(name)
    for number in range(objects):
        lab.src.put(name, b"key-%05d" % number, name.encode())


async def test_buckets_are_listed_side_by_side_within_the_bound(account: Lab) -> None:
    account.source = counting = Counting(account.src)
    account.change(list_concurrency=4)
    assert await account.sync() == {Outcome.VERIFIED: 60}
    assert counting.most_buckets == 4
    assert counting.most <= 2 * 4  # of each range, a page is fetched while one is merged
    [finished] = account.of(ScanFinished)
    assert finished.listed == 60


async def test_one_at_a_time_is_one_at_a_time(account: Lab) -> None:
    account.source = counting = Counting(account.src)
    account.change(list_concurrency=1)
    assert await account.sync() == {Outcome.VERIFIED: 60}
    assert counting.most_buckets == 1


async def test_a_large_bucket_gets_the_slots_that_the_others_leave(tmp_path: Path) -> None:
    lab = Lab(tmp_path, source=MemoryStore("src", page_size=10))
    lab.change(source=Place("src", "*", b""), target=Place("dst", "{bucket}", b""))
    add(lab, "a-large", 2000)
    for name in NAMES[:6]:
        add(lab, name, 2)
    lab.source = counting = Counting(lab.src)
    lab.change(list_concurrency=4)
    assert await lab.sync(scan_only=True) == {Outcome.PENDING: 2012}
    assert counting.most <= 2 * 4
    assert counting.most_of["a-large"] > 2
    assert lab.query("SELECT listed FROM scans") == [(2012,)]


async def test_a_rewritten_flow_lists_each_bucket_in_order(account: Lab) -> None:
    account.source = counting = Counting(account.src)
    account.change(rewrite=(("key-", "name-"),), list_concurrency=4)
    assert await account.sync() == {Outcome.VERIFIED: 60}
    assert counting.most_buckets == 4
    assert max(counting.most_of.values()) <= 2


async def test_buckets_that_refuse_stop_no_other(account: Lab) -> None:
    account.source = Raising(
        Raising(account.src, AccessDenied("no"), asks(NAMES[3])),
        NoSuchBucket("gone"),
        asks(NAMES[7]),
    )
    assert await account.sync() == {Outcome.VERIFIED: 54}
    failed = {(event.bucket, event.reason) for event in account.of(BucketFailed)}
    assert failed == {(NAMES[3], "access_denied"), (NAMES[7], "no_such_bucket")}
    assert not account.of(ScanFinished)
    assert account.daemon is not None
    assert account.daemon.flows["flow"].scan_failed
    noted = (
        "SELECT b.name, u.reason FROM unlisted u JOIN buckets b ON b.id = u.bucket_id ORDER BY 1"
    )
    assert account.query(noted) == sorted(failed)
    account.source = Raising(account.src, NoSuchBucket("gone"), asks(NAMES[7]))
    await account.sync()
    assert account.query(noted) == [(NAMES[7], "no_such_bucket")]
    del account.src._buckets[NAMES[7]]
    account.source = account.src
    assert await account.sync() == {Outcome.VERIFIED: 57}
    assert account.query(noted) == []
    assert account.of(ScanFinished)


async def test_what_fails_everywhere_is_told_once_and_waited_for(account: Lab) -> None:
    account.source = Raising(account.src, CredentialsMissing("no keys"), asks(*NAMES))
    assert await account.sync() == {}
    assert len(account.of(BucketFailed)) == 1
    assert len(account.of(FlowBlocked)) <= 1
    assert {reason for (reason,) in account.query("SELECT reason FROM unlisted")} == {
        CredentialsMissing.reason
    }
    account.source = account.src
    assert await account.sync() == {Outcome.VERIFIED: 60}
    assert account.query("SELECT reason FROM unlisted") == []


async def test_an_account_that_cannot_be_asked_says_why(account: Lab) -> None:
    account.source = Raising(
        account.src, CredentialsMissing("no keys"), lambda call: call.method == "list_buckets"
    )
    assert await account.sync() == {}
    assert account.query("SELECT reason FROM unlisted") == [(CredentialsMissing.reason,)]


async def test_a_new_bucket_is_taken_by_the_next_scan(account: Lab) -> None:
    assert await account.sync() == {Outcome.VERIFIED: 60}
    add(account, "younger")
    assert await account.sync() == {Outcome.VERIFIED: 63}
    assert account.dst.peek("younger", b"key-00002") is not None


async def test_a_stopped_scan_goes_on_in_the_buckets_that_are_left(account: Lab) -> None:
    account.change(list_concurrency=3)
    account.stop_at(PageMerged, 5)
    await account.sync(scan_only=True)
    ((begun,),) = account.query("SELECT count(*) FROM ranges WHERE done")
    assert 5 <= begun < 20
    account.subscribers.clear()
    account.source = counting = Counting(account.src)
    assert await account.sync(scan_only=True) == {Outcome.PENDING: 60}
    assert len(counting.most_of) == 20 - begun
    assert account.query("SELECT listed FROM scans") == [(60,)]


async def test_an_account_that_names_no_buckets_says_why(account: Lab) -> None:
    account.source = Raising(
        account.src, AccessDenied("no"), lambda call: call.method == "list_buckets"
    )
    assert await account.sync() == {}
    noted = "SELECT b.name, u.reason FROM unlisted u JOIN buckets b ON b.id = u.bucket_id"
    assert account.query(noted) == [("*", "access_denied")]
    account.source = account.src
    assert await account.sync() == {Outcome.VERIFIED: 60}
    assert account.query(noted) == []


class Asked:
    """Somebody asks for listings."""

    interval = 0.01

    def __init__(self) -> None:
        self.left: list[str | None] = []
        self.taken = 0

    async def put(self, flow: str, bucket: str | None) -> None:
        assert flow == "flow"
        self.left.append(bucket)

    async def take(self, flow: str) -> list[str | None]:
        assert flow == "flow"
        left, self.left = self.left, []
        self.taken += len(left)
        return left


async def test_a_running_daemon_lists_what_it_is_asked_to(account: Lab) -> None:
    account.source = recording = Recording(account.src)
    account.wishes = asked = Asked()

    def ask(event: object) -> None:
        if isinstance(event, FlowDrained) and not asked.taken:
            recording.calls.clear()
            account.src.put(NAMES[0], b"z-new", b"new")
            asked.left.append(NAMES[0])
        if account.dst.peek(NAMES[0], b"z-new") is not None:
            account.stop.set()

    account.subscribers.append(ask)
    await account.sync(once=False)
    assert {call.args[0] for call in recording.of("list_page")} == {NAMES[0]}
    assert account.dst.peek(NAMES[0], b"z-new") is not None


async def test_what_was_asked_for_before_the_start_is_listed_though_a_listing_is_drained(
    account: Lab,
) -> None:
    account.stop_at(ScanFinished)
    await account.sync()  # listed, and not all is moved
    account.subscribers.clear()
    add(account, "younger")
    account.wishes = asked = Asked()
    asked.left = [None]
    assert await account.sync() == {Outcome.VERIFIED: 63}


def asks(*buckets: str) -> Callable[[Call], bool]:
    """Say whether a call lists one of the buckets."""
    return lambda call: call.method == "list_page" and call.args[0] in buckets
