"""Finds out, bucket by bucket and with real requests, which way objects would go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from s3flow.engine import plan, selfsame, verify
from s3flow.engine.route import Route
from s3flow.errors import CopyRefused, S3flowError
from s3flow.model import Attributes, Listed, Original, Span
from s3flow.policies import CopyBy, TagPolicy
from s3flow.ports import Target
from s3flow.probes import DOCTOR_PROBE

MOST_BUCKETS = 20
_ARCHIVED = {"GLACIER", "DEEP_ARCHIVE"}  # nobody reads or copies these before they are restored


class Found(NamedTuple):
    """Which way an object of *bucket* went, and what came of the ways before."""

    bucket: str
    key: bytes
    way: CopyBy
    why: str


def probe_name(route: Route) -> bytes:
    """Give a key's end that no other flow uses, and the next doctor again."""
    return DOCTOR_PROBE + selfsame.name_of(route).encode()


async def buckets_of(route: Route) -> tuple[list[str], int]:
    """Name the source's buckets, the first of many, and count the others."""
    flow = route.flow
    pattern = flow.source.bucket
    if not any(mark in pattern for mark in "*?["):
        return [pattern], 0
    names = [each.name for each in await route.source.list_buckets() if flow.reads(each.name)]
    return names[:MOST_BUCKETS], max(0, len(names) - MOST_BUCKETS)


async def find_way(route: Route, bucket: str) -> Found | None:
    """Let the store copy the smallest of the first objects, as whom it may; the copy is removed.

    None where there is nothing that could be copied.
    """
    entry = await _smallest(route, bucket)
    if entry is None:
        return None
    refusals = []
    for way, store in _ways(route):
        try:
            left = await _copy(route, store, bucket, entry, way)
        except S3flowError as error:
            refusals.append(f"with the {way}: {error.reason}: {error}")
        else:
            return Found(bucket, entry.key, way, "; ".join([*refusals, left] if left else refusals))
    return Found(bucket, entry.key, CopyBy.STREAMED, "; ".join(refusals))


async def find_way_of_parts(route: Route, bucket: str) -> Found | None:
    """Let the store copy a part, and abort the upload: some allow accounts whole objects alone."""
    entry = await _smallest(route, bucket)
    if entry is None or not entry.size:
        return None
    refusals = []
    for way, store in _ways(route):
        try:
            await _copy_part(route, store, bucket, entry)
        except S3flowError as error:
            refusals.append(f"with the {way}: {error.reason}: {error}")
        else:
            return Found(bucket, entry.key, way, "; ".join(refusals))
    return Found(bucket, entry.key, CopyBy.STREAMED, "; ".join(refusals))


async def _smallest(route: Route, bucket: str) -> Listed | None:
    page = await route.source.list_page(bucket, route.flow.source.prefix, b"")
    readable = [each for each in page.entries if each.storage_class not in _ARCHIVED]
    return min(readable, key=lambda each: each.size, default=None)


def _ways(route: Route) -> Sequence[tuple[CopyBy, Target]]:
    ways = [(CopyBy.TARGET, route.target)]
    return ways if route.copier is None else [*ways, (CopyBy.SOURCE, route.copier)]


def _original(route: Route, bucket: str, entry: Listed) -> Original:
    source = route.source
    return Original(bucket, entry.key, entry.etag, entry.size, source.owner, source.opening)


async def _copy(route: Route, store: Target, bucket: str, entry: Listed, way: CopyBy) -> str:
    """Copy an object and remove the copy; say what is in the way of that, if anything is."""
    there, key = _probe_place(route, bucket)
    stored = await store.copy_object(
        _original(route, bucket, entry),
        there,
        key,
        storage_class="",
        with_tags=route.flow.tags is not TagPolicy.DROP,
    )
    seen = True
    try:
        if way is CopyBy.SOURCE:
            seen = await verify.is_readable(route, there, key)
    finally:
        left = await verify.remove(route, there, key, stored)
    if not seen:
        raise CopyRefused(f"the target's account cannot read what is written so{left}")
    return left.removeprefix("; and ")


async def _copy_part(route: Route, store: Target, bucket: str, entry: Listed) -> None:
    there, key = _probe_place(route, bucket)
    about = Attributes({}, {}, "STANDARD", 0)
    upload_id = await store.create_multipart_upload(there, key, about, entry.size)
    try:
        original = _original(route, bucket, entry)
        await store.upload_part_copy(original, there, key, upload_id, 1, Span(0, entry.size))
    finally:
        await store.abort_multipart_upload(there, key, upload_id)


def _probe_place(route: Route, bucket: str) -> tuple[str, bytes]:
    flow = route.flow
    prefix = plan.target_key(flow, flow.source.prefix)
    return plan.target_bucket(flow, bucket), prefix + probe_name(route)
