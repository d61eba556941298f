"""A flow in memory: real engine, real SQLite state, stores that obey S3's rules."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from s3flow.engine import plan
from s3flow.engine.daemon import Daemon
from s3flow.engine.flow import Crew, OwnHands
from s3flow.engine.holding import OwnHolds
from s3flow.engine.retry import Backoff
from s3flow.engine.tariff import Tariff
from s3flow.engine.wiring import Pace, Wiring
from s3flow.events import Emit, Event, Recorded
from s3flow.model import OUTCOMES, Flow, Outcome, Place, Total
from s3flow.ports import Source, StateStore, Target
from s3flow.state.sqlite import open_sqlite
from s3flow.stores.crc64 import Crc64Nvme
from s3flow.stores.memory import MemoryStore

QUICK = Pace(
    concurrency=8, bodies=8, drain_timeout=5.0, block_retry=0.01, backoff=Backoff(0.001, 0.01)
)
FLOW = Flow("flow", Place("src", "from", b""), Place("dst", "to", b""))
PARTS = {"multipart_threshold": 1000, "part_size": 1000}  # for `Lab.change`: parts in miniature
E = TypeVar("E")


@dataclass
class Lab:
    """Two stores, a state and the events of every run.

    *wrap_state* puts something between the engine and the state. With every `Recorded` event the
    totals are compared with the rows: an engine that loses count is caught in the act.
    """

    folder: Path
    source: Source = field(default_factory=lambda: store("src", "from"))
    target: Target = field(default_factory=lambda: store("dst", "to"))
    flow: Flow = FLOW
    pace: Pace = QUICK
    events: list[Event] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    abandon: asyncio.Event = field(default_factory=asyncio.Event)
    subscribers: list[Emit] = field(default_factory=list)
    others: list[Wiring] = field(default_factory=list)  # further flows of the same daemon
    copier: Any = None  # the target with the source's credentials
    wishes: Any = None  # of a person, for listings
    tariffs: dict[str, Tariff] = field(default_factory=dict)  # of flows with a `max_cost`
    endpoints: str = ""  # what tells their configuration from another
    queue: Any = None  # that tells of completed restores
    crew: Crew = field(default_factory=OwnHands)
    daemon: Daemon | None = None  # of the last run
    holds: Any = field(default_factory=OwnHolds)
    wrap_state: Callable[[StateStore], StateStore] = lambda state: state

    @property
    def src(self) -> MemoryStore:
        """The source as the store that it is, below any misbehaviour."""
        return _innermost(self.source)

    @property
    def dst(self) -> MemoryStore:
        """The target as the store that it is."""
        return _innermost(self.target)

    async def sync(self, *, once: bool = True, scan_only: bool = False) -> Counter[Outcome]:
        """Run until drained or stopped, or only list; give the objects by outcome."""
        self.stop.clear()
        self.events.clear()
        state = await open_sqlite(self.folder / "state.db")
        try:
            reader: Any = self.target if hasattr(self.target, "get_object") else None
            wiring = Wiring(
                self.flow, self.source, self.target, reader, self.copier, self.endpoints, self.queue
            )
            wrapped = self.wrap_state(state)
            self.daemon = Daemon(
                wrapped,
                [wiring, *self.others],
                self.pace,
                Crc64Nvme(),
                self._tell,
                self.stop,
                self.abandon,
                crew=self.crew,
                holds=self.holds,
                wishes=self.wishes,
                tariffs=self.tariffs,
            )
            await (self.daemon.scan() if scan_only else self.daemon.run(once=once))
            return count(await state.totals(self.flow.name))
        finally:
            await state.close()

    async def totals(self) -> list[Total]:
        """Read the totals."""
        state = await open_sqlite(self.folder / "state.db", read_only=True)
        try:
            return await state.totals(self.flow.name)
        finally:
            await state.close()

    async def failures(self) -> dict[bytes, str]:
        """Give the reasons of failed objects by key."""
        state = await open_sqlite(self.folder / "state.db", read_only=True)
        try:
            found = await state.failures(self.flow.name, 1000)
        finally:
            await state.close()
        return {key: reason for _, key, reason, _ in found}

    async def proofs(self) -> Counter[tuple[str, str]]:
        """Count objects by (method, proof)."""
        counted: Counter[tuple[str, str]] = Counter()
        for total in await self.totals():
            counted[total.method, total.proof] += total.objects
        return +counted

    def forget(self) -> None:
        """Lose the state."""
        for path in self.folder.glob("state.db*"):
            path.unlink()

    def change(self, **settings: object) -> None:
        """Change settings of the flow."""
        self.flow = replace(self.flow, **settings)  # type: ignore[arg-type]

    def put(self, key: bytes, size: int, **attributes: Any) -> bytes:
        """Place an object of *size* random bytes at the source; gives them."""
        data = random.Random(key + bytes([size % 251])).randbytes(size)
        self.src.put(self.flow.source.bucket, key, data, **attributes)
        return data

    def copy_of(self, key: bytes) -> bytes | None:
        """Give the bytes that the target holds for a source key."""
        bucket = self.flow.source.bucket
        found = self.dst.peek(
            plan.target_bucket(self.flow, bucket), plan.target_key(self.flow, key)
        )
        return None if found is None else found.data

    def differences(self) -> list[bytes]:
        """Name the source keys whose copies are not equal to them."""
        bucket, found = self.flow.source.bucket, []
        for key in self.src.keys(bucket):
            original = self.src.peek(bucket, key)
            if original is None or original.data != self.copy_of(key):
                found.append(key)
        return found

    def uploads(self) -> list[str]:
        """Give the uploads that the target holds unfinished."""
        return sorted(self.dst._uploads)

    def claimed_nowhere(self) -> list[tuple[bytes, str | None]]:
        """Give the keys and upload ids of rows that are still pending."""
        return self.query("SELECT object_key, upload_id FROM objects WHERE state < 10")

    def query(self, statement: str) -> list[Any]:
        """Ask the state's file, past all code of the engine."""
        return self._query(statement)[0]

    def _query(self, *statements: str) -> list[list[Any]]:
        place = f"file:{self.folder / 'state.db'}?mode=ro"
        with contextlib.closing(sqlite3.connect(place, uri=True)) as db:
            db.execute("BEGIN")  # all statements see the same moment
            return [db.execute(statement).fetchall() for statement in statements]

    def of(self, kind: type[E]) -> list[E]:
        """Give the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def stop_at(self, kind: type, number: int = 1) -> None:
        """Ask the daemon to stop at the *number*-th event of a kind."""
        seen = 0

        def watch(event: Event) -> None:
            nonlocal seen
            seen += isinstance(event, kind)
            if isinstance(event, kind) and seen == number:
                self.stop.set()

        self.subscribers.append(watch)

    def _tell(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Recorded):
            self.check_totals()
        for tell in self.subscribers:
            tell(event)

    def check_totals(self) -> None:
        """Compare the totals with the rows that they sum up."""
        by_state = "SELECT state, sum({}), sum({}) FROM {} GROUP BY state ORDER BY state"
        totals, rows = self._query(
            by_state.format("objects", "bytes", "totals"), by_state.format("1", "size", "objects")
        )
        assert [line for line in totals if line[1]] == rows


def count(totals: Sequence[Total]) -> Counter[Outcome]:
    """Sum totals by outcome."""
    counted: Counter[Outcome] = Counter()
    for total in totals:
        counted[OUTCOMES[total.state]] += total.objects
    return +counted


def store(name: str, bucket: str, **settings: Any) -> MemoryStore:
    """Make a store with one bucket."""
    made = MemoryStore(name, **settings)
    made.make_bucket(bucket)
    return made


def _innermost(outer: object) -> MemoryStore:
    while not isinstance(outer, MemoryStore):
        outer = outer.inner  # type: ignore[attr-defined]
    return outer


async def left_tasks() -> list[str]:
    """Name the tasks that should have ended by now, after those just cancelled could do so."""
    for _ in range(3):
        await asyncio.sleep(0)
    current = asyncio.current_task()
    return [task.get_name() for task in asyncio.all_tasks() if task is not current]
