"""What goes wrong at the calls of one life, drawn from the seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import StrEnum

from s3flow.errors import (
    AccessDenied,
    BadAnswer,
    ConnectionLost,
    CredentialsMissing,
    S3flowError,
    ServerError,
    Stalled,
    Throttled,
)


class Trouble(StrEnum):
    """What may happen to a call of a store."""

    LOSE_REQUEST = "request lost"
    LOSE_ANSWER = "answer lost"
    SERVER_ERROR = "server error"
    BAD_ANSWER = "bad answer"
    STALL = "stalled"
    THROTTLE = "throttled"
    BLOCK = "blocked for a while"
    DENY = "denied"


class Cut(StrEnum):
    """What may happen to a body at a read."""

    LOST = "body cut"
    SHORT = "body ends early"
    FLIP = "bit flipped"
    SLOW = "body slow"


class End(StrEnum):
    """How a process may end before its time, or seem to."""

    NONE = "no end"
    KILL = "killed"
    DIE = "died by an exception"
    STOP = "stopped"
    ABANDON = "stopped twice"
    TAKEOVER = "taken over"
    FREEZE = "frozen"


ENDS_OF_WORKERS = (End.NONE, End.KILL, End.KILL, End.DIE, End.FREEZE)


ERRORS: dict[Trouble, Callable[[], S3flowError]] = {
    Trouble.LOSE_REQUEST: lambda: ConnectionLost("no request arrived"),
    Trouble.LOSE_ANSWER: lambda: ConnectionLost("no answer arrived"),
    Trouble.SERVER_ERROR: lambda: ServerError("500 InternalError"),
    Trouble.BAD_ANSWER: lambda: BadAnswer("not what was asked for"),
    Trouble.STALL: lambda: Stalled("60 s without a byte"),
    Trouble.THROTTLE: lambda: Throttled("503 SlowDown", 1.0),
    Trouble.BLOCK: lambda: CredentialsMissing("no credentials"),
    Trouble.DENY: lambda: AccessDenied("403 AccessDenied"),
}
DONE_FIRST = {Trouble.LOSE_ANSWER, Trouble.STALL, Trouble.BAD_ANSWER}


class Chances:
    """How likely everything is, in one process; *calm*: nothing happens."""

    def __init__(
        self, rng: random.Random, *, calm: bool, flips: bool = False, is_worker: bool = False
    ) -> None:
        self._rng = rng
        self.calm = calm
        wild = 0.0 if calm else rng.random()
        self._calls = self._drawn(Trouble, wild)
        self._reads = self._drawn(Cut, wild)
        self.flips = flips
        if flips:
            self._calls = {}
            self._reads[Cut.FLIP] = 0.05
        else:
            self._reads.pop(Cut.FLIP, None)
        self.state = 0.0 if calm or flips or rng.random() < 0.6 else 10 ** rng.uniform(-3, -1)
        self.latency = 10 ** rng.uniform(-3, -0.5)
        self.late = 0.0 if calm or rng.random() < 0.5 else 0.05
        ends = ENDS_OF_WORKERS if is_worker else list(End)
        self.end = End.NONE if calm or flips else rng.choice(ends)
        # So many calls, of stores or of the state, until then: early ones are as good as late ones.
        self.at_state = self.end is End.KILL and not is_worker and rng.random() < 0.5
        # Or so many batches over its line, or so many seconds, for workers.
        self.at_line, self.moment = False, None
        if is_worker and self.end in (End.KILL, End.FREEZE):
            draw = rng.random()
            self.at_line = draw < 0.3
            self.moment = 10 ** rng.uniform(-2.5, 1.5) if draw > 0.7 else None
        self.until_end = int(10 ** rng.uniform(0, 1.5 if is_worker else 2.4))
        # A death is worth most beside parts that may fail: it waits for some.
        self.amid_parts = self.end is End.DIE and rng.random() < 0.7
        if self.amid_parts:
            self.until_end = rng.randrange(40)

    def _drawn(self, kinds: type[Trouble] | type[Cut], wild: float) -> dict[str, float]:
        draw = self._rng
        return {
            kind: 10 ** draw.uniform(-2.7, -0.9) for kind in kinds if draw.random() < 0.5 * wild
        }

    def call(self) -> Trouble | None:
        """Draw what becomes of a call."""
        draw = self._rng.random()
        for kind, chance in self._calls.items():
            draw -= chance
            if draw < 0:
                return Trouble(kind)
        return None

    def read(self) -> Cut | None:
        """Draw what becomes of a read of a body."""
        draw = self._rng.random()
        for kind, chance in self._reads.items():
            draw -= chance
            if draw < 0:
                return Cut(kind)
        return None

    def line_delay(self) -> float:
        """Give the seconds that a batch takes from one process to another."""
        return self._rng.expovariate(1000)

    def frozen_for(self) -> float:
        """Give the seconds that a process stands still."""
        return 10 ** self._rng.uniform(-1, 2.5)

    def state_delay(self) -> float:
        """Give the seconds that the state takes."""
        return self._rng.expovariate(10 / self.latency)

    def delay(self) -> float:
        """Give the seconds that one way takes; a few take very long."""
        if not self.calm and self._rng.random() < 0.01:
            return self._rng.uniform(0, 30)
        return self._rng.expovariate(1 / self.latency)
