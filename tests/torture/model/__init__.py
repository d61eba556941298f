"""What people, s3flow and misfortune do to a flow, beside a model of what must come of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.reporting import with_reporter
from hypothesis.stateful import run_state_machine_as_test

from tests import mariadb
from tests.torture import bugs
from tests.torture.model.loop import ordered
from tests.torture.model.machine import FlowMachine
from tests.torture.model.runs import Died, hurried, is_only
from tests.torture.model.states import OnServer
from tests.torture.programme import Broken, Task

HISTORIES = {"sqlite": 10, "mysql": 5}  # of a round
ENOUGH = 15  # histories in which everything has to have been tried
STEPS = 50


def run(task: Task) -> Counter[str]:
    """Live through histories until the task is over."""
    counts: Counter[str] = Counter()
    with _machine_of(task) as machine:
        for number in task.seeds():
            counts["seeds"] += 1
            _round(machine, HISTORIES[task.state], number, shrink=not task.bug)
        for what in ("deletes", "crashes", "undisturbed", "faults", "operations"):
            if machine.counts["histories"] >= ENOUGH and not machine.counts[what]:
                raise Broken(
                    f"nothing was tried: {what} in {machine.counts['histories']} histories"
                )
    return counts + machine.counts


def _round(machine: type[FlowMachine], number: int, first: int, *, shrink: bool) -> None:
    """Live through *number* histories that the seed *first* decides; raise `Broken` with what broke."""
    told: list[str] = []
    phases = [Phase.generate, Phase.shrink] if shrink else [Phase.generate]
    options = settings(
        max_examples=number,
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    try:
        with with_reporter(lambda line: told.append(str(line))):
            run_state_machine_as_test(seed(first)(machine), settings=options)
    except Exception as error:
        steps = "\n".join([*told, *getattr(error, "__notes__", ())])
        repeat = f"python -m tests.torture --only model --seed {first} --rounds 1"
        raise Broken(f"{_words(error)}\n  repeat: {repeat}\n{steps}") from error


def _words(error: BaseException) -> str:
    """Give an error's words, and those of the errors that it is about."""
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    return "\n  ".join([str(error) or repr(error), *map(_words, inner)])


@contextlib.contextmanager
def _machine_of(task: Task) -> Iterator[type[FlowMachine]]:
    """Give a machine with a loop and a state of its own, around an s3flow with the task's bug in it."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(hurried())
        parts: dict[str, object] = {"counts": Counter(), "__module__": __name__}
        if task.state == "mysql":
            # A server that is in a hurry promises less than moves need: that is said at each start.
            stack.callback(logging.disable, logging.root.manager.disable)
            logging.disable(logging.WARNING)
            schemas = stack.enter_context(mariadb.schemas())
            parts["keep"] = staticmethod(lambda folder: OnServer(schemas))
            loop = stack.enter_context(asyncio.Runner()).get_loop()
        else:
            loop = stack.enter_context(ordered())
        loop.set_exception_handler(_ignore_the_dead)
        parts["loop"] = loop
        bugs.plant(task.bug)
        yield type("FlowMachine", (FlowMachine,), parts)


def _ignore_the_dead(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tell of errors that nobody waited for, but not of tasks that died with their process."""
    error = context.get("exception")
    if error is None or not is_only(error, Died):
        loop.default_exception_handler(context)
