"""Opens the state, and what is kept beside it, by its address; imports only the driver that it needs."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time

from s3flow.errors import StateError
from s3flow.ports import Clock, Holds, Wishes
from s3flow.state import sql
from s3flow.state.address import MySqlAddress, StateAddress
from s3flow.state.holds import FileHolds
from s3flow.state.store import SqlState
from s3flow.state.wishes import FileWishes

BRIEF = 10.0  # seconds that a command, which somebody waits for, goes on trying
FOREVER = math.inf  # a daemon waits: work goes on when the server is back


async def open_state(
    address: StateAddress,
    *,
    clock: Clock = time.time,
    read_only: bool = False,
    patience: float = BRIEF,
    audited: bool = True,
    partial: bool = False,
) -> SqlState:
    """Open the state, creating it if need be; *read_only* works beside a running daemon.

    *patience*: seconds that a server may be away, once it was there, until that is an error.
    *audited*: facts go into the audit trail; *partial*: also what an import has left that was cut off.
    Raises `StateLocked` when another process has it, `StateError` when it cannot be used.
    """
    if not isinstance(address, MySqlAddress):
        from s3flow.state.sqlite import open_sqlite

        return await open_sqlite(
            address.path, clock=clock, read_only=read_only, audited=audited, partial=partial
        )
    opening = asyncio.create_task(
        _open_mysql(address, clock, patience, read_only, audited=audited, partial=partial)
    )
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        # It goes on by itself, and would hold the lock for nobody.
        with contextlib.suppress(StateError):
            await (await opening).close()
        raise


async def _open_mysql(
    address: MySqlAddress,
    clock: Clock,
    patience: float,
    read_only: bool,
    *,
    audited: bool,
    partial: bool,
) -> SqlState:
    from s3flow.state.mysql.database import MySqlDatabase

    database = await MySqlDatabase.open(address, read_only=read_only, patience=patience)
    state = SqlState(database, clock, audited=audited)
    try:
        await state.prepare(partial=partial)
    except BaseException:
        await state.close()
        raise
    return state


async def schema_version(address: StateAddress) -> tuple[int, int]:
    """Give the version of the schema as it is, 0 where there is none, and the newest one."""
    if isinstance(address, MySqlAddress):
        from s3flow.state.mysql.schema import recorded_version

        return await recorded_version(address), len(sql.migrations("mysql"))
    from s3flow.state.database import recorded_version as version_of_file

    return await asyncio.to_thread(version_of_file, address.path), len(sql.migrations("sqlite"))


def open_holds(address: StateAddress) -> Holds:
    """Give the holds that belong to the state at *address*."""
    if isinstance(address, MySqlAddress):
        from s3flow.state.mysql.holds import MySqlHolds

        return MySqlHolds(address)
    return FileHolds(address.path)


def open_wishes(address: StateAddress) -> Wishes:
    """Give the wishes that belong to the state at *address*."""
    if isinstance(address, MySqlAddress):
        from s3flow.state.mysql.wishes import MySqlWishes

        return MySqlWishes(address)
    return FileWishes(address.path)
