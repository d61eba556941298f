"""What happened, told once: metrics, logs and displays subscribe; the engine imports none of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple, get_args

from s3flow.model import Change, Discovered, State, Transfer, Verdict


class ScanStarted(NamedTuple):
    """A walk over a flow's source began, or goes on where it was interrupted."""

    flow: str
    resumed: bool


class Decided(NamedTuple):
    """What a page's listing decided of so many objects without a transfer: adopted, skipped, refused."""

    state: State
    reason: str
    method: str
    proof: str
    objects: int
    bytes: int


class PageMerged(NamedTuple):
    """A page of the listing is in the state."""

    flow: str
    bucket: str
    listed: int
    new: int
    changed: int
    adopted: int
    decided: tuple[Decided, ...] = ()
    refused: tuple[Discovered, ...] = ()  # the first of those that failed by it


class ScanFinished(NamedTuple):
    """The source was listed to its end."""

    flow: str
    listed: int
    seconds: float


class ListingKept(NamedTuple):
    """An interrupted run goes on with what its listing, *finished* then (epoch), has found."""

    flow: str
    finished: float


class FlowDrained(NamedTuple):
    """All that the last walk over the source has found is done and recorded."""

    flow: str


class BucketFailed(NamedTuple):
    """A bucket could not be listed; the others go on."""

    flow: str
    bucket: str
    reason: str
    message: str


class TransferStarted(NamedTuple):
    """A worker took a transfer."""

    transfer: Transfer


class BytesMoved(NamedTuple):
    """A body or part arrived at the target in full."""

    flow: str
    bytes: int


class TransferEnded(NamedTuple):
    """A transfer left its worker: *change* says how; *seconds* is how long it took."""

    change: Change
    seconds: float


class Recorded(NamedTuple):
    """Changes are durable."""

    changes: list[Change]


class Retried(NamedTuple):
    """An attempt failed and the transfer will be tried again after *delay* seconds."""

    transfer: Transfer
    reason: str
    message: str
    delay: float


class ThrottleChanged(NamedTuple):
    """A store asked to slow down, or has taken the pace for long enough to quicken it."""

    endpoint: str
    concurrency: int
    throttled: bool


class FlowBlocked(NamedTuple):
    """Everything of this flow would fail now; it waits and looks again every *retry_after* seconds.

    0: it waits for a person.
    """

    flow: str
    reason: str
    message: str
    retry_after: float


class FlowUnblocked(NamedTuple):
    """What blocked the flow is gone."""

    flow: str
    reason: str


class DeletesHeld(NamedTuple):
    """No source of a move is deleted: a person or the circuit breaker (*reason*) says so; it copies on."""

    flow: str
    reason: str
    message: str


class DeletesResumed(NamedTuple):
    """Sources of a move are deleted again."""

    flow: str


class Kept(NamedTuple):
    """The source of a proven copy stays; *first* of its bucket and reason."""

    change: Change
    first: bool


class LookedAgain(NamedTuple):
    """Copies were proven again, by what was found: see `engine.reverify.Result`."""

    flow: str
    results: Mapping[str, int]


class UploadAborted(NamedTuple):
    """An unfinished upload of ours that nobody will continue was removed."""

    flow: str
    upload_id: str


class RouteDecided(NamedTuple):
    """It was found out, or is known from the start, which way the objects of a bucket go."""

    verdict: Verdict


class LoopHeld(NamedTuple):
    """One step held the event loop for at least *seconds*: *place* names it, *at* has the lines."""

    seconds: float
    place: str
    at: str


class Warned(NamedTuple):
    """Something a person should read once."""

    flow: str
    message: str


class WorkerStarted(NamedTuple):
    """A worker process is ready to move bytes."""

    worker: int
    pid: int


class WorkerPulse(NamedTuple):
    """A worker process lives: the CPU *seconds* since its last pulse, and how late its loop was."""

    worker: int
    seconds: float
    lag: float


class WorkerEnded(NamedTuple):
    """A worker process died; *returned* transfers are given to others, the next starts after *delay*."""

    worker: int
    how: str
    returned: int
    delay: float


Event = (
    ScanStarted
    | PageMerged
    | ScanFinished
    | ListingKept
    | FlowDrained
    | BucketFailed
    | TransferStarted
    | BytesMoved
    | TransferEnded
    | Recorded
    | Retried
    | ThrottleChanged
    | FlowBlocked
    | FlowUnblocked
    | DeletesHeld
    | DeletesResumed
    | Kept
    | LookedAgain
    | UploadAborted
    | RouteDecided
    | LoopHeld
    | Warned
    | WorkerStarted
    | WorkerPulse
    | WorkerEnded
)
Emit = Callable[[Event], None]


def fan_out(*subscribers: Emit) -> Emit:
    """Give one function that tells every subscriber in order.

    One that has *told*, what it calls for each kind of event, is called for these alone: four events
    an object are many where nobody listens to three of them.
    """
    everyone: dict[type, tuple[Callable[..., object], ...]] = {}
    for kind in get_args(Event):
        calls = (_call(subscriber, kind) for subscriber in subscribers)
        everyone[kind] = tuple(call for call in calls if call is not None)

    def emit(event: Event) -> None:
        for tell in everyone[type(event)]:
            tell(event)

    return emit


def _call(subscriber: Emit, kind: type) -> Callable[..., object] | None:
    told: Mapping[type, Callable[..., object]] | None = getattr(subscriber, "told", None)
    return subscriber if told is None else told.get(kind)
