"""What moving costs: AWS's own examples, every kind of fee, and that the sums add up."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3flow.config.prices import EndpointPrices, PriceSettings, prices_of
from s3flow.engine import plan
from s3flow.engine.costs import (
    TIERS,
    Egress,
    End,
    Estimate,
    Prices,
    Terms,
    Unit,
    assumptions,
    egress_between,
    estimate,
    thaw_hours,
)
from s3flow.engine.workload import ARCHIVES, MINIMUM_DAYS, Amount, Kind, Workload
from s3flow.model import GIB, MIB, Flow, Limits, Listed, Method, Place
from s3flow.policies import Mode, Overwrite, TagPolicy

AWS = prices_of(PriceSettings(), EndpointPrices(), is_aws=True)
FREE = Prices()
FLOW = Flow("flow", Place("src", "from", b""), Place("dst", "to", b""))
MOVE = replace(FLOW, mode=Mode.MOVE)
S3 = Limits()
DISK = Limits(
    carries_headers=False, carries_tags=False, carries_storage_class=False, etags=False, paths=True
)
DAY = 86_400
NOW = 1_790_000_000.0
MD5 = "0" * 32
CLASSES = ["STANDARD", "INTELLIGENT_TIERING", *MINIMUM_DAYS]


def entry(
    size: int, storage_class: str = "STANDARD", *, etag: str = MD5, days: float = 400
) -> Listed:
    return Listed(b"key", size, etag, int((NOW - days * DAY) * 1000), storage_class)


def work_of(
    *entries: Listed, flow: Flow = FLOW, limits: Limits = S3, inside: bool = False
) -> Workload:
    work = Workload()
    for each in entries:
        method = plan.choose_method(flow, limits, each.size, each.etag, inside=inside)
        work.add(flow, limits, "from", each, method, now=NOW)
    return work


def terms(
    border: Egress = Egress.NONE,
    *,
    source: Prices = AWS,
    target: Prices = AWS,
    tier: str = TIERS[0],
) -> Terms:
    return Terms(source, target, {"from": border}, tier)


def costs(found: Estimate) -> dict[tuple[str, str], float]:
    return {(line.what, line.of): line.cost for line in found.lines}


def counts(found: Estimate) -> dict[str, int]:
    asked: dict[str, int] = {}
    for line in found.lines:
        if line.unit is Unit.REQUESTS:
            asked[line.what] = asked.get(line.what, 0) + int(line.quantity)
    return asked


def bulk(kind: Kind, objects: int, size: int, parts: int = 0) -> Workload:
    return Workload(amounts={kind: Amount(objects, size, parts)})


# --- single fees ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tier", "requests", "volume"),
    [("Standard", 750.0, 1_024.0), ("Expedited", 150_000.0, 3_072.0), ("Bulk", 0.0, 0.0)],
)
def test_restores_cost_what_aws_works_out_as_an_example(
    tier: str, requests: float, volume: float
) -> None:
    # https://repost.aws/knowledge-center/s3-manage-data-retrieval: 15,000,000 objects of 100 TB.
    kind = Kind("from", Method.PUT, "GLACIER", "", frozen=True)
    work = bulk(kind, 15_000_000, 102_400 * GIB)
    found = estimate(FLOW, DISK, work, terms(tier=tier))
    assert costs(found).get(("restore", f"GLACIER {tier}")) == pytest.approx(requests)
    assert costs(found).get(("restored bytes", f"GLACIER {tier}"), 0.0) == pytest.approx(volume)
    (compared,) = [each for each in found.restoring if each.tier == tier]
    assert compared.cost == pytest.approx(requests + volume)
    assert found.tier == tier


def test_a_million_objects_to_disk() -> None:
    kind = Kind("from", Method.PUT, "STANDARD", "", frozen=False)
    work = bulk(kind, 1_000_000, 1_000 * GIB)
    work.listings, work.looks = 1_000, 1_000
    found = estimate(FLOW, DISK, work, terms(Egress.INTERNET))
    assert costs(found) == {
        ("list", "source"): pytest.approx(0.005),
        ("get", "STANDARD"): pytest.approx(0.4),
        ("egress", "internet"): pytest.approx(90.0),
    }
    assert found.total == pytest.approx(90.405)
    assert found.requests == 1_001_000
    assert (found.objects, found.bytes) == (1_000_000, 1_000 * GIB)


@pytest.mark.parametrize(("border", "price"), [(Egress.NONE, 0), (Egress.REGION, 0.02)])
def test_a_copy_inside_is_one_request_of_the_class_that_it_goes_to(
    border: Egress, price: float
) -> None:
    flow = replace(FLOW, storage_class="GLACIER_IR")
    found = estimate(flow, S3, work_of(entry(GIB), flow=flow, inside=True), terms(border))
    assert counts(found) == {"copy": 1}
    assert costs(found)["copy", "GLACIER_IR"] == pytest.approx(0.02 / 1000)
    assert costs(found).get(("egress", border.value), 0) == pytest.approx(price)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize(("storage_class", "price"), [("STANDARD_IA", 0.01), ("GLACIER_IR", 0.03)])
def test_what_is_read_of_a_cool_class_is_paid_by_the_byte(
    storage_class: str, price: float, inside: bool
) -> None:
    found = estimate(FLOW, S3, work_of(entry(2 * GIB, storage_class), inside=inside), terms())
    assert costs(found)["retrieval", storage_class] == pytest.approx(2 * price)


def test_parts_are_requests_and_an_upload_to_an_archive_is_standard_until_it_is_complete() -> None:
    flow = replace(FLOW, storage_class="DEEP_ARCHIVE", part_size=32 * MIB)
    found = estimate(flow, S3, work_of(entry(GIB), flow=flow), terms())
    assert counts(found) == {
        "head": 2,
        "get": 32,
        "get tags": 1,
        "begin upload": 1,
        "upload part": 32,
        "complete upload": 1,
    }
    assert costs(found)["upload part", "DEEP_ARCHIVE"] == pytest.approx(32 * 0.005 / 1000)
    assert costs(found)["complete upload", "DEEP_ARCHIVE"] == pytest.approx(0.05 / 1000)


def test_the_sources_own_parts_are_kept_and_counted() -> None:
    in_parts = entry(80 * MIB, etag=f"{MD5}-10")
    assert counts(estimate(FLOW, S3, work_of(in_parts), terms()))["upload part"] == 10
    inside = estimate(FLOW, S3, work_of(in_parts, inside=True), terms())
    assert counts(inside)["copy part"] == 10
    assert "get" not in counts(inside)


def test_tags_and_looks_are_paid_only_where_they_are_taken() -> None:
    work = work_of(entry(1))
    assert counts(estimate(FLOW, S3, work, terms()))["get tags"] == 1
    assert "get tags" not in counts(estimate(replace(FLOW, tags=TagPolicy.DROP), S3, work, terms()))
    never = replace(FLOW, overwrite=Overwrite.NEVER)
    assert counts(estimate(never, S3, work, terms()))["head"] == 1
    assert "head" not in counts(estimate(never, DISK, work_of(entry(1), limits=DISK), terms()))


def test_early_deletion_is_paid_by_the_days_that_are_left_of_the_smallest_size() -> None:
    young = entry(1024, "STANDARD_IA", days=10)
    found = estimate(MOVE, S3, work_of(young, flow=MOVE), terms())
    assert costs(found)["early deletion", "STANDARD_IA"] == pytest.approx(
        128 * 1024 / GIB * 20 / 30 * 0.0125
    )
    frozen = estimate(MOVE, S3, work_of(entry(GIB, "DEEP_ARCHIVE", days=60), flow=MOVE), terms())
    assert costs(frozen)["early deletion", "DEEP_ARCHIVE"] == pytest.approx(120 / 30 * 0.00099)


@pytest.mark.parametrize("storage_class", CLASSES)
def test_early_deletion_is_not_paid_for_copies_nor_for_what_is_old(storage_class: str) -> None:
    young, old = entry(GIB, storage_class, days=1), entry(GIB, storage_class, days=181)
    paid = {what for what, _ in costs(estimate(MOVE, S3, work_of(young, flow=MOVE), terms()))}
    assert ("early deletion" in paid) == (storage_class in MINIMUM_DAYS)
    for flow, each in ((FLOW, young), (MOVE, old)):
        found = estimate(flow, S3, work_of(each, flow=flow), terms())
        assert "early deletion" not in {line.what for line in found.lines}


@pytest.mark.parametrize("storage_class", ARCHIVES)
def test_a_restore_that_was_asked_for_is_not_paid_again(storage_class: str) -> None:
    asked, fresh = Workload(), Workload()
    each = entry(GIB, storage_class)
    asked.add(FLOW, S3, "from", each, Method.PUT, now=NOW, asked=True)
    fresh.add(FLOW, S3, "from", each, Method.PUT, now=NOW)
    words = {line.what for line in estimate(FLOW, S3, asked, terms()).lines}
    assert not [word for word in words if word.startswith("restore")]
    paid = costs(estimate(FLOW, S3, fresh, terms()))
    assert paid["restored copies", "7 days"] == pytest.approx(0.023 * 7 / 30)


def test_what_cannot_be_expedited_is_restored_by_standard() -> None:
    work = work_of(entry(GIB, "DEEP_ARCHIVE"))
    found = {each.tier: each for each in estimate(FLOW, S3, work, terms()).restoring}
    assert found["Expedited"][1:] == found["Standard"][1:]
    assert found["Bulk"].cost < found["Standard"].cost
    assert any("Expedited" in line for line in assumptions(FLOW, S3, work, terms()))


def test_it_takes_as_long_as_the_slowest_archive() -> None:
    work = work_of(entry(1, "GLACIER"), entry(1, "DEEP_ARCHIVE"))
    for each in estimate(FLOW, S3, work, terms()).restoring:
        assert (each.p50, each.p90) == thaw_hours("DEEP_ARCHIVE", each.tier)
        assert thaw_hours("GLACIER", each.tier) < (each.p50, each.p90)


def test_thaw_times_are_ordered() -> None:
    for name in ARCHIVES:
        hours = [thaw_hours(name, tier) for tier in ("Expedited", "Standard", "Bulk")]
        assert hours == sorted(hours)
        assert all(p50 <= p90 for p50, p90 in hours)


@pytest.mark.parametrize(
    ("target", "border"),
    [
        (End("aws", "eu-west-1"), Egress.NONE),
        (End("aws", "us-east-1"), Egress.REGION),
        (End("http://minio:9000/", "eu-west-1"), Egress.INTERNET),
        (End(""), Egress.INTERNET),
    ],
)
def test_which_border_bytes_cross(target: End, border: Egress) -> None:
    assert egress_between(End("aws", "eu-west-1"), target) is border


def test_a_store_without_prices_costs_nothing_and_is_counted_all_the_same() -> None:
    work = work_of(*(entry(10 * MIB, name) for name in CLASSES))
    found = estimate(FLOW, S3, work, terms(Egress.INTERNET, source=FREE, target=FREE))
    assert found.total == 0
    assert found.requests == counts(found)["get"] + counts(found)["get tags"] + counts(found)[
        "put"
    ] + len(ARCHIVES)
    assert FREE.is_free
    assert not AWS.is_free


def test_what_is_taken_for_granted_is_told_where_it_matters() -> None:
    plain = assumptions(FLOW, DISK, work_of(entry(1), limits=DISK), terms(Egress.INTERNET))
    assert any("internet" in line for line in plain)
    assert not any("archived" in line or "tags" in line for line in plain)
    inside = assumptions(FLOW, S3, work_of(entry(1), inside=True), terms())
    assert not any("runs in" in line or "tags" in line for line in inside)
    assert any("refuses" in line for line in inside)
    assert not any("refuses" in line for line in plain)
    mixed = work_of(entry(1, "INTELLIGENT_TIERING"), entry(1, "GLACIER", days=1), flow=MOVE)
    said = " ".join(assumptions(MOVE, S3, mixed, terms()))
    assert all(
        word in said for word in ("tags", "INTELLIGENT_TIERING", "Standard", "last modified")
    )


# --- whatever is moved ---------------------------------------------------------------------------

entries = st.builds(
    entry,
    st.integers(0, 20 * GIB),
    st.sampled_from(CLASSES),
    etag=st.sampled_from([MD5, f"{MD5}-3"]),
    days=st.integers(0, 200),
)
situations = st.tuples(
    st.sampled_from([FLOW, MOVE, replace(MOVE, storage_class="DEEP_ARCHIVE")]),
    st.sampled_from([S3, DISK]),
    st.sampled_from([Terms(AWS, AWS, {"from": each}, tier) for each in Egress for tier in TIERS]),
    st.booleans(),
)


@given(situations, st.lists(entries, max_size=8), entries)
def test_another_object_never_makes_it_cheaper(
    situation: tuple[Flow, Limits, Terms, bool], some: list[Listed], one: Listed
) -> None:
    flow, limits, under, inside = situation
    inside = inside and limits is S3
    before = estimate(flow, limits, work_of(*some, flow=flow, limits=limits, inside=inside), under)
    work = work_of(*some, one, flow=flow, limits=limits, inside=inside)
    after = estimate(flow, limits, work, under)
    assert after.total >= before.total
    assert after.requests > before.requests
    assert (after.objects, after.bytes) == (before.objects + 1, before.bytes + one.size)


@given(situations, st.lists(entries, max_size=8))
def test_the_whole_costs_what_its_objects_cost(
    situation: tuple[Flow, Limits, Terms, bool], some: list[Listed]
) -> None:
    flow, limits, under, inside = situation
    inside = inside and limits is S3
    whole = estimate(flow, limits, work_of(*some, flow=flow, limits=limits, inside=inside), under)
    each = [
        estimate(flow, limits, work_of(one, flow=flow, limits=limits, inside=inside), under)
        for one in some
    ]
    assert math.isclose(whole.total, math.fsum(one.total for one in each), abs_tol=1e-12)
    assert whole.requests == sum(one.requests for one in each)
    assert whole.total == math.fsum(line.cost for line in whole.lines)


@given(situations, st.sampled_from(CLASSES), st.integers(0, 5 * MIB), st.integers(0, 5 * MIB))
def test_more_bytes_never_cost_less(
    situation: tuple[Flow, Limits, Terms, bool], storage_class: str, size: int, more: int
) -> None:
    flow, limits, under, inside = situation
    inside = inside and limits is S3
    small, large = (
        estimate(
            flow,
            limits,
            work_of(entry(each, storage_class), flow=flow, limits=limits, inside=inside),
            under,
        )
        for each in (size, size + more)
    )
    assert large.total >= small.total


def test_counters_do_not_grow_with_objects() -> None:
    work = work_of(*(entry(n, CLASSES[n % len(CLASSES)], days=n % 300) for n in range(5_000)))
    assert len(work.amounts) == len(CLASSES)
    assert work.objects == 5_000
