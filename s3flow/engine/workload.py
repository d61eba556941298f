"""What a flow has to do, counted for an estimate of its cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from s3flow.engine import plan
from s3flow.errors import TooLarge
from s3flow.model import Flow, Limits, Listed, Method
from s3flow.policies import Mode, RestorePolicy

STANDARD = "STANDARD"
# Cannot be read before they are restored. What Intelligent-Tiering has archived, no listing shows.
ARCHIVES = ("GLACIER", "DEEP_ARCHIVE")
# Days for which an object is paid, however early it is deleted.
MINIMUM_DAYS = {
    "STANDARD_IA": 30,
    "ONEZONE_IA": 30,
    "GLACIER_IR": 90,
    "GLACIER": 90,
    "DEEP_ARCHIVE": 180,
}
# Smaller objects of these are paid as if they had so many bytes.
MINIMUM_SIZE = dict.fromkeys(("STANDARD_IA", "ONEZONE_IA", "GLACIER_IR"), 128 * 1024)
DAY = 86_400_000  # milliseconds


class Kind(NamedTuple):
    """Objects that cost the same but for their size. *frozen*: they have to be restored first."""

    bucket: str
    method: Method
    source_class: str
    target_class: str
    frozen: bool


@dataclass(slots=True)
class Amount:
    """How much there is of a kind. *early*: bytes times the milliseconds that they are paid for still."""

    objects: int = 0
    bytes: int = 0
    parts: int = 0
    early: int = 0


@dataclass(slots=True)
class Workload:
    """What a flow has to do, in as many counters as there are kinds, however many objects there are."""

    listings: int = 0  # pages of the source
    looks: int = 0  # listings of the target, for what may be adopted
    amounts: dict[Kind, Amount] = field(default_factory=dict)

    def add(
        self,
        flow: Flow,
        limits: Limits,
        bucket: str,
        entry: Listed,
        method: Method,
        *,
        now: float,
        asked: bool = False,
    ) -> None:
        """Count an object that goes by *method*. *now* in seconds; *asked*: its restore is paid."""
        source_class = entry.storage_class or STANDARD
        parts = _parts(flow, limits, entry, method)
        kind = Kind(
            bucket,
            method if parts else _in_one_piece(method),
            source_class,
            plan.target_storage_class(flow, source_class) if limits.carries_storage_class else "",
            source_class in ARCHIVES and not asked and flow.restore is RestorePolicy.AUTO,
        )
        amount = self.amounts.get(kind)
        if amount is None:
            amount = self.amounts[kind] = Amount()
        amount.objects += 1
        amount.bytes += entry.size
        amount.parts += parts
        if flow.mode is Mode.MOVE and source_class in MINIMUM_DAYS:
            amount.early += _early(entry, source_class, int(now * 1000))

    @property
    def objects(self) -> int:
        """Objects that move."""
        return sum(amount.objects for amount in self.amounts.values())

    @property
    def bytes(self) -> int:
        """Their bytes."""
        return sum(amount.bytes for amount in self.amounts.values())


def _in_one_piece(method: Method) -> Method:
    return {Method.MULTIPART: Method.PUT, Method.SERVER_MULTIPART: Method.SERVER_COPY}.get(
        method, method
    )


def _parts(flow: Flow, limits: Limits, entry: Listed, method: Method) -> int:
    """Say in how many parts an object goes: the source's own, where the target can repeat them."""
    if method not in (Method.MULTIPART, Method.SERVER_MULTIPART):
        return 0
    layout = None
    if limits.etags:
        layout = plan.source_layout(entry.size, entry.etag, None, limits)
    whole = limits.max_put_size
    if method is Method.MULTIPART:
        whole = min(whole, flow.multipart_threshold)
    try:
        if layout is None and entry.size > whole:
            layout = plan.fit_layout(entry.size, flow.part_size, limits)
    except TooLarge:
        return 0  # it fails when its turn comes, and costs next to nothing
    return layout.parts if layout else 0


def _early(entry: Listed, source_class: str, now: int) -> int:
    left = entry.modified + MINIMUM_DAYS[source_class] * DAY - now
    return max(entry.size, MINIMUM_SIZE.get(source_class, 0)) * max(left, 0)
