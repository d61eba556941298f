"""Runs of s3flow in a world that does everything at the worst moment."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, NoReturn

from s3flow import upkeep
from s3flow.engine import deleter, recorder, worker
from s3flow.engine.daemon import Daemon
from s3flow.engine.inspection import Inspection
from s3flow.engine.reverify import REFUTED, Copy, Looked, Prover, refutal
from s3flow.engine.wiring import RouteMaker, Wiring
from s3flow.errors import ConnectionLost, S3flowError, StateError, Throttled
from s3flow.events import Event, ListingKept, ScanFinished, ScanStarted
from s3flow.model import Change, State
from s3flow.state.store import SqlState
from s3flow.stores.crc64 import Crc64Nvme
from s3flow.stores.local import LocalStore
from tests.faults import Call, Faulty
from tests.torture.model.reference import DONE, End, Row
from tests.torture.model.world import KEYS, World
from tests.unit.lab import QUICK, left_tasks

HANG = 3600.0  # seconds, which are simulated, after which a run that has nothing to wait for hangs


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
    REFUSE = "let the state refuse"
    STOP = "stop"
    STOP_AT_ONCE = "stop at once"


class Trouble(NamedTuple):
    """Something at the *calls*-th request after the last one."""

    calls: int
    what: Meanwhile
    key: int


class Died(BaseException):
    """The process ends here."""


class Behind(StrEnum):
    """What lies between s3flow and what it calls."""

    NETWORK = "network"
    NOTHING = "nothing"
    DATABASE = "database"


class Interfering(Faulty):
    """Lets the world have its way at each call."""

    def __init__(self, inner: Any, runs: Runs, behind: Behind) -> None:
        super().__init__(inner)
        self.runs = runs
        self.behind = behind

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        return await self.runs.call(go, self.behind)


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """Let s3flow not wait for more to come together, nor for better times."""
    waits: list[tuple[Any, str, float]] = [
        (deleter, "LINGER", 0.0),
        (deleter, "LOOK_AGAIN", 0.01),
        (recorder, "LINGER", 0.001),
        (recorder, "STATE_RETRY", 0.001),
        (worker, "STATE_RETRY", 0.001),
    ]
    before = [(module, name, getattr(module, name)) for module, name, _ in waits]
    try:
        for module, name, seconds in waits:
            setattr(module, name, seconds)
        yield
    finally:
        for module, name, seconds in before:
            setattr(module, name, seconds)


@dataclass(slots=True)
class Runs:
    """What s3flow does in a world, one run after the other."""

    world: World
    events: list[Event] = field(default_factory=list)
    _troubles: list[Trouble] = field(default_factory=list)
    _passed: int = 0
    _dead: bool = False
    _refused: bool = False  # the state did, once at least
    _over: bool = False  # and the process has ended by that, or died
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _abandon: asyncio.Event = field(default_factory=asyncio.Event)

    # --- troubles ----------------------------------------------------------------------------------

    async def call(self, go: Callable[[], Awaitable[Any]], behind: Behind) -> Any:
        """Do a request of s3flow's, as far as the world lets it."""
        if self._dead:
            raise Died
        self._passed += 1
        if not self._troubles or self._passed <= self._troubles[0].calls:
            return await go()
        self._passed = 0
        trouble = self._troubles.pop(0)
        self.world.counts["faults"] += 1
        return await self._meet(trouble.what, KEYS[trouble.key], go, behind)

    async def _meet(
        self, what: Meanwhile, key: bytes, go: Callable[[], Awaitable[Any]], behind: Behind
    ) -> Any:
        network = behind is Behind.NETWORK
        match what:
            case Meanwhile.LOSE_REQUEST if network:
                raise ConnectionLost("no request")
            case Meanwhile.LOSE_ANSWER if network:
                await go()
                raise ConnectionLost("no answer")
            case Meanwhile.THROTTLE if network:
                raise Throttled("not so fast")
            case Meanwhile.REFUSE if behind is Behind.DATABASE:
                self._refused = True
                raise StateError("the disk is full")
            case Meanwhile.DIE_BEFORE:
                self._die()
            case Meanwhile.DIE_AFTER:
                await go()
                self._die()
        self._let(what, key)
        return await go()

    def _let(self, what: Meanwhile, key: bytes) -> None:
        """Let somebody do what does not concern the request at hand."""
        match what:
            case Meanwhile.WRITE:
                self.world.write(key)
            case Meanwhile.WRITE_SAME | Meanwhile.WRITE_BACK:
                self.world.write_again(key, int(what is Meanwhile.WRITE_BACK))
            case Meanwhile.REMOVE:
                self.world.remove(key)
            case Meanwhile.STOP | Meanwhile.STOP_AT_ONCE:
                self._stop.set()
                if what is Meanwhile.STOP_AT_ONCE:
                    self._abandon.set()

    def _die(self) -> NoReturn:
        self.world.counts["crashes"] += 1
        self._dead = True  # nothing that the process does from now on reaches anybody
        raise Died

    # --- runs --------------------------------------------------------------------------------------

    async def run(self, troubles: Sequence[Trouble] = (), *, scan_only: bool = False) -> None:
        """Run the flow once, however that ends, and compare both ends and the state with the model."""
        world, model = self.world, self.world.model
        state, before = await world.opened(), world.rows()
        ends = model.expect(before, world.terms, adopting=world.adopting())
        model.begin()
        self._begin(troubles)
        try:
            async with asyncio.timeout(HANG):
                await self._work(state, scan_only=scan_only)
        except BaseException as error:
            if not is_only(error, Died if self._dead else StateError):
                raise
            if not (self._dead or self._refused):
                raise
            self._over = True
        await self._end()
        after, copies = world.rows(), world.copies()
        world.counts["operations"] += sum(before.get(key) != row for key, row in after.items())
        model.accept(copies, before, world.terms)
        if not troubles and self._listed_anew():
            world.counts["undisturbed"] += 1
            model.wrong += _differences({} if scan_only else ends, after, copies, model.here)
        model.wrong += model.judge(before, after)

    def _begin(self, troubles: Sequence[Trouble]) -> None:
        self._troubles, self._passed, self._dead = list(troubles), 0, False
        self._refused = self._over = False
        self.events.clear()
        self._stop.clear()
        self._abandon.clear()
        self.world.counts["runs"] += 1

    async def _end(self) -> None:
        """See that nothing goes on; of what died, nothing is left but what is durable."""
        if not self._over:
            left = await left_tasks()
            for _ in range(
                50 if left else 0
            ):  # what was cancelled at the last moment may come late, in any order
                left = await left_tasks()
            if left:
                self.world.model.wrong.append(f"tasks are left: {left}")
            if self._stop.is_set():
                await (
                    self.world.restart()
                )  # what was cancelled is claimed as long as the process lives
            return
        current = asyncio.current_task()
        rest = [task for task in asyncio.all_tasks() if task is not current]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        await self.world.restart()

    async def _work(self, state: SqlState, *, scan_only: bool) -> None:
        world = self.world
        async with _folder(world) as disk:
            wiring = self._wiring(disk)
            if disk is not None:  # as every start does
                bare = Wiring(world.flow, world.src, disk)
                await upkeep.sweep(state, [bare], float("inf"), self.events.append)
            daemon = Daemon(
                Interfering(state, self, Behind.DATABASE),
                [wiring],
                QUICK,
                Crc64Nvme(),
                self.events.append,
                self._stop,
                self._abandon,
                holds=world.holds,
            )
            await (daemon.scan() if scan_only else daemon.run(once=True))

    def _wiring(self, disk: LocalStore | None) -> Wiring:
        world = self.world
        source: Any = Interfering(world.src, self, Behind.NETWORK)
        if disk is not None:
            return Wiring(world.flow, source, Interfering(disk, self, Behind.NOTHING))
        target: Any = Interfering(world.dst, self, Behind.NETWORK)
        return Wiring(world.flow, source, target, target)

    def _listed_anew(self) -> bool:
        kinds = {type(event): event for event in self.events}
        begun = kinds.get(ScanStarted)
        resumed = not isinstance(begun, ScanStarted) or begun.resumed
        return ScanFinished in kinds and ListingKept not in kinds and not resumed

    # --- looks -------------------------------------------------------------------------------------

    async def verify(self, *, reads: bool) -> None:
        """Prove all copies again, and tell the state of those that are not as they were."""
        world, found = self.world, dict[bytes, Looked]()
        refuted: list[Change] = []
        state, before = await world.opened(), world.rows()
        self._begin(())

        async def tell(copy: Copy, looked: Looked) -> None:
            found[copy.transfer.key] = looked
            if looked.result in REFUTED and not copy.gone:
                refuted.append(refutal(copy, looked))

        async with _folder(world) as disk:
            maker = RouteMaker(QUICK, Crc64Nvme(), self.events.append, self._stop)
            prover = Prover(maker.route(self._wiring(disk)), reads=reads)
            await Inspection(prover, tell, _unlisted, lanes=4).of_state(state)
        await state.refute(refuted)
        for key, row in before.items():
            if row.state in DONE:
                may_be = world.model.proofs(key, row)
                looked = found.get(key)
                if looked is None or looked.result not in may_be:
                    world.model.wrong.append(f"{key!r} was looked at: {looked}, not {may_be}")


@contextlib.asynccontextmanager
async def _folder(world: World) -> AsyncIterator[LocalStore | None]:
    if world.disk is None:
        yield None
        return
    disk = LocalStore("dst", world.disk)
    try:
        yield disk
    finally:
        await disk.close()


def _differences(
    ends: Mapping[bytes, End],
    rows: Mapping[bytes, Row],
    copies: Mapping[bytes, bytes],
    here: Mapping[bytes, bytes],
) -> list[str]:
    """Compare what came of each object with what the model says."""
    found = []
    for key, end in ends.items():
        row, copy, gone = rows.get(key), copies.get(key), key not in here
        if row is None or row.state is not end.state or copy != end.copy:
            found.append(f"{key!r} was to end as {end!r:.60}, and is {row}, {copy!r:.40}")
        if gone != (end.state is State.DELETED):
            found.append(f"{key!r} was to end as {end.state}, and the source is {gone=}")
    return found


def _unlisted(bucket: str, error: S3flowError) -> None:
    raise error


def is_only(error: BaseException, kind: type[BaseException]) -> bool:
    """Say whether an error is of that kind, or a group of such."""
    if isinstance(error, BaseExceptionGroup):
        return all(is_only(each, kind) for each in error.exceptions)
    return isinstance(error, kind)
