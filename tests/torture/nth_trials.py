"""One trial in a scene: a call goes wrong, or an await is cancelled; then all of it is to be completed."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from s3flow.engine import daemon, deleter, feed, flow, purse, recorder, restorer, scrub
from s3flow.model import Outcome
from tests.torture import promises
from tests.torture.awaits import Spot, Watch, tale
from tests.torture.nth_faults import HARMLESS, Fault, How, Nth, Trial, install
from tests.torture.playbill import ENDLESS, EVERY
from tests.torture.programme import Broken
from tests.torture.stage import Pausing, Scene, Stage, is_probe
from tests.unit.lab import left_tasks

PATIENCE = 60.0  # seconds of real time in which nothing happens, from which on it hangs
PORTS = ("source", "target", "copier", "queue", "holds", "wishes")  # beside the state
DRAINED = 0.2  # seconds after which the daemon waits for nothing but its state
HURRIED = (
    (deleter, "LINGER", 0.0),
    (deleter, "LOOK_AGAIN", 0.01),
    (deleter, "LONGEST_WAIT", 3600.0),  # they heal a missed wake-up: here it is to be seen
    (feed, "LONGEST_WAIT", 3600.0),
    (recorder, "LINGER", 0.001),
    (recorder, "STATE_RETRY", 0.001),
    (daemon, "LAST_WRITE", 0.01),
    (restorer, "LONGEST_WAIT", 3600.0),
    (restorer, "QUEUE_AGAIN", 0.001),
    (flow, "SCAN_AGAIN", 0.001),
    (scrub, "SHORTEST_REST", 0.001),
    (purse, "LOOK_AGAIN", 0.001),
    (purse, "STATE_RETRY", 0.001),
)


@contextlib.contextmanager
def hurried() -> Iterator[None]:
    """Let everything go fast that waits for nothing but time."""
    with contextlib.ExitStack() as stack:
        for module, name, value in HURRIED:
            stack.enter_context(patch.object(module, name, value))
        yield


@contextlib.asynccontextmanager
async def set_stage(scene: Scene, folder: Path) -> AsyncIterator[tuple[Stage, Callable[[], None]]]:
    """Give the scene's lab, with ports at which others go on; they are as they were afterwards."""
    async with scene.stage(folder) as stage:
        kept = {name: getattr(stage, name) for name in PORTS}
        for name, port in kept.items():
            if port is not None:
                setattr(stage, name, Pausing(port))

        def mend() -> None:
            for name, port in kept.items():
                setattr(stage, name, port)
            stage.wrap_state = lambda state: state

        yield stage, mend


async def ended(task: asyncio.Task[Any], where: str, *others: asyncio.Task[Any]) -> bool:
    """Wait for *task* or one of the others; whether the task ended. A hang is what breaks a promise."""
    await asyncio.wait({task, *others}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
    if not task.done() and not any(each.done() for each in others):
        stacks = sorted(tale(each) for each in asyncio.all_tasks())
        raise Broken("\n  ".join([f"it hangs; repeat: {where}", *stacks]))
    return task.done()


async def end(stage: Stage, task: asyncio.Task[Any], struck: Nth, trial: Trial) -> None:
    """Stop the daemon, every second time at once; a state that hangs is waited for no longer then."""
    if trial.n % 2:
        stage.abandon.set()
    stage.stop.set()
    if struck.near:
        await asyncio.wait({task}, timeout=DRAINED)
        struck.hurried.set()
    await ended(task, trial.repeat)


async def one_call(trial: Trial, folder: Path) -> tuple[int, str]:
    """Let one call go wrong; gives the number of calls, and which it was ("" it never came)."""
    scene, fault = EVERY[trial.scene], Fault(trial.fault)
    async with set_stage(scene, folder) as (stage, mend):
        made = install(stage, trial.port, trial.n, fault)
        task = asyncio.create_task(scene.act(stage))
        if fault is Fault.HANGS or fault is Fault.MEETS:
            await _interfere(stage, task, made, trial)
        await ended(task, trial.repeat)
        struck, calls = made[-1].struck if made else "", made[-1].calls if made else 0
        await judge(trial, stage, task, strict=fault in HARMLESS and trial.port != "state")
        mend()
        if struck:
            await judge_the_end(trial, scene, stage)
    return calls, struck


async def _interfere(stage: Stage, task: asyncio.Task[Any], made: list[Nth], trial: Trial) -> None:
    """Wait until the call is under way, and then stop the daemon, or cancel it."""
    while not made and not task.done():
        await asyncio.sleep(0)
    if not made:
        return
    struck = made[-1]
    struck.later = int(trial.at.partition("+")[2] or 0)
    hung = asyncio.create_task(struck.hung.wait())
    try:
        if not await ended(task, trial.repeat, hung):
            preparing = stage.daemon is None or not stage.daemon.flows
            if struck.fault is Fault.MEETS or preparing or EVERY[trial.scene].looks:
                task.cancel()  # while nothing runs yet a stop is that of the process
                if (
                    struck.fault is Fault.HANGS
                ):  # doctor ends what it began: stores hang only so long
                    await asyncio.wait({task}, timeout=DRAINED)
                    struck.hurried.set()
            else:
                await end(stage, task, struck, trial)
    finally:
        hung.cancel()


# --- awaits ------------------------------------------------------------------------------------------


def place(spot: Spot, number: int) -> str:
    """Name the *number*-th time (from 1) that a task comes to wait at a spot."""
    return f"{spot.file}:{spot.line}:{spot.column}#{number}"


def _placed(at: str) -> tuple[Spot, int]:
    file, line, rest = at.split(":")
    column, _, number = rest.partition("#")
    return Spot(file, int(line), int(column)), int(number)


async def observe(scene: Scene, folder: Path, trouble: str = "") -> tuple[Counter[Spot], set[str]]:
    """Say at which awaits the scene waits, and how often; and what its ports are asked for."""
    watch, seen = Watch(), Counter[Spot]()
    watch.at = lambda task, spots: seen.update(set(spots))
    async with set_stage(scene, folder) as (stage, _):
        made = {port: install(stage, port, 0, Fault.FAILS) for port in scene.ports}
        _trouble(stage, trouble)
        with watch.watching():
            task = asyncio.create_task(scene.act(stage))
            await ended(task, f"{scene.name} {trouble}")
        if not task.cancelled() and (error := task.exception()) and not trouble:
            raise error
    methods = {f"{port}.{it}" for port, each in made.items() for one in each for it in one.methods}
    return seen, methods


def _trouble(stage: Stage, trouble: str) -> None:
    for each in trouble.split("+") if trouble else ():
        place, fault = each.split(":")
        port, method = place.split(".")
        install(stage, port, 1, Fault(fault), method)


async def one_await(
    trial: Trial, folder: Path, cancelled: set[Spot], after: dict[Spot, Trial]
) -> str:
    """Cancel, or stop, when an await is waited at; says how that ended, "" if it was never reached.

    Adds to *cancelled* all that cancellations were delivered to on the way, and to *after* what was
    waited at then.
    """
    scene, how = EVERY[trial.scene], How(trial.fault)
    places = [_placed(each) for each in trial.at.split(">")]
    left, ours = len(places), asyncio.all_tasks()
    heard: list[int] = []  # findings that were told by then
    async with set_stage(scene, folder) as (stage, mend):
        watch = Watch(cancelled)
        _trouble(stage, trial.trouble)

        def act(victim: asyncio.Task[Any]) -> None:
            heard.append(len(stage.told))
            match how:
                case _ if left < len(places) - 1:
                    victim.cancel()
                case How.TASK if not scene.looks:
                    victim.cancel()
                    victim.add_done_callback(lambda _: stage.stop.set())
                case How.ALL:
                    for each in asyncio.all_tasks() - ours:
                        each.cancel()
                case How.STOP:
                    stage.stop.set()
                case How.ABANDON:
                    stage.abandon.set()
                    stage.stop.set()
                case How.TWICE:
                    task.cancel()
                    asyncio.get_running_loop().call_later(0, task.cancel)
                case _:
                    task.cancel()

        def look(victim: asyncio.Task[Any], spots: list[Spot]) -> None:
            nonlocal left
            if left < len(places):
                after.update(dict.fromkeys(set(spots) - after.keys(), trial))
            if not left or places[-left][0] not in spots:
                return
            spot, times = places[-left]
            places[-left] = spot, times - 1
            if times == 1:
                left -= 1
                asyncio.get_running_loop().call_soon(act, victim)

        watch.at = look
        with watch.watching():
            task = asyncio.create_task(scene.act(stage))
            await ended(task, trial.repeat)
        if not (left and trial.scene in ENDLESS):  # the end of these says nothing, see there
            await judge(trial, stage, task, strict=False)
        mend()
        if left:
            return ""
        if how in {How.CANCEL, How.ALL} and len(stage.told) > heard[0]:
            raise Broken(
                f"{stage.told[-1]} was told by who was ended amid it; repeat: {trial.repeat}"
            )
        await judge_the_end(trial, scene, stage)
        return "cancelled" if task.cancelled() else "ended"


async def judge(trial: Trial, stage: Stage, task: asyncio.Task[Any], *, strict: bool) -> None:
    """Check what holds at once: *strict*, when the run had to get over it."""
    where = trial.repeat
    scene = EVERY[trial.scene]
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if (trial.fault in {How.TWICE, How.ALL, Fault.MEETS} or ">" in trial.at) and others:
        # Cancelled while it ends, it waits no longer for what ends by itself: the state's closing.
        await asyncio.wait(others, timeout=PATIENCE)
    if left := await left_tasks():
        raise Broken(f"tasks are left: {left}; repeat: {where}")
    promises.hold_to(promises.kept(await stage.seen()), where)
    error = None if task.cancelled() else task.exception()
    if isinstance(error, AssertionError):
        raise error
    fell = task.cancelled() or error is not None
    if strict and fell:
        raise Broken(f"it ended with {error!r}; repeat: {where}")
    if fell or scene.looks or stage.stop.is_set():
        return
    counted = task.result()
    failed = bool(trial.trouble) or counted[Outcome.FAILED]  # what was refused is told of
    excused = not strict and (_owns_up(stage) or failed)
    if not (scene.is_complete(stage, counted) or excused):
        raise Broken(f"it ended with {counted} and says that all is well; repeat: {where}")


def _owns_up(stage: Stage) -> bool:
    """Say whether a run that ended by itself tells that something is left to do."""
    daemon = stage.daemon
    if daemon is None:
        return False
    spent = any(it.is_blocked for it in daemon.purses.values())
    return spent or any(it.scan_failed for it in daemon.flows.values())


async def judge_the_end(trial: Trial, scene: Scene, stage: Stage) -> None:
    """Let a run that nobody disturbs complete it, and another one find nothing to do."""
    where = trial.repeat
    if (
        trial.trouble or trial.fault == Fault.DEFECT
    ):  # what nobody expects is tried once more, not always
        await stage.retry()
    done = asyncio.create_task(scene.finish(stage))
    await ended(done, f"{where} (the run after it)")
    counted = done.result()
    if not scene.is_complete(stage, counted):
        raise Broken(f"the next run ends with {counted}; repeat: {where}")
    seen = await stage.seen(at_rest=True)
    probes = [key for key in {**seen.source, **seen.target} if is_probe(key)]
    if probes and scene.looks:  # what a flow leaves goes with its next probe, or is swept
        raise Broken(f"probes are left: {probes}; repeat: {where}")
    if not scene.looks:
        stage.check_totals()
        promises.hold_to(promises.kept_at_rest(seen, moved=scene.moves), where)
    if left := await left_tasks():
        raise Broken(f"tasks are left: {left}; repeat: {where}")
    await (scene.last or scene.act)(stage)
    promises.hold_to(promises.nothing_changed(seen, await stage.seen(at_rest=True)), where)
