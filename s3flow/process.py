"""The process: how it ends, what runs it, and what it asks of the system."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Coroutine
from enum import IntEnum
from pathlib import Path
from typing import Any, TypeVar

import uvloop

OPEN_FILES = 65_536
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
