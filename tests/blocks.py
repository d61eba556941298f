"""Finds what holds an event loop's thread: each step's CPU time, and the line it was spent at.

CPU time, not the clock's: a thread that the machine does not run blocks nobody by its own doing.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple

from s3flow import garbage
from s3flow.observe.watchdog import place_of

LIMIT = 0.010  # seconds of CPU that one step of the loop may take
_SWIFT = 0.003  # seconds of CPU that the work of `slowness` took there
_LOOK = 0.002  # seconds between looks at a step that is running


class Block(NamedTuple):
    """A step that took too long: *place* names the innermost lines of ours that were seen in it."""

    seconds: float
    place: str

    def __str__(self) -> str:
        """Say it as a failing test does."""
        return f"{self.seconds * 1000:.1f} ms of CPU in one step of the loop, at {self.place}"


def slowness() -> float:
    """Say how much more CPU time this machine takes now than the one that the limit was set on."""
    begin = time.thread_time()
    sum(number % 7 for number in range(100_000))
    return max(1.0, (time.thread_time() - begin) / _SWIFT)


@dataclass(slots=True)
class Blocks:
    """What was found, and the step that is running."""

    limit: float
    found: list[Block] = field(default_factory=list)
    longest: float = 0.0
    steps: int = 0
    began: float | None = None  # the thread's CPU time at the running step's begin
    seen: str = ""  # where the running step was when it had taken too long
    done: bool = False

    def blamed(self, limit: float) -> list[str]:
        """Say what took longer than *limit*, again and again or by far.

        Once is no proof: the kernel lets one call in thousands pay for the work of others.
        """
        held = [block for block in self.found if block.seconds > limit]
        if len(held) < 2 and all(block.seconds < 3 * limit for block in held):
            return []
        return [str(block) for block in held]

    def forget(self) -> None:
        """Begin anew: what the test itself did in the steps before this one was no work of ours."""
        self.found.clear()
        self.steps = 0

    def end(self, seconds: float, what: object) -> None:
        """Note that a step has ended."""
        self.steps += 1
        self.longest = max(self.longest, seconds)
        if seconds > self.limit:
            self.found.append(Block(seconds, self.seen or repr(what)[:300]))
        self.seen = ""

    def look(self, clock: int, thread: int) -> None:
        """Look at the running step from another thread, until told that all is done."""
        while not self.done:
            time.sleep(_LOOK)
            began = self.began
            if began is None or self.seen or time.clock_gettime(clock) - began < self.limit * 0.7:
                continue
            frame = sys._current_frames().get(thread)
            if began == self.began:
                self.seen = place_of(frame).lines


@contextmanager
def collecting_as_the_program_does() -> Iterator[None]:
    """Collect garbage as `s3flow` does; a test run's own objects would take 100 ms to look through."""
    before = gc.get_threshold()
    garbage.collect_seldom()
    garbage.spare_what_is_there()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*before)


@contextmanager
def blocks_found(limit: float = LIMIT) -> Iterator[Blocks]:
    """Measure every step of asyncio's own loop in this thread while the context lasts."""
    blocks = Blocks(limit)
    thread = threading.get_ident()
    clock = time.pthread_getcpuclockid(thread)
    run, now = asyncio.Handle._run, time.thread_time

    def measured(handle: asyncio.Handle) -> None:
        if threading.get_ident() != thread:
            run(handle)
            return
        blocks.began = begin = now()
        try:
            run(handle)
        finally:
            blocks.began = None
            blocks.end(now() - begin, handle)

    looker = threading.Thread(target=blocks.look, args=(clock, thread), daemon=True)
    asyncio.Handle._run = measured  # type: ignore[method-assign]
    looker.start()
    try:
        yield blocks
    finally:
        asyncio.Handle._run = run  # type: ignore[method-assign]
        blocks.done = True
        looker.join()


def burn(seconds: float) -> None:
    """Take so much CPU time."""
    begin = time.thread_time()
    while time.thread_time() - begin < seconds:
        pass
