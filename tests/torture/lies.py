"""Stores that answer well and are wrong: each lie is a switch, told of some calls and so often."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tests.faults import Call, Faulty, FaultyBody

ALWAYS = 10**9
Go = Callable[[], Awaitable[Any]]
Lie = Callable[[Call, Go], Awaitable[Any]]
When = Callable[[Call], bool]


class Lying(Faulty):
    """A store, or a state, that answers the calls that *lies* names as these want it."""

    def __init__(self, inner: Any, **lies: Lie) -> None:
        super().__init__(inner)
        self.lies = lies

    async def around(self, call: Call, go: Go) -> Any:
        lie = self.lies.get(call.method)
        return await (go() if lie is None else lie(call, go))


def any_call(call: Call) -> bool:
    """Take every call."""
    return True


def of(key: bytes) -> When:
    """Take the calls that name *key*, as what is read or as what is written."""
    return lambda call: any(key == getattr(each, "key", each) for each in call.args)


def raises(error: Exception, times: int = 1, when: When = any_call) -> Lie:
    """Let calls fail, and do nothing."""
    left = times

    async def lie(call: Call, go: Go) -> Any:
        nonlocal left
        if left and when(call):
            left -= 1
            raise error
        return await go()

    return lie


def alters(change: Callable[[Any], Any], times: int = 1, when: When = any_call) -> Lie:
    """Answer what *change* makes of the answer."""
    left = times

    async def lie(call: Call, go: Go) -> Any:
        nonlocal left
        answer = await go()
        if left and when(call):
            left -= 1
            return change(answer)
        return answer

    return lie


def loses(error: Exception, then: Callable[[], None] = lambda: None, when: When = any_call) -> Lie:
    """Do a call, let *then* happen, and lose the answer: once."""
    left = True

    async def lie(call: Call, go: Go) -> Any:
        nonlocal left
        answer = await go()
        if left and when(call):
            left = False
            then()
            raise error
        return answer

    return lie


# --- what is changed in answers ------------------------------------------------------------------


def with_etag(answer: Any) -> Any:
    """Say that it is another version."""
    answer.etag = "0" * 32
    return answer


def with_more(answer: Any) -> Any:
    """Say that there is a byte more."""
    answer.size += 1
    return answer


def flipped(body: Any) -> Any:
    """Give other bytes."""

    async def read(inner: Any, offset: int) -> memoryview:
        return memoryview(bytes(byte ^ 1 for byte in await inner.read()))

    return FaultyBody(body, read)
