"""A flow in memory: real engine, real SQLite state, stores that obey S3's rules."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

from s3flow.engine.daemon import Daemon
from s3flow.engine.retry import Backoff
from s3flow.engine.wiring import Pace, Wiring
from s3flow.events import Event
from s3flow.model import OUTCOMES, Flow, Outcome, Place, Total
from s3flow.ports import Source, Target
from s3flow.state import open_sqlite
from s3flow.stores.crc64 import Crc64Nvme
from s3flow.stores.memory import MemoryStore

QUICK = Pace(
    concurrency=8, bodies=8, drain_timeout=5.0, block_retry=0.01, backoff=Backoff(0.001, 0.01)
)
FLOW = Flow("flow", Place("src", "from", b""), Place("dst", "to", b""))


@dataclass
class Lab:
    """Two stores, a state and the events of every run."""

    folder: Path
    source: Source = field(default_factory=lambda: _store("src", "from"))
    target: Target = field(default_factory=lambda: _store("dst", "to"))
    flow: Flow = FLOW
    pace: Pace = QUICK
    events: list[Event] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def src(self) -> MemoryStore:
        """The source as the store that it is, below any misbehaviour."""
        return _innermost(self.source)

    @property
    def dst(self) -> MemoryStore:
        """The target as the store that it is."""
        return _innermost(self.target)

    async def sync(self, *, once: bool = True) -> Counter[Outcome]:
        """Run until drained or stopped; give the objects by outcome."""
        self.stop.clear()
        self.events.clear()
        state = await open_sqlite(self.folder / "state.db")
        try:
            reader = self.target if hasattr(self.target, "get_object") else None
            wiring = Wiring(self.flow, self.source, self.target, reader)
            daemon = Daemon(
                state, [wiring], self.pace, Crc64Nvme(), self.events.append, self.stop
            )
            await daemon.run(once=once)
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

    async def forget(self) -> None:
        """Lose the state."""
        for path in self.folder.glob("state.db*"):
            path.unlink()

    def change(self, **settings: object) -> None:
        """Change settings of the flow."""
        self.flow = replace(self.flow, **settings)  # type: ignore[arg-type]

    def of(self, kind: type) -> list[Event]:
        """Give the events of a kind."""
        return [event for event in self.events if isinstance(event, kind)]


def count(totals: list[Total]) -> Counter[Outcome]:
    """Sum totals by outcome."""
    counted: Counter[Outcome] = Counter()
    for total in totals:
        counted[OUTCOMES[total.state]] += total.objects
    return +counted


def _store(name: str, bucket: str) -> MemoryStore:
    store = MemoryStore(name)
    store.make_bucket(bucket)
    return store


def _innermost(store: object) -> MemoryStore:
    while not isinstance(store, MemoryStore):
        store = store.inner  # type: ignore[attr-defined]
    return store


def now() -> float:
    """Give the time."""
    return time.time()
