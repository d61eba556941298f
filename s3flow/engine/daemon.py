"""The daemon: every flow's discovery and workers in one TaskGroup; stop, then drain, then cancel."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from s3flow.crashpoints import passing
from s3flow.engine.deleter import Deleter
from s3flow.engine.discovery import Discovery
from s3flow.engine.feed import Feed
from s3flow.engine.flow import Crew, OwnHands, RunningFlow, Side
from s3flow.engine.holding import OwnHolds
from s3flow.engine.purse import Purse
from s3flow.engine.recorder import Recorder, unsettled_change
from s3flow.engine.restorer import Restorer
from s3flow.engine.reverify import REFUTED, Result
from s3flow.engine.route import Route
from s3flow.engine.scrub import Scrubber
from s3flow.engine.survey import Survey
from s3flow.engine.tariff import Tariff
from s3flow.engine.throttle import Blockade
from s3flow.engine.wiring import Pace, RouteMaker, Wiring, decided_at_start
from s3flow.errors import StateError
from s3flow.events import (
    Emit,
    Event,
    FlowUnblocked,
    LookedAgain,
    Recorded,
    RouteDecided,
    ScanFinished,
    Warned,
)
from s3flow.lanes import Group
from s3flow.model import Change, Sample, State, Verdict
from s3flow.policies import Mode
from s3flow.ports import Crc64, Holds, StateStore, Wishes

SAMPLE_EVERY = 1.0  # seconds
SPACING = 1.1  # seconds before a first sample that work is taken to have begun
LAST_WRITE = 2.0  # seconds that the state is given in any case, also after a second signal


@dataclass(slots=True)
class Daemon:
    """Runs flows until they are drained (*once*) or until *stop* is set."""

    state: StateStore
    wirings: Sequence[Wiring]
    pace: Pace
    crc64: Crc64
    tell: Emit
    stop: asyncio.Event
    abandon: asyncio.Event = field(default_factory=asyncio.Event)  # a second signal: no draining
    crew: Crew = field(default_factory=OwnHands)
    holds: Holds = field(default_factory=OwnHolds)
    wishes: Wishes | None = None
    tariffs: Mapping[str, Tariff] = field(default_factory=dict)  # of flows with a `max_cost`
    purses: dict[str, Purse] = field(default_factory=dict)
    flows: dict[str, RunningFlow] = field(default_factory=dict)
    _deleters: dict[str, Deleter] = field(default_factory=dict)  # of flows that move
    _restorers: dict[str, Restorer] = field(default_factory=dict)
    _verdicts: list[Verdict] = field(default_factory=list)  # that are not durable yet

    async def run(self, *, once: bool) -> None:
        """Scan and transfer; returns when drained or stopped, with everything recorded.

        A side task that dies takes the daemon down loudly: resume is cheap, half a daemon is not.
        """
        recorder = Recorder(self.state, self._emit, self._unsettled)
        await self._prepare(recorder)
        async with Group() as group:
            side = [
                group.create_task(recorder.run(), name="recorder"),
                group.create_task(self._sample(), name="sampler"),
            ]
            await self._run_flows(once=once)
            await self._record_rest(recorder)
            passing("rest.recorded")
            await self._take_samples()
            for task in side:
                task.cancel()
        await self._close_purses()

    async def scan(self) -> None:
        """Walk every source once, recording what is found; transfers nothing."""
        await self._prepare(Recorder(self.state, self._emit, self._unsettled))
        for flow in self.flows.values():
            if not self.stop.is_set():
                await flow.inventory()
        await self._close_purses()

    async def _close_purses(self) -> None:
        for purse in self.purses.values():
            # What is not noted is counted as spent.
            with contextlib.suppress(StateError):
                await purse.close()

    async def _prepare(self, recorder: Recorder) -> None:
        make = RouteMaker(self.pace, self.crc64, self._emit, self.stop)
        mark = await self.state.identity()
        for wiring in self.wirings:
            await self.state.open_flow(wiring.flow)
            route = make.route(wiring, self.state.remember_upload, mark)
            await self._recall(wiring, route)
            self.flows[wiring.flow.name] = await self._running(route, recorder)

    async def _recall(self, wiring: Wiring, route: Route) -> None:
        """Let the route know what was found out before, or is certain from the start."""
        known = await self.state.open_routes(wiring.flow.name, wiring.endpoints)
        if route.verdicts is not None:
            for verdict in known:
                route.verdicts.take(verdict)
            for verdict in route.verdicts.decided.values():
                self.tell(RouteDecided(verdict))
        certain = decided_at_start(wiring.flow, wiring.source, wiring.target, time.time())
        if certain is not None:
            self._emit(RouteDecided(certain))

    async def _running(self, route: Route, recorder: Recorder) -> RunningFlow:
        name = route.flow.name
        purse = await self._purse(route)
        feed = Feed(self.state, name, self.stop, recorder.flush, purse)
        survey = Survey(route, self.pace.backoff)
        discovery = Discovery(survey, self.state, feed.wake)
        if purse is not None:
            purse.wake = feed.wake
            survey.pay_page, discovery.pay_look = purse.pay_page, purse.pay_look
        samples = await self.state.samples(name)
        blockade = Blockade(name, self.pace.block_retry, self._emit, self.stop)
        return RunningFlow(
            route=route,
            feed=feed,
            discovery=discovery,
            recorder=recorder,
            blockade=blockade,
            backoff=self.pace.backoff,
            crew=self.crew,
            workers=self.pace.concurrency_of(route.flow),
            done=samples[-1] if samples else Sample(time.time(), 0, 0),
            sides=self._sides(route, feed, recorder, blockade),
            wishes=self.wishes,
        )

    async def _purse(self, route: Route) -> Purse | None:
        """Give what pays for a flow, if it may not spend what it likes."""
        flow = route.flow
        if flow.name not in self.tariffs:
            return None
        purse = Purse(flow, self.state, self.tariffs[flow.name], self._emit, self.stop)
        await purse.open()
        self.purses[flow.name] = purse
        return purse

    def _sides(
        self, route: Route, feed: Feed, recorder: Recorder, blockade: Blockade
    ) -> list[Side]:
        """Make what a flow has to do besides moving."""
        pace = self.pace
        restorer = Restorer(
            route,
            self.state,
            recorder,
            pace.backoff,
            pace.block_retry,
            blockade=blockade,
            purse=self.purses.get(route.flow.name),
            rested=feed.wake,
        )
        feed.thawing = lambda: restorer.working
        self._restorers[route.flow.name] = restorer
        sides: list[Side] = [restorer]
        if route.flow.mode is Mode.MOVE:
            deleter = Deleter(
                route,
                self.state,
                recorder,
                feed,
                blockade,
                self.pace.backoff,
                self.pace.block_retry,
                self.holds,
            )
            feed.deleting = deleter.has_work
            self._deleters[route.flow.name] = deleter
            sides.append(deleter)
        if route.flow.scrub:
            sides.append(Scrubber(route, self.state))
        return sides

    async def _run_flows(self, *, once: bool) -> None:
        running = asyncio.create_task(self._all_flows(once=once))
        stopped = asyncio.create_task(self.stop.wait())
        try:
            await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                await self._drain(running)
            # Not "await running": its being cancelled must not be mistaken for ours.
            await asyncio.wait({running})
            if not running.cancelled():
                running.result()
        finally:
            stopped.cancel()
            running.cancel()
            await asyncio.wait({running})
            for flow in self.flows.values():
                await flow.feed.give_back()

    async def _all_flows(self, *, once: bool) -> None:
        async with Group() as group:
            for flow in self.flows.values():
                group.create_task(flow.run(once=once), name=f"flow {flow.route.flow.name}")

    async def _drain(self, running: asyncio.Task[None]) -> None:
        """Let what is in flight end; what takes too long is cancelled and resumes at the next start."""
        passing("stop.begun")
        for flow in self.flows.values():
            flow.feed.wake()
        await self._in_time(running)
        passing("stop.drained")
        running.cancel()

    async def _in_time(self, work: asyncio.Task[None]) -> None:
        """Wait for *work*, but no longer than a stop may take, or until a second signal."""
        abandoned = asyncio.create_task(self.abandon.wait())
        try:
            await asyncio.wait(
                {work, abandoned},
                timeout=self.pace.drain_timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            abandoned.cancel()

    async def _record_rest(self, recorder: Recorder) -> None:
        """Record what is left; at a stop not for ever, for the state's disk may be full.

        What it does not hold then is found at the targets by the next start.
        """
        flushing = asyncio.create_task(recorder.flush())
        try:
            if self.stop.is_set():
                await self._in_time(flushing)
                await asyncio.wait({flushing}, timeout=LAST_WRITE)
                if not flushing.done():
                    message = "the state could not be written: the last transfers will be repeated"
                    self._emit(Warned("", message))
                    return
            await flushing
        finally:
            flushing.cancel()

    def _emit(self, event: Event) -> None:
        if isinstance(event, Recorded):
            self._count(event)
        elif isinstance(event, RouteDecided):
            self._verdicts.append(event.verdict)
        elif isinstance(event, FlowUnblocked) and event.flow in self._restorers:
            self._restorers[event.flow].stir()  # it admitted nobody while the flow was blocked
        elif isinstance(event, ScanFinished) and event.flow in self._deleters:
            self._deleters[event.flow].scanned()
        elif isinstance(event, LookedAgain) and event.flow in self._deleters:
            refuted = sum(event.results.get(it, 0) for it in REFUTED)
            self._deleters[event.flow].looked(event.results.get(Result.PROVEN, 0), refuted)
        self.tell(event)

    def _count(self, event: Recorded) -> None:
        for change in event.changes:
            flow = self.flows[change.transfer.flow]
            if change.state is State.VERIFIED:
                flow.verified()
            elif change.state is State.RESTORE_REQUESTED or change.state is State.RESTORING:
                self._restorers[change.transfer.flow].stir()
        for name, purse in self.purses.items():
            if purse.recorded(event.changes):
                self._restorers[name].stir()
        for deleter in self._deleters.values():
            deleter.recorded(event.changes)
        for name in {change.transfer.flow for change in event.changes}:
            # A retry is due some time, or a change was fenced off by a newer version: look again.
            self.flows[name].feed.wake()

    def _unsettled(self, change: Change, error: Exception) -> Change:
        flow = self.flows[change.transfer.flow].route.flow
        return unsettled_change(change, error, flow, self.pace.block_retry, self.pace.backoff)

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(SAMPLE_EVERY)
            await self._take_samples()

    async def _take_samples(self) -> None:
        for name, flow in self.flows.items():
            for sample in flow.next_samples(time.time(), SPACING):
                # The counts go on in the next one; the recorder tells that the state is in trouble.
                with contextlib.suppress(StateError):
                    await self.state.sample(name, sample)
            if name in self.purses:
                with contextlib.suppress(StateError):
                    await self.purses[name].keep()
            if flow.route.verdicts is not None:
                flow.route.verdicts.review()
        await self._keep_verdicts()

    async def _keep_verdicts(self) -> None:
        """Make durable what was found out since; a state in trouble has it the next time."""
        verdicts, self._verdicts = self._verdicts, []
        try:
            if verdicts:
                await self.state.keep_verdicts(verdicts)
        except StateError:
            self._verdicts = verdicts + self._verdicts
