"""What a scene is: a small flow in a lab that remembers what was ever written, and what is done to it."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from s3flow.engine import plan
from s3flow.engine.probe import Finding
from s3flow.errors import StateError
from s3flow.events import ListingKept, ScanStarted
from s3flow.model import Outcome, RestoreEvent, RestoreNews
from s3flow.policies import Overwrite
from s3flow.probes import DELETE_PROBE, DOCTOR_PROBE
from s3flow.state import sql
from s3flow.state.sqlite import open_sqlite
from s3flow.stores.local import LocalStore
from tests.faults import Call, Faulty, FaultyBody
from tests.torture.promises import Claim, Seen, Version
from tests.unit.lab import PARTS, QUICK, Lab, store

STATES = {code: str(state) for state, code in sql.CODES.items()}
QUIET = replace(QUICK, concurrency=3, drain_timeout=0.02)


class Pausing(Faulty):
    """Lets others go on before and after each call: where a real port waits, this one does."""

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        await asyncio.sleep(0)
        answer = await go()
        await asyncio.sleep(0)
        return answer

    def wrap(self, body: Any) -> Any:
        async def read(inner: Any, offset: int) -> memoryview:
            await asyncio.sleep(0)
            chunk: memoryview = await inner.read()
            return chunk

        return FaultyBody(body, read)


class News:
    """A queue that tells of the restores that are done, the first time also of strangers'."""

    def __init__(self, lab: Stage) -> None:
        self.lab = lab

    async def receive(self) -> list[RestoreNews]:
        """Wait a little, then tell of everything that was asked for."""
        await asyncio.sleep(0.002)
        done = tuple(
            RestoreEvent("from", key, is_complete=True) for key, _, _ in self.lab.src.asked
        )
        strange = RestoreNews((RestoreEvent("elsewhere", b"x", is_complete=True),), "strange")
        return [RestoreNews(done, "ours"), strange] if done else []

    async def remove(self, news: Sequence[RestoreNews]) -> None:
        """Forget them; they come again."""

    async def close(self) -> None:
        """Nothing is held."""


@dataclass
class Stage(Lab):
    """A lab that remembers what was ever written, and whose target may be a folder."""

    written: dict[bytes, list[Version]] = field(default_factory=dict)
    disk: Path | None = None
    touched: set[bytes] = field(default_factory=set)  # keys whose copies others have changed
    told: list[Finding] = field(default_factory=list)  # by doctor

    def put(self, key: bytes, size: int, **attributes: Any) -> bytes:
        """Place an object at the source."""
        data = super().put(key, size, **attributes)
        found = self.src.peek("from", key)
        assert found is not None
        self.written.setdefault(key, []).append(Version(data, found.etag))
        return data

    async def retry(self) -> None:
        """Send what failed back to work."""
        state = await open_sqlite(self.folder / "state.db")
        try:
            with contextlib.suppress(StateError):  # it may know nothing of the flow yet
                await state.retry(self.flow.name, None)
        finally:
            await state.close()

    async def seen(self, *, at_rest: bool = False) -> Seen:
        """Look at what there is now, past all code that is tried; a probe may be there, not *at_rest*."""
        found = {key: self.src.peek("from", key) for key in self.src.keys("from")}
        source = {key: it.data for key, it in found.items() if it is not None}
        target, strays = (self._objects(), ()) if self.disk is None else _files(self.disk / "to")
        if not at_rest:
            source, target = _without_probes(source), _without_probes(target)
        rows: list[Any] = []
        with contextlib.suppress(sqlite3.OperationalError):  # there may be no state yet
            rows = self.query("SELECT object_key, state, etag, reason, upload_id FROM objects")
            rows += [
                (*(None,) * 4, each) for (each,) in self.query("SELECT upload_id FROM abandoned")
            ]
        claims = [
            Claim(bytes(key), STATES[state], etag or "", reason or "")
            for key, state, etag, reason, _ in rows
            if key is not None
        ]
        continued = [upload for *_, upload in rows if upload]
        uploads = [] if self.disk else self.uploads()
        return Seen(
            source, target, self.written, (), self.touched, claims, uploads, continued, strays
        )

    def _objects(self) -> dict[bytes, bytes]:
        bucket = plan.target_bucket(self.flow, "from")
        names = {plan.target_key(self.flow, key): key for key in self.written}
        found = {key: self.dst.peek(bucket, key) for key in self.dst.keys(bucket)}
        return {names.get(key, key): it.data for key, it in found.items() if it is not None}


def _without_probes(objects: dict[bytes, bytes]) -> dict[bytes, bytes]:
    return {key: data for key, data in objects.items() if not is_probe(key)}


def is_probe(key: bytes) -> bool:
    """Say whether *key* is that of a probe, below whatever prefix."""
    return key.rpartition(b"/")[2].startswith((DELETE_PROBE, DOCTOR_PROBE, b"s3flow-probe-"))


def _files(folder: Path) -> tuple[dict[bytes, bytes], tuple[str, ...]]:
    objects, strays = {}, []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not path.name.startswith(".s3flow-"):
            objects[name.encode()] = path.read_bytes()
        elif path.is_file() and path.name != ".s3flow-root":
            strays.append(name)
    return objects, tuple(strays)


Act = Callable[[Stage], Awaitable[object]]


async def sync(stage: Stage) -> object:
    return await stage.sync()


@dataclass(frozen=True)
class Scene:
    """*set_up* puts the objects there, *before* is what happened; then comes *act*, which is tried.

    *last* completes it, where that is not the act itself. *moves*: the sources are gone in the end.
    *looks*: it changes nothing, or cleans up after itself. *patches* hold while it lasts.
    """

    name: str
    set_up: Callable[[Stage], None]
    before: Act | None = None
    act: Act = sync
    last: Act | None = None
    moves: bool = False
    looks: bool = False
    disk: bool = False
    patches: tuple[tuple[Any, str, Any], ...] = ()
    ports: tuple[str, ...] = ("source", "target", "state")

    @contextlib.asynccontextmanager
    async def stage(self, folder: Path) -> AsyncIterator[Stage]:
        """Give the lab in *folder* as it is before the act."""
        with contextlib.ExitStack() as stack:
            for module, name, value in self.patches:
                stack.enter_context(patch.object(module, name, value))
            async with self._stage(folder) as stage:
                yield stage

    @contextlib.asynccontextmanager
    async def _stage(self, folder: Path) -> AsyncIterator[Stage]:
        folder.mkdir()
        src = store("src", "from", page_size=3)
        stage = Stage(folder, src, store("dst", "to"), pace=QUIET)
        stage.change(**PARTS, lanes=2)
        local = None
        if self.disk:
            stage.disk = folder / "disk"
            stage.disk.mkdir()
            stage.target = local = LocalStore("dst", stage.disk)
        try:
            self.set_up(stage)
            if self.before is not None:
                await self.before(stage)
            yield stage
        finally:
            if local is not None:
                await local.close()

    async def finish(self, stage: Stage) -> object:
        """Do the act with nobody in its way, until all of it is done; give the outcomes, if any."""
        stage.abandon.clear()
        stage.subscribers.clear()
        act = self.last or self.act
        counted = await act(stage)
        resumed = any(scan.resumed for scan in stage.of(ScanStarted))
        if resumed or stage.of(ListingKept):  # it went on: what changed since is for the next run
            counted = await act(stage)
        if not (self.looks or stage.disk) and stage.uploads():
            await act(stage)  # what was found abandoned meanwhile is removed with the next scan
        return counted

    def is_complete(self, stage: Stage, counted: object) -> bool:
        """Say whether *counted* are the outcomes when all is done."""
        outcome = Outcome.DELETED if self.moves else Outcome.VERIFIED
        if stage.flow.overwrite is Overwrite.NEVER and isinstance(counted, Counter):
            # What arrived just before it could be recorded is found there, and is nobody's to touch.
            counted = Counter({outcome: counted[outcome] + counted[Outcome.SKIPPED]})
        return self.looks or counted == {outcome: len(stage.written)}
