"""The schema on the server: whose it is, and bringing it up to date."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pymysql.err import Error

from s3flow.crashpoints import passing
from s3flow.errors import StateEmpty, StateError
from s3flow.state import sql
from s3flow.state.address import MySqlAddress
from s3flow.state.mysql.dialing import dial
from s3flow.state.mysql.literals import literal
from s3flow.state.mysql.session import REBUILT, Session
from s3flow.state.mysql.troubles import explain
from s3flow.state.steps import Execute, Steps

_OURS = "s3flow"  # the comment of the table meta
_CREATED = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)")
_TABLES = (
    "SELECT table_name, engine, row_format, table_comment FROM information_schema.tables"
    " WHERE table_schema = DATABASE() AND table_type = 'BASE TABLE'"
)


async def version_of(session: Session, address: object) -> int:
    """Give the schema's version, 0 for a new one; refuse what is another program's, or too new."""
    comments = {str(row[0]): str(row[3]) for row in await session.fetch(_TABLES)}
    newest = len(sql.migrations("mysql"))
    if comments.get("meta") != _OURS:
        ours = set(_CREATED.findall("".join(sql.migrations("mysql"))))
        if taken := sorted(ours & comments.keys()):
            raise StateError(
                f"state {address}: another program keeps tables by our names there"
                f" ({', '.join(taken)}): give s3flow a schema of its own"
            )
        return 0
    rows = await session.fetch(f"SELECT value FROM meta WHERE name = {literal('version')}")
    version = int(rows[0][0]) if rows else 0
    if version > newest:
        raise StateError(
            f"state {address} was written by a newer s3flow (schema {version}, this one knows"
            f" {newest}): install that version again, or use another schema"
        )
    return version


async def expect_newest(session: Session, address: object) -> None:
    """Refuse to read a schema that is not there, or older than this s3flow."""
    version, newest = await version_of(session, address), len(sql.migrations("mysql"))
    if not version:
        raise StateEmpty(f"state {address} is empty: nothing has run yet")
    if version < newest:
        raise StateError(
            f"state {address} has the older schema {version}: start the daemon once, or run"
            f" `s3flow state upgrade`: that brings it to {newest}"
        )


async def upgrade(session: Session, address: object) -> None:
    """Create the schema or bring it up to date, script by script; whoever calls has the lock.

    Each script bears being run again: here DDL commits by itself, and a crash may come in between.
    """
    scripts = sql.migrations("mysql")
    for number in range(await version_of(session, address), len(scripts)):
        for statement in split(scripts[number]):
            await session.query(statement, REBUILT)
            passing("schema.stepped")
        await session.run(_set_version(number + 1))
        passing("schema.written")
    await _check_tables(session, address)


def _set_version(version: int) -> Steps[None]:
    yield Execute(sql.SET_META, ("version", str(version)))


async def _check_tables(session: Session, address: object) -> None:
    ours = set(_CREATED.findall("".join(sql.migrations("mysql"))))
    for name, engine, row_format, _ in await session.fetch(_TABLES):
        if name in ours and (engine, str(row_format).lower()) != ("InnoDB", "dynamic"):
            raise StateError(
                f"state {address}: the table {name} is {engine} ({row_format}), and must be"
                f" InnoDB: ALTER TABLE {name} ENGINE=InnoDB ROW_FORMAT=DYNAMIC"
            )


def split(script: str) -> Iterator[str]:
    """Give the statements of *script*: each ends with a semicolon at the end of a line."""
    lines = [line for line in script.splitlines() if not line.lstrip().startswith("--")]
    for statement in re.split(r";\s*$", "\n".join(lines), flags=re.MULTILINE):
        if statement.strip():
            yield statement.strip()


async def recorded_version(address: MySqlAddress) -> int:
    """Give the version of the schema on the server, 0 where there is none. Raises `StateError`."""
    session: Session | None = None
    try:
        session = await dial(address, read_only=True)
        return await version_of(session, address)
    except (Error, OSError, EOFError, TimeoutError) as error:
        raise explain(error, address, address.database) from error
    finally:
        if session is not None:
            session.close()
