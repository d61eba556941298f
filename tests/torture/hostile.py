"""Servers and clients that mean harm, in turn."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.torture import bugs
from tests.torture.hostile_authorities import misled
from tests.torture.hostile_clients import besiege
from tests.torture.hostile_servers import ENDLESS, TRICKLES, converse, endless, trickle
from tests.torture.hostile_stores import tempt
from tests.torture.hostile_tls import break_tls
from tests.torture.programme import Broken, Task

REPLIES, LIES, TURNS, AUTHORITIES = 100, 100, 3, 2


def run(task: Task) -> Counter[str]:
    """Let them come until the task is over."""
    bugs.plant(task.bug)
    told: Counter[str] = Counter()
    for number, seed in enumerate(task.seeds()):
        told += asyncio.run(converse(seed, REPLIES))
        told += asyncio.run(tempt(seed, LIES))
        told += asyncio.run(misled(seed, AUTHORITIES))
        told += asyncio.run(break_tls(seed))
        if number % 10 == 0:  # it takes longer
            told += asyncio.run(besiege(seed, TURNS))
            asyncio.run(_patience())
            told["servers without an end"] += len(ENDLESS) + len(TRICKLES)
        told["seeds"] += 1
    idle = [name for name in VITAL if not told[name]]
    if told["seeds"] and idle:
        raise Broken(f"nothing came of it: seed {task.seed}: no {', '.join(idle)}")
    return told


VITAL = (
    *("exact answers", "breaches refused", "connections used again", "lies refused"),
    *("lies that were answers", "attacks on the listener", "of them shown the door"),
    *("authorities that mean harm", "answers over broken TLS", "servers not to be trusted"),
)


async def _patience() -> None:
    async with asyncio.TaskGroup() as group:
        for what in ENDLESS:
            group.create_task(endless(what))
        for what in TRICKLES:
            group.create_task(trickle(what))
