"""The supervisor's side of one worker process: what it holds, what it says, its death and the next one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

from s3flow.crashpoints import passing
from s3flow.crew import messages as say
from s3flow.crew.chorus import Chorus
from s3flow.crew.link import Link, Message
from s3flow.crew.process import Process, Start
from s3flow.engine.flow import RunningFlow
from s3flow.engine.recorder import Entry
from s3flow.errors import S3flowError, WorkerLost
from s3flow.events import (
    BytesMoved,
    Emit,
    Retried,
    RouteDecided,
    TransferEnded,
    TransferStarted,
    WorkerEnded,
    WorkerPulse,
    WorkerStarted,
)
from s3flow.model import Change, Transfer

MOST_FRUITLESS = 5  # lives in a row that moved nothing: then it is not bad luck
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 10.0  # seconds before the next process
SILENCE = 60.0  # seconds without a sign of life; the process has a pulse of one second
LAST_WORDS = 2.0  # seconds that a process gets to quit
# Small transfers lie ready in a process, so that it need not wait for the line; never many bytes, for
# another process may run out of work meanwhile.
AHEAD = 64
AHEAD_BYTES = 8 * 1024 * 1024

Tidy = Callable[[Mapping[str, bytes], Sequence[Transfer]], Awaitable[None]]

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Held:
    """A transfer that a process has. *change*: it ended so, and is not durable yet."""

    transfer: Transfer
    flow: RunningFlow
    started: bool = False
    change: Change | None = None


@dataclass(slots=True)
class Seat:
    """A place for a worker process, which outlives the process that has it.

    *start* starts one; *orders* is the first thing it hears. *places*: transfers at a time, by flow.
    *freed* is called when there may be room again, *tidy* with the marks and the transfers of a dead
    process. *peers*: all seats, which learn what one of them finds out.
    """

    number: int
    start: Start
    orders: bytes
    places: Mapping[str, int]
    flows: Mapping[str, RunningFlow]
    stop: asyncio.Event
    tell: Emit
    chorus: Chorus
    freed: Callable[[], None]
    tidy: Tidy
    peers: Sequence[Seat] = ()
    held: dict[int, Held] = field(default_factory=dict)
    load: int = 0  # bytes of what it works on
    _busy: Counter[str] = field(default_factory=Counter)  # transfers that have not ended, by flow
    _link: Link | None = None
    _process: Process | None = None
    _remembering: set[asyncio.Task[None]] = field(default_factory=set)
    _marks: dict[str, bytes] = field(default_factory=dict)
    _fruitful: bool = False
    _last_sign: float = 0.0
    _cpu: float = 0.0

    # --- what the dispatcher asks -------------------------------------------------------------

    def has_room(self, flow: str) -> bool:
        """Say whether the process can take another transfer of *flow*."""
        if self._link is None:
            return False
        busy, places = self._busy[flow], self.places[flow]
        return busy < places or (0 < places <= busy < places + AHEAD and self.load < AHEAD_BYTES)

    def give(self, flow: RunningFlow, transfer: Transfer) -> None:
        """Hand a transfer out. Only where there is room."""
        if self._link is None:
            raise WorkerLost(f"worker process {self.number} is gone")
        self.held[transfer.id] = Held(transfer, flow)
        self._busy[transfer.flow] += 1
        self.load += transfer.size
        self._link.send(say.pack_transfer(transfer))
        passing("worker.given")

    def teach(self, flow: RunningFlow) -> None:
        """Tell the process which ways the flow's objects go, as far as it is known."""
        if flow.route.verdicts is not None:
            for verdict in flow.route.verdicts.decided.values():
                self.tell_message(say.pack_verdict(verdict))

    def tell_message(self, message: Message) -> None:
        """Say something that the next process in this seat hears by itself, if this one is dead."""
        if self._link is not None:
            self._link.send(message)

    def say_stop(self) -> None:
        """Let what has begun end, and nothing begin."""
        if self._link is not None:
            self._link.send((say.STOP,))

    # --- lives --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Have a process at work until cancelled. Raises `WorkerLost` when none will live."""
        fruitless = 0
        while True:
            how = await self._live()
            fruitless = 0 if self._fruitful else fruitless + 1
            if fruitless >= MOST_FRUITLESS and not self.stop.is_set():
                raise WorkerLost(
                    f"worker process {self.number} died {fruitless} times in a row before it moved"
                    f" anything, the last time {how}: see what it logged, or set workers = 1"
                )
            pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0**fruitless)
            lost = await self._give_back()
            self.tell(WorkerEnded(self.number, how, lost, pause))
            if self.stop.is_set():
                await asyncio.Event().wait()  # for the end: nothing new is begun
            await asyncio.sleep(pause)

    async def _live(self) -> str:
        """Start a process and listen to it until it dies; says how."""
        self._fruitful = False
        try:
            self._process = process = self.start()
        except OSError as error:
            # Short of memory, processes or descriptors, as after a death it well may be.
            return f"as it could not be started ({error.strerror})"
        try:
            await self._listen(process)
        finally:
            code = await self._end(process)
        return _how(code)

    async def _listen(self, process: Process) -> None:
        self._last_sign, self._cpu = time.monotonic(), 0.0
        self._marks = {}
        heard: asyncio.Queue[list[Message] | None] = asyncio.Queue()

        def take(batch: list[Message]) -> None:
            self._last_sign = time.monotonic()  # not when it is dealt with: the state may be slow
            heard.put_nowait(batch)

        link = Link(take, lambda: heard.put_nowait(None))
        await process.connect(link)
        link.send((say.ORDERS, self.orders))
        if self.stop.is_set():
            link.send((say.STOP,))
        self._link = link
        for flow in self.flows.values():
            self.teach(flow)
        self.freed()
        while (batch := await heard.get()) is not None:
            for message in batch:
                await self._hear(message)
            self.freed()

    async def _end(self, process: Process) -> int:
        """Make sure that the process is gone: by itself if it still hears, else by force."""
        link, self._link = self._link, None
        if link is not None:
            link.send((say.QUIT,))
            link.flush()
        try:
            code = await process.ended(LAST_WORDS)
        except TimeoutError:
            process.kill()
            code = await process.ended()
        if link is not None:
            link.close()  # not before: to a process that works, the end of the line is an alarm
        return code

    def check_pulse(self) -> None:
        """Kill a process that hangs."""
        if self._link is not None and time.monotonic() - self._last_sign > SILENCE:
            _log.error("worker process %d hangs and is killed", self.number)
            if self._process is not None:
                self._process.kill()

    async def _give_back(self) -> int:
        """Give what the dead process held to the others; says how many transfers it was."""
        if self._remembering:
            await asyncio.wait(self._remembering)
        self.chorus.silence(self.number)
        lost, self.held = self.held, {}
        self._busy.clear()
        self.load = 0
        flows: dict[str, RunningFlow] = {}
        for held in lost.values():
            transfer, emit = held.transfer, held.flow.route.emit
            flows[transfer.flow] = held.flow
            if held.started and held.change is None:
                message = f"worker process {self.number} died"
                emit(Retried(transfer, WorkerLost.reason, message, 0.0))
                emit(TransferEnded(Change(transfer, transfer.state), 0.0))
        await self.tidy(self._marks, [held.transfer for held in lost.values()])
        for name, flow in flows.items():
            mine = [held.transfer for held in lost.values() if held.transfer.flow == name]
            await flow.feed.returned(mine)
        self.freed()
        return len(lost)

    # --- what the process says ----------------------------------------------------------------

    async def _hear(self, message: Message) -> None:
        kind = message[0]
        if kind == say.STARTED:
            held = self.held[message[1]]
            held.started = True
            held.flow.route.emit(TransferStarted(held.transfer))
        elif kind == say.ENDED:
            await self._ended(*message[1:])
        elif kind == say.SETTLED:
            for number in message[1]:
                await self._record(number, self.held[number].change)
        elif kind == say.MOVED:
            self._moved(*message[1:])
        elif kind == say.REVISED:
            held = self.held[message[1][0]]
            await self._record(held.transfer.id, self._change(message[1], held.transfer))
        elif kind == say.REMEMBER:
            task = asyncio.create_task(self._remember(*message[1:]))
            self._remembering.add(task)
            task.add_done_callback(self._remembering.discard)
        else:
            self._hear_rare(message)

    def _hear_rare(self, message: Message) -> None:
        kind = message[0]
        if kind == say.PULSE:
            spent, self._cpu = message[1] - self._cpu, message[1]
            self.tell(WorkerPulse(self.number, spent, message[2]))
        elif kind == say.RETRIED:
            held = self.held[message[1]]
            held.flow.route.emit(Retried(held.transfer, *message[2:]))
        elif kind == say.VERDICT:
            self._learn(message)
        elif kind == say.TOLD:
            self.chorus.say(self.number, say.unpack_event(message))
        elif kind == say.LOGGED:
            name, level, text = message[1:]
            logging.getLogger(name).log(level, "%s", text, extra={"worker": self.number})
        elif kind == say.READY and self._process is not None:
            self._marks = message[1]
            self.tell(WorkerStarted(self.number, self._process.pid))

    def _learn(self, message: Message) -> None:
        """Let everybody know what this process has found out, so that they need not try it too."""
        verdict = say.unpack_verdict(message)
        route = self.flows[verdict.flow].route
        if route.verdicts is not None:
            route.verdicts.take(verdict)
        route.emit(RouteDecided(verdict))
        for peer in self.peers:
            if peer is not self:
                peer.tell_message(message)

    async def _ended(self, seconds: float, is_durable: bool, packed: tuple[object, ...]) -> None:
        self._fruitful = True
        held = self.held[packed[0]]  # type: ignore[index]
        change = held.change = self._change(packed, held.transfer)
        self._busy[held.transfer.flow] -= 1
        self.load -= held.transfer.size
        held.flow.route.emit(TransferEnded(change, seconds))
        passing("worker.ended")
        if is_durable:
            await self._record(held.transfer.id, change)

    def _change(self, packed: tuple[object, ...], transfer: Transfer) -> Change:
        change = say.unpack_change(packed, transfer)
        change.worker = self.number
        return change

    async def _record(self, number: int, change: Change | None) -> None:
        held = self.held[number]
        if change is not None:
            await held.flow.recorder.record(Entry(change))
        del self.held[number]
        held.flow.feed.done()

    def _moved(self, name: str, moved: int, passed: int) -> None:
        self._fruitful = True
        flow = self.flows[name]
        flow.route.passed += passed
        if moved:
            flow.route.emit(BytesMoved(name, moved))

    async def _remember(self, question: int, number: int, upload_id: str, part_size: int) -> None:
        """Make an upload id durable, and say so."""
        problem = ""
        try:
            held = self.held[number]
            await held.flow.route.remember(held.transfer, upload_id, part_size)
            passing("worker.remembered")
        except S3flowError as error:
            problem = str(error)
        except Exception as error:  # noqa: BLE001  without an answer its transfer waits for ever
            problem = f"an upload could not be noted: {type(error).__name__}: {error}"
            _log.error("unexpected error while an upload was noted", exc_info=error)
        if self._link is not None:
            self._link.send((say.REMEMBERED, question, problem))


def _how(code: int) -> str:
    return f"by signal {-code}" if code < 0 else f"with exit code {code}"
