"""Finds what holds the event loop for longer than 10 ms, from a thread beside it, and names it.

The thread asks the loop a question ten times a second. Is the answer late, it looks every 5 ms which
step the loop is in, and whether it is still the same; it tells on the loop, once that turns again.
A loop with much to do answers late as well, but with one short step after another: that is no hold.
Measured: 2 ms of CPU a second on an idle loop, and nothing that shows beside a busy one. Steps of
0.13 s are always seen, those of 30 ms every seventh time: what holds the loop again and again is
found all the same, and the numbers are lower bounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import FrameType
from typing import NamedTuple

from s3flow.events import Emit, LoopHeld

LIMIT = 0.010  # seconds that nothing should hold the loop for
EVERY = 0.1  # seconds between questions
_LOOP = {"asyncio.runners", "asyncio.base_events", "asyncio.events", "selectors"}
_OVERDUE = 0.025  # seconds; a thread gets the interpreter after 5 ms from any Python code
_LINES = 4  # of a stack that are told


class Place(NamedTuple):
    """Where a thread was: *name* is one function, of ours if there is one; *lines* lead to it."""

    name: str
    lines: str


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
        code, module = frame.f_code, _module(frame)
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
    return Place(name, " < ".join([first, *ours[: _LINES - 1]]))


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
        with (
            contextlib.suppress(RuntimeError),
            _Waits(self.native, threading.get_native_id()) as waits,
        ):
            while not self.stopped.wait(self.every):
                self._ask(waits)

    def _ask(self, waits: _Waits) -> None:
        self.answered.clear()
        if self.stopped.is_set():  # it may have been set between the two
            return
        self.loop.call_soon_threadsafe(self.answered.set)
        worst = self._look(waits)
        if worst is not None and not self.stopped.is_set():
            self.loop.call_soon_threadsafe(self.tell, worst)

    def _look(self, waits: _Waits) -> LoopHeld | None:
        """Follow the loop's steps until it answers; give the one that held it longest."""
        steps: list[_Step] = []
        pause, looked, waited = self.limit, time.monotonic(), waits.seconds()
        while not self.answered.wait(pause):
            frame = sys._current_frames().get(self.thread)  # noqa: SLF001 -- the documented way
            root, due = _step_of(frame), looked + pause
            looked = time.monotonic()
            if not steps or steps[-1].root is not root:
                # C code that keeps the interpreter for itself shows in how late this look is.
                since = due if looked - due > _OVERDUE else looked
                steps.append(_Step(root, since, waited))
            steps[-1].until = looked
            steps[-1].places.append(place_of(frame))
            pause, waited = self.limit / 2, waits.seconds()
        # The kernel tells of a wait when it is over, so it is asked when all is.
        waited = waits.seconds()
        worst = max(steps, key=lambda step: step.held(waited), default=None)
        if worst is None or worst.held(waited) < self.limit:
            return None
        (place, _), *_ = Counter(worst.places).most_common(1)
        return LoopHeld(worst.held(waited), *place)


@dataclass(slots=True)
class _Step:
    """A step that was seen: its outermost frame, from when to when, and where it was."""

    root: FrameType | None  # None: the loop was idle
    since: float
    waited: float  # seconds that the threads had waited for the machine by then
    until: float = 0.0
    places: list[Place] = field(default_factory=list)

    def held(self, waited: float) -> float:
        """Say how long it held the loop: what the machine did not let run holds nobody by itself."""
        return 0.0 if self.root is None else self.until - self.since - (waited - self.waited)


def _step_of(frame: FrameType | None) -> FrameType | None:
    """Give the frame that the loop called; None while it is idle."""
    if frame is None or _module(frame) in _LOOP:
        return None
    while frame.f_back is not None and _module(frame.f_back) not in _LOOP:
        frame = frame.f_back
    return frame


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "?"))


class _Waits:
    """How long threads were ready and the machine ran others (Linux tells; elsewhere 0)."""

    def __init__(self, *threads: int) -> None:
        self._paths = [f"/proc/self/task/{thread}/schedstat" for thread in threads]
        self._files: list[int] = []

    def __enter__(self) -> _Waits:
        with contextlib.suppress(OSError):
            self._files += (os.open(path, os.O_RDONLY | os.O_CLOEXEC) for path in self._paths)
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            os.close(file)

    def seconds(self) -> float:
        # https://docs.kernel.org/scheduler/sched-stats.html: ns on the CPU, ns waiting for it, slices
        return sum(int(os.pread(file, 100, 0).split()[1]) for file in self._files) / 1e9
