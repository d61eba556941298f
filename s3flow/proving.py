"""What `verify` does: looks at copies again, with the stores and the limits of the flows."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from s3flow.app import pace, wired
from s3flow.config import Settings
from s3flow.engine.inspection import Inspection
from s3flow.engine.reverify import REFUTED, Copy, Looked, Prover, refutal
from s3flow.engine.wiring import RouteMaker, Wiring
from s3flow.errors import ConfigError, S3flowError
from s3flow.events import Event
from s3flow.model import OUTCOMES, Change, Flow, Method, Outcome, State
from s3flow.observe.proofs import Proven
from s3flow.operations import known_state
from s3flow.process import heeding_stops
from s3flow.state.opening import open_state
from s3flow.state.store import SqlState
from s3flow.stores.crc64 import Crc64Nvme
from s3flow.stores.local import LocalStore

MARKED_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be looked at, and how. *mark*: the state is told of what is missing or not equal."""

    share: float = 1.0
    limit: int | None = None
    reads: bool = False
    listing: bool = False
    mark: bool = False


@dataclass(slots=True)
class Proving:
    """A run of `verify`. *tell* is called for each copy that was looked at, *unlisted* for buckets."""

    settings: Settings
    wish: Wish
    tell: Callable[[str, Copy, Looked], None]
    unlisted: Callable[[str, str, S3flowError], None]
    proven: list[Proven] = field(default_factory=list)
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, flows: Sequence[Flow]) -> None:
        """Look at the copies of *flows*, until a signal says otherwise.

        Raises `ConfigError` where the state knows nothing of a flow, unless listings are compared.
        """
        state = await self._state()
        try:
            async with wired(self.settings, flows) as wirings:
                with contextlib.ExitStack() as heeding:
                    heeding.enter_context(heeding_stops(lambda: self._on_stop(heeding)))
                    for wiring in wirings:
                        await self._one(wiring, state)
        finally:
            if state is not None:
                await state.close()

    def _on_stop(self, heeding: contextlib.ExitStack) -> None:
        """End it after the looks at hand; a second signal ends the process."""
        self.stop.set()
        heeding.close()

    async def _state(self) -> SqlState | None:
        daemon = self.settings.daemon
        if self.wish.mark:
            return await open_state(daemon.state_address, audited=daemon.audit)
        if self.wish.listing:
            return None
        return await known_state(self.settings)

    async def _one(self, wiring: Wiring, state: SqlState | None) -> None:
        if self.stop.is_set():
            return
        limits, name, wish = pace(self.settings.daemon), wiring.flow.name, self.wish
        proven = Proven(name, wish.share)
        self.proven.append(proven)
        marks = _Marks(state if wish.mark else None, proven)

        async def tell(copy: Copy, looked: Looked) -> None:
            proven.count(copy, looked)
            self.tell(name, copy, looked)
            await marks.note(copy, looked)

        def unlisted(bucket: str, error: S3flowError) -> None:
            proven.buckets += 1
            self.unlisted(name, bucket, error)

        prover = Prover(
            RouteMaker(limits, Crc64Nvme(), _ignore, self.stop).route(wiring), reads=wish.reads
        )
        lanes = limits.concurrency_of(wiring.flow)
        looks = Inspection(prover, tell, unlisted, lanes, wish.share, wish.limit)
        if wish.listing:
            await looks.of_listing()
            return
        known = await self._known(wiring, state, proven)
        try:
            await looks.of_state(known)
        finally:
            await marks.write()

    async def _known(self, wiring: Wiring, state: SqlState | None, proven: Proven) -> SqlState:
        """Count what is not copied yet; a folder that is another one holds no copies, and lacks none.

        Raises `ConfigError` where there is nothing, `FlowChanged`, `TargetUnavailable`.
        """
        flow = wiring.flow
        if state is None or flow.name not in await state.flow_names():
            raise ConfigError(
                f"the state knows nothing of flow {flow.name}: has it run? "
                "--listing compares what both ends have"
            )
        await state.check_flow(flow)
        written = False
        for total in await state.totals(flow.name):
            outcome = OUTCOMES[total.state]
            if outcome in (Outcome.PENDING, Outcome.FAILED):
                proven.uncopied += total.objects
            is_copy = total.state in (State.VERIFIED, State.DELETED)
            written = written or (is_copy and total.method != Method.ADOPTED)
        if written and isinstance(wiring.target, LocalStore):
            await wiring.target.recognise(flow.name, written=True)
        return state


@dataclass(slots=True)
class _Marks:
    """Tells the *state*, if it is to know, what is missing or not equal; a batch at a time."""

    state: SqlState | None
    proven: Proven
    refuted: list[Change] = field(default_factory=list)

    async def note(self, copy: Copy, looked: Looked) -> None:
        # What a move has deleted at its source cannot be copied again.
        if self.state is not None and looked.result in REFUTED and not copy.gone:
            self.refuted.append(refutal(copy, looked))
            if len(self.refuted) >= MARKED_AT_ONCE:
                await self.write()

    async def write(self) -> None:
        if self.state is not None and self.refuted:
            some, self.refuted = self.refuted, []
            self.proven.marked += len(await self.state.refute(some))


def _ignore(event: Event) -> None:
    """What is found is told otherwise."""
