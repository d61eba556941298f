"""What targets need: folders to be the right ones before work begins, and all that no leftovers stay."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from s3flow.crashpoints import passing
from s3flow.engine import plan
from s3flow.engine.wayfinding import MOST_BUCKETS
from s3flow.engine.wiring import Wiring
from s3flow.errors import Permanent, S3flowError
from s3flow.events import Emit, Warned
from s3flow.model import Stored, Transfer
from s3flow.ports import StateStore
from s3flow.probes import DELETE_PROBE, DOCTOR_PROBE, PROBE_LEFT, is_certain, is_named_so
from s3flow.stores.local import LocalStore


async def recognise(state: StateStore, wirings: Sequence[Wiring]) -> None:
    """Make sure that each folder is the one that earlier runs had, not a bare mount point.

    Whatever they recorded came after they had marked it, though it be only that a file was there
    already, or is to come. Raises `TargetUnavailable`.
    """
    for wiring in wirings:
        if isinstance(wiring.target, LocalStore):
            known = bool(await state.totals(wiring.flow.name))
            await wiring.target.recognise(wiring.flow.name, written=known)
            passing("start.recognised")


async def clear(
    wirings: Sequence[Wiring], marks: Mapping[str, bytes], lost: Sequence[Transfer], tell: Emit
) -> None:
    """Remove what a dead worker process left on disk of *lost* transfers.

    *marks*: what the names of its files begin with, by endpoint.
    """
    for wiring in wirings:
        flow, target = wiring.flow, wiring.target
        mark = marks.get(flow.target.endpoint)
        if not isinstance(target, LocalStore) or not mark:
            continue
        places = [
            (plan.target_bucket(flow, it.bucket), plan.target_key(flow, it.key))
            for it in lost
            if it.flow == flow.name
        ]
        try:
            await target.clear(mark, places)
        except S3flowError as error:
            tell(Warned(flow.name, f"a dead worker process's files are left behind: {error}"))


async def sweep(
    state: StateStore, wirings: Sequence[Wiring], older_than: float, tell: Emit
) -> None:
    """Remove what crashes left at the targets. It may be a long walk, so work goes on beside it.

    The lock of the state says that nobody else moves these flows. *older_than* is in seconds since
    the epoch: what is younger belongs to this run.
    """
    swept: set[int] = set()
    for wiring in wirings:
        target = wiring.target
        try:
            if not isinstance(target, LocalStore):
                await _sweep_bucket(state, wiring)
                continue
            if id(target) not in swept:
                swept.add(id(target))
                await target.sweep(older_than)
            await _abort_unknown(state, wiring, older_than)
            passing("start.swept")
        except S3flowError as error:
            tell(Warned(wiring.flow.name, f"leftovers of crashes were not looked for: {error}"))


async def _abort_unknown(state: StateStore, wiring: Wiring, older_than: float) -> None:
    """Remove unfinished files that no transfer will continue: their flow was forgotten, or its state lost."""
    flow, target = wiring.flow, wiring.target
    if flow.target.bucket == "{bucket}":
        return  # whose they are cannot be told from above all buckets
    uploads = await target.list_multipart_uploads(flow.target.bucket, flow.target.prefix)
    continued = await state.uploads(flow.name)
    for upload in uploads:
        if upload.upload_id not in continued and upload.initiated < older_than * 1000:
            await target.abort_multipart_upload(flow.target.bucket, upload.key, upload.upload_id)


async def _sweep_bucket(state: StateStore, wiring: Wiring) -> None:
    flow = wiring.flow
    if flow.max_cost:
        return  # these requests are in no estimate; doctor makes them
    buckets = [plan.target_bucket(flow, flow.source.bucket)]
    if any(mark in buckets[0] for mark in "*?["):
        buckets = [plan.target_bucket(flow, it) for it in await state.buckets(flow.name)]
    for bucket in buckets[:MOST_BUCKETS]:
        with suppress(Permanent):  # it is not there yet, or may not be looked at: doctor tells
            await sweep_probes(wiring, bucket)


async def sweep_probes(wiring: Wiring, bucket: str, own: bytes = b"") -> int:
    """Remove what deaths left of probes in a target's *bucket*: objects, and uploads; says how many.

    Uploads at the key *own*, that of who asks, are nobody else's. What has another name may be in use
    by another daemon, or another doctor, until it is as old as no probe in use is. An object goes only
    if it holds a probe's bytes: a flow's copy may have any name.
    """
    flow, target, reader, found = wiring.flow, wiring.target, wiring.reader, 0
    prefix = plan.target_key(flow, flow.source.prefix)
    before = (time.time() - PROBE_LEFT) * 1000
    for upload in await target.list_multipart_uploads(bucket, prefix + DOCTOR_PROBE):
        is_left = upload.initiated < before and is_named_so(upload.key, prefix + DOCTOR_PROBE)
        if upload.key == own or is_left:
            await target.abort_multipart_upload(bucket, upload.key, upload.upload_id)
            found += 1
    if reader is None:
        return found
    for name in (DOCTOR_PROBE, DELETE_PROBE):
        page = await reader.list_page(bucket, prefix + name, b"")
        for entry in page.entries:
            if entry.modified < before and is_certain(entry, prefix + name):
                await target.discard(bucket, entry.key, Stored(entry.size, entry.etag))
                found += 1
    return found
