"""One object in parts: the missing ones, several at a time, resumable at any instant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from s3flow.crashpoints import passing
from s3flow.engine import plan, verify
from s3flow.engine.fidelity import attributes_of
from s3flow.engine.reading import Reading, resumed
from s3flow.engine.retry import patience
from s3flow.engine.route import (
    BY_SOURCE,
    TOKEN_HEADER,
    Copied,
    Route,
    Stopped,
    object_name,
    wrong_size,
)
from s3flow.engine.uploads import abort, forget
from s3flow.errors import (
    AccessDenied,
    Conflict,
    ConnectionLost,
    CopyRefused,
    Corrupted,
    NoSuchUpload,
    ServerError,
    SourceChanged,
    SourceGone,
    Stalled,
    Throttled,
)
from s3flow.events import BytesMoved, Retried
from s3flow.lanes import in_lanes
from s3flow.model import Attributes, Method, ObjectInfo, Part, Proof, Stored, Transfer
from s3flow.ports import Body

MAX_UPLOAD_RESTARTS = 3


@dataclass(slots=True)
class OpenUpload:
    """A multipart upload in progress. *proofs* has an entry for each part compared in this process."""

    route: Route
    transfer: Transfer
    layout: plan.Layout
    info: ObjectInfo
    hash_md5: bool
    way: Way
    done: dict[int, Part] = field(default_factory=dict)
    proofs: dict[int, Proof] = field(default_factory=dict)
    crcs: dict[int, bytes] = field(default_factory=dict)
    crc: bytes = b""  # of the whole, once all of it has passed here
    reading: Reading | None = None  # of the whole, part by part: where nothing else shows it

    @property
    def upload_id(self) -> str:
        """The target's id of the upload."""
        return self.transfer.upload_id or ""

    async def copy_part(self, number: int) -> None:
        """Bring one part into the upload."""
        route = self.route
        part, passed = await self.way.bring(self, number)
        passing("part.brought")
        proof = verify.check_part(part, passed)
        if proof:
            self.proofs[number] = proof
        if verify.CRC64 in passed:
            self.crcs[number] = passed[verify.CRC64]
        self.done[number] = part
        route.advanced.add(self.transfer.id)
        route.emit(BytesMoved(route.flow.name, part.size))

    async def take_part(self, number: int) -> None:
        """Bring a part into the upload, or read it where the target has it, for the whole's MD5."""
        await (self.hash_part(number) if number in self.done else self.copy_part(number))
        if self.reading is not None:
            self.reading.etags.append(self.done[number].etag)
            self.route.advanced.add(self.transfer.id)

    @contextmanager
    def hashed(self, body: Body, *, md5: bool) -> Iterator[verify.HashingBody]:
        """Hash *body* while it passes, and the whole on; a part that failed leaves no trace of it."""
        whole = None if self.reading is None else self.reading.md5.copy()
        yield verify.HashingBody(body, self.route, md5=md5, whole=whole)
        if self.reading is not None and whole is not None:
            self.reading.md5 = whole

    async def hash_part(self, number: int) -> None:
        """Read a part that the target holds already, to compare it: it is not sent again."""
        await self.route.turn()
        span = self.layout.span(number)
        async with self.route.gate, self.route.room(span.size):
            body = await self.route.open(self.transfer, span)
            try:
                with self.hashed(body, md5=True) as hashing:
                    while await hashing.read():
                        pass
            finally:
                body.close()
        proof = verify.check_part(self.done[number], hashing.digests())
        if proof:
            self.proofs[number] = proof
        self.crcs[number] = hashing.digests()[verify.CRC64]

    def combined_crc(self) -> bytes:
        """Give the CRC64NVME of the whole, made of those of its parts."""
        whole = self.crcs[1]
        for number in range(2, self.layout.parts + 1):
            size = self.layout.span(number).size
            whole = self.route.crc64.combine(whole, self.crcs[number], size)
        return whole

    async def _patiently(self, work: Callable[[int], Awaitable[None]], number: int) -> None:
        """Do *work*, waiting out what throttles it; the other parts go on meanwhile."""
        route, tries = self.route, 0
        while True:
            try:
                await work(number)
            except Throttled as error:
                tries += 1
                route.gate.throttled(error.endpoint)
                delay = patience(error, tries, route.backoff)
                route.emit(Retried(self.transfer, error.reason, str(error), delay))
                if await route.stopped_within(delay):
                    raise Stopped(object_name(self.transfer)) from error
            else:
                return

    async def in_lanes(self, numbers: list[int], work: Callable[[int], Awaitable[None]]) -> None:
        """Do *work* for each part, several at a time; a stop ends it after those in flight."""
        waiting = iter(numbers)

        async def lane(_: int) -> None:
            while not self.route.stop.is_set():
                number = next(waiting, None)  # shared: each lane takes the next one
                if number is None:
                    return
                await self._patiently(work, number)

        lanes = 1 if self.reading is not None else min(self.route.flow.lanes, len(numbers))
        await in_lanes(range(lanes), lane, lanes)
        if next(waiting, None) is not None:
            raise Stopped(object_name(self.transfer))


@dataclass(frozen=True, slots=True)
class Way:
    """How the parts come into an upload: *bring* gives the part and the digests of what passed here.

    *whole* says how many bytes go in one piece where the source's layout is not known. *by_source*:
    a new upload is begun with the source's credentials.
    """

    method: Method
    bring: Callable[[OpenUpload, int], Awaitable[tuple[Part, dict[str, bytes]]]]
    whole: Callable[[Route], int]
    by_source: bool = False


async def _pipe(upload: OpenUpload, number: int) -> tuple[Part, dict[str, bytes]]:
    """Pipe a part from the source into the upload."""
    route, span = upload.route, upload.layout.span(number)
    bucket, key = route.destination(upload.transfer)
    await route.turn()
    async with route.gate, route.room(span.size):
        body = await route.open(upload.transfer, span)
        try:
            with upload.hashed(body, md5=upload.hash_md5) as hashing:
                part = await route.target.upload_part(
                    bucket, key, upload.upload_id, number, span.start, hashing
                )
        finally:
            body.close()
    return part, hashing.digests()


STREAMED = Way(
    Method.MULTIPART,
    _pipe,
    lambda route: min(route.flow.multipart_threshold, route.target.limits.max_put_size),
)


async def copy_in_parts(route: Route, transfer: Transfer, way: Way = STREAMED) -> Copied | None:
    """Move an object in parts. None when no layout suits it: it goes in one piece."""
    info = await route.source.head_object(transfer.bucket, transfer.key)
    if info is None:
        raise SourceGone(f"{object_name(transfer)} was deleted before it was read")
    if info.etag != transfer.etag:
        raise SourceChanged(f"{object_name(transfer)}: etag {transfer.etag} became {info.etag}")
    if info.size != transfer.size:
        raise wrong_size(transfer, info.size)
    layout = await _layout(route, transfer, way.whole(route))
    if layout is None:
        return None
    attributes, dropped = await attributes_of(route, transfer, info)
    attributes = attributes._replace(token=plan.transfer_token(route.source.name, transfer))
    upload = OpenUpload(route, transfer, layout, info, _hashes_md5(route, info, layout), way)
    try:
        stored = await _upload(upload, attributes)
    except (SourceChanged, SourceGone, Corrupted):
        # Nobody can ever finish it, or it holds a part that must not be taken for a good one.
        await abort(route, upload.transfer)
        raise
    except Conflict:
        # Completing again helps after an OperationAborted, never after a ConditionalRequestConflict.
        if transfer.attempts:
            await abort(route, upload.transfer)
        raise
    route.readings.pop(upload.upload_id, None)
    if upload.upload_id.startswith(BY_SOURCE):
        try:
            await verify.readable(route, upload.transfer, stored)
        except CopyRefused:
            forget(route, upload.transfer)
            raise
    proof = await _multipart_proof(upload, stored)
    told = verify.file_sum(upload.crc) if upload.crc and not route.target.limits.etags else ""
    return Copied(way.method, proof, stored, dropped, info.version_id, told)


def _hashes_md5(route: Route, info: ObjectInfo, layout: plan.Layout) -> bool:
    if not route.target.limits.etags:
        return False  # a file is hashed at the end, from the page cache
    # With the source's boundaries the ETags will tell, unless a key makes them mean nothing.
    return not (layout.of_source and info.encryption in {"", "AES256"})


async def _layout(route: Route, transfer: Transfer, whole: int) -> plan.Layout | None:
    limits = route.target.limits
    if transfer.part_size:  # the same plan as when the upload began, or its parts are worth nothing
        repeats = plan.ceil_div(transfer.size, transfer.part_size) == plan.parts_in(transfer.etag)
        return plan.Layout(transfer.size, transfer.part_size, of_source=repeats)
    layout = await verify.source_layout(route, transfer, limits) if limits.etags else None
    if layout is None and transfer.size > whole:
        layout = plan.fit_layout(transfer.size, route.flow.part_size, limits)
    return layout


async def _upload(upload: OpenUpload, attributes: Attributes) -> Stored:
    """Send what the target lacks and complete; begin again, a few times, when the upload vanished."""
    for _ in range(MAX_UPLOAD_RESTARTS):
        try:
            if upload.transfer.upload_id:
                await _take_stock(upload)
            else:
                await _begin(upload, attributes)
            await _bring_all(upload)
            return await _complete(upload, attributes.token)
        except NoSuchUpload:
            stored = await _completed_before(upload, attributes.token)
            if stored is not None:
                return stored
            upload.route.readings.pop(upload.upload_id, None)
            upload.transfer = upload.transfer._replace(upload_id=None)
            upload.done.clear()
    raise NoSuchUpload(f"{object_name(upload.transfer)}: the target lost the upload time and again")


async def _bring_all(upload: OpenUpload) -> None:
    """Send what the target lacks, and read what it has where only all in order can be compared."""
    numbers = range(1, upload.layout.parts + 1)
    stated = verify.only_md5(upload.info, upload.route.target.limits)
    if stated is None or upload.way is not STREAMED:
        await upload.in_lanes([n for n in numbers if n not in upload.done], upload.copy_part)
        return
    reading = resumed(upload.route.readings, upload.upload_id, upload.done)
    upload.reading, upload.proofs, upload.crcs = reading, reading.proofs, reading.crcs
    await upload.in_lanes(list(numbers[len(reading.etags) :]), upload.take_part)
    reading.check(stated)


async def _begin(upload: OpenUpload, attributes: Attributes) -> None:
    route, transfer, layout = upload.route, upload.transfer, upload.layout
    bucket, key = route.destination(transfer)
    # The intent first: if the process dies before it knows the id, the next one looks for it here.
    transfer = await route.remember(transfer, "", layout.part_size)
    route.begun[transfer.id] = transfer
    passing("upload.intended")
    by_source = BY_SOURCE if upload.way.by_source else ""
    store, _ = route.held(by_source)
    begun = await store.create_multipart_upload(bucket, key, attributes, layout.size)
    passing("upload.created")
    upload_id = by_source + begun
    upload.transfer = await route.remember(transfer, upload_id, layout.part_size)
    route.begun[transfer.id] = upload.transfer
    passing("upload.remembered")


async def _take_stock(upload: OpenUpload) -> None:
    """Ask the target what it holds; only parts of exactly the planned size count."""
    bucket, key = upload.route.destination(upload.transfer)
    store, upload_id = upload.route.held(upload.upload_id)
    try:
        held = await store.list_parts(bucket, key, upload_id)
    except AccessDenied as error:
        if upload.upload_id == upload_id:
            raise
        # It was begun with credentials of the source's that are no longer these.
        raise NoSuchUpload(str(error)) from error
    passing("upload.resumed")
    count = upload.layout.parts
    upload.done = {
        part.number: part
        for part in held
        if part.number <= count and part.size == upload.layout.span(part.number).size
    }


async def _complete(upload: OpenUpload, token: str) -> Stored:
    bucket, key = upload.route.destination(upload.transfer)
    parts = [upload.done[number] for number in sorted(upload.done)]
    try:
        store, upload_id = upload.route.held(upload.upload_id)
        passing("upload.completing")
        stored = await store.complete_multipart_upload(bucket, key, upload_id, parts)
        passing("upload.completed")
    except (ConnectionLost, ServerError, Stalled):
        # The answer is lost, not the request: the target knows whether it was carried out.
        found = await _completed_before(upload, token)
        if found is None:
            raise
        return found
    stored.size = stored.size or upload.layout.size
    return stored


async def _completed_before(upload: OpenUpload, token: str) -> Stored | None:
    """Say whether the object at the key is this upload's; that *something* is there proves nothing."""
    bucket, key = upload.route.destination(upload.transfer)
    there = await upload.route.target.head_object(bucket, key)
    if there is None or there.size != upload.layout.size:
        return None
    if there.headers.get(TOKEN_HEADER) != token:
        return None
    if upload.layout.of_source and there.etag != upload.transfer.etag and not upload.done:
        return (
            None  # ours, but neither its ETag nor its parts can show what is in it: send it again
        )
    return Stored(there.size, there.etag, there.checksums, there.version_id, there.encryption)


async def _multipart_proof(upload: OpenUpload, stored: Stored) -> Proof:
    """Prove the whole, by its parts where nothing says it at once, else by reading it back."""
    route, parts = upload.route, upload.layout.parts
    passed: dict[str, bytes] = {}
    if len(upload.crcs) == parts:
        passed[verify.CRC64] = upload.crc = upload.combined_crc()
    proof = await verify.confirm(route, upload.transfer, upload.info, stored, passed)
    if proof is not Proof.SIZE or not route.target.limits.etags:
        return proof
    if upload.way is not STREAMED:  # what never passed here is not read for the proof either
        # The upload is complete: what cannot be proven so begins anew.
        forget(route, upload.transfer)
        return (await verify.by_looking(route, upload.transfer, stored))[0]
    try:
        return await _proof_by_parts(upload, stored) or await _proof_by_reading(upload, stored)
    except Corrupted:
        await route.target.discard(*route.destination(upload.transfer), stored)
        raise


async def _proof_by_parts(upload: OpenUpload, stored: Stored) -> Proof | None:
    """Compare each part with its bytes, reading again those that passed before this process."""
    whole = verify.multipart_etag([upload.done[n] for n in sorted(upload.done)])
    if len(upload.done) < upload.layout.parts or not whole or stored.etag != whole:
        return None
    unread = [n for n in sorted(upload.done) if n not in upload.proofs]
    await upload.in_lanes(unread, upload.hash_part)
    stated = upload.info.checksums.get(verify.CRC64)
    if stated and len(upload.crcs) == upload.layout.parts:  # all of it, with what was read again
        verify.check_crc(stated, upload.combined_crc())
    weakest = set(upload.proofs.values()) if len(upload.proofs) == upload.layout.parts else set()
    if not weakest:
        return None
    return Proof.MD5 if Proof.MD5 in weakest else Proof.CHECKSUM


async def _proof_by_reading(upload: OpenUpload, stored: Stored) -> Proof:
    """Read back what an earlier process completed, whose parts nobody can name any more."""
    stated = verify.stated_md5(upload.info)
    if stated is None:
        return Proof.SIZE
    found = await verify.read_back(upload.route, upload.transfer, stored.etag)
    if found is None:
        return Proof.SIZE
    if found != stated:
        raise Corrupted(f"{object_name(upload.transfer)}: the copy read back is not the source's")
    return Proof.READBACK
