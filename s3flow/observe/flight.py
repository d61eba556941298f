"""What is on its way at the moment: the state learns of an object when it has ended."""

from __future__ import annotations

from collections.abc import Callable

from s3flow import events
from s3flow.observe.progress import Moving


class Flight:
    """Counts the objects that are being moved, and how much of them has arrived.

    Bytes are told by flow, not by object: what a failed attempt had sent counts as arrived until
    nothing of its flow is under way, or other objects have made up for it.
    """

    def __init__(self) -> None:
        self._flows: dict[str, list[int]] = {}  # objects, bytes, arrived
        self.told: dict[type, Callable[..., None]] = {
            events.TransferStarted: self._started,
            events.BytesMoved: self._moved,
            events.TransferEnded: self._ended,
        }

    def __call__(self, event: events.Event) -> None:
        """Take *event* if it is one of these."""
        told = self.told.get(type(event))
        if told is not None:
            told(event)

    def of(self, flow: str) -> Moving:
        """Say what is under way of *flow*."""
        objects, size, arrived = self._flows.get(flow, (0, 0, 0))
        return Moving(objects, size, max(0, min(arrived, size)))

    def _of(self, flow: str) -> list[int]:
        line = self._flows.get(flow)
        if line is None:
            line = self._flows[flow] = [0, 0, 0]
        return line

    def _started(self, event: events.TransferStarted) -> None:
        transfer = event.transfer
        line = self._of(transfer.flow)
        line[0] += 1
        line[1] += transfer.size

    def _moved(self, event: events.BytesMoved) -> None:
        self._of(event.flow)[2] += event.bytes

    def _ended(self, event: events.TransferEnded) -> None:
        transfer = event.change.transfer
        line = self._of(transfer.flow)
        line[0] -= 1
        if line[0] > 0:
            line[1] -= transfer.size
            line[2] -= transfer.size
        else:
            line[:] = (0, 0, 0)
