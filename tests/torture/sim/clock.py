"""The simulated clock and dice in the place of Python's, for the modules of s3flow alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import sys
import time
import types
from collections.abc import Iterator
from typing import Any

from s3flow.crew import crew, seat, station
from s3flow.engine import daemon
from s3flow.observe.watchdog import watch_for_blocks
from tests.torture.sim.loop import SimLoop

SLOWLY = (  # seconds: an hour of waiting is to cost nothing
    (daemon, "SAMPLE_EVERY", 60.0),
    (station, "PULSE_EVERY", 60.0),
    (crew, "LOOK_EVERY", 60.0),
    (seat, "SILENCE", 150.0),
)


class Stand:
    """A module with some of its names replaced."""

    def __init__(self, module: types.ModuleType, **names: Any) -> None:
        self.__dict__.update(names)
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


@contextlib.contextmanager
def simulated(loop: SimLoop, rng: random.Random) -> Iterator[None]:
    """Let s3flow see the loop's time, and *rng* where it draws."""
    clock = Stand(time, time=loop.wall, monotonic=loop.time, process_time=lambda: loop.time() / 2)
    stands: dict[int, Any] = {
        id(time): clock,
        id(random): rng,
        id(os): Stand(os, urandom=rng.randbytes, getpid=lambda: 1),
        id(socket): Stand(socket, gethostname=lambda: "host"),
        id(watch_for_blocks): _watch_nothing,
    }
    undo: list[tuple[Any, str, Any]] = [
        (owner, what, getattr(owner, what)) for owner, what, _ in SLOWLY
    ]
    for owner, what, seconds in SLOWLY:
        setattr(owner, what, seconds)
    for name, module in list(sys.modules.items()):
        if name.startswith("s3flow."):
            for what, value in list(vars(module).items()):
                stand = stands.get(id(value))
                if stand is not None:
                    undo.append((module, what, value))
                    setattr(module, what, stand)
                elif getattr(value, "__module__", None) == name:
                    undo += _clocks_of(value, loop)
    try:
        yield
    finally:
        for owner, what, value in reversed(undo):
            setattr(owner, what, value)


async def _watch_nothing(tell: object) -> None:
    """Stand in for a thread, which there is none of here."""
    del tell
    await asyncio.get_running_loop().create_future()


def _clocks_of(owner: Any, loop: SimLoop) -> Iterator[tuple[Any, str, Any]]:
    """Replace `time.time` where it is the default of an argument."""
    functions = [owner, *vars(owner).values()] if isinstance(owner, type) else [owner]
    for function in functions:
        if not isinstance(function, types.FunctionType):
            continue
        clocks = {time.time: loop.wall, time.monotonic: loop.time}
        positional, keyword = function.__defaults__ or (), function.__kwdefaults__ or {}
        if any(_is_clock(it) for it in positional):
            yield function, "__defaults__", positional
            function.__defaults__ = tuple(clocks[it] if _is_clock(it) else it for it in positional)
        if any(_is_clock(it) for it in keyword.values()):
            yield function, "__kwdefaults__", dict(keyword)
            function.__kwdefaults__ = {
                name: clocks[it] if _is_clock(it) else it for name, it in keyword.items()
            }


def _is_clock(value: object) -> bool:
    return value is time.time or value is time.monotonic
