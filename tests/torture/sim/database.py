"""The state's database in simulation: what is committed outlives a process, and nothing else does."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from s3flow.errors import StateError, StateLost
from s3flow.state import sql
from s3flow.state.database import run_steps, split
from s3flow.state.steps import Work
from tests.torture.sim.loop import SimLoop

T = TypeVar("T")
After = Callable[[T], object]


class Fate(StrEnum):
    """What becomes of a work."""

    DONE = "done"
    REFUSED = "state refuses"
    LOST = "state's answer lost"
    DIE_BEFORE = "die before a commit"
    DIE_AFTER = "die after a commit"


class Disk:
    """What is durable, and who may write it: a later *epoch* fences the earlier ones off."""

    def __init__(self) -> None:
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.deserialize(_empty())
        self.epoch = 0

    def copy(self) -> bytes:
        """Give what it holds."""
        return self.db.serialize()

    def restore(self, content: bytes | None = None) -> None:
        """Hold this instead, or nothing."""
        self.db.close()
        self.db = sqlite3.connect(":memory:", isolation_level=None)
        self.db.deserialize(_empty() if content is None else content)

    def close(self) -> None:
        """Be gone."""
        self.db.close()


@cache
def _empty() -> bytes:
    db = sqlite3.connect(":memory:", isolation_level=None)
    for script in sql.migrations("sqlite"):
        for statement in split(script):
            db.execute(statement)
    db.execute(sql.SET_META, ("version", str(len(sql.migrations("sqlite")))))
    content = db.serialize()
    db.close()
    return content


class SimDatabase:
    """One process's connection: one work after the other, whatever becomes of who asked for it.

    *fate* says what becomes of each, *delay* how long it takes, *die* ends the process.
    """

    read_only = False

    def __init__(
        self,
        disk: Disk,
        loop: SimLoop,
        fate: Callable[[bool], Fate],
        delay: Callable[[], float],
        die: Callable[[], None],
    ) -> None:
        disk.epoch += 1
        self._epoch = disk.epoch
        self._disk = disk
        self._loop = loop
        self._fate = fate
        self._delay = delay
        self._die = die
        self._jobs: deque[tuple[Callable[[], Any], bool, asyncio.Future[Any]]] = deque()
        self._closed = False
        self.trouble = ""
        self.works = 0

    @property
    def lease(self) -> tuple[int, ...]:
        """Nothing that could be inherited."""
        return ()

    async def read(self, work: Work[T], after: After[T] | None = None) -> T:
        """Run *work* outside a transaction, then *after*."""
        return await self._in_turn(lambda: self._look(work, after), writes=False)

    async def write(self, work: Work[T], after: After[T] | None = None) -> T:
        """Run *work* in one transaction, then *after*."""
        return await self._in_turn(lambda: self._transact(work, after), writes=True)

    def hurry(self) -> None:
        """Nothing is waited for here."""

    async def close(self) -> None:
        """Take nothing more; what was asked for before is done."""
        while self._jobs:
            await asyncio.sleep(self._delay())
        self._closed = True

    async def _in_turn(self, job: Callable[[], T], *, writes: bool) -> T:
        if self._closed:
            raise StateError("the state is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.append((job, writes, future))
        if len(self._jobs) == 1:
            self._loop.call_later(self._delay(), self._turn)
        return await future

    def _turn(self) -> None:
        job, writes, future = self._jobs[0]
        self.works += 1
        fate = self._fate(writes)
        result: Any = None
        problem: BaseException | None = None
        if fate is Fate.DIE_BEFORE:
            self._die()
            return
        try:
            self._admit(fate)
            result = job()
        except Exception as error:  # noqa: BLE001  its caller's
            problem = error
        if fate is Fate.DIE_AFTER:
            self._die()
            return
        if fate is Fate.LOST and problem is None:
            problem = StateError("the answer of the state was lost")
        self._jobs.popleft()
        self._loop.call_later(self._delay(), _answer, future, result, problem)
        if self._jobs:
            self._loop.call_later(self._delay(), self._turn)

    def _admit(self, fate: Fate) -> None:
        if fate is Fate.REFUSED:
            raise StateError("the state takes nothing now")
        if self._disk.epoch != self._epoch:
            raise StateLost("another daemon has the state now")

    def _look(self, work: Work[T], after: After[T] | None) -> T:
        result = run_steps(self._disk.db, work())
        if after is not None:
            after(result)
        return result

    def _transact(self, work: Work[T], after: After[T] | None) -> T:
        db = self._disk.db
        db.execute("BEGIN IMMEDIATE")
        try:
            result = run_steps(db, work())
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        if after is not None:
            after(result)
        return result


def _answer(future: asyncio.Future[Any], result: Any, problem: BaseException | None) -> None:
    if future.done():
        return
    if problem is None:
        future.set_result(result)
    else:
        future.set_exception(problem)
