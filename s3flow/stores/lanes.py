"""Many calls of one kind, some at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from s3flow.errors import S3flowError

T = TypeVar("T")
LANES = 16


async def answers_of(
    items: Sequence[T], call: Callable[[T], Awaitable[None]]
) -> list[Exception | None]:
    """Call for each; give what each raised, in order, None where nothing was."""
    answers: list[Exception | None] = [None] * len(items)
    remaining = iter(enumerate(items))

    async def lane() -> None:
        for index, item in remaining:
            try:
                await call(item)
            except S3flowError as error:
                answers[index] = error

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(LANES, len(items))):
                group.create_task(lane())
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return answers
