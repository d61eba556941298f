"""The calls of one process: they pass through here, where they are late, fail, or are the last ones."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from s3flow.errors import ConnectionLost, CredentialsMissing, Truncated
from s3flow.model import Doomed
from s3flow.ports import Body
from tests.faults import Call, Faulty, FaultyBody
from tests.torture.sim.chance import DONE_FIRST, ERRORS, Chances, Cut, End, Trouble
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
COPIES = {"copy_object", "upload_part_copy"}
PARTS = {"upload_part", "upload_part_copy"}
WRITING = {
    "put_object",
    "copy_object",
    "create_multipart_upload",
    "upload_part",
    "upload_part_copy",
    "complete_multipart_upload",
}
MEETING = 4  # steps after a death in which connections break: so soon do others hear of it
SOON = 0.1  # seconds after a death, by which nobody works on
_TOLD = (bytes, str, int, tuple, list)  # arguments that are the same in each run


class Died(BaseException):
    """The process ends here, by an exception that nobody may swallow."""


class Caller:
    """A process of the simulated machine, as one that calls stores."""

    def __init__(self, world: World, chances: Chances, process: Process) -> None:
        self.world = world
        self.loop = world.loop
        self.chances = chances
        self.process = process
        self.died = False
        self.died_at = 0.0
        self.calls = 0
        self.writes: Counter[tuple[str, bytes]] = Counter()  # under way, by what they write
        self.family: list[Caller] = [self]  # all processes of the daemon
        self._under_way: dict[asyncio.Future[None], Call] = {}  # what each waits for
        self._blocked_until: dict[str, float] = {}

    # --- what comes to an end ----------------------------------------------------------------------

    def end(self, how: End) -> None:
        """End this process in the way of *how*, unless it has ended."""
        raise NotImplementedError

    def ended_by_death(self) -> None:
        """Hear that a call has died."""

    @property
    def is_past_death(self) -> bool:
        """Whether a call has died, so long ago that nothing may begin any more."""
        return self.died and self.loop.now > self.died_at + SOON

    @property
    def is_overtaken(self) -> bool:
        """Whether another daemon has the state by now."""
        raise NotImplementedError

    def _counted(self, call: Call) -> None:
        """Count a call; the one that is to be the last one ends this process in its way."""
        self.calls += not self.chances.at_state
        if self.chances.end is End.DIE and self.calls >= self.chances.until_end:
            if self.chances.amid_parts and not self._is_amid_parts(call):
                return
            self.died, self.died_at = True, self.loop.now
            self.ended_by_death()
            self._break_off()
            raise Died
        if self.calls == self.chances.until_end and self.chances.end is not End.NONE:
            self.end(self.chances.end)

    def _is_amid_parts(self, call: Call) -> bool:
        """Say whether parts of another object are on their way."""
        parts = [other for other in self._under_way.values() if other.method in PARTS]
        return any(call.method not in PARTS or _place(other) != _place(call) for other in parts)

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

    @contextlib.contextmanager
    def alone(self, place: tuple[str, bytes]) -> Iterator[None]:
        """See that no other living process of the daemon writes there: each object is leased to one.

        What a dead one has sent may still arrive: then what holds at any moment has to hold as well.
        """
        for other in self.family:
            if other is not self and not other.process.dead and other.writes[place]:
                names = f"{self.process.name} and {other.process.name}"
                self.world.wrong.append(f"lease: {names} write {place[1]!r} at the same time")
        self.writes[place] += 1
        try:
            yield
        finally:
            self.writes[place] -= 1

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
            if call.method == "create_multipart_upload" and self.is_overtaken:
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


def _place(call: Call) -> tuple[str, bytes]:
    """Say where a call writes: the bucket and the key."""
    first = call.method in COPIES  # that argument is the original
    return call.args[first], call.args[first + 1]


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _lose(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(ConnectionLost("it broke in the same moment"))


class Port(Faulty):
    """A store as one process sees it."""

    def __init__(self, inner: Any, caller: Caller, *, is_source: bool) -> None:
        super().__init__(inner)
        self.caller = caller
        self.is_source = is_source
        self.name = inner.name

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        """Let it go through the process's hands."""
        if self.is_source or call.method not in WRITING:
            return await self.caller.call(self, call, go)
        with self.caller.alone(_place(call)):
            return await self.caller.call(self, call, go)

    def wrap(self, body: Body) -> Body:
        """Let reads of what comes from a store go through them as well."""
        if isinstance(body, FaultyBody) or not self.is_source:
            return body
        return FaultyBody(body, self.caller.chunk)

    def watch(self, call: Call) -> None:
        """Look at reads and deletes before they are sent."""
        world = self.caller.world
        if not self.is_source:
            return
        if call.method == "get_object" and not call.kwargs.get("etag"):
            world.wrong.append(f"I2: a read of {call.args[1]!r} names no version")
        if call.method == "delete_objects":
            bucket, doomed = call.args[0], call.args[1]
        elif call.method == "delete_object":
            bucket, doomed = call.args[0], [Doomed(call.args[1], call.kwargs.get("etag", ""))]
        else:
            return
        for each in doomed:
            world.check_durable(bucket, each.key, each.etag)
