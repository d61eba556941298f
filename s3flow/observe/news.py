"""What events say of a run that counts do not: blocks, scans, slow stores, retries, failures, workers."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from s3flow import events
from s3flow.model import State
from s3flow.observe.text import shown

KEPT = 10  # failures
SLOW_FOR = 60.0  # seconds that a store's wish to slow down is shown


@dataclass(slots=True)
class Slowness:
    """How often a store asked to slow down, the last time (monotonic), and how many go at a time now."""

    times: int = 0
    last: float = 0.0
    concurrency: int = 0


class News:
    """Keeps the last news of each kind; what it holds is bounded and safe to print."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self.began = clock()
        self.blocked: dict[str, str] = {}  # by flow, why
        self.holding: dict[str, str] = {}  # by flow, why no source is deleted
        self.listing: set[str] = set()
        self.unlisted: dict[
            str, set[str]
        ] = {}  # by flow, buckets that could not be listed this time
        self.retries: dict[str, int] = {}  # by reason
        self.failures: deque[tuple[str, str, bytes | str]] = deque(maxlen=KEPT)
        self.slow: dict[str, Slowness] = {}  # by endpoint
        self.workers: dict[int, int] = {}  # process ids of those that live
        self.deaths = 0
        self.told: dict[type, Callable[..., None]] = {
            events.ScanStarted: self._scan_started,
            events.ScanFinished: self._scan_finished,
            events.BucketFailed: self._bucket_failed,
            events.TransferEnded: self._ended,
            events.Retried: self._retried,
            events.ThrottleChanged: self._throttle_changed,
            events.FlowBlocked: self._flow_blocked,
            events.FlowUnblocked: self._flow_unblocked,
            events.DeletesHeld: self._deletes_held,
            events.DeletesResumed: self._deletes_resumed,
            events.WorkerStarted: self._worker_started,
            events.WorkerEnded: self._worker_ended,
        }

    def __call__(self, event: events.Event) -> None:
        """Take *event* if it is one of these."""
        told = self.told.get(type(event))
        if told is not None:
            told(event)

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self._clock() - self.began

    def last_failures(self) -> list[tuple[str, str]]:
        """Give (reason, place) of the last failures, the latest first."""
        return [
            (reason, f"{shown(bucket)}/{shown(key)}")
            for reason, bucket, key in reversed(self.failures)
        ]

    def slowed(self) -> dict[str, Slowness]:
        """Give the stores that asked to slow down lately."""
        since = self._clock() - SLOW_FOR
        return {name: slow for name, slow in self.slow.items() if slow.times and slow.last > since}

    def _scan_started(self, event: events.ScanStarted) -> None:
        self.listing.add(event.flow)
        self.unlisted.pop(event.flow, None)

    def _scan_finished(self, event: events.ScanFinished) -> None:
        self.listing.discard(event.flow)

    def _bucket_failed(self, event: events.BucketFailed) -> None:
        self.unlisted.setdefault(event.flow, set()).add(event.bucket)
        self.failures.append((event.reason, event.bucket, "(the bucket cannot be listed)"))

    def _ended(self, event: events.TransferEnded) -> None:
        change = event.change
        if change.state is State.FAILED:
            transfer = change.transfer
            self.failures.append((change.reason, transfer.bucket, transfer.key))

    def _retried(self, event: events.Retried) -> None:
        self.retries[event.reason] = self.retries.get(event.reason, 0) + 1

    def _throttle_changed(self, event: events.ThrottleChanged) -> None:
        slow = self.slow.setdefault(event.endpoint, Slowness())
        slow.concurrency = event.concurrency
        if event.throttled:
            slow.times += 1
            slow.last = self._clock()

    def _flow_blocked(self, event: events.FlowBlocked) -> None:
        self.blocked[event.flow] = f"{event.reason}: {shown(event.message)}"

    def _flow_unblocked(self, event: events.FlowUnblocked) -> None:
        # Another worker process may be blocked by something else.
        if self.blocked.get(event.flow, "").partition(":")[0] == event.reason:
            del self.blocked[event.flow]

    def _deletes_held(self, event: events.DeletesHeld) -> None:
        self.holding[event.flow] = f"{event.reason}: {shown(event.message)}"

    def _deletes_resumed(self, event: events.DeletesResumed) -> None:
        self.holding.pop(event.flow, None)

    def _worker_started(self, event: events.WorkerStarted) -> None:
        self.workers[event.worker] = event.pid

    def _worker_ended(self, event: events.WorkerEnded) -> None:
        self.deaths += 1
        self.workers.pop(event.worker, None)
