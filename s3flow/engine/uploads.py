"""Ends uploads that nobody will continue."""

from __future__ import annotations

from collections.abc import Container

from s3flow.crashpoints import passing
from s3flow.engine import plan
from s3flow.engine.route import Route
from s3flow.errors import AccessDenied
from s3flow.events import UploadAborted
from s3flow.model import State, Transfer


async def abort(route: Route, transfer: Transfer) -> None:
    """Remove the transfer's upload, for good; one without an id may still be open at the key."""
    if transfer.upload_id:
        await abort_upload(route, transfer.bucket, transfer.key, transfer.upload_id)
    elif transfer.state is State.TRANSFERRING:
        await abort_all(route, *route.destination(transfer))


async def abort_upload(route: Route, bucket: str, key: bytes, upload_id: str) -> None:
    """Remove an upload for the object of a source's *bucket* and *key*."""
    target_bucket = plan.target_bucket(route.flow, bucket)
    target_key = plan.target_key(route.flow, key)
    store, bare = route.held(upload_id)
    try:
        await store.abort_multipart_upload(target_bucket, target_key, bare)
    except AccessDenied:
        if store is route.target:
            raise
        # What others began in it, the owner of a bucket may always remove.
        await route.target.abort_multipart_upload(target_bucket, target_key, bare)
    passing("upload.aborted")
    route.readings.pop(upload_id, None)
    route.emit(UploadAborted(route.flow.name, upload_id))


async def abort_all(
    route: Route, bucket: str, key: bytes, *, spared: Container[str] = frozenset()
) -> None:
    """Abort every upload that was left open at this very key, but those of *spared* ids."""
    for left in await route.target.list_multipart_uploads(bucket, key):
        if left.key == key and left.upload_id not in spared:
            await route.target.abort_multipart_upload(bucket, key, left.upload_id)
            route.emit(UploadAborted(route.flow.name, left.upload_id))


async def drop(route: Route, transfer: Transfer) -> Transfer:
    """Remove the transfer's upload, and give the transfer as if it had never had one."""
    await abort(route, transfer)
    return forget(route, transfer)


def forget(route: Route, transfer: Transfer) -> Transfer:
    """Give the transfer without its upload, which is gone or complete."""
    anew = transfer._replace(state=State.DISCOVERED, upload_id=None, part_size=None)
    route.begun[anew.id] = anew
    return anew
