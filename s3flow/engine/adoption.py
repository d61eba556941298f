"""Takes over what is at the target already and provably equal: a lost state costs a listing."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from s3flow.engine import plan, verify
from s3flow.engine.route import TOKEN_HEADER, Route, Stopped
from s3flow.errors import S3flowError
from s3flow.events import Warned
from s3flow.lanes import in_lanes
from s3flow.model import Discovered, Listed, Method, Proof, State
from s3flow.ports import Flushing

Look = Callable[[], Awaitable[Proof | None]]
Patiently = Callable[[Look], Awaitable[Proof | None]]
LOOKS = 16  # objects of a page looked at closely at the same time


async def adopt(
    route: Route, bucket: str, found: Sequence[Discovered], patiently: Patiently
) -> int:
    """Mark those of a page's new objects that the target holds equal; says how many.

    *patiently* makes a look that is throttled or fails by accident again. Raises `Stopped`.
    """
    flow = route.flow
    places = {
        plan.target_key(flow, each.entry.key): each
        for each in found
        if each.state is State.DISCOVERED
    }
    if not places:
        return 0
    there = await route.target.find(plan.target_bucket(flow, bucket), sorted(places))
    equal: list[tuple[bytes, Proof, str]] = []

    async def consider(found: tuple[bytes, Listed]) -> None:
        key, copy = found
        proof = await _equal(route, bucket, places[key].entry, copy, patiently)
        if proof is not None:
            equal.append((key, proof, copy.etag))

    await in_lanes(there.items(), consider, LOOKS)
    if equal and isinstance(route.target, Flushing):
        # Whoever wrote them may not have waited for the disk, and their sources may be deleted next.
        await route.target.flush(plan.target_bucket(flow, bucket), [key for key, _, _ in equal])
    for key, proof, etag in equal:
        each = places[key]
        each.state, each.method, each.proof = State.VERIFIED, Method.ADOPTED, proof
        each.target_etag = etag
    return len(equal)


async def _equal(
    route: Route, bucket: str, entry: Listed, copy: Listed, patiently: Patiently
) -> Proof | None:
    """Give the proof that *copy* equals *entry*, None where there is none."""
    if copy.size != entry.size:
        return None
    if copy.etag and copy.etag == entry.etag:
        return Proof.ETAG if plan.is_md5(entry.etag) or plan.parts_in(entry.etag) else None
    look = _equal_closely if route.target.limits.etags else _equal_file
    try:
        return await patiently(lambda: look(route, bucket, entry))
    except Stopped:
        raise  # the next start goes on with this page
    except S3flowError as error:
        # What cannot be proven is transferred: that is never wrong, only slower.
        name = entry.key.decode(errors="backslashreplace")
        route.emit(Warned(route.flow.name, f"{name!r} was not adopted: {error}"))
        return None


async def _equal_file(route: Route, bucket: str, entry: Listed) -> Proof | None:
    transfer = plan.as_transfer(route.flow.name, bucket, entry)
    return Proof.MD5 if await verify.file_equals(route, transfer, entry.etag) else None


async def _equal_closely(route: Route, bucket: str, entry: Listed) -> Proof | None:
    """Look at both sides: equal full-object checksums, or, for a copy of ours, its bytes read back."""
    there = await route.target.head_object(
        plan.target_bucket(route.flow, bucket), plan.target_key(route.flow, entry.key)
    )
    here = await route.source.head_object(bucket, entry.key)
    if there is None or here is None or here.etag != entry.etag:
        return None
    common = here.checksums.keys() & there.checksums.keys()
    if common:
        equal = all(here.checksums[name] == there.checksums[name] for name in common)
        return Proof.CHECKSUM if equal else None
    transfer = plan.as_transfer(route.flow.name, bucket, entry)
    token = plan.transfer_token(route.source.name, transfer)
    stated = verify.stated_md5(here)
    # Only what claims to be our copy of this version is worth reading: it will nearly always be.
    if stated is None or there.headers.get(TOKEN_HEADER) != token:
        return None
    return Proof.READBACK if await verify.read_back(route, transfer, there.etag) == stated else None
