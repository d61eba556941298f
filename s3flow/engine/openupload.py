"""An upload in parts while it is open: what brings its parts, and what is known of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from s3flow.crashpoints import passing
from s3flow.engine import plan, verify
from s3flow.engine.readback import ReadAnew
from s3flow.engine.reading import Reading
from s3flow.engine.retry import patience
from s3flow.engine.route import Route, Stopped, object_name
from s3flow.errors import Corrupted, Throttled
from s3flow.events import BytesMoved, Retried
from s3flow.lanes import in_lanes
from s3flow.model import Method, ObjectInfo, Part, Proof, Transfer
from s3flow.ports import Body


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
            await self._hash(number, await self.route.open(self.transfer, span))

    async def hash_anew(self, number: int) -> None:
        """Compare a part with what other questions for its bytes give than the one it was sent from."""
        span = self.layout.span(number)
        async with self.route.gate, self.route.room(span.size):
            await self._hash(number, ReadAnew(self.route, self.transfer, self.info, span))

    async def _hash(self, number: int, body: Body) -> None:
        try:
            with self.hashed(body, md5=True) as hashing:
                while await hashing.read():
                    pass
        finally:
            body.close()
        digests = hashing.digests()
        if self.crcs.setdefault(number, digests[verify.CRC64]) != digests[verify.CRC64]:
            raise Corrupted(
                f"{object_name(self.transfer)}: part {number} was read twice, and differs"
            )
        proof = verify.check_part(self.done[number], digests)
        if proof:
            self.proofs[number] = proof

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


async def pipe(upload: OpenUpload, number: int) -> tuple[Part, dict[str, bytes]]:
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
    pipe,
    lambda route: min(route.flow.multipart_threshold, route.target.limits.max_put_size),
)
