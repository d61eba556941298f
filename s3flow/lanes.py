"""Several tasks as one step: calls of one kind, some at a time, and one cause when they fail."""

from __future__ import annotations

import asyncio
from collections.abc import (
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Sequence,
    Sized,
)
from contextvars import Context
from typing import Any, Protocol, TypeVar

from s3flow.errors import Interrupted, S3flowError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
LANES = 16


class Items(Sized, Iterable[T_co], Protocol[T_co]):
    """What can be counted and gone through."""


class Group(asyncio.TaskGroup):
    """A task group in which no task ends in silence.

    To the group of the library a task that was cancelled is no failure. But where nobody cancelled
    it, something that it awaited was: a future of a library, an executor that ends. Whatever it was to
    do is not done then, and the others would wait for it for ever, or say that all is well.
    *left_undone*: a task was cancelled itself, which only who did so can know the meaning of.
    """

    left_undone = False

    def create_task(  # type: ignore[override]  # nobody here has generators to run
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        """Start a task; `Interrupted` is what it raises if it is cancelled by nobody."""
        task = super().create_task(_not_in_silence(coro), name=name, context=context)
        task.add_done_callback(lambda _: coro.close())  # it never began if that was cancelled first
        task.add_done_callback(self._note_end)
        return task

    def _note_end(self, task: asyncio.Task[Any]) -> None:
        self.left_undone = self.left_undone or task.cancelled()


async def _not_in_silence(work: Coroutine[Any, Any, T]) -> T:
    try:
        return await work
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Interrupted(
            "what was waited for was cancelled, and nobody here asked for that"
        ) from error


async def together(work: Callable[[asyncio.TaskGroup], Awaitable[object]]) -> None:
    """Do *work*, which is given a task group, until all its tasks have ended.

    Raises what went wrong first, not a group of errors; being cancelled comes before any of it but
    what nobody handles. `asyncio.TaskGroup` alone loses a cancellation that meets a task's failure
    (https://github.com/python/cpython/issues/116720): who handles the failure goes on for ever. So
    the group has a task of its own, and nobody but this function cancels that.
    """
    task = asyncio.create_task(_in_group(work))
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as asked:
            cancelled = asked
            task.cancel()
    error = None if task.cancelled() else task.exception()
    cause = None if error is None else _cause(error)
    if cancelled is not None and (cause is None or isinstance(cause, Exception)):
        raise cancelled
    if cause is not None:
        raise cause from None
    task.result()  # was it cancelled by a loop that ends, so are we


async def _in_group(work: Callable[[asyncio.TaskGroup], Awaitable[object]]) -> None:
    async with Group() as group:
        await work(group)
    if group.left_undone:  # of a group that was cancelled, or failed, that much is told already
        raise Interrupted("a task was cancelled alone: what it was to do is not done")


def heed_cancellation() -> None:
    """Raise `CancelledError` if this task was asked to end: for who handles failures and goes on.

    What fails while something is cleaned up takes the place of the cancellation that it is cleaned
    up for.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def in_lanes(
    items: Items[T], call: Callable[[T], Awaitable[object]], at_once: int = LANES
) -> None:
    """Call for each of *items*, in their order, *at_once* at a time; the first failure ends it."""
    remaining = iter(items)

    async def lane() -> None:
        for item in remaining:
            await call(item)

    async def begin(group: asyncio.TaskGroup) -> None:
        for _ in range(min(at_once, len(items))):
            group.create_task(lane())

    await together(begin)


async def answers_of(
    items: Sequence[T], call: Callable[[T], Awaitable[None]]
) -> list[Exception | None]:
    """Call for each; give what each raised, in order, None where nothing was."""
    answers: list[Exception | None] = [None] * len(items)

    async def one(numbered: tuple[int, T]) -> None:
        index, item = numbered
        try:
            await call(item)
        except S3flowError as error:
            answers[index] = error

    await in_lanes(list(enumerate(items)), one)
    return answers


def _cause(failed: BaseException) -> BaseException:
    """Give the first error of a group, or the error itself; what nobody handles comes before the rest."""
    flat: list[BaseException] = []
    left: list[BaseException] = [failed]
    while left:
        error = left.pop(0)
        if isinstance(error, BaseExceptionGroup):
            left[:0] = error.exceptions
        else:
            flat.append(error)
    return next((it for it in flat if not isinstance(it, Exception)), flat[0])
