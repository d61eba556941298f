"""What may become of a call, and of who waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from enum import StrEnum
from typing import Any, NamedTuple

from s3flow.errors import (
    AccessDenied,
    Archived,
    ConnectionLost,
    CopyRefused,
    Corrupted,
    NoSuchUpload,
    SourceChanged,
    StateError,
    TargetUnavailable,
    Throttled,
    Truncated,
)
from s3flow.ports import Body
from tests.faults import Call, Faulty, FaultyBody
from tests.torture.stage import Stage

NEAR = {"state", "holds", "wishes"}  # their errors are the state's


class Fault(StrEnum):
    """What becomes of a call."""

    FAILS = "fails"
    THROTTLED = "throttled"
    BLOCKED = "blocked"
    DEFECT = "defect"  # an error that nobody expects
    HANGS = "hangs"
    CANCELLED = "cancelled"  # by nobody: a library ends what it was waiting for
    CUT = "cut"
    CUT_SILENTLY = "cut-silently"
    LOST = "lost"  # done, and not answered
    MEETS = "meets"  # it fails while the daemon is being cancelled
    DENIED = "denied"
    NO_UPLOAD = "no-upload"
    CORRUPTED = "corrupted"
    CHANGED = "changed"
    ARCHIVED = "archived"
    REFUSED = "refused"


class How(StrEnum):
    """What is done when an await is waited at."""

    CANCEL = "cancel"  # the daemon
    TWICE = "twice"  # and again while it ends
    TASK = "task"  # the task that waits there, and then the daemon is stopped
    ALL = "all"  # every task there is, shielded or not: as a loop does that ends
    STOP = "stop"
    ABANDON = "abandon"


BODIES = {Fault.CUT, Fault.CUT_SILENTLY}
# What nobody tries again, or only so often: they are for the awaits that follow them.
ANSWERS = {
    Fault.DENIED: AccessDenied("not for you"),
    Fault.NO_UPLOAD: NoSuchUpload("gone"),
    Fault.CORRUPTED: Corrupted("another sum"),
    Fault.CHANGED: SourceChanged("another one"),
    Fault.ARCHIVED: Archived("frozen"),
    Fault.REFUSED: CopyRefused("not by copies"),
}
CALLS = [fault for fault in Fault if fault not in ANSWERS]  # those for each N-th call
HARMLESS = {Fault.FAILS, Fault.THROTTLED, Fault.CUT, Fault.CUT_SILENTLY, Fault.LOST}


class Nth(Faulty):
    """Call number *n* (from 1; reads of bodies count) goes wrong; *calls* says how many there were.

    With *method* only calls of that count.
    """

    def __init__(self, inner: Any, n: int, fault: Fault, *, near: bool, method: str = "") -> None:
        super().__init__(inner)
        self.n, self.fault, self.near, self.method = n, fault, near, method
        self.methods: set[str] = set()
        self.calls = 0
        self.struck = ""  # the call that it was
        self.hung, self.hurried = asyncio.Event(), asyncio.Event()
        self.later = 0  # steps of the loop between a cancellation and the failure that it meets

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if self._comes(call.method):
            if self.fault is Fault.LOST:
                await go()
                raise self._error()
            await self._strike()
        return await go()

    def wrap(self, body: Body) -> Body:
        async def read(inner: Body, offset: int) -> memoryview:
            if not self._comes("read"):
                return await inner.read()
            if self.fault is Fault.CUT_SILENTLY:
                return memoryview(b"")
            if self.fault is Fault.CUT and offset < inner.size:
                raise Truncated(f"the body ended after {offset} bytes")
            await self._strike()
            return await inner.read()

        return FaultyBody(body, read)

    def _comes(self, method: str) -> bool:
        self.methods.add(method)
        if self.method not in ("", method):
            return False
        self.calls += 1
        if self.calls == self.n and not (self.fault in BODIES and method != "read"):
            self.struck = method
        return self.calls == self.n and bool(self.struck)

    async def _strike(self) -> None:
        if self.fault is Fault.HANGS:
            self.hung.set()
            await self.hurried.wait()
        if self.fault is Fault.MEETS:
            self.hung.set()
            for _ in range(self.later):
                await asyncio.sleep(0)
        raise self._error()

    def _error(self) -> BaseException:
        if self.fault is Fault.CANCELLED:
            return asyncio.CancelledError()
        if self.fault is Fault.DEFECT:
            return ArithmeticError("a defect")
        if self.fault in ANSWERS:
            return ANSWERS[self.fault]
        if self.near:
            return StateError("no disk")
        match self.fault:
            case Fault.THROTTLED:
                return Throttled("not so fast")
            case Fault.BLOCKED:
                return TargetUnavailable("nobody is there")
        return ConnectionLost("the line is dead")


class Trial(NamedTuple):
    """One fault in one scene.

    With the port "await" the fault is a `How`, and *at* a `place`, or two with ">" between: when the
    second is reached after the first, the daemon is cancelled once more. Else the fault is a `Fault`,
    and *at* the number of a call, for `Fault.MEETS` followed by "+" and the steps after which it fails.
    """

    scene: str
    port: str
    fault: str
    at: str
    # "port.method:fault", several with "+" between, which happen before: the first call of it goes wrong.
    trouble: str = ""

    @property
    def n(self) -> int:
        """The number of the call."""
        return int(self.at.partition("+")[0])

    @property
    def repeat(self) -> str:
        """The command that does it again."""
        return f"python -m tests.torture.nth {self.scene} {self.port} {self.fault} {self.at} {self.trouble}"


def install(stage: Stage, port: str, n: int, fault: Fault, method: str = "") -> list[Nth]:
    """Put what strikes the n-th call before a port; gives it, once it is made."""
    made: list[Nth] = []

    def wrap(inner: Any) -> Any:
        made.append(Nth(inner, n, fault, near=port in NEAR, method=method))
        return made[-1]

    if port == "state":
        below = stage.wrap_state
        stage.wrap_state = lambda state: wrap(below(state))
    else:
        setattr(stage, port, wrap(getattr(stage, port)))
    return made
