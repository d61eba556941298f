"""A flow that moves, and what its tests ask of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine import deleter
from s3flow.model import State
from s3flow.policies import Mode
from s3flow.records import Audited
from s3flow.state.sqlite import open_sqlite
from tests.faults import Call, Faulty
from tests.unit.lab import Lab


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr(deleter, "LINGER", 0.01)
    monkeypatch.setattr(deleter, "LOOK_AGAIN", 0.01)
    lab = Lab(tmp_path)
    lab.change(mode=Mode.MOVE)
    return lab


def put_some(lab: Lab, count: int = 5) -> dict[bytes, bytes]:
    return {key: lab.put(key, 10 + n) for n in range(count) if (key := b"key %03d" % n)}


def arrived(lab: Lab, data: dict[bytes, bytes]) -> bool:
    return {key: lab.copy_of(key) for key in data} == data


async def facts(lab: Lab) -> list[Audited]:
    state = await open_sqlite(lab.folder / "state.db", read_only=True)
    try:
        return await state.audit(lab.flow.name)
    finally:
        await state.close()


async def kept(lab: Lab) -> dict[str, int]:
    found = [one for one in await lab.totals() if one.state is State.VERIFIED and one.objects]
    return {one.reason: one.objects for one in found}


async def retry(lab: Lab) -> int:
    state = await open_sqlite(lab.folder / "state.db")
    try:
        return await state.retry(lab.flow.name, None)
    finally:
        await state.close()


class Before(Faulty):
    """Does something before a call of one method, once."""

    def __init__(self, inner: Any, method: str, what: Callable[[], object]) -> None:
        super().__init__(inner)
        self.method, self.what, self.done = method, what, False

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method == self.method and not self.done:
            self.done = True
            self.what()
        return await go()
