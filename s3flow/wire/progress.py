"""Who keeps whom waiting: tells a slow peer from our own slowness, without a timer per request."""

from __future__ import annotations

import asyncio
import socket
import struct
from enum import IntEnum
from typing import Final, NamedTuple

MIN_PROGRESS: Final = 1024  # bytes per second, averaged over a window of waiting


class Waiting(IntEnum):
    """What a connection's user waits for. Only waiting counts against the peer."""

    NOTHING = 0
    ANSWER = 1
    DATA = 2
    DRAIN = 3


class Outbound(NamedTuple):
    """What the peer's TCP has taken since the connection began, and whether it owes more."""

    acknowledged: int
    outstanding: bool


class Watch:
    """Adds up how long a connection waited and what moved meanwhile.

    A watchdog samples it a few times per window, so the hot path reads no clock. *progress* is
    the window in seconds.
    """

    __slots__ = ("_answer", "_mark", "_progress", "_waited", "_was", "_window")

    def __init__(self, progress: float) -> None:
        self._progress = self._window = progress
        self._answer = 0.0
        self._was = Waiting.NOTHING
        self._waited = 0.0
        self._mark = 0

    def reset(self, answer: float, *, patient: bool = False) -> None:
        """Begin a request that waits *answer* seconds at most for its head, *patient* for all of it.

        S3 answers Complete at once and then sends a blank every so often while it works.
        """
        self._answer = answer
        self._window = answer if patient else self._progress
        self._was = Waiting.NOTHING

    def sample(
        self, waiting: Waiting, elapsed: float, received: int, transport: asyncio.Transport
    ) -> str | None:
        """Count *elapsed* seconds of *waiting*; say what is wrong when it was too long."""
        if waiting is Waiting.NOTHING:
            return None
        moved = received
        if waiting is not Waiting.DATA:
            outbound = _outbound(transport)
            # What still sits in buffers on the way out has not been asked yet.
            waiting = Waiting.DRAIN if outbound.outstanding else waiting
            moved = outbound.acknowledged
        if waiting is not self._was:
            self._was = waiting
            self._waited = 0.0
            self._mark = moved
        self._waited += elapsed
        if waiting is Waiting.ANSWER:
            return self._judge_answer()
        return self._judge_progress(moved, "arrived" if waiting is Waiting.DATA else "left")

    def _judge_answer(self) -> str | None:
        if self._waited < self._answer:
            return None
        return f"no answer came within {self._answer:g} s"

    def _judge_progress(self, moved: int, verb: str) -> str | None:
        if self._waited < self._window:
            return None
        count = moved - self._mark
        if count < MIN_PROGRESS * self._window:
            return f"only {count} bytes {verb} in {self._window:g} s of waiting"
        self._waited = 0.0
        self._mark = moved
        return None


def _outbound(transport: asyncio.Transport) -> Outbound:
    """Ask the kernel: under TLS, and with large socket buffers, nobody else knows what left.

    Offsets of Linux's struct tcp_info (linux/tcp.h): tcpi_unacked 24, tcpi_bytes_acked 120,
    tcpi_notsent_bytes 144.
    """
    buffered = transport.get_write_buffer_size()
    sock = transport.get_extra_info("socket")
    try:
        info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
        (unacknowledged,) = struct.unpack_from("=I", info, 24)
        (acknowledged,) = struct.unpack_from("=Q", info, 120)
        (unsent,) = struct.unpack_from("=I", info, 144)
    except (OSError, struct.error, AttributeError):
        # The socket is gone already, or the kernel tells less: what we hold must do.
        return Outbound(-buffered, buffered > 0)
    return Outbound(acknowledged, buffered > 0 or unacknowledged > 0 or unsent > 0)
