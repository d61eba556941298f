"""What moving objects costs, before the first byte: pure arithmetic on counts, bytes and prices."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from s3flow.engine.workload import ARCHIVES, DAY, STANDARD, Amount, Kind, Workload
from s3flow.model import GIB, Flow, Limits, Method
from s3flow.policies import Overwrite, TagPolicy

TIERS = ("Standard", "Bulk", "Expedited")
# Hours until half of the objects, and nine in ten, can be read. AWS names ranges and upper limits:
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/restoring-objects-retrieval-options.html
THAW: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "GLACIER": {"Standard": (4.0, 5.0), "Bulk": (8.5, 12.0), "Expedited": (0.05, 0.1)},
    "DEEP_ARCHIVE": {"Standard": (10.5, 12.0), "Bulk": (36.0, 48.0)},
}
_MONTH = 30  # days, in prices of storage
_ORDER = (
    "list",
    "head",
    "get",
    "get tags",
    "put",
    "copy",
    "begin upload",
    "upload part",
    "copy part",
    "complete upload",
    "restore",
    "restored bytes",
    "restored copies",
    "retrieval",
    "egress",
    "early deletion",
)


class Egress(StrEnum):
    """Which border bytes cross on their way out of the source, by what it costs."""

    NONE = "none"
    REGION = "region"
    INTERNET = "internet"


class Unit(StrEnum):
    """What a quantity counts. Requests are priced by the thousand, the others by one; a GB has 2^30 bytes."""

    REQUESTS = "requests"
    GB = "GB"
    GB_MONTHS = "GB-months"


ByClass = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Prices:
    """What an endpoint charges, by storage class; nothing, unless it is named.

    A class without a price of its own has that of STANDARD; retrieval without one is free.
    """

    listing: float = 0.0
    get: ByClass = field(default_factory=dict)
    put: ByClass = field(default_factory=dict)
    retrieval: ByClass = field(default_factory=dict)
    storage: ByClass = field(default_factory=dict)
    restore: Mapping[str, ByClass] = field(default_factory=dict)  # by class and tier
    restore_requests: Mapping[str, ByClass] = field(default_factory=dict)
    egress: Mapping[Egress, float] = field(default_factory=dict)

    @property
    def is_free(self) -> bool:
        """Say whether nothing has a price."""
        tables = [self.get, self.put, self.retrieval, self.storage]
        tables += [*self.restore.values(), *self.restore_requests.values()]
        asked = [self.listing, *self.egress.values()]
        return not any(asked) and not any(any(table.values()) for table in tables)


def priced(table: ByClass, storage_class: str) -> float:
    """Give the price of a class."""
    return table.get(storage_class, table.get(STANDARD, 0.0))


def by_tier(tiers: Mapping[str, float], tier: str) -> float:
    """Give the price of a tier; DEEP_ARCHIVE knows no Expedited, and is restored by Standard then."""
    return tiers.get(tier, tiers.get("Standard", 0.0))


class End(NamedTuple):
    """Where a bucket is. *service* names who answers there, "" for a disk."""

    service: str
    region: str = ""


def egress_between(source: End, target: End) -> Egress:
    """Say which border lies between two places; a disk is taken to be somewhere on the internet."""
    if source.service != target.service:
        return Egress.INTERNET
    return Egress.NONE if source.region == target.region else Egress.REGION


# --- what it costs ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which an estimate is made. *egress* by source bucket; *tier* and *days* of restores."""

    source: Prices
    target: Prices
    egress: Mapping[str, Egress] = field(default_factory=dict)
    tier: str = "Standard"
    days: int = 7


class Line(NamedTuple):
    """One line of an estimate: *what* is paid, for *of* (a storage class, an end or a border)."""

    what: str
    of: str
    quantity: float
    unit: Unit
    price: float  # of 1,000 requests, or of one of the other units
    cost: float


class Restoring(NamedTuple):
    """What it costs to restore the archived objects by a tier, and how many hours it takes."""

    tier: str
    cost: float
    p50: float
    p90: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a flow will cost. *restoring* compares the tiers; the lines hold the one of *tier*."""

    objects: int
    bytes: int
    lines: tuple[Line, ...]
    tier: str
    restoring: tuple[Restoring, ...]

    @property
    def requests(self) -> int:
        """All requests."""
        return sum(int(line.quantity) for line in self.lines if line.unit is Unit.REQUESTS)

    @property
    def total(self) -> float:
        """The sum of the lines."""
        return math.fsum(line.cost for line in self.lines)


_STREAMED = (Method.PUT, Method.MULTIPART)
Item = tuple[str, str, Unit, float, float]  # what, of, unit, price, quantity


def estimate(flow: Flow, limits: Limits, work: Workload, terms: Terms) -> Estimate:
    """Price *work* line by line; what costs nothing has a line if it is a request to a store."""
    sums: dict[tuple[str, str, Unit, float], float] = {}
    items = [*_listings(limits, work, terms)]
    for kind, amount in work.amounts.items():
        items += _requests(flow, limits, kind, amount, terms)
        items += _bytes(kind, amount, terms)
    for what, of, unit, price, quantity in items:
        key = (what, of, unit, price)
        sums[key] = sums.get(key, 0) + quantity
    lines = tuple(
        Line(what, of, quantity, unit, price, _cost(unit, price, quantity))
        for (what, of, unit, price), quantity in sorted(sums.items(), key=_rank)
        if quantity and (price or unit is Unit.REQUESTS)
    )
    restoring = tuple(_restoring(work, terms, tier) for tier in TIERS if _frozen(work))
    return Estimate(work.objects, work.bytes, lines, terms.tier, restoring)


class Rate(NamedTuple):
    """What one object of a kind costs: by itself, and by its parts, bytes and `Amount.early`."""

    object: float
    part: float
    byte: float
    early: float

    def of(self, amount: Amount) -> float:
        """Price some of the kind."""
        return (
            self.object * amount.objects
            + self.part * amount.parts
            + self.byte * amount.bytes
            + self.early * amount.early
        )


def rate(flow: Flow, limits: Limits, kind: Kind, terms: Terms, *, in_parts: bool) -> Rate:
    """Give what `estimate` makes of a kind, which is linear but for whether there are parts."""

    def total(amount: Amount) -> float:
        return estimate(flow, limits, Workload(amounts={kind: amount}), terms).total

    parts = int(in_parts)
    once = total(Amount(objects=1, parts=parts))
    part = total(Amount(objects=1, parts=2)) - once if in_parts else 0.0
    months = GIB * DAY * _MONTH
    return Rate(
        once - parts * part,
        part,
        total(Amount(bytes=GIB)) / GIB,
        total(Amount(early=months)) / months,
    )


def _rank(each: tuple[tuple[str, str, Unit, float], float]) -> tuple[int, str]:
    what, of, *_ = each[0]
    return _ORDER.index(what), of


def _cost(unit: Unit, price: float, quantity: float) -> float:
    return price * quantity / (1000 if unit is Unit.REQUESTS else 1)


def _listings(limits: Limits, work: Workload, terms: Terms) -> Iterator[Item]:
    yield "list", "source", Unit.REQUESTS, terms.source.listing, work.listings
    if not limits.paths:
        yield "list", "target", Unit.REQUESTS, terms.target.listing, work.looks


def _requests(
    flow: Flow, limits: Limits, kind: Kind, amount: Amount, terms: Terms
) -> Iterator[Item]:
    yield from _reads(flow, limits, kind, amount, terms)
    if not limits.paths:  # files are no requests
        yield from _writes(flow, kind, amount, terms)


def _reads(flow: Flow, limits: Limits, kind: Kind, amount: Amount, terms: Terms) -> Iterator[Item]:
    read = priced(terms.source.get, kind.source_class)
    count, unit = amount.objects, Unit.REQUESTS
    if kind.frozen:
        price = by_tier(terms.source.restore_requests.get(kind.source_class, {}), terms.tier)
        yield "restore", f"{kind.source_class} {terms.tier}", unit, price, count
    if amount.parts:
        yield "head", kind.source_class, unit, read, 2 * count  # of the object, and of its part 1
    if kind.method in _STREAMED:
        yield "get", kind.source_class, unit, read, amount.parts or count
    if _reads_tags(flow, limits, kind):
        yield "get tags", kind.source_class, unit, read, count


def _writes(flow: Flow, kind: Kind, amount: Amount, terms: Terms) -> Iterator[Item]:
    write = priced(terms.target.put, kind.target_class)
    count, unit = amount.objects, Unit.REQUESTS
    streamed, of = kind.method in _STREAMED, kind.target_class or STANDARD
    if flow.overwrite is Overwrite.NEVER:
        yield "head", "target", unit, priced(terms.target.get, kind.target_class), count
    if not amount.parts:
        yield ("put" if streamed else "copy"), of, unit, write, count
        return
    # https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html: until an upload to an
    # archive is complete, its requests are those of S3 Standard.
    begun = priced(terms.target.put, STANDARD) if kind.target_class in ARCHIVES else write
    yield "begin upload", of, unit, begun, count
    yield ("upload part" if streamed else "copy part"), of, unit, begun, amount.parts
    yield "complete upload", of, unit, write, count


def _reads_tags(flow: Flow, limits: Limits, kind: Kind) -> bool:
    # A copy of a whole object takes its tags along.
    may = limits.carries_tags and flow.tags is not TagPolicy.DROP
    return may and kind.method is not Method.SERVER_COPY


def _bytes(kind: Kind, amount: Amount, terms: Terms) -> Iterator[Item]:
    source, of = terms.source, kind.source_class
    volume = amount.bytes / GIB
    if kind.frozen:
        tiers = source.restore.get(of, {})
        yield "restored bytes", f"{of} {terms.tier}", Unit.GB, by_tier(tiers, terms.tier), volume
        # The temporary copy is paid as Standard, beside what is archived.
        months = volume * terms.days / _MONTH
        price = priced(source.storage, STANDARD)
        yield "restored copies", f"{terms.days} days", Unit.GB_MONTHS, price, months
    yield "retrieval", of, Unit.GB, source.retrieval.get(of, 0.0), volume
    border = terms.egress.get(kind.bucket, Egress.INTERNET)
    yield "egress", border.value, Unit.GB, source.egress.get(border, 0.0), volume
    months = amount.early / GIB / DAY / _MONTH
    yield "early deletion", of, Unit.GB_MONTHS, priced(source.storage, of), months


def _frozen(work: Workload) -> dict[str, Amount]:
    """Give what has to be restored, by storage class."""
    found: dict[str, Amount] = {}
    for kind, amount in work.amounts.items():
        if kind.frozen:
            of = found.setdefault(kind.source_class, Amount())
            of.objects += amount.objects
            of.bytes += amount.bytes
    return found


def _restoring(work: Workload, terms: Terms, tier: str) -> Restoring:
    frozen = _frozen(work)
    costs, times = [], []
    for name, amount in frozen.items():
        requests = by_tier(terms.source.restore_requests.get(name, {}), tier)
        costs.append(_cost(Unit.REQUESTS, requests, amount.objects))
        costs.append(by_tier(terms.source.restore.get(name, {}), tier) * amount.bytes / GIB)
        times.append(thaw_hours(name, tier))
    p50, p90 = (max(hours) for hours in zip(*times, strict=True))
    return Restoring(tier, math.fsum(costs), p50, p90)


def thaw_hours(storage_class: str, tier: str) -> tuple[float, float]:
    """Give the hours until half, and nine in ten, of the objects of an archive can be read."""
    tiers = THAW[storage_class]
    return tiers.get(tier, tiers["Standard"])


# --- what it takes for granted ---------------------------------------------------------------


def assumptions(flow: Flow, limits: Limits, work: Workload, terms: Terms) -> Sequence[str]:
    """Say what an estimate takes for granted, as far as it matters here."""
    said = ["what is listed now is moved once, without retries"]
    if not terms.target.is_free and not flow.max_cost:
        said.append(
            "each start looks for what crashes left: three requests a bucket that are not counted"
        )
    if any(_reads_tags(flow, limits, kind) for kind in work.amounts):
        said.append(
            "the tags of every object are read, though that is done only where there are some"
        )
    if any(kind.method not in _STREAMED for kind in work.amounts):
        said.append("the store copies by itself; where it refuses, each copy is a GET and a PUT")
    if not terms.source.is_free:
        said += _ways_out(work, terms)
    frozen = _frozen(work)
    if frozen:
        said.append(
            f"all that is archived is restored anew, by {terms.tier}, for {terms.days} days"
        )
        said.append("restores take as long as AWS says that they mostly do")
    if "DEEP_ARCHIVE" in frozen:
        said.append("DEEP_ARCHIVE knows no Expedited, so that it is Standard there")
    if any(kind.source_class == "INTELLIGENT_TIERING" for kind in work.amounts):
        said.append("nothing of INTELLIGENT_TIERING is archived: no listing tells")
    if any(amount.early for amount in work.amounts.values()):
        said.append("objects are in their storage class since they were last modified")
    return said


def _ways_out(work: Workload, terms: Terms) -> Iterator[str]:
    borders = {
        terms.egress.get(kind.bucket, Egress.INTERNET): kind.method in _STREAMED
        for kind in sorted(work.amounts, key=lambda kind: kind.method in _STREAMED)
    }
    if Egress.INTERNET in borders:
        yield 'bytes leave by the internet; if s3flow runs in the source\'s region: egress = "none"'
    if borders.get(Egress.NONE) or borders.get(Egress.REGION):
        yield 's3flow runs in a region of source or target; if it runs elsewhere: egress = "internet"'
