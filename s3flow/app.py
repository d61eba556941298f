"""The composition root: settings become stores, state, engine and observers in one AsyncExitStack."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pickle
import sys
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3flow import garbage, upkeep
from s3flow.assembly import LocalSettings, Orders, StoreSettings, opened
from s3flow.config import DaemonSettings, LocalEndpoint, S3Endpoint, Settings
from s3flow.engine.daemon import Daemon
from s3flow.engine.flow import Crew, OwnHands
from s3flow.engine.wiring import Pace, Share, Wiring
from s3flow.events import Emit, fan_out
from s3flow.model import Flow
from s3flow.observe import logs, systemd
from s3flow.observe.account import End, why_streamed
from s3flow.observe.board import Board
from s3flow.observe.flight import Flight
from s3flow.observe.progress import FlowSnapshot
from s3flow.observe.redact import Redactor
from s3flow.observe.reporter import Reporter
from s3flow.observe.standing import ProgressLine, tell_stop
from s3flow.observe.watchdog import watch_for_blocks
from s3flow.observe.wording import in_short
from s3flow.policies import Mode
from s3flow.process import Ending, allow_open_files, heeding_stops, unless, usable_cpus
from s3flow.state.opening import FOREVER, open_holds, open_state, open_wishes
from s3flow.state.store import SqlState
from s3flow.stores.crc64 import Crc64Nvme
from s3flow.stores.s3 import S3Settings

if TYPE_CHECKING:
    from s3flow.crew.crew import Post
    from s3flow.engine.tariff import Tariff

# Bytes that one body in flight takes at most, measured: 256 KiB to receive into, and what TLS keeps
# on both sides. Bodies up to 64 KiB take next to nothing and are not counted.
BODY_MEMORY = 1024 * 1024
LISTING = 0.1  # of the rate of requests, where others move the bytes


# --- parts -----------------------------------------------------------------------------------


def store_settings(
    name: str, endpoint: S3Endpoint | LocalEndpoint, concurrency: int, *, shared: bool = False
) -> StoreSettings:
    """Give what the store of an endpoint needs to know in a process of so much *concurrency*."""
    if isinstance(endpoint, LocalEndpoint):
        return LocalSettings(name, endpoint.root, shared)
    return S3Settings(
        name=name,
        url=endpoint.url or None,
        region=endpoint.region,
        addressing=endpoint.addressing,
        access_key_id=endpoint.access_key_id or None,
        secret_access_key=endpoint.secret_access_key.get_secret_value() or None,
        session_token=endpoint.session_token.get_secret_value() or None,
        profile=endpoint.profile or None,
        role_arn=endpoint.role_arn or None,
        external_id=endpoint.external_id or None,
        web_identity_token_file=endpoint.web_identity_token_file or None,
        ca_file=Path(endpoint.ca_file) if endpoint.ca_file else None,
        verify_tls=endpoint.verify_tls,
        expected_bucket_owner=endpoint.expected_bucket_owner or None,
        requester_pays=endpoint.requester_pays,
        encryption=endpoint.encryption,
        kms_key_id=endpoint.kms_key_id or None,
        bucket_key=endpoint.bucket_key,
        customer_key=endpoint.customer_key.get_secret_value() or None,
        acl=endpoint.acl or None,
        checksums=endpoint.checksums,
        concurrency=max(64, 2 * concurrency),
        connect_timeout=endpoint.connect_timeout,
        progress_timeout=endpoint.progress_timeout,
        answer_timeout=endpoint.answer_timeout,
    )


def wired(settings: Settings, flows: Sequence[Flow]) -> AbstractAsyncContextManager[list[Wiring]]:
    """Open the stores that *flows* use, one for each endpoint, and close them at the end."""
    stores = {
        name: store_settings(name, endpoint, settings.daemon.concurrency)
        for name, endpoint in settings.endpoints.items()
    }
    return opened(stores, flows)


def pace(settings: DaemonSettings) -> Pace:
    """Turn the daemon's limits into the engine's."""
    return Pace(
        concurrency=settings.concurrency,
        bodies=max(1, min(settings.concurrency, settings.memory // BODY_MEMORY)),
        max_bytes_per_s=settings.max_bytes_per_s,
        max_requests_per_s=settings.max_requests_per_s,
        drain_timeout=settings.drain_timeout,
    )


def worker_processes(settings: DaemonSettings) -> int:
    """Say how many processes move bytes; with 1 it is this one."""
    if settings.workers:
        return settings.workers
    limits = pace(settings)
    return min(usable_cpus(), limits.concurrency, limits.bodies)


def posts(settings: Settings, flows: Sequence[Flow], count: int) -> list[Post]:
    """Share the work out to *count* worker processes: what each is started with."""
    from s3flow.crew.crew import Post

    found = []
    for number in range(count):
        share = Share(number, count, (1 - LISTING) / count)
        limits = replace(pace(settings.daemon), share=share)
        concurrency = share.places(limits.concurrency)
        stores = {
            name: store_settings(name, endpoint, concurrency, shared=True)
            for name, endpoint in settings.endpoints.items()
        }
        level = logging.getLevelNamesMapping()[settings.daemon.log_level.upper()]
        orders = pickle.dumps(Orders(number, stores, flows, limits, level))
        found.append(Post(orders, {flow.name: limits.concurrency_of(flow) for flow in flows}))
    return found


# --- what is shown ---------------------------------------------------------------------------


async def _supervised(board: Board) -> None:
    """Tell systemd that the loop turns, and where the flows stand."""
    interval = systemd.watchdog_interval() or 10.0
    while True:
        systemd.notify("WATCHDOG=1", systemd.status(in_short(board.last)))
        await asyncio.sleep(interval)


def _stuck(one: FlowSnapshot) -> bool:
    """Say whether sources of a move stay that nobody wanted to stay."""
    return bool(one.kept) or (one.held is not None and one.held.tripped)


def _failed(command: str, error: BaseException) -> End:
    """Say in a report that the run broke down."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return End(command, "failed", interrupted=True, error=str(error) or type(error).__name__)


# --- the daemon ------------------------------------------------------------------------------


@dataclass(slots=True)
class Work:
    """One run of the daemon. *once*: until drained; *scan_only*: discovery, recorded."""

    settings: Settings
    flows: Sequence[Flow]
    once: bool = False
    scan_only: bool = False
    no_delete: bool = False
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    abandon: asyncio.Event = field(default_factory=asyncio.Event)
    report: Path | None = None  # the file for people, once `run` has returned

    def __post_init__(self) -> None:
        if self.no_delete:
            # What is proven meanwhile is deleted by the next run without this.
            self.flows = [replace(flow, mode=Mode.COPY) for flow in self.flows]

    async def run(self) -> tuple[Ending, list[FlowSnapshot]]:
        """Run, and say how it ended and where the flows stand."""
        allow_open_files()
        garbage.collect_seldom()
        garbage.spare_what_is_there()
        async with AsyncExitStack() as stack:
            stack.enter_context(heeding_stops(self._on_stop))
            opened = await unless(self.stop, self._open(stack))
            if opened is None:
                return Ending.INTERRUPTED if self.once or self.scan_only else Ending.DONE, []
            state, wirings = opened
            kept = self.settings.daemon
            holds = open_holds(kept.state_address)
            board = Board(state, self.flows, holds=holds)
            show, told = self._show(stack, board)
            listen, count = await self._listen(stack, board)
            reporter = self._reporter(board, wirings)
            reports = [] if reporter is None else [reporter]
            flight = [board.flight] if board.flight else []
            tell = fan_out(logs.LogEvents(debug=self._debug), *told, *count, *flight, *reports)
            limits, crew, keep = self._crew(state, wirings, tell)
            daemon = Daemon(
                state=state,
                wirings=wirings,
                pace=limits,
                crc64=Crc64Nvme(),
                tell=tell,
                stop=self.stop,
                abandon=self.abandon,
                crew=crew,
                holds=holds,
                wishes=open_wishes(kept.state_address),
                tariffs=self._tariffs(wirings),
            )
            side = [*show, *listen, *keep, board.run(), _supervised(board), watch_for_blocks(tell)]
            side.append(self._end_patience(state))
            if reporter is None:
                await self._turn(daemon, board, side)
                return self._ending(daemon, board.last), board.last
            try:
                await self._turn(daemon, board, [*side, reporter.run(tell)])
            except BaseException as error:
                await reporter.close(_failed(self._command, error), tell)
                raise
            ending = self._ending(daemon, board.last)
            self.report = await reporter.close(self._end(ending, board.last), tell)
            return ending, board.last

    def _on_stop(self) -> None:
        """Drain at the first signal, leave what is begun at the second, and die of the third."""
        if self.abandon.is_set():
            # What is left still waits for a thread, which a disk that never answers keeps for ever.
            os._exit(Ending.INTERRUPTED)
        systemd.notify("STOPPING=1")
        (self.abandon if self.stop.is_set() else self.stop).set()

    async def _open(self, stack: AsyncExitStack) -> tuple[SqlState, list[Wiring]]:
        """Open what the work needs; it is closed with the *stack*."""
        kept = self.settings.daemon
        state = await open_state(kept.state_address, patience=FOREVER, audited=kept.audit)
        stack.push_async_callback(state.close)
        wirings = await stack.enter_async_context(wired(self.settings, self.flows))
        await upkeep.recognise(state, wirings)
        return state, wirings

    def _tariffs(self, wirings: Sequence[Wiring]) -> Mapping[str, Tariff]:
        if not any(flow.max_cost for flow in self.flows):
            return {}
        from s3flow import pricing

        return pricing.tariffs(self.settings, wirings)

    async def _turn(
        self, daemon: Daemon, board: Board, beside: Sequence[Coroutine[Any, Any, None]]
    ) -> None:
        """Run the daemon, and what goes on *beside* it, to the end."""
        # Files of this run are younger than this, by more than a file system's clock is coarse.
        started = time.time() - 0.1
        async with asyncio.TaskGroup() as group:
            sweep = upkeep.sweep(daemon.state, daemon.wirings, started, daemon.tell)
            sweeping = group.create_task(sweep)
            side = [group.create_task(work) for work in beside]
            systemd.notify("READY=1")
            await (daemon.scan() if self.scan_only else daemon.run(once=self.once))
            await board.refresh()
            stopped = group.create_task(self.stop.wait())
            await asyncio.wait({sweeping, stopped}, return_when=asyncio.FIRST_COMPLETED)
            for task in (sweeping, stopped, *side):
                task.cancel()

    async def _end_patience(self, state: SqlState) -> None:
        """Let a stop end although the state's server is away: after what is in flight had its time."""
        await self.stop.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.daemon.drain_timeout + 0.5):
                await self.abandon.wait()
        state.hurry()

    @property
    def _command(self) -> str:
        return "sync" if self.once else "run"

    def _reporter(self, board: Board, wirings: Sequence[Wiring]) -> Reporter | None:
        folder = self.settings.reports_folder
        if folder is None or self.scan_only:
            return None
        why = {
            each.flow.name: why_streamed(each.flow, each.source.service, each.target.service)
            for each in wirings
        }
        scrub = Redactor(self.settings.secrets()).scrub
        return Reporter(folder, self.flows, board, why, each_scan=not self.once, scrub=scrub)

    def _end(self, ending: Ending, snapshots: Sequence[FlowSnapshot]) -> End:
        left = any(one.objects.pending or (one.scan and one.scan.unfinished) for one in snapshots)
        words = {
            Ending.DONE: "all done" if self.once else "stopped",
            Ending.SOME_FAILED: "finished, some failed",
            Ending.INTERRUPTED: "interrupted: run it again, and it goes on where it was",
        }
        if any(one.money and one.money.blocked for one in snapshots):
            words[Ending.SOME_FAILED] = "stopped by max_cost: raise it, and run it again"
        interrupted = self.stop.is_set() and left
        return End(self._command, words[ending], int(ending), interrupted)

    def _crew(
        self, state: SqlState, wirings: Sequence[Wiring], tell: Emit
    ) -> tuple[Pace, Crew, list[Coroutine[Any, Any, None]]]:
        """Choose between workers in this process and processes of their own; and what keeps these."""
        settings = self.settings.daemon
        limits, count = pace(settings), worker_processes(settings)
        if count == 1 or self.scan_only:
            return limits, OwnHands(), []
        from s3flow import member
        from s3flow.crew.crew import ProcessCrew
        from s3flow.crew.process import Child

        crew = ProcessCrew(
            lambda: Child(member.command, state.lease),
            posts(self.settings, self.flows, count),
            self.stop,
            tell,
            lambda marks, lost: upkeep.clear(wirings, marks, lost, tell),
        )
        return replace(limits, share=Share(requests=LISTING)), crew, [crew.run()]

    @property
    def _debug(self) -> bool:
        return self.settings.daemon.log_level == "debug"

    def _show(
        self, stack: AsyncExitStack, board: Board
    ) -> tuple[list[Coroutine[Any, Any, None]], list[Emit]]:
        """Choose between the live display, on a terminal, and a line every so often."""
        if sys.stdout.isatty() and self.settings.daemon.log_format != "json":
            from rich.console import Console

            from s3flow.observe.display import LiveDisplay

            if not (console := Console()).is_dumb_terminal:
                board.flight = Flight()
                display = stack.enter_context(
                    LiveDisplay(console, lambda: board.last, lambda: self._alarms(board))
                )
                return [display.run()], [display]
        kept, line = self.settings.daemon, ProgressLine()
        told = tell_stop(self.stop, kept.drain_timeout)
        return [line.run(lambda: board.last, kept.log_interval), told], []

    def _alarms(self, board: Board) -> list[str]:
        stopping = "stopping: what is begun is finished; interrupt again, and it is left"
        return [*board.reasons(), *([stopping] if self.stop.is_set() else [])]

    async def _listen(
        self, stack: AsyncExitStack, board: Board
    ) -> tuple[list[Coroutine[Any, Any, None]], list[Emit]]:
        """Open the listener and count for it; not for a command, which nobody scrapes.

        Beside a daemon its address would be taken. And what it imports takes 0.1 s and 10 MB.
        """
        listen = self.settings.daemon.listen
        if self.once or self.scan_only or not listen:
            return [], []
        from s3flow.observe.metrics import Metrics, watch_loop
        from s3flow.web.server import serve

        board.flight = Flight()
        metrics = Metrics(lambda: board.last)
        listener = serve(
            listen,
            metrics=metrics.render,
            status=board.status,
            degraded=board.reasons,
            ready=lambda: "stopping" if self.stop.is_set() else "",
            user=self.settings.daemon.listen_user,
            password=self.settings.daemon.listen_password.get_secret_value(),
        )
        await stack.enter_async_context(listener)
        return [watch_loop(metrics.loop_lag)], [metrics]

    def _ending(self, daemon: Daemon, snapshots: Sequence[FlowSnapshot]) -> Ending:
        # Where the state was away to the end, what is known of it is old.
        unfinished = bool(daemon.state.trouble) or any(
            one.scan.unfinished for one in snapshots if one.scan
        )
        pending = any(one.objects.pending for one in snapshots)
        if self.stop.is_set() and (self.once or self.scan_only):
            if unfinished or (pending and not self.scan_only):
                return Ending.INTERRUPTED
        elif self.stop.is_set():
            return Ending.DONE
        failed = any(one.objects.failed or _stuck(one) for one in snapshots)
        scans = any(flow.scan_failed for flow in daemon.flows.values())
        spent = any(purse.is_blocked for purse in daemon.purses.values())
        return Ending.SOME_FAILED if failed or scans or spent else Ending.DONE
