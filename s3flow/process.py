"""The process: how it ends, what runs it, and what it asks of the system."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

import uvloop

OPEN_FILES = 65_536
LAST_MOMENT = 2.0  # seconds that a work is given to end which was told to
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
Result = TypeVar("Result")


class Ending(IntEnum):
    """Exit codes."""

    DONE = 0
    SOME_FAILED = 1
    USAGE = 2
    LOCKED = 3  # another process has the state
    UNPROVEN = 4  # of `verify`: nothing differs, and not all could be compared by its content
    INTERRUPTED = 75  # EX_TEMPFAIL: run again


def run_async(main: Coroutine[Any, Any, Result]) -> Result:
    """Run *main* on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


@contextlib.contextmanager
def heeding_stops(on_stop: Callable[[], None]) -> Iterator[None]:
    """Call *on_stop* at each SIGTERM and SIGINT, in the loop. Afterwards they mean what they did before."""
    loop, numbers = asyncio.get_running_loop(), (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        loop.add_signal_handler(number, on_stop)
    try:
        yield
    finally:
        # The loop leaves them to the system first, by whom this process would die.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
        for number in numbers:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, Result]) -> Result | None:
    """Give what *work* gives; None if it waits for a server or a disk still when *stop* is set."""
    task, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=LAST_MOMENT)
        return task.result() if task.done() and not task.cancelled() else None
    finally:
        stopped.cancel()
        task.cancel()


def end_as_by_a_key() -> None:
    """Let SIGTERM end this command as Ctrl-C does: what was begun is cleaned up first."""
    # Shells let what they start in the background ignore SIGINT, and SIGTERM becomes one here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))


def allow_open_files() -> None:
    """Take as many open files as the system grants without being asked twice.

    Files that wait to be made durable hold their directories open, thousands on a slow disk; a
    login shell's limit is 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def die_with(parent: int) -> None:
    """Let the kernel kill this process when its *parent* dies, where it can (Linux).

    Elsewhere the end of the line to the parent does, as soon as the loop turns.
    """
    import ctypes

    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was asked
        os._exit(1)


def usable_cpus(root: Path = Path("/")) -> int:
    """Count the CPUs that this process may use: by its affinity, and its cgroup's quota on Linux."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, min(count or 1, _quota(root)))


def _quota(root: Path) -> int:
    """Give the CPUs that the cgroup's quota (version 2) is worth, rounded up."""
    least = sys.maxsize
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        group = next(line[3:] for line in lines if line.startswith("0::")).strip("/")
        for path in (group, *(str(above) for above in Path(group).parents)):
            with contextlib.suppress(OSError, ValueError):
                quota, period = (root / "sys/fs/cgroup" / path / "cpu.max").read_text().split()
                least = min(least, -(-int(quota) // int(period)))  # "max": no quota, no number
    return least
