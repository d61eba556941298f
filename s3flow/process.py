"""The process: how it ends, what runs it, and what it asks of the system."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Coroutine
from enum import IntEnum
from typing import Any, TypeVar

import uvloop

OPEN_FILES = 65_536
Result = TypeVar("Result")


class Ending(IntEnum):
    """Exit codes."""

    DONE = 0
    SOME_FAILED = 1
    USAGE = 2
    LOCKED = 3  # another process has the state
    INTERRUPTED = 75  # EX_TEMPFAIL: run again


def run_async(main: Coroutine[Any, Any, Result]) -> Result:
    """Run *main* on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)


def allow_open_files() -> None:
    """Take as many open files as the system grants without being asked twice.

    Files that wait to be made durable hold their directories open, thousands on a slow disk; a
    login shell's limit is 1,024.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
