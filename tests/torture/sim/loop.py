"""An event loop without a clock, a network or threads: the next timer comes at once, and a seed decides.

Several processes live in it, each told from the others by its context; one can be killed at any step,
and nothing of it runs any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import random
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar, copy_context
from inspect import CORO_CREATED, getcoroutinestate, iscoroutine
from typing import Any, TypeVar

T = TypeVar("T")
STEP = 1e-5  # seconds that a callback takes: what spins for ever moves the clock
EPOCH = 1_700_000_000.0


class Stuck(AssertionError):
    """Nothing is ready and no timer runs, or there is no end of steps."""


class Process:
    """What dies together. *ended* is set when it was killed."""

    def __init__(self, loop: SimLoop, name: str) -> None:
        self.name = name
        self.dead = False
        self.tasks: list[SimTask[Any]] = []
        self.on_death: list[Callable[[], None]] = []
        self.frozen: list[asyncio.Handle] | None = None  # what waits until it goes on
        self.context = copy_context()
        self.context.run(PROCESS.set, self)
        self._loop = loop
        loop.processes.append(self)

    def start(self, work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Begin a task that is of this process, as are those that it begins."""
        return self._loop.create_task(work, name=name or self.name, context=self.context.copy())

    def kill(self) -> None:
        """Let nothing of it run any more, from the next step on."""
        if not self.dead:
            self.dead = True
            for tell in self.on_death:
                tell()

    def freeze(self, seconds: float) -> None:
        """Let it stand still for a while, as a machine does that swaps, or a signal may ask for."""
        if self.frozen is None:
            self.frozen = []
            self._loop.call_later(seconds, self._thaw, context=Context())

    def _thaw(self) -> None:
        waiting, self.frozen = self.frozen or [], None
        self._loop._ready.extend(waiting)  # type: ignore[attr-defined]

    def bury(self) -> None:
        """Close its coroutines, as Python would some time; what they do at that changes nothing."""
        self.kill()
        while self.tasks:  # closing one may begin another
            task = self.tasks.pop()
            if not task.done():
                task._log_destroy_pending = False  # type: ignore[attr-defined]
                _close(self.context.copy(), task)

    def stacks(self) -> str:
        """Say where each of its tasks waits."""
        living = [task for task in self.tasks if not task.done()]
        return "\n".join(f"{task.get_name()}: {stack(task)}" for task in living)


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)


class SimTask(asyncio.Task[T]):
    """A task whose place in a set does not hang on its address."""

    def __init__(self, number: int, coro: Any, **settings: Any) -> None:
        self.number = number
        super().__init__(coro, **settings)

    def __hash__(self) -> int:
        return self.number


class SimFuture(asyncio.Future[T]):
    """Likewise."""

    def __init__(self, number: int, **settings: Any) -> None:
        self.number = number
        super().__init__(**settings)

    def __hash__(self) -> int:
        return self.number


class SimLoop(asyncio.BaseEventLoop):
    """Runs what is ready, one callback at a time; time jumps when nothing is.

    *shuffled*: what is ready runs in any order, not in that of its becoming so. *steps* counts;
    beyond *most* steps something spins.
    """

    def __init__(self, rng: random.Random, *, shuffled: bool = False) -> None:
        super().__init__()
        self.rng = rng
        self.shuffled = shuffled
        self.now = 0.0
        self.steps = 0
        self.most = 20_000_000
        self.complaints: list[str] = []
        self.processes: list[Process] = []
        self._numbers = 0
        self.set_exception_handler(self._complain)

    def time(self) -> float:
        """Give the simulated seconds."""
        return self.now

    def wall(self) -> float:
        """Give the simulated seconds since the epoch."""
        return EPOCH + self.now

    def create_future(self) -> SimFuture[Any]:
        """Make a future."""
        self._numbers += 1
        return SimFuture(self._numbers, loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Generator[Any, None, T] | Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Make a task; it belongs to the process of who begins it."""
        self._numbers += 1
        name = name or getattr(coro, "__qualname__", None)
        task: SimTask[T] = SimTask(self._numbers, coro, loop=self, name=name, context=context)
        process = PROCESS.get() if context is None else context.get(PROCESS)
        if process is not None:
            process.tasks.append(task)
            if len(process.tasks) > 500:
                process.tasks = [each for each in process.tasks if not each.done()]
        return task

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> SimFuture[Any]:
        """Run it in this thread, some time later; it runs also when nobody waits for it any more."""
        del executor
        future = self.create_future()

        def work() -> None:
            try:
                result = func(*args)
            except Exception as error:  # noqa: BLE001  whatever a thread raises is its caller's
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        self.call_later(self.rng.expovariate(100), work)
        return future

    def _run_once(self) -> None:
        ready = self._ready  # type: ignore[attr-defined]
        self._ring(ready)
        if self.shuffled and len(ready) > 1:
            ready.rotate(-self.rng.randrange(len(ready)))
        handle = ready.popleft()
        if handle._cancelled:
            return
        process = handle._context.get(PROCESS)
        if process is not None:
            if process.dead:
                return
            if process.frozen is not None:
                process.frozen.append(handle)
                return
        self.steps += 1
        self.now += STEP
        if self.steps > self.most:
            raise Stuck(f"{self.steps:,} steps in {self.now:,.0f} simulated seconds, and no end")
        handle._run()

    def _ring(self, ready: Any) -> None:
        """Make ready whose time has come; with nothing else to do, it comes."""
        scheduled = self._scheduled  # type: ignore[attr-defined]
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        if not ready:
            if not scheduled:
                raise Stuck("nothing is ready, and nothing ever will be")
            self.now = max(self.now, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self.now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)

    def _process_events(self, event_list: object) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody sleeps who would have to be woken."""

    def _asyncgen_finalizer_hook(self, agen: Any) -> None:
        # What a dead process has left over is not run to its end by somebody else.
        process = PROCESS.get()
        if process is not None and not process.dead:
            super()._asyncgen_finalizer_hook(agen)  # type: ignore[misc]

    def _complain(self, _: object, context: dict[str, Any]) -> None:
        process = PROCESS.get()
        if process is not None and not process.dead:
            self.complaints.append(f"{context.get('message')}: {context.get('exception')!r}")


def _close(context: Context, task: asyncio.Task[Any]) -> None:
    coro: Any = task.get_coro()
    if getcoroutinestate(coro) == CORO_CREATED:  # nobody awaits what it was to await, either
        for value in coro.cr_frame.f_locals.values():
            if iscoroutine(value):
                value.close()
    for _ in range(50):  # each await in a `finally` is one more
        try:
            context.run(coro.close)
        except RuntimeError as error:
            if "ignored GeneratorExit" not in str(error):
                return
        except BaseException:  # noqa: BLE001  its last words
            return
        else:
            return


def stack(task: asyncio.Task[Any]) -> str:
    """Say where a task waits, from the outside in."""
    coro: Any = task.get_coro()
    places = []
    while coro is not None:
        frame = next(
            (it for name in ("cr", "gi", "ag") if (it := getattr(coro, f"{name}_frame", None))),
            None,
        )
        if frame is not None:
            path = frame.f_code.co_filename.rpartition("/s3flow/")[2]
            places.append(f"{path}:{frame.f_lineno}")
        coro = next(
            (
                it
                for name in ("cr_await", "gi_yieldfrom", "ag_await")
                if (it := getattr(coro, name, None)) is not None
            ),
            None,
        )
    return " > ".join(places)


def play(loop: SimLoop, work: Coroutine[Any, Any, T]) -> T:
    """Run *work* to its end in the loop, and close it."""
    asyncio.set_event_loop(loop)
    main = loop.create_task(work, name="world")
    try:
        return loop.run_until_complete(main)
    finally:
        asyncio._set_running_loop(loop)  # closing coroutines ask for it
        if not main.done():
            main._log_destroy_pending = False  # type: ignore[attr-defined]
            _close(copy_context(), main)
        for process in loop.processes:
            process.bury()
        asyncio._set_running_loop(None)
        asyncio.set_event_loop(None)
        with contextlib.suppress(RuntimeError):
            loop.close()
