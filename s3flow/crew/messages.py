"""What is said over the line, as plain tuples; the first field of each is its kind."""

from __future__ import annotations

from typing import Any

from s3flow.crew.link import Message
from s3flow.events import (
    Event,
    FlowBlocked,
    FlowUnblocked,
    LoopHeld,
    ThrottleChanged,
    UploadAborted,
    Warned,
)
from s3flow.model import Change, Listed, State, Transfer, Verdict

# To a worker process.
ORDERS = 1  # what it is to be, as bytes: sent once, first
WORK = 2  # a transfer
REMEMBERED = 3  # number of the question, "" or why it could not be done
STOP = 4  # end what is begun, leave the rest
QUIT = 5  # end now

# Both ways.
VERDICT = 6  # which way objects go, found out by one process: the fields of a Verdict

# To the supervisor.
READY = 10  # marks of its unfinished files, by endpoint
STARTED = 11  # transfer's id
ENDED = 12  # seconds, whether the target has it durable, change
SETTLED = 13  # ids of ended transfers that are durable at the target now
REVISED = 14  # a change that takes the place of the one that ended its transfer
MOVED = 15  # flow, bytes written in full, bytes passed
REMEMBER = 16  # number of the question, transfer's id, upload id, part size
RETRIED = 17  # transfer's id, reason, message, delay
TOLD = 18  # name of an event, its fields
PULSE = 19  # CPU seconds so far, how late the loop was
LOGGED = 20  # logger, level, text

_STATES = {state.value: state for state in State}
_TOLD = {
    kind.__name__: kind
    for kind in (ThrottleChanged, FlowBlocked, FlowUnblocked, UploadAborted, LoopHeld, Warned)
}


def pack_transfer(transfer: Transfer) -> Message:
    """Make a message of a transfer."""
    # marshal refuses subclasses, enumerations and named tuples among them.
    return (WORK, *transfer[:8], transfer.state.value, *transfer[9:])


def unpack_transfer(message: Message) -> Transfer:
    """Give the transfer back."""
    return Transfer._make((*message[1:9], _STATES[message[9]], *message[10:]))


def pack_change(change: Change) -> tuple[Any, ...]:
    """Make a tuple of a change; of its transfer only the id."""
    return (
        change.transfer.id,
        change.state.value,
        change.reason,
        change.message,
        str(change.method),
        str(change.proof),
        change.target_etag,
        change.attempts,
        change.retry_at,
        change.due_at,
        change.upload_id,
        change.part_size,
        change.dropped,
        change.version_id,
        change.worker,
        None if change.version is None else tuple(change.version),
    )


def unpack_change(packed: tuple[Any, ...], transfer: Transfer) -> Change:
    """Give the change of *transfer* back."""
    _, state, *fields, version = packed
    change = Change(transfer, _STATES[state], *fields)
    if version is not None:
        change.version = Listed._make(version)
    return change


def pack_verdict(verdict: Verdict) -> Message:
    """Make a message of a verdict."""
    return (VERDICT, *verdict)


def unpack_verdict(message: Message) -> Verdict:
    """Give the verdict back."""
    return Verdict._make(message[1:])


def pack_event(event: Event) -> Message | None:
    """Make a message of an event that needs no transfer; None when it is none of these."""
    name = type(event).__name__
    return (TOLD, name, tuple(event)) if name in _TOLD else None


def unpack_event(message: Message) -> Event:
    """Give the event back."""
    return _TOLD[message[1]]._make(message[2])
