"""Who may write to a schema: a lock of the server's, and the row `holder`, which outlives connections."""

from __future__ import annotations

import os
import socket
import time
from hashlib import sha256
from typing import NamedTuple

from pymysql.err import Error

from s3flow.state.mysql.literals import filled, literal
from s3flow.state.mysql.session import Session

FENCE = "UPDATE holder SET serial = ? WHERE id = 1 AND epoch = ?"
_ROW = "SELECT epoch, serial, name FROM holder WHERE id = 1"
# Where the row was lost, with a backup that had no rows say, it is made anew.
_TAKE = (
    "INSERT INTO holder (id, epoch, serial, name, since) VALUES (1, 1, 0, ?, ?)"
    " ON DUPLICATE KEY UPDATE"
    " epoch = epoch + 1, serial = 0, name = VALUES(name), since = VALUES(since)"
)


class Holder(NamedTuple):
    """Who has, or had, the right to write."""

    epoch: int = 0
    serial: int = 0
    name: str = ""


async def take(session: Session) -> int:
    """Fence off all others; whoever calls has the lock. Gives the epoch."""
    name = f"pid {os.getpid()} on {socket.gethostname()}"
    await session.query("START TRANSACTION")
    await session.query(filled(_TAKE, (name, time.time())))
    [(epoch,)] = await session.fetch("SELECT epoch FROM holder WHERE id = 1")
    await session.query("COMMIT")
    return int(epoch)


async def holder(session: Session, *, locking: bool = False) -> Holder:
    """Read the row, *locking* after all transactions on it have ended. Epoch 0: it is not there."""
    rows = await session.fetch(f"{_ROW} FOR UPDATE" if locking else _ROW)
    return Holder(*rows[0]) if rows else Holder()


async def name_of(session: Session) -> str:
    """Name who holds the schema, "" where nobody can tell."""
    try:
        return (await holder(session)).name
    except Error:
        return ""  # it is creating its tables


async def lock(session: Session, database: str, patience: float) -> bool:
    """Take the server's lock, which ends with the connection; False if it is not free in time."""
    [(taken,)] = await session.fetch(f"SELECT GET_LOCK({_lock_name(database)}, {patience})")
    return bool(taken == 1)


async def lock_owner(session: Session, database: str) -> int | None:
    """Give the number of the connection that has the lock."""
    [(owner,)] = await session.fetch(f"SELECT IS_USED_LOCK({_lock_name(database)})")
    return None if owner is None else int(owner)


def _lock_name(database: str) -> str:
    """Name the lock, as SQL: MySQL takes 64 characters at most."""
    name = f"s3flow/{database}"
    if len(name) > 64:
        name = f"s3flow/{sha256(database.encode()).hexdigest()[:48]}"
    return literal(name)
