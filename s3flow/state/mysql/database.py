"""`Database` on a server that one daemon writes to: works in their order, over one connection.

A work runs to its end whatever becomes of who asked for it: cancelling an await cuts no query and no
transaction. A connection on which anything went wrong is thrown away. What passes is waited out
here, so a server that is restarted, fails over or is read-only for a while is seen by nobody else.

Who may write is fenced by the `holder` row: see its table. Locks by name alone would not do: with the
connection the server gives them up, and another daemon may have come and gone before we are back.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

from pymysql.constants import ER
from pymysql.err import Error, OperationalError

from s3flow.crashpoints import passing, passing_soon
from s3flow.errors import StateError, StateLocked, StateLost
from s3flow.state.address import MySqlAddress
from s3flow.state.lock import ORPHANS, is_dead
from s3flow.state.mysql import holder, schema
from s3flow.state.mysql.dialing import dial
from s3flow.state.mysql.literals import filled
from s3flow.state.mysql.session import Session
from s3flow.state.mysql.troubles import Cure, cure, explain
from s3flow.state.steps import Work

T = TypeVar("T")
After = Callable[[T], object]

SILENT = 10.0  # seconds without an answer that are told
SLOWEST = 64  # times as long as a statement may take at first
LAST_ANSWER = 5.0  # seconds that an answer is waited for when all is to end
PAUSES = (0.0, 0.05, 0.2, 0.5, 1.0, 2.0)  # seconds between tries; the last one from then on
_WITHOUT = (
    "state {}: the server came back without what it had committed (a backup, another replica, or a"
    " lost disk cache?): start again, and what is missing is compared with the targets"
)
_DRIVER = (Error, OSError, EOFError, TimeoutError)

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Commit(Generic[T]):
    """A transaction whose COMMIT was sent, or is about to be."""

    serial: int
    result: T
    after: After[T] | None
    durable: bool = False

    def settle(self) -> None:
        """Note that it is committed."""
        self.durable = True
        if self.after is not None:
            self.after(self.result)


class MySqlDatabase:
    """An open schema. Everything that goes wrong comes out as `StateError`.

    *patience*: seconds that a work is tried again while the server is away, or refuses to write.
    *trouble* says in words what is waited for, "" when nothing is.
    """

    def __init__(self, address: MySqlAddress, *, read_only: bool, patience: float) -> None:
        self.read_only = read_only
        self._trouble = ""
        self._refused = (
            ""  # why the last transaction cannot be carried out, however often it is tried
        )
        self._address = address
        self._patience = patience
        self._session: Session | None = None
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._hurried = asyncio.Event()
        self._fatal: StateError | None = None
        self._epoch = 0
        self._serial = 0
        self._durable = 0  # the serial of the last transaction that is known to be committed
        self._unsure: _Commit[Any] | None = None  # the answer to its COMMIT was lost
        self._slowness = 1
        self._thread_id = 0  # of the connection that had the lock last

    @classmethod
    async def open(
        cls, address: MySqlAddress, *, read_only: bool, patience: float = math.inf
    ) -> MySqlDatabase:
        """Connect; unless *read_only*, take the right to write and bring the schema up to date."""
        database = cls(address, read_only=read_only, patience=patience)
        session: Session | None = None
        try:
            session = await dial(address, read_only=read_only)
            if read_only:
                await schema.expect_newest(session, address)
            else:
                await database._take_over(session)
        except BaseException as error:
            if session is not None:
                session.close()
            if isinstance(error, _DRIVER):
                raise database._explained(error) from error
            raise
        database._session, database._thread_id = session, session.thread_id
        return database

    @property
    def trouble(self) -> str:
        """What is waited for, in words; "" when all is well."""
        session = self._session
        if self._trouble or session is None or session.silence < SILENT:
            return self._trouble or self._refused
        return f"state {self._address}: the server has not answered for {session.silence:.0f} s"

    @property
    def lease(self) -> tuple[int, ...]:
        """Nothing that could be inherited: the server's lock ends with our connection."""
        return ()

    async def read(self, work: Work[T], after: After[T] | None = None) -> T:
        """Run *work* outside a transaction: each statement sees what is committed. Then *after*."""

        async def attempt() -> T:
            steps = work()
            try:
                step = next(steps)
            except StopIteration as end:
                result: T = end.value  # it asks for nothing but its turn
            else:
                session = await self._connected()
                result = await session.run(steps, step)
                await session.flush()
            if after is not None:
                after(result)
            return result

        return await self._in_turn(attempt)

    async def write(self, work: Work[T], after: After[T] | None = None) -> T:
        """Run *work* in one transaction, then *after* with its result, only if that is durable."""
        if self.read_only:
            raise StateError(f"state {self._address} is open for reading only")
        sent: list[_Commit[T]] = []

        async def attempt() -> T:
            session = await self._connected()
            if sent and sent[-1].durable:
                return sent[-1].result
            return await self._transact(session, work, after, sent)

        return await self._in_turn(attempt)

    def hurry(self) -> None:
        """Wait for the server no longer: from now on its being away is an error, soon if not at once."""
        self._hurried.set()
        self._loop.call_later(LAST_ANSWER, self._cut)

    def _cut(self) -> None:
        session = self._session
        if session is not None and session.silence > LAST_ANSWER / 2:
            session.close()

    async def close(self) -> None:
        """Close the connection, and with it give up the lock; what waits for the server ends."""
        self._closed = True
        self.hurry()
        if self._tasks:
            _, silent = await asyncio.wait(self._tasks, timeout=LAST_ANSWER)
            for task in silent:
                task.cancel()
            await asyncio.gather(*silent, return_exceptions=True)
        if self._session is not None:
            session, self._session = self._session, None
            await session.end()
        passing("close.marked")

    # --- one after the other, again and again -------------------------------------------------

    async def _in_turn(self, attempt: Callable[[], Coroutine[object, object, T]]) -> T:
        if self._closed:
            raise StateError(f"state {self._address} is closed")
        task = asyncio.create_task(self._persist(attempt))
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        """Take note of its failure too: who asked may have been cancelled, and asyncio would complain."""
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()

    async def _persist(self, attempt: Callable[[], Coroutine[object, object, T]]) -> T:
        until = time.monotonic() + self._patience
        async with self._turn:
            tries = 0
            while True:
                if self._fatal is not None:
                    raise self._fatal
                try:
                    result = await attempt()
                except _DRIVER as error:
                    problem = self._failed(error)
                    pause = PAUSES[min(tries, len(PAUSES) - 1)]
                    if time.monotonic() + pause > until or self._hurried.is_set():
                        raise problem from error
                    tries += 1
                    await self._pause(pause, problem, worrying=tries > 2)
                except asyncio.CancelledError:
                    if self._session is not None:  # in the midst of an answer
                        self._drop(self._session)
                    if not self._closed:
                        raise  # the loop ends
                    raise StateError(f"state {self._address} is closed") from None
                else:
                    self._well()
                    return result

    def _failed(self, error: BaseException) -> StateError:
        """Say what is wrong; raise it where nothing helps. While it connects, a refusal may pass too."""
        problem, helps = self._explained(error), cure(error)
        if self._session is not None:
            if helps is Cure.NONE:
                raise problem from error
            if helps is Cure.RECONNECT:
                self._drop(self._session)
        return problem

    async def _pause(self, seconds: float, problem: StateError, *, worrying: bool) -> None:
        if worrying and not self._trouble:
            self._trouble = str(problem)
            _log.warning("the state cannot be used, everything waits: %s", problem)
        if seconds:
            waiting = asyncio.create_task(self._hurried.wait())
            await asyncio.wait({waiting}, timeout=seconds)
            waiting.cancel()

    def _well(self) -> None:
        if self._slowness > 1 and self._session is not None:
            self._slowness = self._session.slowness = 1
        if self._trouble and self._session is not None:
            self._trouble = ""
            _log.warning("the state can be used again: %s", self._address)

    async def _transact(
        self, session: Session, work: Work[T], after: After[T] | None, sent: list[_Commit[T]]
    ) -> T:
        self._serial += 1
        try:
            session.hold("START TRANSACTION")
            if not await session.query(filled(holder.FENCE, (self._serial, self._epoch))):
                await self._fenced(session)
            passing("transaction.begun")
            result = await session.run(work())
        except BaseException as error:
            if isinstance(error, _DRIVER) and cure(error) is Cure.NONE:
                self._refused = str(self._explained(error))
            await self._roll_back(session, error)
            raise
        commit = _Commit(self._serial, result, after)
        sent.append(commit)
        passing("transaction.written")
        passing_soon("commit.sent")
        try:
            await session.query("COMMIT")
        except BaseException as error:
            if isinstance(error, Error) and session.usable and cure(error) is not Cure.RECONNECT:
                await self._roll_back(session, error)  # it was answered: the server refused
            else:
                self._drop(session)
                self._unsure = commit
            raise
        passing("commit.done")
        self._durable, self._refused = commit.serial, ""
        commit.settle()
        return result

    async def _roll_back(self, session: Session, error: BaseException) -> None:
        """Undo what was begun; whatever is not clean after that is thrown away."""
        if isinstance(error, _DRIVER) and cure(error) is Cure.RECONNECT:
            self._drop(session)
            return
        try:
            await session.roll_back()
        except _DRIVER:
            self._drop(session)
        except BaseException:
            self._drop(session)
            raise

    def _drop(self, session: Session) -> None:
        session.close()
        if self._session is session:
            self._session = None
            if session.gave_up:
                # It may have been at work on many rows, and in the same time it never will be done.
                self._slowness = min(2 * self._slowness, SLOWEST)

    # --- the right to write -------------------------------------------------------------------

    async def _take_over(self, session: Session) -> None:
        """Take the lock, bring the schema up to date, raise the epoch: all others are fenced off."""
        database = self._address.database
        if not await holder.lock(session, database, 1.0):
            name = await holder.name_of(session)
            if not (is_dead(name) and await holder.lock(session, database, ORPHANS)):
                raise StateLocked(
                    f"state {self._address} is in use by {name or 'another process'}: the daemon"
                    " is running; stop it first, or give this one a schema of its own"
                )
        passing("start.locked")
        await schema.upgrade(session, self._address)
        self._epoch = await holder.take(session)
        if lax := await session.durability():
            _log.warning(
                "the state's server may lose what it has committed when its machine loses power"
                " (%s): set both to 1 where objects are moved",
                lax,
            )

    async def _connected(self) -> Session:
        session = self._session
        if session is not None:
            if session.usable:
                return session
            self._drop(session)
        session = await dial(self._address, read_only=self.read_only)
        try:
            if not self.read_only:
                await self._resume(session)
        except BaseException:
            session.close()
            raise
        session.slowness = self._slowness
        self._session, self._thread_id = session, session.thread_id
        return session

    async def _resume(self, session: Session) -> None:
        """Take the lock again, and find out what became of a COMMIT without an answer.

        The server may not have heard yet that our connection is gone: it is ended there, or a
        transaction of ours could still be committed behind our back.
        """
        if (await holder.holder(session)).epoch != self._epoch:
            await self._fenced(session)
        database = self._address.database
        if not await holder.lock(session, database, 0.0):
            if await holder.lock_owner(session, database) == self._thread_id:
                await session.query(f"KILL {self._thread_id}")
            if not await holder.lock(session, database, ORPHANS):
                await self._fenced(session)
        found = await holder.holder(session, locking=True)
        if found.epoch != self._epoch:
            await self._fenced(session)
        unsure = self._unsure
        if unsure is not None and found.serial == unsure.serial:
            self._durable = unsure.serial
            unsure.settle()
        elif found.serial != self._durable:
            await self._behind(session)
        self._unsure = None

    async def _fenced(self, session: Session) -> NoReturn:
        found = await holder.holder(session)
        if found.epoch < self._epoch:
            await self._behind(session)
        name = found.name if found.epoch > self._epoch else ""
        self._give_up(
            f"state {self._address} was taken over by {name or 'another process'} while this one"
            " could not reach it: this one must not go on"
        )

    async def _behind(self, session: Session) -> NoReturn:
        """Give up on a server that lacks what was committed; a replica still has time to get it."""
        if await session.is_read_only():
            raise OperationalError(ER.OPTION_PREVENTS_STATEMENT, "a replica that is behind")
        self._give_up(_WITHOUT.format(self._address))

    def _give_up(self, message: str) -> NoReturn:
        self._fatal = StateLost(message)
        self._trouble = message
        raise self._fatal

    def _explained(self, error: BaseException) -> StateError:
        return explain(error, self._address, self._address.database)
