"""The line between the supervisor and a worker process: batches of messages over a socket pair."""

from __future__ import annotations

import asyncio
import marshal
from collections.abc import Callable, Iterable
from typing import Any, cast

Message = tuple[
    Any, ...
]  # its kind, then what marshal takes: bytes, exact strings, numbers, tuples
_HEAD = 4  # bytes that hold a frame's length


def frame(messages: list[Message]) -> bytes:
    """Encode a batch.

    marshal costs a third of pickle or JSON, and its format changes between versions of Python: both
    ends are one program, the second was started by the first. It never reads what others send.
    """
    body = marshal.dumps(messages)
    return len(body).to_bytes(_HEAD, "big") + body


class Link(asyncio.Protocol):
    """One end of the line. Messages arrive in order, and in batches as they were sent.

    What is sent gathers for *linger* seconds, or until the loop has done what was ready with 0: a
    system call for each small object would cost more than the rest of what is done here. *heard* gets
    a batch, *lost* is called once at the end; *gather* may add to a batch that is about to go.
    """

    def __init__(
        self,
        heard: Callable[[list[Message]], None],
        lost: Callable[[], None],
        *,
        linger: float = 0.0,
    ) -> None:
        self.heard = heard
        self.gather: Callable[[], Iterable[Message]] = tuple
        self._lost = lost
        self._linger = linger
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._out: list[Message] = []
        self._flushing: asyncio.Handle | None = None
        self._hurried = False
        self._in = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(
            "asyncio.Transport", transport
        )  # uvloop's is one in all but its class
        self.flush()

    def data_received(self, data: bytes) -> None:
        """Hand on each whole batch."""
        held = self._in
        held += data
        start = 0
        while len(held) - start >= _HEAD:
            begin = start + _HEAD
            end = begin + int.from_bytes(held[start:begin], "big")
            if len(held) < end:
                break
            self.heard(marshal.loads(bytes(held[begin:end])))  # noqa: S302  from our own other half
            start = end
        if start:
            del held[:start]

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the end is the end
        """End. A batch that came in part is dropped: its sender died."""
        self._transport = None
        self._cancel()
        self._lost()

    def send(self, message: Message) -> None:
        """Send a message, soon."""
        self._out.append(message)
        if self._flushing is None:
            if self._linger:
                self._flushing = self._loop.call_later(self._linger, self.flush)
            else:
                self._flushing = self._loop.call_soon(self.flush)

    def hurry(self) -> None:
        """Let what gathers go as soon as the loop has done what is ready."""
        if self._out and self._linger and not self._hurried:
            self._hurried = True
            self._cancel()
            self._flushing = self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Let what gathers go now; without a transport it waits for one."""
        self._cancel()
        self._hurried = False
        if self._transport is None or self._transport.is_closing():
            return
        self._out.extend(self.gather())
        if self._out:
            self._transport.write(frame(self._out))
            self._out.clear()

    def close(self) -> None:
        """Send what gathers, then hang up."""
        self.flush()
        if self._transport is not None:
            self._transport.close()

    def _cancel(self) -> None:
        if self._flushing is not None:
            self._flushing.cancel()
            self._flushing = None
