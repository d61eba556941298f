"""One SQLite file, one connection, one thread: each read or transaction is a single hop to it.

SQLite before 3.51.3 can lose a committed transaction when one connection writes while another
runs a checkpoint (https://www.sqlite.org/wal.html#the_wal_reset_bug). So the connection opened here
owns all writes and all checkpoints. Readers in other processes open with mode=ro, which never
checkpoints; tools that do (litestream, a writing sqlite3 shell) must stay away from the file of a
running daemon.

A hop runs to its end whatever becomes of the caller: cancelling an await splits no transaction.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import aiosqlite

from s3flow.crashpoints import passing
from s3flow.errors import StateEmpty, StateError
from s3flow.state import bulk, sql
from s3flow.state.lock import StateLock
from s3flow.state.steps import Add, Bulk, Each, Execute, Fetch, FetchMany, Insert, Step, Steps, Work

T = TypeVar("T")
After = Callable[[T], object]

APPLICATION_ID = 0x53336657  # "S3fW", in the file's header
CHECKED_AFTER_CRASH = 64 * 1024 * 1024  # bytes; quick_check reads them all, in well under a second
OLDEST_SQLITE = (
    3,
    38,
    0,
)  # UPDATE … FROM needs 3.33; the functions of JSON are always there since 3.38
_BUSY_SECONDS = 10
_START_OVER = (
    "delete it with its -wal and -shm files and run again: what is at the target is then compared"
    " and adopted, not copied again"
)
_REMEDIES = {
    sqlite3.SQLITE_FULL: "make room on its disk; nothing was half written and work goes on after",
    sqlite3.SQLITE_IOERR: "see to its disk (dmesg); nothing was half written",
    sqlite3.SQLITE_CORRUPT: f"the file is damaged: {_START_OVER}",
    sqlite3.SQLITE_NOTADB: f"the file is no database or is damaged: {_START_OVER}",
    sqlite3.SQLITE_BUSY: "another program holds the file (a sqlite3 shell?): end it",
    sqlite3.SQLITE_READONLY: "it was opened or is mounted read-only",
    sqlite3.SQLITE_CANTOPEN: "check that the folder exists and that its owner runs s3flow",
    sqlite3.SQLITE_PERM: "check its owner and mode",
}


class _Thread(aiosqlite.Connection):
    """aiosqlite's connection with what it keeps to itself: run a function on its thread."""

    async def run(self, work: Callable[[], T]) -> T:
        result: T = await self._execute(work)  # type: ignore[no-untyped-call]
        return result


class SqliteDatabase:
    """An open state file. Everything sqlite3 raises comes out as `StateError`."""

    def __init__(self, path: Path, lock: StateLock | None, *, read_only: bool) -> None:
        self.path = path
        self._lock = lock
        self.read_only = read_only
        self.trouble = ""
        self._thread = _Thread(self._connect, iter_chunk_size=1)
        self._failure: Exception | None = None

    @classmethod
    async def open(cls, path: Path, lock: StateLock | None, *, read_only: bool) -> SqliteDatabase:
        """Open the absolute *path*; unless *read_only*, create it or bring it up to date.

        The *lock* is given up with it, if it could be opened.
        """
        database = cls(path, lock, read_only=read_only)
        await database._thread
        if database._failure is not None:
            await database._thread.close()
            raise database._failure
        return database

    async def read(self, work: Work[T], after: After[T] | None = None) -> T:
        """Run *work* outside a transaction: each statement sees what is committed. Then *after*."""
        return await self._run(lambda: self._look(work, after))

    async def write(self, work: Work[T], after: After[T] | None = None) -> T:
        """Run *work* in one transaction, then *after* with its result, only if that is durable."""
        if self.read_only:
            raise StateError(f"state {self.path} is open for reading only")
        result = await self._run(lambda: self._transact(work, after))
        self.trouble = ""
        return result

    @property
    def lease(self) -> tuple[int, ...]:
        """Descriptors that other processes inherit so that the lock outlives this one with them."""
        return () if self._lock is None else (self._lock.fileno(),)

    def hurry(self) -> None:
        """Nothing is waited for here."""

    async def close(self) -> None:
        """Close the connection, and give up the lock; the last one to go folds the WAL into the file."""
        try:
            if not self.read_only:
                # Without the mark, on a full disk say, the next start looks for damage: no harm.
                with contextlib.suppress(StateError):
                    await self.write(_mark_clean)
            passing("close.marked")
        finally:
            try:
                await self._thread.close()
            finally:
                if self._lock is not None:
                    self._lock.release()

    def explain(self, error: sqlite3.Error) -> StateError:
        """Say in words what SQLite's error means and what to do about it."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        remedy = _REMEDIES.get(code, "this is a bug in s3flow if the file was made by it")
        return StateError(f"state {self.path}: {error}; {remedy}")

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await self._thread.run(work)
        except sqlite3.Error as error:
            problem = self.explain(error)
            self.trouble = str(problem)
            raise problem from error
        except ValueError as error:
            if "closed" not in str(error) and "no active connection" not in str(error):
                raise
            raise StateError(f"state {self.path} is closed") from error

    def _look(self, work: Work[T], after: After[T] | None) -> T:
        result = run_steps(self._db, work())
        if after is not None:
            after(result)
        return result

    def _transact(self, work: Work[T], after: After[T] | None) -> T:
        # IMMEDIATE: a transaction that reads first and writes later cannot wait for a lock and
        # fails with SQLITE_BUSY_SNAPSHOT at once.
        self._db.execute("BEGIN IMMEDIATE")
        passing("transaction.begun")
        try:
            result = run_steps(self._db, work())
            passing("transaction.written")
            self._db.execute("COMMIT")
            passing("commit.done")
        except BaseException:
            # SQLite ends the transaction itself after some errors (full disk, I/O).
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        if after is not None:
            after(result)
        return result

    def _connect(self) -> sqlite3.Connection:
        # aiosqlite leaves its thread to itself when this raises: better to fail a moment later.
        try:
            self._db = self._open_file()
        except (sqlite3.Error, StateError) as error:
            failure = self.explain(error) if isinstance(error, sqlite3.Error) else error
            failure.__cause__ = error if failure is not error else None
            self._failure = failure
            self._db = sqlite3.connect(":memory:")
        return self._db

    def _open_file(self) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < OLDEST_SQLITE:
            oldest = ".".join(map(str, OLDEST_SQLITE))
            raise StateError(
                f"state {self.path}: this Python has SQLite {sqlite3.sqlite_version}, and s3flow needs"
                f" {oldest}: use a Python that comes with a newer one"
            )
        if not self.read_only:
            _create(self.path)
        mode = "ro" if self.read_only else "rw"
        uri = f"{self.path.as_uri()}?mode={mode}"
        db = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=_BUSY_SECONDS)
        try:
            self._db = db
            if self.read_only:
                self._read_version()
            else:
                self._prepare()
        except BaseException:
            db.close()
            raise
        return db

    def _prepare(self) -> None:
        version = self._read_version()
        db = self._db
        db.execute("PRAGMA journal_mode = WAL")
        # A commit is on disk when it returns: with NORMAL the last ones may be lost with the power,
        # and what a delete relied upon with them. Writes come in batches, so the fsync is cheap.
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 4000")
        db.execute("PRAGMA journal_size_limit = 67108864")
        db.execute("PRAGMA cache_size = -16384")
        db.execute("PRAGMA temp_store = MEMORY")
        if version < len(sql.migrations("sqlite")):
            self._transact(lambda: self._migrate(version), None)
        self._check_after_crash()

    def _read_version(self) -> int:
        """Give the schema's version, 0 for a new file; refuse what is not ours or too new."""
        db = self._db
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if not tables:
            if self.read_only:
                raise StateEmpty(f"state {self.path} is empty: nothing has run yet")
            return 0
        if application != APPLICATION_ID:
            raise StateError(
                f"{self.path} is another program's database: point the state at a file of its own"
            )
        found = db.execute(sql.GET_META, ("version",)).fetchone()
        if found is None or not str(found[0]).isdecimal():
            raise StateError(f"state {self.path} is damaged (it has no version): {_START_OVER}")
        version, newest = int(found[0]), len(sql.migrations("sqlite"))
        if version > newest:
            raise StateError(
                f"state {self.path} was written by a newer s3flow (schema {version}, this one knows"
                f" {newest}): install that version again, or use another state file"
            )
        if self.read_only and version < newest:
            raise StateError(
                f"state {self.path} has the older schema {version}: start the daemon once, or run"
                f" `s3flow state upgrade`: that brings it to {newest}"
            )
        return version

    def _migrate(self, version: int) -> Steps[None]:
        for script in sql.migrations("sqlite")[version:]:
            for statement in split(script):
                yield Execute(statement)
                passing("schema.stepped")
        yield Execute(f"PRAGMA application_id = {APPLICATION_ID}")
        yield Execute(sql.SET_META, ("version", str(len(sql.migrations("sqlite")))))
        passing("schema.written")

    def _check_after_crash(self) -> None:
        """Look for damage if the last user of the file did not close it and looking is cheap."""
        clean = self._db.execute(sql.GET_META, ("clean",)).fetchone()
        if clean == ("0",) and self.path.stat().st_size <= CHECKED_AFTER_CRASH:
            (answer,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if answer != "ok":
                finding = str(answer).splitlines()[-1]
                raise StateError(f"state {self.path} is damaged ({finding}): {_START_OVER}")
        self._db.execute(sql.SET_META, ("clean", "0"))


def run_steps(db: sqlite3.Connection, steps: Steps[T]) -> T:
    """Run *steps* to their end and give what they return."""
    answer: Any = None
    try:
        while True:
            step = steps.send(answer)
            answer = _STEPS[type(step)](db, step)
    except StopIteration as end:
        result: T = end.value
        return result


def _add(db: sqlite3.Connection, step: Add) -> bool:
    db.execute("SAVEPOINT rows")
    try:
        bulk.write(db, *step)
    except sqlite3.IntegrityError:
        db.execute("ROLLBACK TO rows")
        return False
    else:
        return True
    finally:
        if db.in_transaction:  # a full disk ends it
            db.execute("RELEASE rows")


_STEPS: dict[type[Step], Callable[[sqlite3.Connection, Any], Any]] = {
    Fetch: lambda db, step: db.execute(*step).fetchall(),
    FetchMany: lambda db, step: bulk.read(db, *step),
    Execute: lambda db, step: db.execute(*step).rowcount,
    Insert: lambda db, step: db.execute(*step).lastrowid,
    Each: lambda db, step: db.executemany(*step),
    Bulk: lambda db, step: bulk.write(db, *step),
    Add: _add,
}


def split(script: str) -> list[str]:
    """Give the statements of *script*: sqlite3's executescript would end the transaction first."""
    statements, text = [], ""
    for line in script.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            statements.append(text)
            text = ""
    return statements


def _create(path: Path) -> None:
    # SQLite gives its -wal and -shm files the mode of this one.
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise StateError(
            f"cannot open state {path}: {error.strerror}; it must be a file that the user who runs"
            " s3flow may write"
        ) from error


def _mark_clean() -> Steps[None]:
    yield Execute(sql.SET_META, ("clean", "1"))


def recorded_version(path: Path) -> int:
    """Give the version of the schema in the file, 0 where there is none. Raises `StateError`."""
    if not path.exists():
        return 0
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        ) as db:
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
                return 0
            return int(db.execute(sql.GET_META, ("version",)).fetchone()[0])
    except (TypeError, ValueError) as error:
        raise StateError(f"state {path} is damaged (it has no version): {_START_OVER}") from error
    except sqlite3.Error as error:
        raise StateError(f"state {path}: {error}") from error
