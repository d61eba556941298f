"""One connection to the server, set up the way s3flow needs it, that runs steps."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, ClassVar, TypeVar

import aiomysql
from pymysql.constants import ER
from pymysql.err import Error, IntegrityError

from s3flow.errors import StateError
from s3flow.state.mysql import dialect, literals
from s3flow.state.mysql.troubles import number_of
from s3flow.state.steps import Add, Bulk, Each, Execute, Fetch, FetchMany, Insert, Step, Steps

T = TypeVar("T")
Found = Sequence[Sequence[Any]]

ROWS = 1_000  # in one statement at most
UNITED = 500  # in one UNION: the server parses and plans each SELECT of it
ANSWER = 60.0  # seconds that the server may take for a statement: then it counts as gone, at first
REBUILT = 86_400.0  # seconds that it may take for one of the schema's, which may rewrite a table
SMALLEST_PACKET = 4 * 1024 * 1024  # bytes: a row with the longest key and message is far below
LARGEST_PACKET = 4 * 1024 * 1024  # bytes of one statement, whatever the server would take
OLDEST = {"MySQL": (8, 0, 19), "MariaDB": (10, 6, 0)}
_MARIADB = re.compile(r"(?:5\.5\.5-)?(\d+)\.(\d+)\.(\d+)-MariaDB", re.IGNORECASE)
_MYSQL = re.compile(r"(\d+)\.(\d+)\.(\d+)")
_SETTINGS = (
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
    "SET SESSION time_zone = '+00:00'",
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION innodb_lock_wait_timeout = 10",
    # Of a machine that lost its power the server hears nothing: this long it keeps its lock.
    "SET SESSION wait_timeout = 300",
    "SET SESSION autocommit = 1",
)


class Session:
    """A connection. What it raises is the driver's: see `troubles`.

    Beside a busy loop an answer is waited for longer than the server takes. So statements whose
    answers nobody needs go with the next one, and who alone writes asks for an id once.
    """

    def __init__(self, connection: aiomysql.Connection) -> None:
        self._connection = connection
        self._packet = SMALLEST_PACKET
        self._asked: float | None = None
        self.slowness = 1  # times `ANSWER`
        self.gave_up = False  # on an answer
        self._held: list[str] = []  # to be sent with the next statement
        self._ids: dict[tuple[str, tuple[object, ...]], Found] | None = None
        # The server's number for this connection: what was said first may be a proxy's.
        self.thread_id = 0
        self.flavour = ""
        self.version = (0, 0, 0)

    @property
    def usable(self) -> bool:
        """Whether nothing is known to be wrong with it."""
        writer = self._connection._writer  # noqa: SLF001  `closed` knows only what we closed
        return writer is not None and not writer.transport.is_closing()

    async def run(self, steps: Steps[T], step: Step | None = None) -> T:
        """Run *steps*, of which *step* was taken already, to their end; give what they return."""
        try:
            step = step or next(steps)
            while True:
                step = steps.send(await self._steps[type(step)](self, step))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    @property
    def silence(self) -> float:
        """Seconds since something was asked that is not answered yet."""
        return 0.0 if self._asked is None else time.monotonic() - self._asked

    async def query(self, text: str, within: float | None = None) -> int:
        """Send what is held and this statement; give the number of rows that it found to change."""
        held, self._held = self._held, []
        self._asked = time.monotonic()
        try:
            async with asyncio.timeout(within or ANSWER * self.slowness):
                changed = await self._connection.query(";".join([*held, text]))
                for _ in held:
                    changed = await self._connection.next_result()
        except TimeoutError:
            self.gave_up = True
            raise
        except RuntimeError as error:  # of uvloop: the connection was reset while it was idle
            raise ConnectionResetError(str(error)) from error
        finally:
            self._asked = None
        return int(changed)

    def hold(self, text: str) -> None:
        """Send a statement with the next one. If it fails, that one is not carried out."""
        self._held.append(text)

    async def flush(self) -> None:
        """Send what is held."""
        if self._held:
            await self.query(self._held.pop())

    async def roll_back(self) -> None:
        """Undo the transaction."""
        self._held.clear()
        if self._ids is not None:
            self._ids.clear()
        await self.query("ROLLBACK")

    async def fetch(self, text: str) -> Found:
        """Send one SELECT; give its rows."""
        await self.query(text)
        return self._connection._result.rows or ()  # noqa: SLF001  cursors ask for warnings besides

    def close(self) -> None:
        """Cut the connection: the server rolls back what it began."""
        self._connection.close()

    async def end(self) -> None:
        """Say goodbye, so that the server gives up the lock at once."""
        if self.usable:
            with contextlib.suppress(Error, OSError, TimeoutError):
                async with asyncio.timeout(2):
                    await self._connection.ensure_closed()
        self._connection.close()

    # --- at its beginning ---------------------------------------------------------------------

    async def prepare(self, *, read_only: bool) -> None:
        """Make the session's settings ours. Raises `StateError` if the server cannot be used."""
        [(version, packet, self.thread_id)] = await self.fetch(
            "SELECT VERSION(), @@max_allowed_packet, CONNECTION_ID()"
        )
        self.flavour, self.version = flavour_of(str(version))
        oldest = OLDEST[self.flavour]
        if self.version < oldest:
            raise StateError(
                f"{self.flavour} {version} is too old to keep the state:"
                f" {self.flavour} {'.'.join(map(str, oldest))} or newer is needed"
            )
        if int(packet) < SMALLEST_PACKET:
            raise StateError(
                f"the server's max_allowed_packet is {int(packet):,} bytes: set it to at least"
                f" {SMALLEST_PACKET // 2**20}M"
            )
        self._packet = min(int(packet), LARGEST_PACKET) - 65_536
        for statement in _SETTINGS:
            await self.query(statement)
        if read_only:
            await self.query("SET SESSION TRANSACTION READ ONLY")
        else:
            self._ids = {}

    async def durability(self) -> str:
        """Say which of the server's settings let it lose commits with the power, "" if none does."""
        rows = await self.fetch(
            "SHOW GLOBAL VARIABLES WHERE Variable_name IN"
            " ('innodb_flush_log_at_trx_commit', 'sync_binlog', 'log_bin')"
        )
        values = {str(name).lower(): str(value) for name, value in rows}
        lax = []
        if values.get("innodb_flush_log_at_trx_commit", "1") != "1":
            lax.append("innodb_flush_log_at_trx_commit")
        if values.get("log_bin") == "ON" and values.get("sync_binlog", "1") != "1":
            lax.append("sync_binlog")
        return ", ".join(f"{name} = {values[name]}" for name in lax)

    async def is_read_only(self) -> bool:
        """Say whether the server takes no writes, but those of its administrators."""
        [(setting,)] = await self.fetch("SELECT @@GLOBAL.read_only")
        # A number, or of MariaDB's later versions (MDEV-36425) a name: there are several ways of it.
        return str(setting).upper() not in {"0", "OFF"}

    # --- steps --------------------------------------------------------------------------------

    async def _fetch_step(self, step: Fetch) -> Found:
        ids, known = self._ids, (step.statement, tuple(step.values))
        lasting = ids is not None and step.statement in dialect.LASTING
        if ids is not None and lasting and known in ids:
            return ids[known]
        rows = await self.fetch(literals.filled(dialect.statement(step.statement), step.values))
        if ids is not None and lasting and rows:
            ids[known] = rows
        return rows

    async def _fetch_many(self, step: FetchMany) -> list[list[Any]]:
        select = step.select
        found = await self.fetch(literals.filled(dialect.as_arrays(select), step.values))
        rows: list[list[Any]] = json.loads(f"[{','.join([text for (text,) in found])}]")
        decode = bytes.fromhex
        for column in select.keys:
            for row in rows:
                row[column] = decode(row[column])
        return rows

    async def _execute(self, step: Execute) -> int:
        if self._ids and step.statement in dialect.UNSETTLING:
            self._ids.clear()
        text = dialect.statement(step.statement)
        if "{" in text:
            (text,) = self._many(text, [step.values])
        else:
            text = literals.filled(text, step.values)
        return await self.query(text)

    async def _insert(self, step: Insert) -> int:
        await self._execute(Execute(*step))
        return int(self._connection.insert_id())

    async def _each(self, step: Each | Bulk) -> None:
        text = dialect.statement(step.statement)
        if "{" in text:
            statements = self._many(text, step.rows)
        else:
            statements = (literals.filled(text, values) for values in step.rows)
        size = sum(map(literals.size, self._held))
        for statement in statements:
            size += literals.size(statement)
            if size > self._packet:
                await self.flush()
                size = literals.size(statement)
            self.hold(statement)

    async def _add(self, step: Add) -> bool:
        await self.flush()
        self.hold("SAVEPOINT rows_added")
        try:
            await self._each(Bulk(*step))
            await self.flush()
        except IntegrityError as error:
            if number_of(error) != ER.DUP_ENTRY:
                raise
            await self.query("ROLLBACK TO SAVEPOINT rows_added")
            return False
        return True

    def _many(self, text: str, rows: Sequence[Sequence[object]]) -> Iterator[str]:
        """Fill a statement that has {rows} or {union} with *rows*, in slices."""
        if "{rows}" in text:
            texts = [literals.row(values) for values in rows]
            for some in literals.slices(texts, ROWS, self._packet):
                yield text.replace("{rows}", ",".join(some))
            return
        texts = [literals.columns(values) for values in rows]
        for some in literals.slices(texts, UNITED, self._packet):
            # The first one gives the columns their names, and no row.
            names = ",".join(f"NULL AS c{number}" for number in range(len(rows[0])))
            union = " UNION ALL SELECT ".join([f"{names} FROM DUAL WHERE FALSE", *some])
            yield text.replace("{union}", f"(SELECT {union})")

    _steps: ClassVar[dict[type[Step], Callable[[Session, Any], Coroutine[Any, Any, Any]]]] = {
        Fetch: _fetch_step,
        FetchMany: _fetch_many,
        Execute: _execute,
        Insert: _insert,
        Each: _each,
        Bulk: _each,
        Add: _add,
    }


def flavour_of(version: str) -> tuple[str, tuple[int, int, int]]:
    """Read what VERSION() says: MySQL or MariaDB, and which."""
    found = _MARIADB.match(version)
    flavour = "MariaDB" if found else "MySQL"
    found = found or _MYSQL.match(version)
    if found is None:
        raise StateError(f"the server calls itself {version!r}, which is no MySQL or MariaDB")
    return flavour, (int(found[1]), int(found[2]), int(found[3]))
