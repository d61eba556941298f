"""Named points between two steps that promises depend on, where a test lets the process be killed.

Without the switches below a point is a call that does nothing: 0.03 us. With

    S3FLOW_CRASH=put.done:3          the process is killed (SIGKILL) as it passes this for the third time
    S3FLOW_CRASH_HITS=FILE           each passing is noted in FILE, a byte each: its place in `POINTS`

A byte that was appended survives the kill, and worker processes append to the same file: so it is a
trace of all of them, in their order. Before it kills, a process notes `KILLED`, and where the file has
that nobody is killed again: the process that follows a killed worker would meet the same end.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

CRASH = "S3FLOW_CRASH"
HITS = "S3FLOW_CRASH_HITS"
KILLED = 255

POINTS = (
    # The state is opened, and what a crash has left is looked for.
    "start.locked",
    "schema.stepped",
    "schema.written",
    "start.opened",
    "start.recognised",
    "start.swept",
    # A walk over the source.
    "scan.begun",
    "page.listed",
    "page.merged",
    "scan.ended",
    "scan.finished",
    "upload.reaped",
    # An object.
    "claim.taken",
    "object.begun",
    "put.done",
    "copy.done",
    "object.proven",
    "object.ended",
    # An object in parts.
    "upload.intended",
    "upload.created",
    "upload.remembered",
    "upload.resumed",
    "part.brought",
    "upload.completing",
    "upload.completed",
    "upload.aborted",
    # A folder as the target.
    "journal.begun",
    "part.synced",
    "part.noted",
    "file.written",
    "files.synced",
    "file.renamed",
    "folders.synced",
    "journal.removed",
    # What was done becomes durable.
    "batch.settling",
    "batch.settled",
    "batch.saved",
    "transaction.begun",
    "audit.chained",
    "transaction.written",
    "commit.sent",
    "commit.done",
    # Sources of moves.
    "sources.due",
    "delete.asking",
    "delete.answered",
    "delete.recorded",
    # What is frozen.
    "restore.noted",
    "restore.asked",
    "restore.recorded",
    # Worker processes, and the end.
    "worker.given",
    "worker.ended",
    "worker.remembered",
    "stop.begun",
    "stop.drained",
    "rest.recorded",
    "close.marked",
)


def _pass_by(point: str) -> None:
    """Do nothing."""


def _watcher(environ: Mapping[str, str]) -> Callable[[str], None]:
    """Give what happens at a point; exits with the names of all where there is none of that name."""
    wanted, nth = _wanted(environ.get(CRASH, ""))
    numbers = {point: bytes((number,)) for number, point in enumerate(POINTS)}
    place, trace = environ.get(HITS, ""), -1
    if place:
        trace = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        if KILLED in Path(place).read_bytes():
            wanted = ""
    passed = 0

    def watch(point: str) -> None:
        nonlocal passed
        number = numbers[point]  # a KeyError is a point that was forgotten above
        if trace >= 0:
            os.write(trace, number)
        if point != wanted:
            return
        passed += 1
        if passed == nth:
            if trace >= 0:
                os.write(trace, bytes((KILLED,)))
            os.kill(os.getpid(), signal.SIGKILL)

    return watch


def _wanted(text: str) -> tuple[str, int]:
    name, _, nth = text.partition(":")
    if name and (name not in POINTS or not (nth or "1").isdecimal()):
        raise SystemExit(
            f"s3flow: {CRASH}={text}: a point and which passing of it, as put.done:3; the points are"
            f" {', '.join(POINTS)}"
        )
    return name, int(nth or 1)


def _soon(point: str) -> None:
    asyncio.get_running_loop().call_soon(passing, point)


_is_on = bool(os.environ.get(CRASH) or os.environ.get(HITS))
passing: Callable[[str], None] = _watcher(os.environ) if _is_on else _pass_by
"""Pass a point."""
passing_soon: Callable[[str], None] = _soon if _is_on else _pass_by
"""Pass a point once the loop turns again: after what is about to be sent, before its answer."""


def passings(trace: bytes) -> Counter[str]:
    """Count what a file of S3FLOW_CRASH_HITS says of each point."""
    return Counter(POINTS[number] for number in trace if number != KILLED)
