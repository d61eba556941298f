"""Finds what holds the event loop for longer than 10 ms, from a thread beside it, and names it.

The thread asks the loop a question ten times a second. Is the answer late, it looks where the loop's
thread is, and tells on the loop, once that turns again. Measured: 2 ms of CPU a second on an idle
loop, and nothing that shows beside a busy one. A step of 110 ms is always seen, one of 20 ms every
tenth time: what holds the loop again and again is found all the same, and the numbers are lower
bounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from types import FrameType
from typing import NamedTuple

from s3flow.events import Emit, LoopHeld

LIMIT = 0.010  # seconds that nothing should hold the loop for
EVERY = 0.1  # seconds between questions
_LOOP = {"asyncio.runners", "asyncio.base_events", "asyncio.events", "selectors"}
_LINES = 4  # of a stack that are told


class Place(NamedTuple):
    """Where a thread was: *name* is one function, of ours if there is one; *lines* lead to it."""

    name: str
    lines: str
    idle: bool  # in the loop itself: no step runs


async def watch_for_blocks(tell: Emit, *, every: float = EVERY, limit: float = LIMIT) -> None:
    """Emit a `LoopHeld` on this loop for what is seen to hold it, until cancelled."""
    loop = asyncio.get_running_loop()
    watch = _Watch(loop, tell, every, limit)
    thread = threading.Thread(target=watch.run, name="s3flow-watchdog", daemon=True)
    thread.start()
    try:
        await loop.create_future()
    finally:
        watch.stop()
        thread.join()  # it waits for nothing by now


def place_of(frame: FrameType | None) -> Place:
    """Name where *frame* is: the innermost line, then those of s3flow that led to it."""
    first, ours, name = "", [], ""
    while frame is not None:
        code, module = frame.f_code, str(frame.f_globals.get("__name__", "?"))
        if first and module in _LOOP:
            break  # what is further out runs the loop, not this step
        line = f"{module}:{frame.f_lineno} {code.co_qualname}"
        if not first:
            first, name = line, f"{module}.{code.co_qualname}"
        elif module.startswith("s3flow."):
            ours.append(line)
        if module.startswith("s3flow.") and not name.startswith("s3flow."):
            name = f"{module}.{code.co_qualname}"
        frame = frame.f_back
    return Place(name, " < ".join([first, *ours[: _LINES - 1]]), first.partition(":")[0] in _LOOP)


@dataclass(slots=True)
class _Watch:
    loop: asyncio.AbstractEventLoop
    tell: Emit
    every: float
    limit: float
    thread: int = field(default_factory=threading.get_ident)
    native: int = field(default_factory=threading.get_native_id)
    stopped: threading.Event = field(default_factory=threading.Event)
    answered: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        self.stopped.set()
        self.answered.set()

    def run(self) -> None:
        """Ask until stopped, or until the loop is closed."""
        with contextlib.suppress(RuntimeError), _Waits(self.native) as waits:
            while not self.stopped.wait(self.every):
                self._ask(waits)

    def _ask(self, waits: _Waits) -> None:
        self.answered.clear()
        if self.stopped.is_set():  # it may have been set between the two
            return
        waited, asked = waits.seconds(), time.monotonic()
        self.loop.call_soon_threadsafe(self.answered.set)
        if self.answered.wait(self.limit):
            return
        frame = sys._current_frames().get(self.thread)  # noqa: SLF001 -- the documented way
        place = place_of(frame)
        del frame
        self.answered.wait()
        # A loop that the machine did not let run, or that slept and was woken late, held nobody.
        held = time.monotonic() - asked - (waits.seconds() - waited)
        if held > self.limit and not place.idle and not self.stopped.is_set():
            self.loop.call_soon_threadsafe(self.tell, LoopHeld(held, place.name, place.lines))


class _Waits:
    """How long a thread was ready and the machine ran others (Linux tells; elsewhere 0)."""

    def __init__(self, native: int) -> None:
        self._path = f"/proc/self/task/{native}/schedstat"
        self._file = -1

    def __enter__(self) -> _Waits:
        with contextlib.suppress(OSError):
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        return self

    def __exit__(self, *_: object) -> None:
        if self._file >= 0:
            os.close(self._file)

    def seconds(self) -> float:
        if self._file < 0:
            return 0.0
        # https://docs.kernel.org/scheduler/sched-stats.html: ns on the CPU, ns waiting for it, slices
        return int(os.pread(self._file, 100, 0).split()[1]) / 1e9
