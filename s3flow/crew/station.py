"""A worker process's side: feeds its workers from the line, and reports what became of each transfer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from s3flow.crew import messages as say
from s3flow.crew.link import Link, Message
from s3flow.engine.recorder import Entry, Recorder, unsettled_change
from s3flow.engine.route import Route
from s3flow.engine.throttle import Blockade
from s3flow.engine.wiring import Pace, RouteMaker, Wiring
from s3flow.engine.worker import Worker
from s3flow.errors import StateError
from s3flow.events import (
    BytesMoved,
    Event,
    Recorded,
    Retried,
    RouteDecided,
    TransferEnded,
    TransferStarted,
)
from s3flow.model import Change, State, Transfer, Verdict
from s3flow.observe.watchdog import watch_for_blocks
from s3flow.ports import Crc64

LINGER = 0.004  # seconds that reports gather while there is other work
PULSE_EVERY = 1.0  # seconds


class Supply:
    """The transfers that were handed to this process, of one flow."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._ready: deque[Transfer] = deque()
        self._waiting: deque[asyncio.Future[None]] = deque()

    def put(self, transfer: Transfer) -> None:
        """Take a transfer from the line."""
        self._ready.append(transfer)
        if self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # cancelled with the whole process
                turn.set_result(None)

    async def take(self) -> Transfer:
        """Give the next transfer. That there will be none is the supervisor's to know."""
        while not self._ready:
            # Who waits for work must not keep the reports back that bring it.
            self._link.hurry()
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        return self._ready.popleft()

    def done(self) -> None:
        """Nothing: the supervisor counts."""


@dataclass(slots=True)
class _Berth:
    """A flow as this process knows it."""

    route: Route
    supply: Supply
    moved: int = 0


class Station:
    """Moves what the supervisor hands out; what only the supervisor has is asked of it.

    *marks* tell the unfinished files of this process from others', by endpoint.
    """

    def __init__(
        self,
        link: Link,
        wirings: Sequence[Wiring],
        pace: Pace,
        crc64: Crc64,
        marks: Mapping[str, bytes],
    ) -> None:
        self._link = link
        self._marks = marks
        self._pace = pace
        self._stop = asyncio.Event()
        self._quit = asyncio.Event()
        self._seconds = 0.0
        self._questions: dict[int, asyncio.Future[None]] = {}
        self._asked = 0
        self._settling = Recorder(self, self._settled, self._unsettled)
        make = RouteMaker(pace, crc64, self._emit, self._stop)
        self._berths = {
            wiring.flow.name: _Berth(make.route(wiring, self._remember), Supply(link))
            for wiring in wirings
        }
        self._tell: dict[type, Callable[..., None]] = {
            TransferStarted: self._started,
            TransferEnded: self._ended,
            BytesMoved: self._moved,
            Retried: self._retried,
            RouteDecided: self._decided,
        }

    async def run(self) -> None:
        """Work until told to quit."""
        self._link.send((say.READY, dict(self._marks)))
        working = asyncio.create_task(self._work(), name="work")
        quitting = asyncio.create_task(self._quit.wait())
        await asyncio.wait({working, quitting}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
        for task in (working, quitting):
            task.cancel()
        await asyncio.wait({working, quitting})

    def hear(self, batch: list[Message]) -> None:
        """Take a batch of messages from the supervisor."""
        for message in batch:
            kind = message[0]
            if kind == say.WORK:
                transfer = say.unpack_transfer(message)
                self._berths[transfer.flow].supply.put(transfer)
            elif kind == say.REMEMBERED:
                self._answer(message[1], message[2])
            elif kind == say.VERDICT:
                self._take(say.unpack_verdict(message))
            elif kind == say.STOP:
                self._stop.set()
            elif kind == say.QUIT:
                self._quit.set()

    def _take(self, verdict: Verdict) -> None:
        """Believe what another process has found out."""
        known = self._berths[verdict.flow].route.verdicts
        if known is not None:
            known.take(verdict)

    def report(self) -> Iterator[Message]:
        """Give the bytes that passed since the last report."""
        for name, berth in self._berths.items():
            passed, berth.route.passed = berth.route.passed, 0
            moved, berth.moved = berth.moved, 0
            if passed or moved:
                yield say.MOVED, name, moved, passed

    async def record(self, entry: Entry) -> None:
        """Report a transfer's end; where the target has work left, that follows (Records)."""
        is_durable = entry.target is None
        self._link.send((say.ENDED, self._seconds, is_durable, say.pack_change(entry.change)))
        if not is_durable:
            await self._settling.record(entry)

    async def save(self, changes: Sequence[Change]) -> None:
        """Report what is durable at the target now, or what became of it (Ledger)."""
        settled = [it.transfer.id for it in changes if it.state is State.VERIFIED]
        if settled:
            self._link.send((say.SETTLED, settled))
        for change in changes:
            if change.state is not State.VERIFIED:
                self._link.send((say.REVISED, say.pack_change(change)))

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._settling.run(), name="settling")
            group.create_task(self._beat(), name="pulse")
            group.create_task(watch_for_blocks(self._emit), name="watchdog")
            for name, berth in self._berths.items():
                blockade = Blockade(name, self._pace.block_retry, self._emit, self._stop)
                for _ in range(self._pace.concurrency_of(berth.route.flow)):
                    worker = Worker(berth.route, berth.supply, self, blockade, self._pace.backoff)
                    group.create_task(worker.run())

    async def _beat(self) -> None:
        """Say that the loop turns, how late it is, and what CPU was spent."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + PULSE_EVERY
            await asyncio.sleep(PULSE_EVERY)
            lag = max(0.0, loop.time() - due)
            self._link.send((say.PULSE, time.process_time(), lag))
            for berth in self._berths.values():
                if berth.route.verdicts is not None:
                    berth.route.verdicts.review()

    async def _remember(self, transfer: Transfer, upload_id: str, part_size: int) -> Transfer:
        self._asked += 1
        number = self._asked
        answer = self._questions[number] = asyncio.get_running_loop().create_future()
        self._link.send((say.REMEMBER, number, transfer.id, upload_id, part_size))
        self._link.hurry()
        try:
            await answer
        finally:
            del self._questions[number]
        return transfer._replace(
            state=State.TRANSFERRING, upload_id=upload_id or None, part_size=part_size
        )

    def _answer(self, number: int, problem: str) -> None:
        question = self._questions.get(number)
        if question is None or question.done():
            return  # who asked was cancelled
        if problem:
            question.set_exception(StateError(problem))
        else:
            question.set_result(None)

    def _unsettled(self, change: Change, error: Exception) -> Change:
        flow = self._berths[change.transfer.flow].route.flow
        return unsettled_change(change, error, flow, self._pace.block_retry, self._pace.backoff)

    def _settled(self, event: Event) -> None:
        """Drop what the supervisor says itself, once it has recorded."""
        if not isinstance(event, Recorded):
            self._emit(event)

    # --- events -------------------------------------------------------------------------------

    def _emit(self, event: Event) -> None:
        tell = self._tell.get(type(event))
        if tell is not None:
            tell(event)
        elif (message := say.pack_event(event)) is not None:
            self._link.send(message)

    def _started(self, event: TransferStarted) -> None:
        self._link.send((say.STARTED, event.transfer.id))

    def _ended(self, event: TransferEnded) -> None:
        self._seconds = event.seconds  # the worker's next step is to record: one message for both

    def _moved(self, event: BytesMoved) -> None:
        self._berths[event.flow].moved += event.bytes

    def _decided(self, event: RouteDecided) -> None:
        self._link.send(say.pack_verdict(event.verdict))

    def _retried(self, event: Retried) -> None:
        message = (event.transfer.id, event.reason, event.message, event.delay)
        self._link.send((say.RETRIED, *message))


class Desk:
    """A worker process's end of the line from the start: what comes before its station is made waits.

    *lost* is called when the supervisor is gone.
    """

    def __init__(self, lost: Callable[[], None]) -> None:
        self.link = Link(self._keep, lost, linger=LINGER)
        self._early: list[Message] = []
        self._ordered = asyncio.Event()

    async def orders(self) -> bytes:
        """Wait for what the process is to be."""
        await self._ordered.wait()
        orders: bytes = self._early[0][1]
        return orders

    async def man(self, station: Station) -> None:
        """Let *station* hear all that came and comes, and work until it is told to quit."""
        self.link.gather, self.link.heard = station.report, station.hear
        station.hear(self._early[1:])
        await station.run()

    def _keep(self, batch: list[Message]) -> None:
        self._early.extend(batch)
        self._ordered.set()


class LogForward(logging.Handler):
    """Sends log entries to the supervisor, which alone writes, and knows what to redact."""

    def __init__(self, link: Link) -> None:
        super().__init__()
        self._link = link
        self._loop = asyncio.get_running_loop()

    def emit(self, record: logging.LogRecord) -> None:
        """Send an entry; threads may log as well."""
        message = (say.LOGGED, record.name, record.levelno, self.format(record))
        self._loop.call_soon_threadsafe(self._link.send, message)
