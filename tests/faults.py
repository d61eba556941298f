"""A kit of misbehaving stores: each wraps a Source, Target or StateStore and breaks one promise.

They compose: `Recording(Throttling(store, every=3))`. What is not a coroutine method passes through.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from s3flow.errors import ConnectionLost, Throttled, Truncated
from s3flow.ports import Body
from s3flow.stores.memory import MemoryStore


class Call(NamedTuple):
    """One call that reached the wrapped store."""

    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Faulty:
    """Passes all calls on; what inherits from it says what goes wrong around a call or a read."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        if hasattr(inner, "flush"):
            # From Python 3.12 on isinstance with a Protocol asks no __getattr__.
            self.flush = self.__getattr__("flush")

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.inner, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute

        async def call(*args: Any, **kwargs: Any) -> Any:
            args = tuple(self.wrap(each) if _is_body(each) else each for each in args)
            answer = await self.around(Call(name, args, kwargs), lambda: attribute(*args, **kwargs))
            return self.wrap(answer) if _is_body(answer) else answer

        # So that wrappers of wrappers see a coroutine function as well.
        return call

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        """Do one call of the store."""
        return await go()

    def wrap(self, body: Body) -> Body:
        """Give the body that is read instead of *body*, on its way in or out."""
        return body


class Raising(Faulty):
    """The calls that *chosen* names raise *error* instead of being done."""

    def __init__(self, inner: Any, error: Exception, chosen: Callable[[Call], bool]) -> None:
        super().__init__(inner)
        self.error = error
        self.chosen = chosen

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if self.chosen(call):
            await asyncio.sleep(0)
            raise self.error
        return await go()


class FaultyBody:
    """A body whose chunks pass through *around_read*."""

    def __init__(
        self, body: Body, around_read: Callable[[Body, int], Awaitable[memoryview]]
    ) -> None:
        self._body = body
        self._around_read = around_read
        self._offset = 0
        self.info = body.info
        self.size = body.size

    async def read(self) -> memoryview:
        """Give the next chunk, or what has become of it."""
        chunk = await self._around_read(self._body, self._offset)
        self._offset += len(chunk)
        return chunk

    def close(self) -> None:
        """Close the body below."""
        self._body.close()


class NthCallFails(Faulty):
    """Call number *n* (from 1; reads of bodies count) raises *error* instead of being done.

    With a *n* that never comes, *calls* says how many there are to fail.
    """

    def __init__(self, inner: Any, n: int, error: BaseException) -> None:
        super().__init__(inner)
        self.n = n
        self.error = error
        self.calls = 0

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        self._count()
        return await go()

    def wrap(self, body: Body) -> Body:
        async def read(inner: Body, offset: int) -> memoryview:
            self._count()
            return await inner.read()

        return FaultyBody(body, read)

    def _count(self) -> None:
        self.calls += 1
        if self.calls == self.n:
            raise self.error


class Recording(Faulty):
    """Remembers every call in *calls*, in order."""

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)
        self.calls: list[Call] = []

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        self.calls.append(call)
        return await go()

    def of(self, method: str) -> list[Call]:
        """Give the calls of one method."""
        return [call for call in self.calls if call.method == method]


class Slow(Faulty):
    """Every call and every read takes *seconds* longer; *waiting* says how many do so now."""

    def __init__(self, inner: Any, seconds: float) -> None:
        super().__init__(inner)
        self.seconds = seconds
        self.waiting = 0

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        await self._wait()
        return await go()

    def wrap(self, body: Body) -> Body:
        async def read(inner: Body, offset: int) -> memoryview:
            await self._wait()
            return await inner.read()

        return FaultyBody(body, read)

    async def _wait(self) -> None:
        self.waiting += 1
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.waiting -= 1


class Throttling(Faulty):
    """Every *every*-th call is refused with `Throttled`, at most *times* times."""

    def __init__(
        self, inner: Any, every: int, *, retry_after: float = 0.0, times: int | None = None
    ) -> None:
        super().__init__(inner)
        self.every = every
        self.retry_after = retry_after
        self.times = times
        self.calls = 0
        self.throttled = 0

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        self.calls += 1
        if self.calls % self.every == 0 and self.throttled != self.times:
            self.throttled += 1
            raise Throttled("slow down (503 SlowDown)", self.retry_after)
        return await go()


class Truncating(Faulty):
    """The first *times* bodies break off after *at* bytes: as a lost connection, or *silent*."""

    def __init__(self, inner: Any, at: int, *, times: int = 1, silent: bool = False) -> None:
        super().__init__(inner)
        self.at = at
        self.times = times
        self.silent = silent

    def wrap(self, body: Body) -> Body:
        if not self.times or body.size <= self.at:
            return body
        self.times -= 1

        async def read(inner: Body, offset: int) -> memoryview:
            if offset >= self.at:
                if self.silent:
                    return memoryview(b"")
                raise Truncated(f"the body ended after {offset} of {inner.size} bytes")
            return (await inner.read())[: self.at - offset]

        return FaultyBody(body, read)


class BitFlipping(Faulty):
    """One bit of the byte at offset *at* of the first *times* bodies that have it arrives flipped."""

    def __init__(self, inner: Any, at: int, *, times: int = 1) -> None:
        super().__init__(inner)
        self.at = at
        self.times = times

    def wrap(self, body: Body) -> Body:
        if not self.times or body.size <= self.at:
            return body
        self.times -= 1

        async def read(inner: Body, offset: int) -> memoryview:
            chunk = await inner.read()
            if offset <= self.at < offset + len(chunk):
                chunk = memoryview(bytearray(chunk))
                chunk[self.at - offset] ^= 0x10
            return chunk

        return FaultyBody(body, read)


class LostAnswer(Faulty):
    """The first *times* calls of *method* are carried out, and their answers lost."""

    def __init__(self, inner: Any, method: str, *, times: int = 1) -> None:
        super().__init__(inner)
        self.method = method
        self.times = times

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        answer = await go()
        if call.method == self.method and self.times:
            self.times -= 1
            raise ConnectionLost(f"the connection broke before the answer to {call.method}")
        return answer


class ChangingSource(Faulty):
    """A memory store in which somebody writes *data* over an object after the *after*-th get of it."""

    def __init__(
        self, inner: MemoryStore, bucket: str, key: bytes, data: bytes, *, after: int = 1
    ) -> None:
        super().__init__(inner)
        self.bucket = bucket
        self.key = key
        self.data = data
        self.after = after

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        answer = await go()
        if call.method == "get_object" and call.args[:2] == (self.bucket, self.key):
            self.after -= 1
            if self.after == 0:
                self.inner.put(self.bucket, self.key, self.data)
        return answer


def _is_body(value: Any) -> bool:
    return hasattr(value, "read") and hasattr(value, "size") and hasattr(value, "close")
