"""What the transfers of a flow share: its stores, its pace, and how to tell what happened."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from dataclasses import dataclass, field

from s3flow.engine import plan
from s3flow.engine.reading import Reading
from s3flow.engine.retry import Backoff
from s3flow.engine.throttle import Gate, PacedBody, TokenBucket
from s3flow.engine.verdicts import Verdicts
from s3flow.errors import BadAnswer, S3flowError
from s3flow.events import Emit
from s3flow.model import Flow, Method, Proof, Span, Stored, Transfer
from s3flow.ports import Body, Crc64, RestoreQueue, Source, Target

SMALL_BODY = (
    64 * 1024
)  # bytes; such bodies are bounded by the gates alone, they hold no large buffer
# What the ids of uploads begin with, here and in the state, that the source's credentials began: the
# whole of an upload is the work of one principal, in this process and after it.
BY_SOURCE = "by-source:"
TOKEN_HEADER = "x-amz-meta-s3flow-transfer"  # noqa: S105  names a version, opens nothing


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
    # The daemon's bound on bodies in flight, and so on their buffers. Taken after the gate's place:
    # who waits at the gate of a throttled flow must not keep other flows from working.
    slots: asyncio.Semaphore
    bytes_buckets: tuple[TokenBucket, ...]
    request_buckets: tuple[TokenBucket, ...]
    crc64: Crc64
    emit: Emit
    stop: asyncio.Event
    remember: Callable[[Transfer, str, int], Awaitable[Transfer]]
    backoff: Backoff = field(default_factory=Backoff)
    reader: Source | None = None  # reads the target back, where it is a store that can be read
    verdicts: Verdicts | None = None  # of copies inside the store; None: this route has none
    copier: Target | None = None  # the target with the source's credentials, where they are others
    websites: dict[str, bool] = field(default_factory=dict)  # source buckets, whether they are one
    restore_queue: RestoreQueue | None = None  # tells of completed restores
    mark: str = ""  # goes into the names of probes: what its state calls itself
    passed: int = 0  # bytes, chunk by chunk: what a rate is made of
    tags_known: set[str] = field(default_factory=set)  # buckets whose tags could be read
    begun: dict[int, Transfer] = field(default_factory=dict)  # with upload ids, by transfer id
    part_numbers: bool = False  # the source has told of a part by its number
    advanced: set[int] = field(default_factory=set)  # ids of transfers that a part more arrived of
    readings: dict[str, Reading] = field(default_factory=dict)  # of open uploads, by their ids

    def destination(self, transfer: Transfer) -> tuple[str, bytes]:
        """Give the target's bucket and key."""
        return (
            plan.target_bucket(self.flow, transfer.bucket),
            plan.target_key(self.flow, transfer.key),
        )

    def held(self, upload_id: str) -> tuple[Target, str]:
        """Give the store as the one that began an upload sees it, and the id as that store knows it."""
        if upload_id.startswith(BY_SOURCE):
            return self.copier or self.target, upload_id[len(BY_SOURCE) :]
        return self.target, upload_id

    def room(self, size: int) -> AbstractAsyncContextManager[None]:
        """Give the place that a body of *size* bytes takes while it is in flight."""
        return self.slots if size > SMALL_BODY else nullcontext()

    async def stopped_within(self, seconds: float) -> bool:
        """Wait, but not when the daemon stops; say whether it does."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stop.wait()
        return self.stop.is_set()

    async def turn(self, requests: int = 2) -> None:
        """Wait until a GET and the PUT that it feeds may be sent; hold nothing meanwhile."""
        for bucket in self.request_buckets:
            await bucket.take(requests)

    async def open(self, transfer: Transfer, span: Span | None = None) -> Body:
        """Open the version that was planned, or a span of it, at the pace that is allowed."""
        body = await self.source.get_object(
            transfer.bucket, transfer.key, etag=transfer.etag, span=span
        )
        if body.info.size != transfer.size:
            body.close()
            raise wrong_size(transfer, body.info.size)
        return PacedBody(body, self.bytes_buckets) if self.bytes_buckets else body


@dataclass(slots=True)
class Copied:
    """A transfer whose bytes the target has taken, with the proof that they are the right ones.

    *told* names the bytes at targets without ETags: what `verify.file_sum` gives.
    """

    method: Method
    proof: Proof
    stored: Stored
    dropped: tuple[str, ...]
    version_id: str | None  # the source's
    told: str = ""


def wrong_size(transfer: Transfer, size: int) -> BadAnswer:
    """Tell of an answer that keeps the ETag and has another size: its lengths agree, and lie.

    A proxy cut or compressed it. Where the ETag is no digest of the bytes, nothing else would tell.
    """
    return BadAnswer(
        f"{object_name(transfer)}: listed with {transfer.size:,} bytes, the answer says {size:,} "
        "under the same ETag; does a proxy stand between, and change bodies?"
    )


def object_name(transfer: Transfer) -> str:
    """Name a transfer's object for messages."""
    return f"{transfer.bucket}/{transfer.key.decode(errors='backslashreplace')}"
