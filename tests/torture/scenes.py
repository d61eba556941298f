"""Scenes in which calls fail and tasks are cancelled, each with what happened before it."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from s3flow.engine import recorder, route, throttle, wiring
from s3flow.engine.costs import Egress, Prices, Terms
from s3flow.engine.inspection import Inspection
from s3flow.engine.preview import NothingKnown, preview
from s3flow.engine.probe import examine
from s3flow.engine.reverify import Copy, Looked, Prover
from s3flow.engine.survey import Survey
from s3flow.engine.tariff import Tariff
from s3flow.engine.wiring import RouteMaker, Wiring
from s3flow.errors import S3flowError
from s3flow.events import BytesMoved, Emit, FlowDrained, LookedAgain, TransferStarted
from s3flow.model import GIB, Place
from s3flow.policies import DeletePolicy, Guard, Mode, Overwrite
from s3flow.state.sqlite import open_sqlite
from s3flow.stores.crc64 import Crc64Nvme
from tests.torture.stage import News, Scene, Stage, sync
from tests.unit.lab import store


class EmptyBucket(throttle.TokenBucket):
    """A bucket that nothing has been saved in yet: who takes of it waits."""

    def __init__(self, rate: float) -> None:
        super().__init__(rate)
        self._level = 0.0


class NarrowGate(throttle.Gate):
    """A gate with one place: all others wait before it."""

    def __init__(self, name: str, most: int, emit: Emit) -> None:
        super().__init__(name, 1, emit)


class Wish:
    """Somebody asks for a listing whenever that is looked for."""

    interval = 0.001

    async def take(self, flow: str) -> list[str | None]:
        """Ask for the one bucket."""
        await asyncio.sleep(0)
        return ["from"]


# --- what is there -----------------------------------------------------------------------------------


def _some(stage: Stage) -> None:
    """Put one object there for each way to go."""
    stage.put(b"empty", 0)
    stage.put(b"put", 50, tags={"t": "1"})
    stage.put(b"parts", 1500)
    stage.put(b"repeated", 1500, part_size=1000)


def _moving(stage: Stage) -> None:
    _some(stage)
    stage.change(mode=Mode.MOVE)


def _moving_versions(stage: Stage) -> None:
    _moving(stage)
    stage.change(delete=DeletePolicy.VERSION)


def _moving_unguarded(stage: Stage) -> None:
    _moving(stage)
    stage.src._guard = Guard.NOT
    stage.change(unguarded_delete=True)


def _inside(stage: Stage) -> None:
    """Let both ends be accounts of one service."""
    stage.target = store("dst", "to", beside=stage.src)
    _some(stage)
    stage.put(b"small", 20)


def _by_source(stage: Stage) -> None:
    """Let copies be made with the source's credentials."""
    _inside(stage)
    stage.copier = stage.target


def _frozen(stage: Stage) -> None:
    stage.src.restore_seconds = 0.004
    stage.change(restore_poll=0.004, max_restores=2)
    stage.put(b"warm", 10)
    for number in range(3):
        stage.put(b"cold %d" % number, 20, storage_class="GLACIER")
    stage.queue = News(stage)


def _paced(stage: Stage) -> None:
    """Let there be rates, and a store that asks for patience."""
    _moving(stage)
    stage.src.restore_seconds = 0.004
    stage.put(b"cold", 20, storage_class="GLACIER")
    stage.change(
        restore_poll=0.004,
        max_requests_per_s=4000,
        max_bytes_per_s=400_000,
        delete=DeletePolicy.VERSION,
    )


def _paid(stage: Stage) -> None:
    _some(stage)
    _pay(stage, 1e6)


def _scanty(stage: Stage) -> None:
    """Let the money be spent before all is moved."""
    _some(stage)
    _pay(stage, 100.0)


def _frozen_and_paid(stage: Stage) -> None:
    _frozen(stage)
    stage.queue = None
    _pay(stage, 1e6)


def _pay(stage: Stage, most: float) -> None:
    async def internet(bucket: str) -> Egress:
        await asyncio.sleep(0)
        return Egress.INTERNET

    stage.change(max_cost=most)
    prices = Prices(listing=1000.0, egress={Egress.INTERNET: float(GIB)})
    terms = Terms(prices, Prices(), days=1)
    tariff = Tariff(stage.flow, stage.dst.limits, terms, internet, inside=False)
    stage.tariffs = {stage.flow.name: tariff}


def _account(stage: Stage) -> None:
    """Take all buckets that match."""
    _moving(stage)
    stage.change(source=Place("src", "fr*", b""), target=Place("dst", "to", b""))


def _folders(stage: Stage) -> None:
    """Let keys of two folders have the same places."""
    stage.put(b"a/1", 10)
    stage.put(b"a/2", 20)
    stage.change(rewrite=(("a/", "b/"),))


def _never(stage: Stage) -> None:
    _some(stage)
    stage.change(overwrite=Overwrite.NEVER)


def _asked(stage: Stage) -> None:
    _some(stage)
    stage.wishes = Wish()


def _many(stage: Stage) -> None:
    """Put enough there for a listing in ranges."""
    draw = random.Random(1)
    for number in range(40):
        stage.put(b"%04x %d" % (draw.getrandbits(16), number), 5)


# --- what happened -----------------------------------------------------------------------------------


async def _stopped(stage: Stage) -> None:
    """Stop in the middle of the parts; one object has changed since."""
    stage.stop_at(BytesMoved, 3)
    await stage.sync()
    stage.subscribers.clear()
    stage.put(b"parts", 2500)


async def _lost(stage: Stage) -> None:
    await stage.sync()
    stage.forget()
    stage.put(b"put", 60)


async def _copied(stage: Stage) -> None:
    await stage.sync()


async def _refused(stage: Stage) -> None:
    """Note that two buckets could not be listed; of one nothing is meant any more."""
    state = await open_sqlite(stage.folder / "state.db")
    try:
        await state.open_flow(stage.flow)
        for bucket in ("from", "gone"):
            await state.note_unlisted(stage.flow.name, bucket, "access_denied", "no")
    finally:
        await state.close()


async def _moved_and_back(stage: Stage) -> None:
    """Move, and write the same again."""
    await stage.sync()
    _some(stage)


async def _copied_before_moves(stage: Stage) -> None:
    """Copy, write one object again, and from now on move."""
    await stage.sync()
    stage.put(b"put", 60)
    stage.change(mode=Mode.MOVE)


# --- other runs --------------------------------------------------------------------------------------


async def _run(stage: Stage) -> object:
    """Run as a daemon until all was done for the second time."""
    stage.change(every=0.001)
    stage.stop_at(FlowDrained, 2)
    return await stage.sync(once=False)


async def _run_and_scrub(stage: Stage) -> object:
    """Run until a copy that somebody has changed is found."""
    stage.change(scrub=1e8)
    stage.touched.add(b"put")
    stage.dst.put("to", b"put", b"!" * 50)
    stage.stop_at(LookedAgain)
    return await stage.sync(once=False)


async def _begin_and_stop(stage: Stage) -> object:
    stage.stop_at(TransferStarted)
    return await stage.sync()


async def _only_list(stage: Stage) -> object:
    return await stage.sync(scan_only=True)


async def _again(stage: Stage) -> object:
    """Run once, as always, with what failed before."""
    stage.change(every=None, scrub=0.0)
    stage.wishes = None
    await stage.retry()
    return await stage.sync()


async def _with_more(stage: Stage) -> object:
    """Run with money enough."""
    _pay(stage, 1e6)
    return await stage.sync()


# --- what else a flow is asked -----------------------------------------------------------------------


def _maker(stage: Stage) -> Any:
    maker = RouteMaker(stage.pace, Crc64Nvme(), stage.events.append, stage.stop)
    reader: Any = stage.target if hasattr(stage.target, "get_object") else None
    return maker.route(Wiring(stage.flow, stage.source, stage.target, reader, stage.copier))


async def _plan(stage: Stage) -> object:
    stage.stop.clear()
    survey = Survey(_maker(stage), stage.pace.backoff)
    return await preview(survey, NothingKnown(), is_new=True)


async def _examine(stage: Stage) -> object:
    stage.stop.clear()
    stage.told.clear()
    async for finding in examine(_maker(stage)):
        stage.told.append(finding)
    return None


async def _prove(stage: Stage) -> object:
    """Prove all copies again, those of the state and those of the listing, by reading them."""
    stage.stop.clear()

    async def tell(copy: Copy, looked: Looked) -> None:
        await asyncio.sleep(0)

    def unlisted(bucket: str, error: S3flowError) -> None:
        stage.events.append(error)  # type: ignore[arg-type]

    state = await open_sqlite(stage.folder / "state.db")
    try:
        for reads in (False, True):
            prover = Prover(_maker(stage), reads=reads)
            inspection = Inspection(prover, tell, unlisted, lanes=2)
            await inspection.of_listing()
            await inspection.of_state(stage.wrap_state(state))
    finally:
        await state.close()
    return None


STATEFUL = ("source", "target", "state")
ENDS = ("source", "target")
MOVING = (*STATEFUL, "holds")
NARROW = (
    (wiring, "TokenBucket", EmptyBucket),
    (wiring, "Gate", NarrowGate),
    (route, "SMALL_BODY", 0),
)
LINE = ((recorder, "BACKLOG", 1), (recorder, "BATCH", 1))
SCENES = {
    scene.name: scene
    for scene in (
        Scene("fresh", _some),
        Scene("stopped", _some, _stopped),
        Scene("lost", _some, _lost),
        Scene("moved", _moving, moves=True, ports=MOVING),
        Scene("versions", _moving_versions, moves=True),
        Scene("unguarded", _moving_unguarded, moves=True),
        Scene("later", _some, _copied_before_moves, moves=True, ports=MOVING),
        Scene("back", _moving, _moved_and_back, moves=True),
        Scene("inside", _inside),
        Scene("by-source", _by_source),
        Scene("frozen", _frozen, ports=(*STATEFUL, "queue")),
        Scene("paced", _paced, moves=True, patches=NARROW),
        Scene("paid", _paid),
        Scene("frozen-paid", _frozen_and_paid),
        Scene("many", _many),
        Scene("account", _account, _refused, moves=True),
        Scene("folders", _folders),
        Scene("never", _never),
        Scene("in-line", _some, patches=LINE),
        Scene("disk", _some, disk=True),
        Scene("disk-stopped", _some, _stopped, disk=True),
        Scene("disk-lost", _some, _lost, disk=True),
        Scene("disk-moved", _moving, moves=True, disk=True),
        Scene("plan", _some, _copied, _plan, looks=True, ports=ENDS),
        Scene("doctor", _moving, None, _examine, looks=True, ports=ENDS),
        Scene("doctor-inside", _by_source, None, _examine, looks=True, ports=ENDS),
        Scene("doctor-account", _account, None, _examine, looks=True, ports=ENDS),
        Scene("proven", _some, _copied, _prove, looks=True),
        Scene("disk-proven", _some, _copied, _prove, looks=True, disk=True),
    )
}
# Those whose end is no measure of what went wrong: only their awaits are tried.
ENDLESS = {
    scene.name: scene
    for scene in (
        Scene("daemon", _asked, None, _run, _again, ports=(*STATEFUL, "wishes")),
        Scene("scrubbed", _some, _copied, _run_and_scrub, _again),
        Scene("stopping", _some, None, _begin_and_stop, _again),
        Scene("listed", _some, None, _only_list, _again),
        Scene("scanty", _scanty, None, sync, _with_more),
    )
}
