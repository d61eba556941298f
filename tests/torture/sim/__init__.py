"""Deterministic simulation: thousands of lives a minute in one thread, and a seed that repeats each.

The engine and the logic of the state are the real ones. Time, the loop, the stores, the database's file
and the worker processes are simulated: what happens is decided by the seed alone.
"""

from __future__ import annotations

import gc
import random
from collections import Counter
from collections.abc import Callable

from tests.torture import bugs
from tests.torture.programme import Broken, Task
from tests.torture.sim.chance import Cut, Trouble
from tests.torture.sim.clock import simulated
from tests.torture.sim.loop import Stuck, play
from tests.torture.sim.world import World, Wrong

KILLED = ("killed", "worker killed")


def live(
    seed: int, tell: Callable[[str], object] | None = None, *, bug: str = ""
) -> tuple[Counter[str], int]:
    """Live through the world of a seed; gives what happened, counted, and the checksum of its trace."""
    world = World(seed, trace=tell is not None)
    collects = gc.isenabled()
    gc.disable()
    try:
        with simulated(world.loop, random.Random(seed)):
            play(world.loop, world.play())
    except (Wrong, Stuck) as error:
        repeat = f"python -m tests.torture --only sim --seed {seed} --rounds 1"
        repeat += f" --bug {bug}" if bug else ""
        raise Broken(f"{error}\nrepeat: {repeat}") from error
    finally:
        world.disk.close()
        if tell is not None:
            for line in world.trace or ():
                tell(line)
        if collects:
            gc.enable()
    world.counts["steps"] = world.loop.steps
    world.counts["simulated hours"] = int(world.loop.now / 3600)
    world.counts["deletes"] = sum(truth.deletes for truth in world.truths)
    return world.counts, world.crc


def run(task: Task) -> Counter[str]:
    """Live through worlds until the time is over."""
    counts = Counter[str]()
    bugs.plant(task.bug)
    for seed in task.seeds():
        counts += live(seed, bug=task.bug)[0]
        counts["seeds"] += 1
    counts["faults"] = sum(counts[what] for what in (*Trouble, *Cut))
    counts["operations"] = counts["written"] + counts["written again"] + counts["removed"]
    counts["simulated kills"] = sum(n for what, n in counts.items() if what.startswith(KILLED))
    interesting = ("deletes", "killed", "given back")
    if counts["lives"] > 100 and not all(counts[what] for what in interesting):
        raise Broken(f"nothing of interest happened: {dict(counts)}")
    return counts
