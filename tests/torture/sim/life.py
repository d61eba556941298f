"""One life of a daemon: its calls pass through here, where they are late, fail, or are the last ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from s3flow.engine.daemon import Daemon
from s3flow.engine.holding import OwnHolds
from s3flow.engine.wiring import Pace, Wiring
from s3flow.errors import ConnectionLost, CredentialsMissing, Truncated
from s3flow.events import Event, PageMerged, Recorded, Retried, TransferStarted
from s3flow.model import Doomed
from s3flow.ports import Body
from s3flow.records import Hold
from s3flow.state.store import SqlState
from s3flow.stores.crc64 import Crc64Nvme
from tests.faults import Call, Faulty, FaultyBody
from tests.torture.sim.chance import DONE_FIRST, ERRORS, Chances, Cut, End, Trouble
from tests.torture.sim.database import Fate, SimDatabase
from tests.torture.sim.loop import STEP, Process

if TYPE_CHECKING:
    from tests.torture.sim.world import World

# Requests without a body of ours: once sent they may be carried out after we are gone.
SENT_AT_ONCE = {
    "abort_multipart_upload",
    "complete_multipart_upload",
    "copy_object",
    "delete_object",
    "delete_objects",
    "restore_object",
    "upload_part_copy",
}


PARTS = {"upload_part", "upload_part_copy"}
MEETING = 4  # steps after a death in which connections break: so soon do others hear of it
SOON = 0.1  # seconds after a death, by which nobody works on
_TOLD = (bytes, str, int, tuple, list)  # arguments that are the same in each run


class Died(BaseException):
    """The process ends here, by an exception that nobody may swallow."""


@dataclass(slots=True)
class Course:
    """How a life is lived: *flows* wired to stores, at a *pace*, *once* or until it is ended."""

    wirings: list[Wiring]
    pace: Pace
    once: bool
    workers: int = 0


class Patient(OwnHolds):
    """Holds that a person looks at, and releases after a while."""

    async def put(self, flow: str, hold: Hold) -> None:
        """Hold, for an hour."""
        await super().put(flow, hold)
        asyncio.get_running_loop().call_later(3600, self._holds.pop, flow, None)


class Life:
    """A daemon as a process of the simulated machine."""

    def __init__(self, world: World, number: int, chances: Chances) -> None:
        self.world = world
        self.loop = world.loop
        self.chances = chances
        self.process = Process(world.loop, f"daemon {number}")
        self.stop = asyncio.Event()
        self.abandon = asyncio.Event()
        self.ended = asyncio.Event()  # by a death, or by an order to end
        self.process.on_death.append(self.ended.set)
        self.died = False
        self.died_at = 0.0
        self.stopped_at: float | None = None
        self.calls = 0
        self._under_way: dict[asyncio.Future[None], Call] = {}  # what each waits for
        self._blocked_until: dict[str, float] = {}
        self._refused_until = 0.0

    # --- the daemon --------------------------------------------------------------------------------

    async def run(self, course: Course) -> None:
        """Run a daemon on the world's state and stores."""
        world = self.world
        database = SimDatabase(
            world.disk, self.loop, self._fate, self.chances.state_delay, self.process.kill
        )
        state = SqlState(database, self.loop.wall)
        try:
            await state.prepare()
            daemon = Daemon(
                state,
                course.wirings,
                course.pace,
                Crc64Nvme(),
                self._tell,
                self.stop,
                self.abandon,
                holds=Patient(),
            )
            await world.employ(self, daemon, state, course)
        finally:
            await state.close()

    def _tell(self, event: Event) -> None:
        if isinstance(event, Retried) and event.reason == "unexpected":
            self.world.wrong.append(f"an unexpected error: {event.message}")
        if isinstance(event, TransferStarted) and self.died and self.loop.now > self.died_at + SOON:
            self.world.wrong.append("a life whose call had died begins another transfer")
        if isinstance(event, Recorded):
            told = [(it.transfer.key, it.transfer.etag, it.state.value) for it in event.changes]
            self.world.mark("recorded", told)
        elif isinstance(event, PageMerged):
            self.world.mark("merged", (event.new, event.changed))

    # --- what comes to an end ----------------------------------------------------------------------

    def _counted(self, call: Call) -> None:
        """Count a call; the one that is to be the last one ends this life in its way."""
        self.calls += not self.chances.at_state
        if self.chances.end is End.DIE and self.calls >= self.chances.until_end:
            if self.chances.amid_parts and not self._is_amid_parts(call):
                return
            self.world.note(End.DIE.value)
            self.died, self.died_at = True, self.loop.now
            self.ended.set()
            self._break_off()
            raise Died
        if self.calls == self.chances.until_end and self.chances.end is not End.NONE:
            self.end(self.chances.end)

    def end(self, how: End) -> None:
        """End this life in the way of *how*, unless it has ended."""
        if self.ended.is_set():
            return
        self.world.note(how.value)
        match how:
            case End.KILL:
                self.process.kill()
            case End.STOP | End.ABANDON:
                self.stopped_at = self.loop.now
                self.stop.set()
                if self.chances.end is End.ABANDON:
                    self.loop.call_later(self.chances.delay(), self.abandon.set)
                self.ended.set()
            case End.TAKEOVER:
                self.ended.set()

    @property
    def _is_overtaken(self) -> bool:
        return self.chances.end is End.TAKEOVER and self.ended.is_set()

    def _is_amid_parts(self, call: Call) -> bool:
        """Say whether parts of another object are on their way."""
        others = (other for other in self._under_way.values() if other.args[1:2] != call.args[1:2])
        return any(other.method in PARTS for other in others)

    def _break_off(self) -> None:
        """Let connections break beside a death: a failure may meet the cancellation that follows."""
        for future in self._under_way:
            self.loop.call_later(self.world.rng.randrange(MEETING) * STEP, _lose, future)

    async def _pass(self, seconds: float, call: Call) -> None:
        """Let time pass in a call, unless its connection breaks."""
        future = self.loop.create_future()
        self._under_way[future] = call
        timer = self.loop.call_later(seconds, _end, future)
        try:
            await future
        finally:
            timer.cancel()
            del self._under_way[future]

    async def _last(self) -> None:
        """Go no further in a process that is dead."""
        if self.process.dead:
            await asyncio.Event().wait()

    def _fate(self, writes: bool) -> Fate:
        chances, draw = self.chances, self.world.rng.random()
        self.world.mark("state", b"w" if writes else b"r")
        self.calls += chances.at_state
        if chances.at_state and self.calls == chances.until_end:
            self.world.note("killed at a commit" if writes else "killed at a read")
            return Fate.DIE_AFTER if writes and draw < 0.5 else Fate.DIE_BEFORE
        if self.loop.now < self._refused_until:
            return Fate.REFUSED
        if draw < chances.state:
            self.world.note("state refused")
            if draw < chances.state / 4:
                self._refused_until = self.loop.now + 400 * draw / chances.state
            return Fate.REFUSED
        if draw < 2 * chances.state and writes:
            self.world.note("state's answer lost")
            return Fate.LOST
        return Fate.DONE

    # --- calls of stores ---------------------------------------------------------------------------

    async def call(self, store: Port, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        """Do one call of a store, as far as it goes."""
        await self._last()
        if self.died:
            raise Died
        world, chances = self.world, self.chances
        world.mark(call.method, [each for each in call.args if isinstance(each, _TOLD)])
        self._counted(call)
        await self._last()
        store.watch(call)
        trouble = None if chances.calm else chances.call()
        if self.loop.now < self._blocked_until.get(store.name, 0.0):
            await self._pass(chances.delay(), call)
            raise CredentialsMissing("no credentials")
        if trouble is not None:
            world.note(trouble.value)
        if trouble is Trouble.BLOCK:
            self._blocked_until[store.name] = self.loop.now + world.rng.uniform(0, 100)
        if trouble is not None and trouble not in DONE_FIRST:
            await self._pass(chances.delay(), call)
            raise ERRORS[trouble]()
        answer = await self._carried_out(call, go)
        seconds = 60 if trouble is Trouble.STALL else chances.delay()
        await self._pass(seconds, call)
        await self._last()
        if trouble is not None:
            if hasattr(answer, "close"):
                answer.close()
            raise ERRORS[trouble]()
        return answer

    async def _carried_out(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        """Send a request; what is on its way arrives, whatever becomes of who sent it."""
        chances = self.chances
        if call.method not in SENT_AT_ONCE or self.world.rng.random() >= chances.late:
            await self._pass(chances.delay(), call)
            await self._last()
            answer = await go()
            if call.method == "create_multipart_upload" and self._is_overtaken:
                self.world.forgotten.add(answer)  # who took over has looked for it already
            return answer
        self.world.note("sent, and late")
        await asyncio.sleep(0)

        async def arrive() -> Any:
            await asyncio.sleep(chances.delay())
            return await go()

        return await asyncio.shield(self.world.network.start(arrive(), call.method))

    def read(self, body: Body, offset: int) -> Cut | None:
        """Say what becomes of a read."""
        if self.chances.calm or body.size == 0:
            return None
        cut = self.chances.read()
        if cut is not None:
            self.world.note(cut.value)
        return cut

    async def chunk(self, body: Body, offset: int) -> memoryview:
        """Read a chunk, as far as it arrives."""
        await self._last()
        cut = self.read(body, offset)
        if cut is Cut.SLOW:
            await asyncio.sleep(self.world.rng.uniform(0, 20))
        if cut is Cut.LOST:
            raise ConnectionLost(f"the body broke off after {offset} of {body.size} bytes")
        if cut is Cut.SHORT:
            raise Truncated(f"the body ended after {offset} of {body.size} bytes")
        chunk = await body.read()
        if cut is Cut.FLIP and chunk:
            chunk = memoryview(bytearray(chunk))
            # Never twice the same: no second reading could tell of that.
            chunk[self.world.rng.randrange(len(chunk))] ^= 1 + self.world.counts[cut.value] % 255
        return chunk


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _lose(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(ConnectionLost("it broke in the same moment"))


class Port(Faulty):
    """A store as one life sees it."""

    def __init__(self, inner: Any, life: Life, *, is_source: bool) -> None:
        super().__init__(inner)
        self.life = life
        self.is_source = is_source
        self.name = inner.name

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        """Let it go through the life's hands."""
        return await self.life.call(self, call, go)

    def wrap(self, body: Body) -> Body:
        """Let reads of what comes from a store go through them as well."""
        if isinstance(body, FaultyBody) or not self.is_source:
            return body
        return FaultyBody(body, self.life.chunk)

    def watch(self, call: Call) -> None:
        """Look at reads and deletes before they are sent."""
        if not self.is_source:
            return
        if call.method == "get_object" and not call.kwargs.get("etag"):
            self.life.world.wrong.append(f"I2: a read of {call.args[1]!r} names no version")
        if call.method == "delete_objects":
            bucket, doomed = call.args[0], call.args[1]
        elif call.method == "delete_object":
            bucket, doomed = call.args[0], [Doomed(call.args[1], call.kwargs.get("etag", ""))]
        else:
            return
        for each in doomed:
            self.life.world.check_durable(bucket, each.key, each.etag)
