"""The simulated line is one that the kernel could have made: in order, whole batches, and one end."""

from __future__ import annotations

import asyncio
import random

from s3flow.crew.link import Link, Message
from tests.torture.sim.line import line
from tests.torture.sim.loop import Process, SimLoop, play

SAID: list[Message] = [(number, b"x" * number) for number in range(40)]


def heard_of(seed: int) -> tuple[list[Message], int]:
    """Kill a process that speaks; gives what the other one heard, and how often it heard the end."""
    rng = random.Random(seed)
    loop = SimLoop(rng, shuffled=seed % 2 == 0)
    speaker, hearer = Process(loop, "speaker"), Process(loop, "hearer")
    ends = line(loop, speaker, hearer, lambda: rng.expovariate(10))
    heard: list[Message] = []
    lost: list[None] = []

    async def speak() -> None:
        link = Link(lambda batch: None, lambda: None)
        ends[0].join(link)
        for message in SAID:
            link.send(message)
            await asyncio.sleep(rng.expovariate(20))

    async def hear() -> None:
        ends[1].join(Link(heard.extend, lambda: lost.append(None)))

    async def world() -> None:
        speaker.start(speak())
        await asyncio.sleep(rng.random())
        hearer.start(hear())
        await asyncio.sleep(rng.uniform(0, 3))
        speaker.kill()
        await asyncio.sleep(60)

    play(loop, world())
    return heard, len(lost)


def test_what_is_heard_is_the_beginning_of_what_was_said() -> None:
    lengths = set()
    for seed in range(60):
        heard, ends = heard_of(seed)
        assert heard == SAID[: len(heard)]
        assert ends == 1
        lengths.add(len(heard))
    assert len(lengths) > 10
