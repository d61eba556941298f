"""Every await of the engine: where they stand, which is waited at, and in which a cancellation arrived."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import gc
from collections.abc import Callable, Coroutine, Generator, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import CodeType
from typing import Any, NamedTuple

import s3flow.engine

ENGINE = Path(s3flow.engine.__file__).parent


class Spot(NamedTuple):
    """Where an `await`, an `async with` or an `async for` begins."""

    file: str
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Await:
    """One of them: the function it stands in, and its text."""

    spot: Spot
    function: str
    text: str

    @property
    def name(self) -> str:
        """Name it for people."""
        return f"{self.spot.file[:-3]}.{self.function}: {self.text}"


@cache
def all_awaits() -> dict[Spot, Await]:
    """Find them in the engine's source, all that anybody can wait at. It takes a fifth of a second."""
    found: dict[Spot, Await] = {}
    for path in sorted(ENGINE.glob("*.py")):
        tree = ast.parse(path.read_text())
        for node, function in _inside(tree, ""):
            if not _is_timeout(node):
                spot = Spot(path.name, node.lineno, node.col_offset)
                found[spot] = Await(spot, function, ast.unparse(_head(node)))
    return found


def _inside(node: ast.AST, function: str) -> Iterator[tuple[Any, str]]:
    for child in ast.iter_child_nodes(node):
        inner = function
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{function}.{child.name}".lstrip(".")
        if isinstance(child, ast.Await | ast.AsyncWith | ast.AsyncFor):
            yield child, inner
        yield from _inside(child, inner)


def _is_timeout(node: Any) -> bool:
    """Say whether it is a block with nothing but a time limit, which is entered and left at once."""
    if not isinstance(node, ast.AsyncWith) or len(node.items) > 1:
        return False
    return ast.unparse(node.items[0].context_expr).startswith("asyncio.timeout(")


def _head(node: Any) -> ast.AST:
    """Give what identifies it: of a block its first line."""
    if isinstance(node, ast.Await):
        return node
    if isinstance(node, ast.AsyncFor):
        return node.iter
    return ast.Tuple([item.context_expr for item in node.items], ast.Load())


@cache
def _places(code: CodeType) -> list[tuple[int | None, int | None]]:
    return [(line, column) for line, _, column, _ in code.co_positions()]


@cache
def _is_engine(code: CodeType) -> str:
    path = Path(code.co_filename)
    return path.name if path.parent == ENGINE else ""


def chain(waiting: Any) -> list[Spot]:
    """Give the engine's spots that a suspended coroutine waits at, the outermost first."""
    spots = []
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "ag_frame", None)
        if frame is not None and (file := _is_engine(frame.f_code)) and frame.f_lasti >= 0:
            line, column = _places(frame.f_code)[frame.f_lasti // 2]
            if line is not None and column is not None:
                spots.append(Spot(file, line, column))
        waiting = _awaited(waiting)
    return spots


def _awaited(waiting: Any) -> Any:
    inner = getattr(waiting, "cr_await", None) or getattr(waiting, "ag_await", None)
    if type(inner).__name__ in {"async_generator_asend", "async_generator_athrow"}:
        # These do not say what they run.
        running = (it for it in gc.get_referents(inner) if type(it).__name__ == "async_generator")
        return next(running, None)
    return inner


def tale(task: asyncio.Task[Any]) -> str:
    """Say for people where a task waits, through all that await each other."""
    steps, waiting = [], task.get_coro()
    while waiting is not None:
        waiting = getattr(waiting, "inner", waiting)
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "ag_frame", None)
        if frame is not None:
            steps.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        waiting = _awaited(waiting)
    return f"{task.get_name()} ({task.cancelling()} times cancelled): {' > '.join(steps)}"


@dataclass(slots=True)
class Watch:
    """What happens at the awaits. *at* is called with each suspended task and what it waits at."""

    cancelled: set[Spot] = field(default_factory=set)
    at: Callable[[asyncio.Task[Any], list[Spot]], None] | None = None

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Watch all tasks that this loop makes meanwhile."""
        loop = asyncio.get_running_loop()

        def make(
            loop: asyncio.AbstractEventLoop, inner: Coroutine[Any, Any, Any], **options: Any
        ) -> asyncio.Task[Any]:
            return asyncio.Task(_Watched(inner, self), loop=loop, **options)

        loop.set_task_factory(make)  # type: ignore[arg-type]
        try:
            yield
        finally:
            loop.set_task_factory(None)


class _Watched(Coroutine[Any, Any, Any]):
    """A task's coroutine: tells where it waits, and where it was when a cancellation came."""

    def __init__(self, inner: Coroutine[Any, Any, Any], watch: Watch) -> None:
        self.inner = inner
        self._watch = watch

    def send(self, value: Any) -> Any:
        return self._waits(self.inner.send(value))

    def throw(self, *error: Any) -> Any:
        if isinstance(error[0], asyncio.CancelledError) or error[0] is asyncio.CancelledError:
            self._watch.cancelled.update(chain(self.inner))
        return self._waits(self.inner.throw(*error))

    def _waits(self, answer: Any) -> Any:
        task = asyncio.current_task()
        if self._watch.at is not None and task is not None:
            self._watch.at(task, chain(self.inner))
        return answer

    def close(self) -> None:
        self.inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self.inner.__await__()
