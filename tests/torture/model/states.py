"""The state of a world: read past all code of s3flow, lost, backed up and put back."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from s3flow.state.address import SqliteAddress, StateAddress
from tests import mariadb

Backup = Any


class Kept(Protocol):
    """Where a world's state is kept. Nobody may have it open when it is lost, backed up or put back."""

    address: StateAddress

    def query(self, statement: str) -> Sequence[Sequence[Any]]:
        """Ask for what is committed."""
        ...

    def lose(self) -> None: ...

    def back_up(self) -> Backup: ...

    def restore(self, backup: Backup) -> None: ...

    def close(self) -> None: ...


class InFile:
    """A file of SQLite's."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "state.db"
        self.address: StateAddress = SqliteAddress(self._path)
        self._db: sqlite3.Connection | None = None

    def query(self, statement: str) -> Sequence[Sequence[Any]]:
        """Ask over a connection that stays, while the file is the same."""
        if self._db is None:
            self._db = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)
        return self._db.execute(statement).fetchall()

    def lose(self) -> None:
        """Remove the file with what belongs to it."""
        self.close()
        for path in self._path.parent.glob("state.db*"):
            path.unlink()

    def back_up(self) -> Backup:
        """Copy the file."""
        self.close()
        backup = self._path.with_name("backup.db")
        shutil.copy(self._path, backup)
        return backup

    def restore(self, backup: Backup) -> None:
        """Put the copy in its place."""
        self.lose()
        shutil.copy(backup, self._path)

    def close(self) -> None:
        """Let go of the file."""
        if self._db is not None:
            self._db.close()
            self._db = None


class OnServer:
    """A schema on a MariaDB."""

    def __init__(self, schemas: mariadb.Schemas) -> None:
        self._schemas = schemas
        self._new()

    def _new(self) -> None:
        address = self._schemas.make()
        self._name = address.database
        self.address: StateAddress = address
        self._db = self._schemas.connect(self._name)

    def query(self, statement: str) -> Sequence[Sequence[Any]]:
        """Ask over a connection of root's."""
        with self._db.cursor() as cursor:
            cursor.execute(statement)
            found: Sequence[Sequence[Any]] = cursor.fetchall()
            return found

    def lose(self) -> None:
        """Begin with another schema."""
        self.close()
        self._new()

    def back_up(self) -> Backup:
        """Read all tables, without the columns that the server makes itself."""
        backup = {}
        for name, kind in self.query("SHOW FULL TABLES"):
            if kind == "BASE TABLE":
                columns = self.query(f"SHOW COLUMNS FROM `{name}`")
                names = ",".join(f"`{it[0]}`" for it in columns if "GENERATED" not in it[5])
                backup[name] = names, self.query(f"SELECT {names} FROM `{name}`")
        return backup

    def restore(self, backup: Backup) -> None:
        """Put the rows of a backup in the place of all others."""
        self.query("SET FOREIGN_KEY_CHECKS = 0")
        with self._db.cursor() as cursor:
            for name, (names, rows) in backup.items():
                cursor.execute(f"DELETE FROM `{name}`")
                if rows:
                    marks = ",".join(["%s"] * len(rows[0]))
                    cursor.executemany(f"INSERT INTO `{name}` ({names}) VALUES ({marks})", rows)

    def close(self) -> None:
        """Let go of the connection; the schema is dropped with the others."""
        with contextlib.suppress(Exception):
            self._db.close()
