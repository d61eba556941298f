"""A world of one seed: stores, people, a state, and the lives of daemons that follow one another."""

from __future__ import annotations

import asyncio
import random
import traceback
import zlib
from collections import Counter
from typing import Any

from s3flow.engine.retry import Backoff
from s3flow.engine.wiring import Pace, Wiring
from s3flow.errors import S3flowError, StateError, WorkerLost
from s3flow.model import Flow, Place
from s3flow.policies import Guard, MethodPolicy, Mode
from s3flow.state.store import SqlState
from s3flow.stores.memory import MemoryStore
from tests.torture import promises
from tests.torture.sim.calls import Caller, Died, Port
from tests.torture.sim.chance import Chances, End
from tests.torture.sim.database import Disk, SimDatabase
from tests.torture.sim.harbour import Harbour
from tests.torture.sim.life import Course, Life
from tests.torture.sim.loop import Process, SimLoop
from tests.torture.sim.truth import Source, Truth, totals_differ

KEYS = (b"a", b"b", b"c/d", b"c/e", b"f//g", "h\u00e9".encode(), b"z\xff")
DAY = 86_400.0
WORKERS = (0, 0, 0, 2, 3)  # processes beside the daemon's own; one is never alone
TO_STOP = 300.0  # seconds: the drain's 20, the last write's 2, and calls for 60 to tidy up
LONGEST = DAY  # of a life that is to end by itself; a restore takes hours
PLAIN: dict[str, str] = {}


class World:
    """All of it. *wrong* has what broke a promise; *crc* is of all that happened, in its order."""

    def __init__(self, seed: int, *, trace: bool = False) -> None:
        self.rng = random.Random(seed)
        self.loop = SimLoop(self.rng, shuffled=self.rng.random() < 0.4)
        self.disk = Disk()
        self.network = Process(self.loop, "network")
        self.wrong: list[str] = []
        self.counts: Counter[str] = Counter()
        self.crc = 0
        self.forgotten: set[str] = set()  # uploads that nobody can know of any more
        self.trace: list[str] | None = [] if trace else None
        self._number = 0
        self._backup: bytes | None = None
        self._stores()
        self.truths = [self._truth(number) for number in range(self.rng.choice((1, 1, 2)))]
        self.source.truths = self.truths
        for truth in self.truths:
            for key in truth.keys:
                truth.write(key)

    # --- how it is made ----------------------------------------------------------------------------

    def _stores(self) -> None:
        draw = self.rng
        with_checksums = draw.random() < 0.4
        settings: dict[str, Any] = {
            "with_checksums": with_checksums,
            "chunk_size": draw.choice((300, 4000)),
            "page_size": draw.choice((1, 2, 3, 1000)),
            "clock": self.loop.wall,
        }
        # For good: one that stopped to compare while somebody relies on it would lose by its own fault.
        guard = draw.choice((Guard.EACH, Guard.EACH, Guard.ONE, Guard.NOT))
        self.source = Source("src", **settings, guard=guard)
        self.source.restore_seconds = draw.choice((0.0, 100.0, 1000.0))
        self.source.expedites = draw.random() < 0.5
        self.beside = draw.random() < 0.35
        self.settles = not self.beside and draw.random() < 0.3
        if self.settles:
            self.target: MemoryStore = Harbour("dst", **settings)
        else:
            self.target = MemoryStore(
                "dst", **settings, beside=self.source if self.beside else None
            )
        self.sealed = not with_checksums and draw.random() < 0.3
        self.attributes: list[dict[str, str]] = [PLAIN, PLAIN]
        if self.sealed:
            self.attributes = [{"encryption": "aws:kms"}] * 3  # ETags say nothing of their bytes
        if draw.random() < 0.3:
            self.attributes.append({"storage_class": "GLACIER"})

    def _truth(self, number: int) -> Truth:
        draw = self.rng
        suffix = "" if number == 0 else f"-{number}"
        source, target = f"from{suffix}", f"to{suffix}"
        self.source.make_bucket(source)
        self.target.make_bucket(target)
        self.moves = number == 0 and draw.random() < 0.75
        prefix = draw.choice((b"", b"p/"))
        flow = Flow(
            f"flow{suffix}",
            Place("src", source, b""),
            Place("dst", target, prefix),
            mode=Mode.MOVE if self.moves else Mode.COPY,
            multipart_threshold=1000,
            part_size=draw.choice((600, 1000)),
            lanes=draw.choice((1, 3)),
            list_concurrency=draw.choice((1, 4)),
            max_attempts=draw.choice((2, 8)),
            scrub=draw.choice((0.0, 0.0, 1.0)),
            max_restores=draw.choice((1, 100)),
            restore_poll=draw.choice((0.0, 40.0, 40.0, 40.0)),
            method=draw.choice((MethodPolicy.SERVER_FIRST, MethodPolicy.STREAM_ONLY)),
        )
        keys = draw.sample(KEYS, draw.randint(1, len(KEYS)))
        return Truth(flow, keys, (self.source, self.target), draw, self.attributes)

    def _course(self, life: Life, *, final: bool) -> Course:
        draw = self.rng
        once = final or life.chances.flips or draw.random() < 0.7
        plans = []
        for truth in self.truths:
            mode = truth.flow.mode
            if mode is Mode.MOVE and not final and draw.random() < 0.2:
                mode = Mode.COPY
            flow = _changed(
                truth.flow,
                mode=mode,
                unguarded_delete=mode is Mode.MOVE and self.source._guard is Guard.NOT,
                every=None if once else draw.choice((1.0, 60.0, 3600.0)),
                delete_after=0.0 if final else draw.choice((0.0, 0.0, 300.0)),
            )
            with_reader = draw.random() < 0.8 and not self.settles
            plans.append((flow, with_reader, self.beside and draw.random() < 0.3))
        workers = draw.choice(WORKERS)
        pace = Pace(
            concurrency=max(workers, draw.choice((1, 2, 8))),
            bodies=max(workers, draw.choice((1, 8))),
            block_retry=10.0,
            backoff=Backoff(0.5, 60.0),
        )
        if workers:
            self.note("life with workers")

        def wire(caller: Caller) -> list[Wiring]:
            return [self._wiring(caller, *plan) for plan in plans]

        return Course([flow for flow, _, _ in plans], wire, pace, once, workers)

    def _wiring(self, caller: Caller, flow: Flow, with_reader: bool, with_copier: bool) -> Wiring:
        """Give the stores as a process sees them."""
        target = Port(self.target, caller, is_source=False)
        reader = Port(self.target, caller, is_source=True) if with_reader else None
        source = Port(self.source, caller, is_source=True)
        copier = Port(self.target, caller, is_source=False) if with_copier else None
        return Wiring(flow, source, target, reader, copier, "")

    # --- what is told ------------------------------------------------------------------------------

    def note(self, what: str) -> None:
        """Count something that happened."""
        self.counts[what] += 1
        self.mark("note", what.encode())

    def mark(self, what: str, about: object) -> None:
        """Take a step into the trace."""
        line = f"{self.loop.now:.6f} {what} {about!r}"
        self.crc = zlib.crc32(line.encode(), self.crc)
        if self.trace is not None:
            self.trace.append(line)

    def check_durable(self, bucket: str, key: bytes, etag: str) -> None:
        """Look at a delete that is about to be asked for, unless another daemon has written since."""
        if not self._two:
            for truth in self.truths:
                truth.check_durable(self.disk.db, bucket, key, etag)

    # --- people ------------------------------------------------------------------------------------

    def _begin_people(self) -> None:
        self._busy = self.rng.choice((0.0, 0.01, 0.2, 2.0))
        self._next_act()

    def _next_act(self) -> None:
        if self._busy:
            self._people = self.loop.call_later(self.rng.expovariate(self._busy), self._act)

    def _act(self) -> None:
        truth = self.rng.choice(self.truths)
        self._do(truth, self.rng.choice(truth.keys), racing=True)
        if self.rng.random() < 0.02:
            self._busy = 0.0  # they go home
        self._next_act()

    def _do(self, truth: Truth, key: bytes, *, racing: bool) -> None:
        draw = self.rng.random()
        if draw < 0.5:
            what = "written"
            truth.write(key)
        elif draw < 0.65:
            what = "written again"
            truth.write_again(key)
        elif draw < 0.8:
            what = "removed"
            truth.remove(key)
        elif draw < 0.9:
            what = "copy spoilt"
            truth.spoil(key, gone=False, racing=racing)
        else:
            what = "copy removed"
            truth.spoil(key, gone=True, racing=racing)
        self.note(what)
        self.mark(what, key)

    def _between(self) -> None:
        draw = self.rng
        for _ in range(draw.choice((0, 0, 1, 2, 5))):
            truth = draw.choice(self.truths)
            self._do(truth, draw.choice(truth.keys), racing=False)
        fortune = draw.random()
        if fortune < 0.05:
            self.note("state lost")
            self.forgotten.update(self.target._uploads)
            self.disk.restore()
        elif fortune < 0.15:
            self._backup = self.disk.copy()
        elif fortune < 0.2 and self._backup is not None:
            self.note("state restored")
            self.forgotten.update(self.target._uploads)
            self.disk.restore(self._backup)
        elif fortune < 0.25 and self.target._uploads:
            self.note("upload removed by others")
            del self.target._uploads[draw.choice(sorted(self.target._uploads))]

    # --- lives -------------------------------------------------------------------------------------

    _two = False

    async def play(self) -> None:
        """Live a few lives, then calm ones, in which all that was promised comes true."""
        old: Life | None = None
        for _ in range(self.rng.randint(1, 6)):
            self._begin_people()
            old = await self._live(old)
            self._check()
            if old is None:
                self._between()
                await asyncio.sleep(self.rng.choice((0, 1, 100, DAY)) * self.rng.random())
        self._busy = 0.0
        if old is not None:
            await old.bury()
            self._two = False
        await asyncio.sleep(DAY)
        await self._settle()

    async def _live(self, old: Life | None) -> Life | None:
        """Live one life; gives it if it goes on, though the next one has taken the state over."""
        self._number += 1
        self.counts["lives"] += 1
        # A copy of flipped bits is seen at the target until it was found out, and removed: who dies
        # between the two leaves it, and mends it only while its source is there.
        flips = not self.sealed and self.rng.random() < 0.25
        chances = Chances(self.rng, calm=False, flips=flips)
        life = Life(self, self._number, chances)
        course = self._course(life, final=False)
        if not course.once:
            self.loop.call_later(
                self.rng.choice((10.0, 300.0)) * self.rng.random(), life.end, End.STOP
            )
        self.mark("life", (chances.end.value, chances.until_end))
        self._two = old is not None
        main = life.process.start(life.run(course), "main")
        await self._wait(life, main)
        if old is not None:
            await old.bury()
            self._two = False
        if life.chances.end is End.TAKEOVER and life.ended.is_set() and not main.done():
            self._two = True
            return life
        await life.bury()
        return None

    async def _wait(self, life: Life, main: asyncio.Task[None]) -> None:
        """Wait for a life's end; it has to come."""
        ended = asyncio.ensure_future(life.ended.wait())
        await asyncio.wait({main, ended}, timeout=LONGEST, return_when=asyncio.FIRST_COMPLETED)
        ended.cancel()
        if life.process.dead:
            return
        if life.stop.is_set() or life.died:
            await asyncio.wait({main}, timeout=TO_STOP)
            if life.process.dead:  # a kill came before its end
                return
        elif life.ended.is_set():  # another one takes over
            return
        if not main.done():
            why = "that was stopped" if life.stop.is_set() else "that should end by itself"
            why = "whose call had died" if life.died else why
            self.wrong.append(f"a life {why} hangs:\n{life.process.stacks()}")
            return
        self._judge_end(life, main)
        await asyncio.sleep(0.1)
        left = [task for task in life.process.tasks if not task.done()]
        if left and not life.died:
            self.wrong.append(f"tasks are left:\n{life.process.stacks()}")
        alive = [hand.process.name for hand in life.hands if not hand.process.dead]
        if alive:
            self.wrong.append(f"worker processes outlive their daemon: {alive}")

    def _judge_end(self, life: Life, main: asyncio.Task[None]) -> None:
        error = None if main.cancelled() else main.exception()
        if main.cancelled():
            self.wrong.append("a life ended as if it had been cancelled")
        for each in _leaves(error):
            if isinstance(each, Died) and life.died:
                continue
            if isinstance(each, WorkerLost) and life.hands:
                self.note("no worker lived")
                continue
            if not isinstance(each, StateError):
                self.wrong.append("a life ended with " + "".join(traceback.format_exception(each)))
                continue
            self.note("ended by an error")
        if life.died and not any(isinstance(each, Died) for each in _leaves(error)):
            self.note("death not told")
        if error is None and life.once and not life.stop.is_set() and not life.died:
            for truth in self.truths:
                self.wrong += promises.nothing_pending(truth.seen(self.disk.db))

    # --- what has to be true -----------------------------------------------------------------------

    def _check(self) -> None:
        self.wrong += totals_differ(self.disk.db)
        for truth in self.truths:
            seen = truth.seen(self.disk.db)
            self.wrong += truth.wrong
            truth.wrong.clear()
            self.wrong += promises.kept(seen)
            self.wrong += promises.no_source_lost(truth.seen_strictly(seen))
        self.wrong += [f"a callback failed: {each}" for each in self.loop.complaints]
        self.loop.complaints.clear()
        if self.wrong:
            raise Wrong("\n  ".join(self.wrong))

    async def _settle(self) -> None:
        """See that calm lives bring all to its end, and that one more changes nothing."""
        before = []
        for turn in range(4):
            if turn == 3:
                before = [truth.seen(self.disk.db) for truth in self.truths]
            life = Life(self, 1000 + turn, Chances(self.rng, calm=True))
            course = self._course(life, final=True)
            self.mark("calm life", turn)
            main = life.process.start(life.run(course), "main")
            await self._wait(life, main)
            await life.bury()
            self._check()
            await self._retry()
            await asyncio.sleep(DAY)
        for truth, former in zip(self.truths, before, strict=True):
            seen = truth.seen(self.disk.db)
            self.wrong += promises.nothing_changed(former, seen)
            left = {claim.key for claim in seen.claims if "size" in claim.reason.split()}
            moved = truth.flow.mode is Mode.MOVE and not left
            seen.uploads = set(seen.uploads) - self.forgotten
            self.wrong += promises.kept_at_rest(seen, moved=moved)
        self._check()

    async def _retry(self) -> None:
        chances = Chances(self.rng, calm=True)
        life = Life(self, 2000, chances)
        database = SimDatabase(self.disk, self.loop, life._fate, chances.delay, life.process.kill)
        state = SqlState(database, self.loop.wall)
        for truth in self.truths:
            await state.retry(truth.flow.name, None)
        await state.close()


class Wrong(AssertionError):
    """A promise was broken in a world."""


def _leaves(error: BaseException | None) -> list[BaseException]:
    if error is None:
        return []
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in _leaves(each)]
    return [error]


def _changed(flow: Flow, **settings: Any) -> Flow:
    from dataclasses import replace

    return replace(flow, **settings)


__all__ = ["S3flowError", "World", "Wrong"]
