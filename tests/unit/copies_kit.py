"""Two accounts of one service, between which a store copies by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.errors import AccessDenied
from tests.faults import Call, Faulty, Raising, Recording
from tests.unit.lab import Lab, store

SIZE, COUNT = 9500, 10
COPIES = {"copy_object", "upload_part_copy"}


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """Give a lab whose stores are two accounts of one service."""
    src = store("src", "from")
    made = Lab(tmp_path, src, store("dst", "to", beside=src))
    made.change(part_size=1000, lanes=2)
    return made


def watched(lab: Lab) -> tuple[Recording, Recording]:
    """Record the calls of both sides."""
    lab.source, lab.target = Recording(lab.source), Recording(lab.target)
    return lab.source, lab.target


def calls(recording: Recording) -> Counter[str]:
    return Counter(call.method for call in recording.calls)


def rated(lab: Lab) -> int:
    """Give the bytes that rates are made of."""
    assert lab.daemon is not None
    flow = lab.daemon.flows["flow"]
    return flow.done.bytes + flow.route.passed


def refusing(inner: Any, error: Exception = AccessDenied("no (403)")) -> Recording:  # noqa: B008
    """Give a store that makes no copies."""
    return Recording(Raising(inner, error, lambda call: call.method in COPIES))


class WrittenOver(Faulty):
    """A store where somebody writes *data* over the object "a" once *method* has made it."""

    def __init__(self, inner: Any, method: str, data: bytes) -> None:
        super().__init__(inner)
        self.method, self.left = method, [data]

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        stored = await go()
        if call.method == self.method and self.left:
            self.inner.put("to", b"a", self.left.pop())
        return stored
