"""Tries, with real requests, everything that a flow will need; each step says what came back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from s3flow.engine import plan, selfsame
from s3flow.engine.route import Route
from s3flow.engine.wayfinding import Found, buckets_of, find_way, find_way_of_parts, probe_name
from s3flow.engine.wiring import decided_at_start
from s3flow.errors import S3flowError, UnguardedDelete
from s3flow.model import Attributes, Listed, ObjectInfo, Part
from s3flow.policies import CopyBy, Guard, MethodPolicy, Mode, TagPolicy
from s3flow.ports import Body
from s3flow.probes import DOCTOR_BYTES

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried: *ok*, what came back, and what to do when it is not right."""

    flow: str
    tried: str
    ok: bool
    answer: str
    remedy: str = ""


class _ProbeBody:
    """A few bytes as a body."""

    def __init__(self) -> None:
        self.info = ObjectInfo(len(DOCTOR_BYTES), "")
        self.size = len(DOCTOR_BYTES)
        self._left = DOCTOR_BYTES

    async def read(self) -> memoryview:
        chunk, self._left = self._left, b""
        return memoryview(chunk)

    def close(self) -> None:
        """Nothing is held."""


async def examine(route: Route) -> AsyncIterator[Finding]:
    """Try the source, then the target. Leaves nothing behind at either."""
    async for finding in _examine_source(route):
        yield finding
    async for finding in _examine_target(route):
        yield finding
    async for finding in _examine_ways(route):
        yield finding


async def _to_its_end(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Do *work* that writes and removes. Interrupted in between, it goes on till nothing is left."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # nobody hears of it any more
        raise


async def _try_writing(
    route: Route, tried: str, call: Callable[[], Awaitable[str]], remedy: str
) -> Finding:
    return await _to_its_end(_try(route, tried, call, remedy))


async def _try(
    route: Route, tried: str, call: Callable[[], Awaitable[str]], remedy: str
) -> Finding:
    name = route.flow.name
    try:
        return Finding(name, tried, ok=True, answer=await call())
    except S3flowError as error:
        return Finding(name, tried, ok=False, answer=f"{error.reason}: {error}", remedy=remedy)


# --- source ----------------------------------------------------------------------------------


async def _examine_source(route: Route) -> AsyncIterator[Finding]:
    flow, source = route.flow, route.source
    buckets, more = [flow.source.bucket], 0
    if any(mark in flow.source.bucket for mark in "*?["):

        async def list_buckets() -> str:
            nonlocal buckets, more
            buckets, more = await buckets_of(route)
            return f"{len(buckets) + more} buckets are {flow.source.bucket}"

        remedy = "allow s3:ListAllMyBuckets, or name one bucket in the flow's source"
        buckets = []
        yield await _try(route, f"list the buckets of {source.name}", list_buckets, remedy)
    found: dict[str, list[Listed]] = {}  # the first objects of buckets that have any
    for bucket in buckets:
        yield await _examine_listing(route, bucket, found)
    if more:
        yield Finding(flow.name, "list the other buckets", ok=True, answer=f"{more} not tried")
    if buckets:
        bucket = next(iter(found), buckets[0])
        async for finding in _examine_bucket(route, bucket, found.get(bucket, [])):
            yield finding


async def _examine_bucket(route: Route, bucket: str, found: list[Listed]) -> AsyncIterator[Finding]:
    """Try in one bucket what all will need, with the first of its objects."""
    flow, remedy = route.flow, "choose another target bucket, or a prefix beside the source's"
    if selfsame.may_meet(route, bucket):

        async def compare() -> str:
            await selfsame.refuse_selfsame(route, bucket, found)
            return "they are two"

        yield await _try(route, f"tell {_place(route, bucket)} from {flow.target}", compare, remedy)
    if flow.mode is Mode.MOVE:
        yield await _tell_apart(route, bucket)
    if not found:
        yield Finding(flow.name, "read an object", ok=True, answer="there is none: not tried")
        return
    async for finding in _examine_object(route, bucket, found[0]):
        yield finding


async def _examine_listing(route: Route, bucket: str, found: dict[str, list[Listed]]) -> Finding:
    """Try to list a bucket; its first objects are among those *found* then."""

    async def list_page() -> str:
        page = await route.source.list_page(bucket, route.flow.source.prefix, b"")
        if page.entries:
            found[bucket] = page.entries[: selfsame.LOOKS]
        return f"{len(page.entries)} objects{'' if page.last else ' and more'}"

    remedy = "allow s3:ListBucket on the bucket; check its name, the region and the endpoint's url"
    return await _try(route, f"list {_place(route, bucket)}", list_page, remedy)


def _place(route: Route, bucket: str) -> str:
    return (
        f"{route.source.name}:{bucket}/{route.flow.source.prefix.decode(errors='backslashreplace')}"
    )


async def _tell_apart(route: Route, bucket: str) -> Finding:
    async def look_for_probe() -> str:
        await selfsame.refuse_selfsame_for_moves(route, bucket)
        return "what is written there is not seen here"

    tried = f"see that {route.flow.source} is not {route.flow.target}"
    remedy = "choose another target bucket, or a prefix beside the source's"
    return await _try_writing(route, tried, look_for_probe, remedy)


async def _examine_deletes(route: Route, bucket: str) -> Finding:
    """Try whether the source deletes the version that it is told to, and no other."""
    flow = route.flow

    async def compare() -> str:
        guard = await route.source.guard_of(bucket, flow.source.prefix, selfsame.name_of(route))
        if guard is not Guard.NOT:
            return "only the version that was copied" + (
                ", many in a request" if guard is Guard.EACH else ""
            )
        if flow.unguarded_delete:
            return "whatever is there: unguarded_delete = true, so it is looked just before"
        raise UnguardedDelete("it deletes whatever is there, also what was never copied")

    remedy = (
        "allow s3:PutObject and s3:DeleteObject (a probe is written below the prefix and removed); "
        "where the store knows no conditional deletes, unguarded_delete = true looks just before each"
    )
    place = f"{route.source.name}:{bucket}"
    return await _try_writing(route, f"delete conditionally in {place}", compare, remedy)


async def _examine_object(route: Route, bucket: str, entry: Listed) -> AsyncIterator[Finding]:
    name = entry.key.decode(errors="backslashreplace")

    async def read() -> str:
        body = await route.source.get_object(bucket, entry.key, etag=entry.etag)
        try:
            first = len(await body.read())
        finally:
            body.close()
        return f"{first} bytes at once of {entry.size}"

    async def read_tags() -> str:
        return f"{len(await route.source.get_object_tagging(bucket, entry.key))} tags"

    if route.flow.mode is Mode.MOVE:
        yield await _examine_deletes(route, bucket)
    yield await _try(route, f"read {name!r}", read, "allow s3:GetObject (and kms:Decrypt)")
    if route.flow.tags is not TagPolicy.DROP and route.target.limits.carries_tags:
        remedy = 'allow s3:GetObjectTagging, or set tags = "best_effort" or "drop" for the flow'
        yield await _try(route, f"read the tags of {name!r}", read_tags, remedy)


# --- target ----------------------------------------------------------------------------------


async def _examine_target(route: Route) -> AsyncIterator[Finding]:
    flow, target = route.flow, route.target
    bucket = plan.target_bucket(flow, flow.source.bucket)
    if target.limits.etags and any(mark in bucket for mark in "*?["):
        try:
            names, _ = await buckets_of(route)
        except S3flowError:
            return  # it was told above that they cannot be listed
        if not names:
            return
        bucket = names[0]
    prefix = plan.target_key(flow, flow.source.prefix)
    key = prefix + probe_name(route)
    place = f"{target.name}:{bucket}/{prefix.decode(errors='backslashreplace')}"
    attributes = Attributes({}, {}, "STANDARD", 0)

    async def look() -> str:
        there = await target.find(bucket, [key])
        return "answered" if not there else "answered; what a killed doctor left will be removed"

    async def write() -> str:
        body: Body = _ProbeBody()
        stored = await target.put_object(bucket, key, body, attributes, md5=None)
        try:
            for error in await target.settle([stored]):
                if error is not None:
                    raise error
        finally:
            await target.discard(bucket, key, stored)
        return f"written and removed{', etag ' + stored.etag if stored.etag else ''}"

    async def upload() -> str:
        upload_id = await target.create_multipart_upload(bucket, key, attributes, len(DOCTOR_BYTES))
        try:
            part: Part = await target.upload_part(bucket, key, upload_id, 1, 0, _ProbeBody())
            held = await target.list_parts(bucket, key, upload_id)
        finally:
            await target.abort_multipart_upload(bucket, key, upload_id)
        return f"part {part.number} written, {len(held)} listed, aborted"

    yield await _try(route, f"look at {place}", look, _remedy_for_looking(route))
    yield await _try_writing(
        route, f"write to {place}", write, "allow s3:PutObject and s3:DeleteObject (for the probe)"
    )
    yield await _try_writing(
        route,
        f"multipart upload to {place}",
        upload,
        "allow s3:PutObject, s3:ListMultipartUploadParts and s3:AbortMultipartUpload",
    )


# --- copies inside the store -----------------------------------------------------------------


async def _examine_ways(route: Route) -> AsyncIterator[Finding]:
    """Say of each bucket which way its objects will go, and why."""
    flow, target = route.flow, route.target
    certain = decided_at_start(flow, route.source, target, 0.0)
    if certain is not None:
        tried = f"find the way from {flow.source} to {flow.target}"
        yield Finding(
            flow.name, tried, ok=True, answer=f"objects will be streamed: {certain.reason}"
        )
    if route.verdicts is None:
        return
    try:
        buckets, more = await buckets_of(route)
    except S3flowError:
        return  # it was told above that they cannot be listed
    for bucket in buckets:
        for find, what in ((find_way, "copy"), (find_way_of_parts, "copy a part of")):
            try:
                found = await _to_its_end(find(route, bucket))
            except S3flowError:
                break  # it was told above that it cannot be listed
            if found is not None:
                yield _finding(route, what, found)
    if more:
        yield Finding(
            flow.name, "find the ways of all buckets", ok=True, answer=f"{more} not tried"
        )


def _finding(route: Route, what: str, found: Found) -> Finding:
    flow, target = route.flow, route.target
    there = plan.target_bucket(flow, found.bucket)
    name = found.key.decode(errors="backslashreplace")
    tried = f"{what} {name!r} of {found.bucket} inside {target.name} to {there}"
    if found.way is not CopyBy.STREAMED:
        why = f" ({found.why})" if found.why else ""
        answer = f"done with the {found.way}: no byte need pass through this machine{why}"
        return Finding(flow.name, tried, ok=True, answer=answer)
    if flow.method is not MethodPolicy.SERVER_ONLY:
        such = "objects" if what == "copy" else "objects in parts"
        return Finding(
            flow.name, tried, ok=True, answer=f"no, so {such} will be streamed: {found.why}"
        )
    remedy = (
        "let the target's credentials read the source bucket (s3:GetObject, s3:GetObjectTagging), "
        'or set method = "server-first"'
    )
    return Finding(flow.name, tried, ok=False, answer=found.why, remedy=remedy)


def _remedy_for_looking(route: Route) -> str:
    if not route.target.limits.etags:
        return "create the folder, and give it to the user that s3flow runs as"
    return "create the bucket; allow s3:ListBucket on it; check region and url"
