"""What folders need as targets: to be the right ones before work begins, and no leftovers beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from s3flow.crashpoints import passing
from s3flow.engine import plan
from s3flow.engine.wiring import Wiring
from s3flow.errors import S3flowError
from s3flow.events import Emit, Warned
from s3flow.model import Method, State, Transfer
from s3flow.ports import StateStore
from s3flow.stores.local import LocalStore


async def recognise(state: StateStore, wirings: Sequence[Wiring]) -> None:
    """Make sure that each folder is the one that earlier runs wrote to, not a bare mount point.

    Raises `TargetUnavailable`.
    """
    for wiring in wirings:
        if isinstance(wiring.target, LocalStore):
            written = any(
                total.state in (State.VERIFIED, State.DELETED) and total.method != Method.ADOPTED
                for total in await state.totals(wiring.flow.name)
            )
            await wiring.target.recognise(wiring.flow.name, written=written)
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
    """Remove what crashes left on disk. It may be a long walk, so work goes on beside it.

    The lock of the state says that nobody else moves these flows. *older_than* is in seconds since
    the epoch: what is younger belongs to this run.
    """
    swept: set[int] = set()
    for wiring in wirings:
        target = wiring.target
        if not isinstance(target, LocalStore):
            continue
        try:
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
