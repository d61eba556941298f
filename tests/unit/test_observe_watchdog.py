"""The watchdog: who holds the loop is named, who waits is not, and it leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from types import FrameType

import pytest
import uvloop

from s3flow.events import Event, LoopHeld
from s3flow.observe.watchdog import place_of, watch_for_blocks
from tests.blocks import burn

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [
    asyncio.SelectorEventLoop,
    uvloop.new_event_loop,
]


@contextlib.asynccontextmanager
async def watched(found: list[Event]) -> AsyncIterator[None]:
    watching = asyncio.create_task(watch_for_blocks(found.append, every=0.005))
    await asyncio.sleep(0.01)
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


def run(make_loop: Callable[[], asyncio.AbstractEventLoop], main: Callable[[], object]) -> None:
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())  # type: ignore[arg-type]
    assert "s3flow-watchdog" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize("make_loop", LOOPS)
@pytest.mark.parametrize("hold", [burn, time.sleep])
def test_who_holds_the_loop_is_named(
    make_loop: Callable[[], asyncio.AbstractEventLoop], hold: Callable[[float], None]
) -> None:
    found: list[Event] = []
    name = "burn" if hold is burn else "main"  # what sleeps in C is named by its caller

    def named() -> list[LoopHeld]:
        held = [event for event in found if isinstance(event, LoopHeld)]
        return [event for event in held if event.place.endswith(f".{name}")]

    async def main() -> None:
        async with watched(found):
            while not named():  # a busy machine may not let the watchdog run when it should
                hold(0.1)
                await asyncio.sleep(0.01)

    run(make_loop, main)
    assert named()[0].seconds >= 0.01
    assert name in named()[0].at


@pytest.mark.parametrize("make_loop", LOOPS)
def test_waiting_holds_nobody(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    found: list[Event] = []

    async def main() -> None:
        async with watched(found):
            for _ in range(20):
                await asyncio.sleep(0.01)

    run(make_loop, main)
    assert found == []


def test_our_own_function_is_named_before_the_library_that_it_called() -> None:
    source = "def outer(call):\n    return call()\n"
    ours: dict[str, Callable[[Callable[[], FrameType]], FrameType]] = {}
    exec(source, {"__name__": "s3flow.engine.invented"}, ours)
    place = place_of(ours["outer"](sys._getframe))
    assert place.name == "s3flow.engine.invented.outer"
    assert "s3flow.engine.invented:2 outer" in place.lines

    def library() -> FrameType:
        return sys._getframe()

    place = place_of(ours["outer"](library))
    assert place.name == "s3flow.engine.invented.outer"
    assert place.lines.startswith(f"{__name__}:")
    assert place.lines.endswith("< s3flow.engine.invented:2 outer")
