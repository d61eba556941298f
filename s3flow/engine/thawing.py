"""Archived objects: what HEAD says of them, how long restores take, and in which order they go."""

from __future__ import annotations

import time
from typing import NamedTuple

from s3flow.engine.budget import THAWED
from s3flow.engine.costs import THAW, thaw_hours
from s3flow.engine.route import Route, object_name
from s3flow.errors import Archived, BadAnswer, SourceChanged, SourceGone
from s3flow.model import Change, Flow, ObjectInfo, State, Transfer
from s3flow.policies import RestoreTier

_HOUR = 3600.0
_DAY = 24 * _HOUR
_SOON = 8  # a look that came too early is followed by one after this part of the expected time


# --- times -----------------------------------------------------------------------------------


def thaw_time(flow: Flow, storage_class: str) -> tuple[float, float]:
    """Give the seconds until half, and nine in ten, of the flow's restores are done.

    Where `restore_poll` is set, somebody knows better than what AWS says of its tiers.
    """
    if flow.restore_poll:
        return flow.restore_poll, flow.restore_poll
    # What Intelligent-Tiering has archived takes as long as the class of the same depth.
    name = storage_class if storage_class in THAW else "GLACIER"
    half, most = thaw_hours(name, flow.restore_tier)
    return half * _HOUR, most * _HOUR


def next_look(flow: Flow, storage_class: str, looks: int) -> float:
    """Give the seconds until the next look at a restore that was looked at *looks* times in vain.

    The first comes when it may be done; the later ones soon, then ever more seldom.
    """
    expected, _ = thaw_time(flow, storage_class)
    if not looks:
        return expected
    first = expected if flow.restore_poll else expected / _SOON
    ceiling = max(expected, thaw_hours("GLACIER", flow.restore_tier)[0] * _HOUR)
    return float(min(ceiling, first * 2.0 ** min(looks - 1, 30)))


class Line(NamedTuple):
    """What waits to be asked for; *storage_class* is that of its first."""

    objects: int
    bytes: int
    storage_class: str


def forecast(flow: Flow, line: Line, under_way: float | None, now: float) -> tuple[float, float]:
    """Say when the last object may be readable (epoch), as p50 and p90.

    *under_way*: when the last one that was asked for is looked at next; None: none was. Restores go
    in waves of as many as may be under way, and no faster than a day's budget lets them be asked for.
    """
    half, most = thaw_time(flow, line.storage_class)
    last = now if under_way is None else max(now, under_way)
    if not line.objects:
        return last, last + most - half
    waves, days = -(-line.objects // flow.max_restores), 0
    if flow.restore_objects_per_day:
        days = -(-line.objects // flow.restore_objects_per_day) - 1
    if flow.restore_bytes_per_day:
        days = max(days, -(-line.bytes // flow.restore_bytes_per_day) - 1)
    p50, p90 = (last + max(waves * each, days * _DAY + each) for each in (half, most))
    return p50, p90


def depth(info: ObjectInfo) -> str:
    """Give the archive class that an object is in, or is as deep as."""
    if info.archive_status:
        return "DEEP_ARCHIVE" if info.archive_status.startswith("DEEP") else "GLACIER"
    return info.storage_class


def tier_for(flow: Flow, info: ObjectInfo) -> RestoreTier:
    """Give the tier to ask for: what is deepest knows no Expedited."""
    if flow.restore_tier is RestoreTier.EXPEDITED and depth(info) == "DEEP_ARCHIVE":
        return RestoreTier.STANDARD
    return flow.restore_tier


# --- changes ---------------------------------------------------------------------------------


def waiting(transfer: Transfer, due_at: int, *, asked: bool = False) -> Change:
    """Let a transfer wait until it is asked for, or looked at, at *due_at* (milliseconds)."""
    return Change(
        transfer,
        State.RESTORING if asked else State.RESTORE_REQUESTED,
        reason=Archived.reason,
        attempts=transfer.attempts,
        due_at=due_at,
        upload_id=transfer.upload_id,
        part_size=transfer.part_size,
    )


def thawed(transfer: Transfer, info: ObjectInfo | None, now: int) -> Change:
    """Give a transfer back to the workers: those first whose copies are gone first."""
    expiry = info.restored.expiry if info is not None and info.restored is not None else 0
    return Change(
        transfer,
        State.TRANSFERRING if transfer.upload_id else State.DISCOVERED,
        reason=THAWED,
        # Waiting ones are claimed in the order of their times, when these are past. An expiry in
        # seconds, read as milliseconds, is in 1970 and keeps the order.
        retry_at=expiry // 1000 or now,
        upload_id=transfer.upload_id,
        part_size=transfer.part_size,
    )


# --- how a worker meets them -----------------------------------------------------------------


def failed(transfer: Transfer, reason: str, message: str, attempts: int) -> Change:
    """Say that a transfer thaws no more."""
    # An upload that it names is abandoned with it, and swept.
    return Change(
        transfer,
        State.FAILED,
        reason=reason,
        message=message,
        attempts=attempts,
        upload_id=transfer.upload_id,
    )


async def look(route: Route, transfer: Transfer) -> Change | None:
    """Say what is to wait; None for what can be read now, whatever the listing said of its class."""
    info = await _head(route, transfer)
    if info.etag != transfer.etag or not info.is_frozen:
        return None
    return _frozen(route, transfer, info)


async def refused(route: Route, transfer: Transfer, error: Archived) -> Change:
    """Say what becomes of a transfer whose source could not be read because it is archived."""
    info = await _head(route, transfer)
    if info.etag != transfer.etag:
        raise SourceChanged(f"{object_name(transfer)}: it changed, and is archived") from error
    if not info.is_frozen:
        # Its copy expired between the two, or the store tells two stories. The tries are counted.
        raise BadAnswer(f"{error}; but HEAD says that it can be read") from error
    return _frozen(route, transfer, info)


def _frozen(route: Route, transfer: Transfer, info: ObjectInfo) -> Change:
    now = int(time.time() * 1000)
    current = route.begun.get(transfer.id, transfer)
    if info.restored is None:
        change = waiting(current, now)
    else:  # somebody else has asked for it
        seconds = next_look(route.flow, depth(info), 1)
        change = waiting(current, now + int(seconds * 1000), asked=True)
    change.transfer = transfer
    return change


async def _head(route: Route, transfer: Transfer) -> ObjectInfo:
    await route.turn(1)
    async with route.gate:
        info = await route.source.head_object(transfer.bucket, transfer.key)
    if info is None:
        raise SourceGone(f"{object_name(transfer)} is gone since it was listed")
    return info
