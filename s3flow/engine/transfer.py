"""One object to its target, by its method; a multipart one in its missing parts, several at a time."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace

from s3flow.engine import plan, verify
from s3flow.engine.throttle import Gate, PacedBody, TokenBucket
from s3flow.errors import (
    AccessDenied,
    ConnectionLost,
    Corrupted,
    NoSuchUpload,
    S3flowError,
    ServerError,
    SourceChanged,
    SourceGone,
    Stalled,
    TagsUnreadable,
)
from s3flow.events import BytesMoved, Emit, UploadAborted
from s3flow.model import (
    Attributes,
    Flow,
    Limits,
    Method,
    ObjectInfo,
    Part,
    Proof,
    Span,
    State,
    Stored,
    TagPolicy,
    Transfer,
)
from s3flow.ports import Body, Crc64, Source, Target

TOKEN_HEADER = "x-amz-meta-s3flow-transfer"
MAX_UPLOAD_RESTARTS = 3


class Stopped(S3flowError):
    """The daemon stops: the parts in flight are finished, the rest waits for the next start."""

    reason = "stopped"


@dataclass(slots=True)
class Route:
    """What a flow's transfers share. *remember* makes an upload id durable and returns the transfer."""

    flow: Flow
    source: Source
    target: Target
    gate: Gate
    slots: asyncio.Semaphore  # the daemon's bound on bodies in flight, and so on their buffers
    bytes_buckets: tuple[TokenBucket, ...]
    request_buckets: tuple[TokenBucket, ...]
    crc64: Crc64
    emit: Emit
    stop: asyncio.Event
    remember: Callable[[Transfer, str, int], Awaitable[Transfer]]
    reader: Source | None = None  # reads the target back, where it is a store that can be read
    tags_known: set[str] = field(default_factory=set)  # buckets whose tags could be read
    begun: dict[int, Transfer] = field(
        default_factory=dict
    )  # with their upload ids, by transfer id

    def destination(self, transfer: Transfer) -> tuple[str, bytes]:
        """Give the target's bucket and key."""
        return (
            plan.target_bucket(self.flow, transfer.bucket),
            plan.target_key(self.flow, transfer.bucket, transfer.key),
        )

    async def open(self, transfer: Transfer, span: Span | None = None) -> Body:
        """Open the version that was planned, or a span of it, at the pace that is allowed."""
        for bucket in self.request_buckets:
            await bucket.take(2)  # this GET and the PUT that it feeds
        body = await self.source.get_object(
            transfer.bucket, transfer.key, etag=transfer.etag, span=span
        )
        return PacedBody(body, self.bytes_buckets) if self.bytes_buckets else body


@dataclass(slots=True)
class Copied:
    """A transfer whose bytes the target has taken, with the proof that they are the right ones."""

    method: Method
    proof: Proof
    stored: Stored
    dropped: tuple[str, ...]


async def transfer_object(route: Route, transfer: Transfer) -> Copied:
    """Move one object version. Cancelling or stopping leaves a multipart upload open to be resumed."""
    if transfer.state is State.TRANSFERRING and not transfer.upload_id:
        # An upload was asked for, and its id never recorded, or its version superseded.
        await _abort_all(route, *route.destination(transfer))
    method = plan.choose_method(route.flow, route.target.limits, transfer.size, transfer.etag)
    if method is Method.PUT:
        return await _put(route, transfer)
    return await _multipart(route, transfer)


# --- in one piece ----------------------------------------------------------------------------


async def _put(route: Route, transfer: Transfer) -> Copied:
    bucket, key = route.destination(transfer)
    async with route.slots, route.gate:
        body = await route.open(transfer)
        try:
            info = body.info
            attributes, dropped = await _attributes(route, transfer, info)
            hashing = verify.HashingBody(
                body, route.crc64, md5=verify.needs_md5(info, route.target.limits)
            )
            md5 = verify.stated_md5(info) if route.target.limits.etags else None
            stored = await route.target.put_object(bucket, key, hashing, attributes, md5=md5)
        finally:
            body.close()
    route.emit(BytesMoved(route.flow.name, transfer.size))
    proof = await _proof(route, transfer, info, stored, hashing.digests())
    return Copied(Method.PUT, proof, stored, dropped)


async def _proof(
    route: Route, transfer: Transfer, info: ObjectInfo, stored: Stored, passed: dict[str, bytes]
) -> Proof:
    bucket, key = route.destination(transfer)
    try:
        proof = verify.prove(info, stored, passed)
        if proof is Proof.SIZE and not route.target.limits.etags:
            proof = await _file_proof(route, transfer, info)
    except Corrupted as error:
        await route.target.discard(bucket, key, stored)
        raise Corrupted(f"{_name(transfer)}: {error}; the copy was removed") from error
    return proof


async def _file_proof(route: Route, transfer: Transfer, info: ObjectInfo) -> Proof:
    """Hash a file, fresh in the page cache, in the way the source's ETag was made."""
    stated = info.checksums.get(verify.CRC64)
    if stated:
        bucket, key = route.destination(transfer)
        if await route.target.digest(bucket, key, verify.CRC64, None) == base64.b64decode(stated):
            return Proof.CHECKSUM
        raise Corrupted(f"the file's CRC64NVME is not that of the source ({stated})")
    if info.encryption in {"aws:kms", "aws:kms:dsse", "customer"}:
        return Proof.SIZE
    equal = await file_equals(route, transfer, transfer.etag)
    if equal is False:
        raise Corrupted(f"the file's MD5 is not that of the source ({transfer.etag})")
    return Proof.MD5 if equal else Proof.SIZE


async def file_equals(route: Route, transfer: Transfer, etag: str) -> bool | None:
    """Say whether the file at the target has the source's ETag; None where that cannot be told."""
    bucket, key = route.destination(transfer)
    if plan.is_md5(etag):
        return await route.target.digest(bucket, key, verify.MD5, None) == bytes.fromhex(etag)
    layout = await source_layout(route, transfer, Limits(min_part_size=1))
    if layout is None:
        return None
    digest = await route.target.digest(bucket, key, verify.MD5, layout.part_size)
    if digest is not None and f"{digest.hex()}-{layout.parts}" == etag:
        return True
    # The boundaries may be a guess: a mismatch proves nothing then.
    return None


# --- what goes with the bytes ----------------------------------------------------------------


async def _attributes(
    route: Route, transfer: Transfer, info: ObjectInfo
) -> tuple[Attributes, tuple[str, ...]]:
    """Collect what travels with the object, and name what the target cannot carry."""
    limits = route.target.limits
    dropped = [] if limits.carries_headers else sorted({_field(name) for name in info.headers})
    if info.missing_metadata:
        dropped.append("unreadable-metadata")
    tags, tags_dropped = await _tags(route, transfer, info)
    if tags_dropped:
        dropped.append("tags")
    storage_class = plan.target_storage_class(route.flow, info.storage_class)
    if not limits.carries_storage_class and info.storage_class != "STANDARD":
        dropped.append("storage-class")
    headers = info.headers
    if TOKEN_HEADER in headers:  # of the flow that brought the object here
        headers = {name: value for name, value in headers.items() if name != TOKEN_HEADER}
    modified = info.modified or transfer.modified
    return Attributes(headers, tags, storage_class, modified), tuple(dropped)


def _field(header: str) -> str:
    return "metadata" if header.startswith("x-amz-meta-") else header


async def _tags(route: Route, transfer: Transfer, info: ObjectInfo) -> tuple[dict[str, str], bool]:
    policy = route.flow.tags
    if policy is TagPolicy.DROP or not route.target.limits.carries_tags:
        return {}, info.tag_count > 0
    # The count is shown only to those who may read the tags, so its absence proves something
    # only once tags of this bucket could be read.
    if not info.tag_count and transfer.bucket in route.tags_known:
        return {}, False
    try:
        tags = await route.source.get_object_tagging(transfer.bucket, transfer.key)
    except AccessDenied as error:
        if policy is TagPolicy.BEST_EFFORT:
            return {}, True
        raise TagsUnreadable(
            f"{_name(transfer)}: its tags may not be read ({error}). "
            f'Allow s3:GetObjectTagging, or set tags = "best_effort" or "drop" for this flow'
        ) from error
    route.tags_known.add(transfer.bucket)
    return tags, False


# --- in parts --------------------------------------------------------------------------------


async def source_layout(route: Route, transfer: Transfer, limits: Limits) -> plan.Layout | None:
    """Find the boundaries of the source's parts, asking for part 1 where the source knows it."""
    if not plan.parts_in(transfer.etag):
        return None
    first = await route.source.head_object(transfer.bucket, transfer.key, part_number=1)
    knows = first is not None and first.parts_count is not None
    size = first.size if first is not None and knows else None
    return plan.source_layout(transfer.size, transfer.etag, size, limits)


@dataclass(slots=True)
class _Upload:
    """A multipart upload in progress. *proofs* has an entry for each part compared in this process."""

    route: Route
    transfer: Transfer
    layout: plan.Layout
    info: ObjectInfo
    hash_md5: bool
    done: dict[int, Part] = field(default_factory=dict)
    proofs: dict[int, Proof] = field(default_factory=dict)
    crcs: dict[int, bytes] = field(default_factory=dict)

    @property
    def upload_id(self) -> str:
        """The target's id of the upload."""
        return self.transfer.upload_id or ""

    async def copy_part(self, number: int) -> None:
        """Pipe one part from the source into the upload."""
        route, span = self.route, self.layout.span(number)
        bucket, key = route.destination(self.transfer)
        async with route.slots, route.gate:
            body = await route.open(self.transfer, span)
            try:
                hashing = verify.HashingBody(body, route.crc64, md5=self.hash_md5)
                part = await route.target.upload_part(
                    bucket, key, self.upload_id, number, span.start, hashing
                )
            finally:
                body.close()
        passed = hashing.digests()
        proof = verify.check_part(part, passed)
        if proof:
            self.proofs[number] = proof
        self.crcs[number] = passed[verify.CRC64]
        self.done[number] = part
        route.emit(BytesMoved(route.flow.name, span.size))

    async def hash_part(self, number: int) -> None:
        """Read a part that the target holds already, to compare it: it is not sent again."""
        async with self.route.slots, self.route.gate:
            body = await self.route.open(self.transfer, self.layout.span(number))
            try:
                hashing = verify.HashingBody(body, self.route.crc64, md5=True)
                while await hashing.read():
                    pass
            finally:
                body.close()
        proof = verify.check_part(self.done[number], hashing.digests())
        if proof:
            self.proofs[number] = proof
        self.crcs[number] = hashing.digests()[verify.CRC64]

    async def in_lanes(self, numbers: list[int], work: Callable[[int], Awaitable[None]]) -> None:
        """Do *work* for each part, several at a time; a stop ends it after those in flight."""
        waiting = iter(numbers)

        async def lane() -> None:
            for number in waiting:  # shared: each lane takes the next one
                if self.route.stop.is_set():
                    return
                await work(number)

        lanes = min(self.route.flow.lanes, len(numbers))
        with _first_cause():
            async with asyncio.TaskGroup() as group:
                for _ in range(lanes):
                    group.create_task(lane())
        if next(waiting, None) is not None or self.route.stop.is_set():
            raise Stopped(_name(self.transfer))


@contextlib.contextmanager
def _first_cause() -> Iterator[None]:
    """Raise what went wrong first, not the group of everything that ended with it."""
    try:
        yield
    except BaseExceptionGroup as group:
        cause: BaseException = group
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        raise cause from None


async def _multipart(route: Route, transfer: Transfer) -> Copied:
    info = await route.source.head_object(transfer.bucket, transfer.key)
    if info is None:
        raise SourceGone(f"{_name(transfer)} was deleted before it was read")
    if info.etag != transfer.etag:
        raise SourceChanged(f"{_name(transfer)}: etag {transfer.etag} became {info.etag}")
    layout = await _layout(route, transfer)
    if layout is None:
        return await _put(route, transfer)
    attributes, dropped = await _attributes(route, transfer, info)
    attributes = replace(attributes, token=plan.transfer_token(route.source.name, transfer))
    upload = _Upload(route, transfer, layout, info, _hashes_md5(route, info, layout))
    try:
        stored = await _upload(upload, attributes)
    except (SourceChanged, SourceGone):
        await abort(route, upload.transfer)  # nobody can ever finish it
        raise
    proof = await _multipart_proof(upload, stored)
    return Copied(Method.MULTIPART, proof, stored, dropped)


def _hashes_md5(route: Route, info: ObjectInfo, layout: plan.Layout) -> bool:
    if not route.target.limits.etags:
        return False  # a file is hashed at the end, from the page cache
    return not (layout.of_source and info.encryption in {"", "AES256"})


async def _layout(route: Route, transfer: Transfer) -> plan.Layout | None:
    limits = route.target.limits
    if transfer.part_size:  # the same plan as when the upload began, or its parts are worth nothing
        repeats = -(-transfer.size // transfer.part_size) == plan.parts_in(transfer.etag)
        return plan.Layout(transfer.size, transfer.part_size, of_source=repeats)
    layout = await source_layout(route, transfer, limits) if limits.etags else None
    if layout is None and transfer.size > min(route.flow.multipart_threshold, limits.max_put_size):
        layout = plan.fit_layout(transfer.size, route.flow.part_size, limits)
    return layout


async def _upload(upload: _Upload, attributes: Attributes) -> Stored:
    """Send what the target lacks and complete; begin again, a few times, when the upload vanished."""
    for _ in range(MAX_UPLOAD_RESTARTS):
        try:
            if upload.transfer.upload_id:
                await _take_stock(upload)
            else:
                await _begin(upload, attributes)
            missing = [n for n in range(1, upload.layout.parts + 1) if n not in upload.done]
            await upload.in_lanes(missing, upload.copy_part)
            await _prove_resumed_parts(upload)
            return await _complete(upload, attributes.token)
        except NoSuchUpload:
            stored = await _completed_before(upload, attributes.token)
            if stored is not None:
                return stored
            upload.transfer = upload.transfer._replace(upload_id=None)
            upload.done.clear()
    raise NoSuchUpload(f"{_name(upload.transfer)}: the target lost the upload time and again")


async def _begin(upload: _Upload, attributes: Attributes) -> None:
    route, transfer, layout = upload.route, upload.transfer, upload.layout
    bucket, key = route.destination(transfer)
    transfer = await route.remember(transfer, "", layout.part_size)
    upload_id = await route.target.create_multipart_upload(bucket, key, attributes, layout.size)
    upload.transfer = await route.remember(transfer, upload_id, layout.part_size)
    route.begun[transfer.id] = upload.transfer


async def _abort_all(route: Route, bucket: str, key: bytes) -> None:
    for left in await route.target.list_multipart_uploads(bucket, key):
        if left.key == key:
            await route.target.abort_multipart_upload(bucket, key, left.upload_id)
            route.emit(UploadAborted(route.flow.name, left.upload_id))


async def _take_stock(upload: _Upload) -> None:
    """Ask the target what it holds; only parts of exactly the planned size count."""
    bucket, key = upload.route.destination(upload.transfer)
    held = await upload.route.target.list_parts(bucket, key, upload.upload_id)
    count = upload.layout.parts
    upload.done = {
        part.number: part
        for part in held
        if part.number <= count and part.size == upload.layout.span(part.number).size
    }


async def _prove_resumed_parts(upload: _Upload) -> None:
    """Compare the parts that an earlier process sent, where only their own bytes can prove them."""
    if upload.hash_md5:
        unproven = [number for number in sorted(upload.done) if number not in upload.proofs]
        for number in unproven:
            if number not in upload.crcs:
                await upload.in_lanes([number], upload.hash_part)


async def _complete(upload: _Upload, token: str) -> Stored:
    bucket, key = upload.route.destination(upload.transfer)
    parts = [upload.done[number] for number in sorted(upload.done)]
    try:
        stored = await upload.route.target.complete_multipart_upload(
            bucket, key, upload.upload_id, parts
        )
    except (ConnectionLost, ServerError, Stalled):
        # The answer is lost, not the request: the target knows whether it was carried out.
        found = await _completed_before(upload, token)
        if found is None:
            raise
        return found
    stored.size = stored.size or upload.layout.size
    return stored


async def _completed_before(upload: _Upload, token: str) -> Stored | None:
    """Say whether the object at the key is this upload's; that *something* is there proves nothing."""
    bucket, key = upload.route.destination(upload.transfer)
    there = await upload.route.target.head_object(bucket, key)
    if there is None or there.size != upload.layout.size:
        return None
    if there.headers.get(TOKEN_HEADER) != token:
        return None
    return Stored(there.size, there.etag, there.checksums, there.version_id, there.encryption)


async def _multipart_proof(upload: _Upload, stored: Stored) -> Proof:
    route, count = upload.route, upload.layout.parts
    passed: dict[str, bytes] = {}
    if len(upload.crcs) == count:
        passed[verify.CRC64] = _combined_crc(upload)
    proof = await _proof(route, upload.transfer, upload.info, stored, passed)
    if proof is not Proof.SIZE or len(upload.proofs) < count:
        return proof
    expected = verify.multipart_etag([upload.done[n] for n in range(1, count + 1)])
    if all(proof is Proof.CHECKSUM for proof in upload.proofs.values()):
        return Proof.CHECKSUM
    return Proof.MD5 if expected and stored.etag == expected else Proof.SIZE


def _combined_crc(upload: _Upload) -> bytes:
    whole = upload.crcs[1]
    for number in range(2, upload.layout.parts + 1):
        size = upload.layout.span(number).size
        whole = upload.route.crc64.combine(whole, upload.crcs[number], size)
    return whole


async def abort(route: Route, transfer: Transfer) -> None:
    """Remove the transfer's upload, for good."""
    if transfer.upload_id:
        bucket, key = route.destination(transfer)
        await route.target.abort_multipart_upload(bucket, key, transfer.upload_id)
        route.emit(UploadAborted(route.flow.name, transfer.upload_id))


def _name(transfer: Transfer) -> str:
    return f"{transfer.bucket}/{transfer.key.decode(errors='backslashreplace')}"
