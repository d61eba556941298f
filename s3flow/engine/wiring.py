"""Puts a flow's route together from its stores and the limits that it shares with the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from s3flow.engine.retry import Backoff
from s3flow.engine.route import Route
from s3flow.engine.throttle import Gate, TokenBucket
from s3flow.engine.verdicts import Verdicts
from s3flow.errors import ConfigError
from s3flow.events import Emit, RouteDecided
from s3flow.model import Flow, Transfer, Verdict
from s3flow.policies import CopyBy, MethodPolicy
from s3flow.ports import Crc64, RestoreQueue, Source, Target

Remember = Callable[[Transfer, str, int], Awaitable[Transfer]]


class Share(NamedTuple):
    """What one of several processes gets of the limits, so that their sum holds.

    *requests* is its part of the rate of requests: the process that lists needs some as well.
    """

    number: int = 0
    of: int = 1
    requests: float = 1.0

    def places(self, total: int) -> int:
        """Give this process's part of *total* places: whole ones, the first have one more."""
        return total // self.of + (self.number < total % self.of)


@dataclass(frozen=True, slots=True)
class Pace:
    """The daemon's own limits; 0: none. *bodies* bounds what is in flight, and so the memory."""

    concurrency: int = 64
    bodies: int = 64
    max_bytes_per_s: int = 0
    max_requests_per_s: int = 0
    drain_timeout: float = 20.0  # seconds; below Kubernetes' default grace period of 30
    block_retry: float = 10.0  # seconds between looks at what blocks a flow
    backoff: Backoff = field(default_factory=Backoff)
    share: Share = field(default_factory=Share)

    def concurrency_of(self, flow: Flow) -> int:
        """Give the number of a flow's transfers at a time, in this process."""
        return self.share.places(min(flow.concurrency or self.concurrency, self.concurrency))


@dataclass(frozen=True, slots=True)
class Wiring:
    """A flow with the stores of its two ends.

    *reader* reads the target back, where it can be. *copier* is the target with the source's
    credentials, where both ends are one service and the credentials are two. *endpoints* tells one
    configuration of the two from another: what was found out holds for one of them.
    """

    flow: Flow
    source: Source
    target: Target
    reader: Source | None = None
    copier: Target | None = None
    endpoints: str = ""
    restore_queue: RestoreQueue | None = None


async def remember_nothing(transfer: Transfer, upload_id: str, part_size: int) -> Transfer:
    """Stand in for the state where nothing is transferred."""
    return transfer._replace(upload_id=upload_id, part_size=part_size)


class RouteMaker:
    """Makes routes that share the daemon's limits."""

    def __init__(self, pace: Pace, crc64: Crc64, emit: Emit, stop: asyncio.Event) -> None:
        self._pace = pace
        self._crc64 = crc64
        self._emit = emit
        self._stop = stop
        share = pace.share
        self._slots = asyncio.Semaphore(share.places(pace.bodies))
        self._bytes = _buckets(pace.max_bytes_per_s / share.of)
        self._requests = _buckets(pace.max_requests_per_s * share.requests)

    def route(self, wiring: Wiring, remember: Remember = remember_nothing, mark: str = "") -> Route:
        """Make the route of a flow. *mark*: who it is that tries what its stores do, for names."""
        flow, share = wiring.flow, self._pace.share
        return Route(
            flow=flow,
            source=wiring.source,
            target=wiring.target,
            reader=wiring.reader,
            verdicts=_verdicts(wiring, self._emit),
            copier=wiring.copier,
            restore_queue=wiring.restore_queue,
            mark=mark,
            gate=Gate(flow.name, self._pace.concurrency_of(flow), self._emit),
            slots=self._slots,
            bytes_buckets=self._bytes + _buckets(flow.max_bytes_per_s / share.of),
            request_buckets=self._requests + _buckets(flow.max_requests_per_s * share.requests),
            crc64=self._crc64,
            emit=self._emit,
            stop=self._stop,
            remember=remember,
            backoff=self._pace.backoff,
        )


def _verdicts(wiring: Wiring, emit: Emit) -> Verdicts | None:
    flow, service = wiring.flow, wiring.target.service
    if flow.method is MethodPolicy.STREAM_ONLY:
        return None
    if service and service == wiring.source.service:
        ways = (CopyBy.TARGET, CopyBy.SOURCE) if wiring.copier else (CopyBy.TARGET,)
        return Verdicts(flow=flow.name, ways=ways, tell=lambda verdict: emit(RouteDecided(verdict)))
    if flow.method is MethodPolicy.SERVER_ONLY:
        raise ConfigError(
            f'flow {flow.name}: method = "server-only" needs one service at both ends, and '
            f"{flow.source.endpoint} and {flow.target.endpoint} are two: "
            'use "server-first", which streams where nothing else works'
        )
    return None


def decided_at_start(flow: Flow, source: Source, target: Target, now: float) -> Verdict | None:
    """Say why a flow's objects are streamed, where that is certain before any request."""
    if not target.service:
        return None  # a folder: there is no other way
    if flow.method is MethodPolicy.STREAM_ONLY:
        why = 'the flow says method = "stream-only"'
    elif target.service != source.service:
        why = (
            f"{source.name} ({source.service}) and {target.name} ({target.service}) are two services,"
            " and none copies from another"
        )
    else:
        return None
    bucket = flow.source.bucket
    return Verdict(flow.name, bucket, "objects", CopyBy.STREAMED.value, why, now, 0.0)


def _buckets(rate: float) -> tuple[TokenBucket, ...]:
    return (TokenBucket(rate),) if rate else ()
