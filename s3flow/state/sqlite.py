"""The state in a SQLite file: for one daemon, without a server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

from s3flow.crashpoints import passing
from s3flow.errors import StateEmpty, StateError
from s3flow.ports import Clock
from s3flow.state.database import SqliteDatabase
from s3flow.state.lock import StateLock, refuse_network
from s3flow.state.store import SqlState


async def open_sqlite(
    path: Path,
    *,
    clock: Clock = time.time,
    read_only: bool = False,
    audited: bool = True,
    partial: bool = False,
) -> SqlState:
    """Open the state at *path*, creating it if need be; *read_only* works beside a running daemon.

    Raises `StateLocked` when another process has it, `StateError` when it cannot be used.
    """
    opening = asyncio.create_task(_open(path, clock, read_only, audited, partial))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        # It goes on by itself, and would hold the lock for nobody.
        with contextlib.suppress(StateError):
            await (await opening).close()
        raise


async def _open(
    path: Path, clock: Clock, read_only: bool, audited: bool, partial: bool
) -> SqlState:
    path = await asyncio.to_thread(_check_place, path, read_only)
    lock = None if read_only else await asyncio.to_thread(StateLock, path)
    passing("start.locked")
    try:
        database = await SqliteDatabase.open(path, lock, read_only=read_only)
    except BaseException:
        if lock is not None:
            lock.release()
        raise
    state = SqlState(database, clock, audited=audited)
    try:
        await state.prepare(partial=partial)
    except BaseException:
        await state.close()
        raise
    return state


def _check_place(path: Path, read_only: bool) -> Path:
    # Resolved, so that two names of one file meet at one lock.
    path = path.expanduser().resolve()
    if not path.parent.is_dir():
        raise StateError(f"state {path}: {path.parent} is no folder; create it first")
    if read_only and not path.exists():
        raise StateEmpty(f"there is no state at {path} yet: nothing has run, or it is elsewhere")
    refuse_network(path)
    return path
