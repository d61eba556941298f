"""Moves against a world that does everything at the worst moment: no source goes without an equal copy.

People write and delete at the source between any two requests; answers are lost, the process dies, the
state is lost or restored from a backup, copies vanish. Each delete is looked at as it happens, and in
the end everything that people wrote last, and did not delete themselves, is at the target.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3flow.engine import deleter, recorder
from s3flow.errors import ConnectionLost, StateError, Throttled
from s3flow.policies import Guard, Mode
from s3flow.state.sqlite import open_sqlite
from s3flow.stores.local import LocalStore
from s3flow.stores.memory import MemoryStore
from tests.faults import Call, Faulty
from tests.unit.lab import PARTS, Lab, left_tasks

EXAMPLES = 25
KEYS = [b"a", b"b", b"c/d"]
SIZES = [0, 10, 11, 2500]


class Meanwhile(StrEnum):
    """What happens at one request of a run."""

    WRITE = "write"
    WRITE_SAME = "write the same again"
    WRITE_BACK = "write what was there before"
    REMOVE = "remove"
    LOSE_REQUEST = "lose the request"
    LOSE_ANSWER = "lose the answer"
    THROTTLE = "throttle"
    DIE_BEFORE = "die before"
    DIE_AFTER = "die after"
    STOP = "stop"


class Between(StrEnum):
    """What happens between two runs."""

    NOTHING = "nothing"
    WRITE = "write"
    REMOVE = "remove"
    LOSE_COPY = "lose a copy"
    SPOIL_COPY = "spoil a copy"
    LOSE_STATE = "lose the state"
    BACK_UP = "back up the state"
    RESTORE = "restore the state"
    RETRY = "retry"


class Event(NamedTuple):
    """Something at the *calls*-th request after the last one."""

    calls: int
    what: Meanwhile
    key: int


class Run(NamedTuple):
    """What comes before a run, how it is configured, and what happens in it."""

    before: list[tuple[Between, int]]
    mode: Mode
    guard: Guard
    events: list[Event]


RUNS = st.lists(
    st.builds(
        Run,
        st.lists(st.tuples(st.sampled_from(Between), st.integers(0, 2)), max_size=3),
        st.sampled_from([Mode.MOVE, Mode.MOVE, Mode.MOVE, Mode.COPY]),
        st.sampled_from([Guard.EACH, Guard.EACH, Guard.NOT]),
        st.lists(
            st.builds(Event, st.integers(0, 12), st.sampled_from(Meanwhile), st.integers(0, 2)),
            max_size=6,
        ),
    ),
    min_size=1,
    max_size=4,
)


class Died(BaseException):
    """The process ends here."""


class Source(MemoryStore):
    """A source that looks at each delete as it happens."""

    world: World

    async def delete_object(self, bucket: str, key: bytes, *, etag: str) -> bool:
        """Note what is gone, and whether an equal copy was there."""
        found = self._contents(bucket).objects.get(key)
        done = await super().delete_object(bucket, key, etag=etag)
        if done and found is not None and self.world.copy(key) != found.data:
            self.world.wrong.append(f"{key!r} was deleted, and its copy is another")
        return done


class Interfering(Faulty):
    """Lets the world have its way at each call. *near*: no network lies between."""

    def __init__(self, inner: Any, world: World, *, near: bool = False) -> None:
        super().__init__(inner)
        self.world = world
        self.near = near

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        return await self.world.call(go, near=self.near)


class World:
    """A flow, and what everybody does to it."""

    def __init__(self, folder: Path, *, to_disk: bool) -> None:
        self.folder = folder
        self.lab = Lab(folder, Source("src"))
        self.src = self.lab.src
        self.src.make_bucket("from")
        self.src.world = self  # type: ignore[attr-defined]
        self.disk = folder / "disk" if to_disk else None
        if self.disk is not None:
            self.disk.mkdir()
        self.dst = self.lab.dst
        self.lab.source = Interfering(self.src, self)
        self.wanted: dict[bytes, bytes] = {}  # what has to be at the target in the end
        self.former: dict[bytes, bytes] = {}
        self.wrong: list[str] = []
        self.events: list[Event] = []
        self.passed = 0
        self.count = 0
        self.died = False
        for key in KEYS:
            self.write(key)

    # --- people ------------------------------------------------------------------------------------

    def write(self, key: bytes) -> None:
        self.count += 1
        size = SIZES[self.count % len(SIZES)]
        self._put(key, (b"%d %s" % (self.count, key)).ljust(size, b".")[:size] if size else b"")

    def _put(self, key: bytes, data: bytes) -> None:
        if key in self.wanted:
            self.former[key] = self.wanted[key]
        self.wanted[key] = data
        self.src.put("from", key, data, part_size=1000 if len(data) > 1000 else None)

    def remove(self, key: bytes) -> None:
        contents = self.src._contents("from")
        if contents.objects.pop(key, None) is not None:
            contents.keys.remove(key)
            self.wanted.pop(key, None)

    # --- the target --------------------------------------------------------------------------------

    def copy(self, key: bytes) -> bytes | None:
        if self.disk is None:
            return self.lab.copy_of(key)
        place = self.disk / "to" / key.decode()
        return place.read_bytes() if place.is_file() else None

    def spoil(self, key: bytes, *, gone: bool) -> None:
        """Take the copy away, or change it; nobody can expect it then, unless the source is there."""
        data = self.copy(key)
        if data is None or not (gone or data):
            return
        if self.src.peek("from", key) is None:
            self.wanted.pop(key, None)
        if self.disk is not None:
            place = self.disk / "to" / key.decode()
            place.unlink()
            if not gone:
                place.write_bytes(b"!" * len(data))
                os.utime(place, (1, 1))  # of another time: size and time are what a folder tells
        elif gone:
            contents = self.dst._contents("to")
            del contents.objects[key]
            contents.keys.remove(key)
        else:
            self.dst.put("to", key, b"!" * len(data))

    # --- what happens --------------------------------------------------------------------------------

    async def call(self, go: Callable[[], Awaitable[Any]], *, near: bool) -> Any:
        """Do a request of s3flow's, as far as the world lets it."""
        self.passed += 1
        if not self.events or self.passed <= self.events[0].calls:
            return await go()
        self.passed = 0
        event = self.events.pop(0)
        key = KEYS[event.key]
        match event.what:
            case Meanwhile.LOSE_REQUEST | Meanwhile.LOSE_ANSWER | Meanwhile.THROTTLE if near:
                pass
            case Meanwhile.WRITE:
                self.write(key)
            case Meanwhile.WRITE_SAME if key in self.wanted:
                self._put(key, self.wanted[key])
            case Meanwhile.WRITE_BACK if key in self.former:
                self._put(key, self.former[key])
            case Meanwhile.REMOVE:
                self.remove(key)
            case Meanwhile.LOSE_REQUEST:
                raise ConnectionLost("no request")
            case Meanwhile.LOSE_ANSWER:
                await go()
                raise ConnectionLost("no answer")
            case Meanwhile.THROTTLE:
                raise Throttled("not so fast")
            case Meanwhile.DIE_BEFORE:
                raise Died
            case Meanwhile.DIE_AFTER:
                await go()
                raise Died
            case Meanwhile.STOP:
                self.lab.stop.set()
        return await go()

    async def between(self, what: Between, key: bytes) -> None:
        state, backup = self.folder / "state.db", self.folder / "backup.db"
        match what:
            case Between.WRITE:
                self.write(key)
            case Between.REMOVE:
                self.remove(key)
            case Between.LOSE_COPY | Between.SPOIL_COPY:
                self.spoil(key, gone=what is Between.LOSE_COPY)
            case Between.LOSE_STATE:
                self.lab.forget()
            case Between.BACK_UP if state.exists():
                shutil.copy(state, backup)
            case Between.RESTORE if backup.exists():
                self.lab.forget()
                shutil.copy(backup, state)
            case Between.RETRY if state.exists():
                await self.retry()

    async def retry(self) -> None:
        opened = await open_sqlite(self.folder / "state.db")
        try:
            with contextlib.suppress(StateError):  # it may know nothing of the flow yet
                await opened.retry("flow", None)
        finally:
            await opened.close()

    async def run(self, run: Run) -> None:
        """Run the flow once, however that ends."""
        for what, key in run.before:
            await self.between(what, KEYS[key])
        self.src._guard = run.guard
        is_move = run.mode is Mode.MOVE
        self.lab.change(mode=run.mode, unguarded_delete=is_move and run.guard is Guard.NOT, **PARTS)
        self.events, self.passed = list(run.events), 0
        disk = LocalStore("dst", self.disk) if self.disk is not None else None
        self.lab.target = Interfering(disk or self.dst, self, near=disk is not None)
        try:
            await self.lab.sync()
        except BaseException as error:
            if not _is_death(error):
                raise
            self.died = True
        finally:
            if disk is not None:
                await disk.close()


def _is_death(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_death(each) for each in error.exceptions)
    return isinstance(error, Died)


async def live(folder: Path, runs: list[Run], *, to_disk: bool) -> None:
    """Let the world have its way, then none of it: all is moved, and nothing was ever lost."""
    world = World(folder, to_disk=to_disk)
    for run in runs:
        await world.run(run)
        assert world.wrong == []
    calm = Run([], Mode.MOVE, Guard.EACH, [])
    await world.run(calm)
    await world.retry()
    await world.run(calm)
    assert world.wrong == []
    assert world.src.keys("from") == []
    assert {key: world.copy(key) for key in world.wanted} == world.wanted
    assert world.died or await left_tasks() == []  # with a process its tasks end


@pytest.mark.parametrize("to_disk", [False, True])
def test_no_source_goes_without_an_equal_copy(
    to_disk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deleter, "LINGER", 0.0)
    monkeypatch.setattr(deleter, "LOOK_AGAIN", 0.01)
    monkeypatch.setattr(recorder, "LINGER", 0.001)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(RUNS)
    def lives(runs: list[Run]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(live(Path(folder), runs, to_disk=to_disk))

    lives()
