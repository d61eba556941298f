"""Scans over several buckets, of which some refuse, vanish or are left out."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from s3flow.engine import flow as flow_module
from s3flow.engine.survey import by_class
from s3flow.errors import AccessDenied, CostReached, TargetUnavailable
from s3flow.events import BucketFailed, PageMerged, Recorded, ScanFinished, Warned
from s3flow.model import Filters, Listed, Outcome, Place, State
from s3flow.state.sqlite import open_sqlite
from tests.faults import Call, Raising, Recording, Throttling
from tests.unit.lab import Lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def denied(call: Call) -> bool:
    return call.method == "list_page" and call.args[0] == "closed"


@pytest.fixture
def account(lab: Lab) -> Lab:
    """Two buckets: of one every look is refused."""
    lab.change(source=Place("src", "*", b""), target=Place("dst", "{bucket}", b""))
    for bucket in ("closed", "open"):
        lab.src.make_bucket(bucket)
        lab.dst.make_bucket(bucket)
    lab.src._buckets.pop("from")
    lab.src.put("open", b"1", b"one")
    lab.source = Raising(lab.src, AccessDenied("no"), denied)
    return lab


async def test_a_bucket_that_cannot_be_listed_keeps_no_other_from_being_listed_again(
    account: Lab,
) -> None:
    assert await account.sync() == {Outcome.VERIFIED: 1}
    account.src.put("open", b"2", b"two")
    assert await account.sync() == {Outcome.VERIFIED: 2}
    assert len(account.of(BucketFailed)) == 1


async def test_the_daemon_looks_again_at_the_buckets_that_can_be_listed(
    account: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_module, "SCAN_AGAIN", 0.01)
    account.change(every=0.05)

    def watch(event: object) -> None:
        if not isinstance(event, Recorded):
            return
        if account.dst.peek("open", b"2"):
            account.stop.set()
        account.src.put("open", b"2", b"two")

    account.subscribers.append(watch)
    await account.sync(once=False)
    assert account.stop.is_set()


async def test_buckets_that_were_listed_wait_for_their_time_while_another_is_tried_again(
    account: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow_module, "SCAN_AGAIN", 0.001)
    account.change(every=3600.0)
    account.source = source = Recording(account.source)
    account.stop_at(BucketFailed, 5)
    await account.sync(once=False)
    listed = [call.args[0] for call in source.of("list_page")]
    assert listed.count("open") == 1
    assert listed.count("closed") >= 5


async def test_a_bucket_that_can_be_listed_again_ends_the_scan(
    account: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    await account.sync()
    account.source = account.src
    account.src.put("closed", b"3", b"three")
    assert await account.sync() == {Outcome.VERIFIED: 2}
    assert len(account.of(ScanFinished)) == 1


async def test_a_pattern_that_means_no_bucket_is_told(account: Lab) -> None:
    account.change(source=Place("src", "logs-*", b""))
    assert await account.sync() == {}
    assert any("logs-*" in event.message for event in account.of(Warned))


async def test_a_listing_that_waits_says_so(account: Lab) -> None:
    account.source = Throttling(account.src, every=1, times=3)
    assert await account.sync() == {Outcome.VERIFIED: 1}
    assert len([event for event in account.of(Warned) if "throttled" in event.message]) == 3


async def test_what_is_decided_without_a_transfer_is_told_with_its_bytes(lab: Lab) -> None:
    """Whoever sums up the events has the numbers of the state."""
    lab.put(b"excluded", 100)
    lab.put(b"k" * 1020, 30)
    lab.put(b"taken", 7)
    lab.change(target=Place("dst", "to", b"below/"), filters=Filters(exclude=("excluded",)))
    await lab.sync(scan_only=True)
    [merged] = lab.of(PageMerged)
    told = {(it.state, it.reason): (it.objects, it.bytes) for it in merged.decided}
    assert told == {(State.SKIPPED, "excluded"): (1, 100), (State.FAILED, "name_too_long"): (1, 30)}
    assert [it.entry.key for it in merged.refused] == [b"k" * 1020]
    lab.change(filters=Filters(exclude=("taken",)))
    await lab.sync(scan_only=True)
    [merged] = lab.of(PageMerged)
    told = {(it.state, it.reason): (it.objects, it.bytes) for it in merged.decided}
    assert told == {(State.SKIPPED, "excluded"): (1, 7)}
    assert merged.refused == ()


async def unlisted(lab: Lab) -> dict[str, str]:
    state = await open_sqlite(lab.folder / "state.db", read_only=True)
    try:
        return {it.bucket: it.reason for it in await state.unlisted("flow")}
    finally:
        await state.close()


async def test_what_could_not_be_listed_is_kept_until_it_can_be_or_is_not_meant(
    account: Lab,
) -> None:
    denying = account.source
    await account.sync(scan_only=True)
    assert await unlisted(account) == {"closed": "access_denied"}
    account.source = account.src
    await account.sync(scan_only=True)
    assert await unlisted(account) == {}
    account.source = denying
    await account.sync(scan_only=True)
    assert await unlisted(account) == {"closed": "access_denied"}
    account.change(exclude_buckets=("closed",))
    await account.sync(scan_only=True)
    assert await unlisted(account) == {}


async def test_an_account_whose_buckets_may_not_be_named_is_kept_by_its_pattern(
    account: Lab,
) -> None:
    account.source = Raising(
        account.src, AccessDenied("no"), lambda call: call.method == "list_buckets"
    )
    with contextlib.suppress(AccessDenied, BaseExceptionGroup):
        await account.sync(scan_only=True)
    assert await unlisted(account) == {"*": "access_denied"}


@pytest.mark.parametrize(
    ("error", "is_kept"), [(TargetUnavailable("away"), True), (CostReached("enough"), False)]
)
async def test_what_blocks_a_listing_is_kept_and_what_the_flow_limits_is_no_bucket_s_fault(
    account: Lab, error: Exception, is_kept: bool
) -> None:
    account.source = Raising(account.src, error, lambda call: call.method == "list_page")
    with contextlib.suppress(type(error), BaseExceptionGroup):
        await account.sync(scan_only=True)
    # Whoever came later may not have looked any more.
    assert bool(await unlisted(account)) is is_kept


@pytest.mark.parametrize("excluded", [(), ("closed",)])
async def test_what_is_listed_or_not_meant_is_forgotten_though_another_bucket_is_not_listed(
    account: Lab, excluded: tuple[str, ...]
) -> None:
    error = AccessDenied("no")
    account.source = Raising(account.src, error, lambda call: call.method == "list_page")
    await account.sync(scan_only=True)
    assert set(await unlisted(account)) == {"closed", "open"}
    account.change(exclude_buckets=excluded)
    account.source = Raising(
        account.src, error, lambda call: call.method == "list_page" and call.args[0] == "open"
    )
    await account.sync(scan_only=True)
    assert set(await unlisted(account)) == {"open"}


def test_classes_are_counted_each_for_itself() -> None:
    entries = [Listed(b"%d" % n, 10 + n, "e", 0, "AB"[n % 2]) for n in range(5)]
    assert by_class(entries, 60) == {"A": (3, 36), "B": (2, 24)}
    assert by_class(entries[:1], 10) == {"A": (1, 10)}
    assert by_class([], 0) == {}
