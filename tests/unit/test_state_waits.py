"""States that cannot be written, and waits that must end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from s3flow.engine import daemon as daemon_module
from s3flow.engine import recorder as recorder_module
from s3flow.engine import retry
from s3flow.engine import worker as worker_module
from s3flow.errors import ConnectionLost, StateError
from s3flow.events import Retried, Warned
from s3flow.model import Outcome
from tests.faults import Call, Faulty, Raising, Throttling
from tests.unit.lab import PARTS, QUICK, Lab


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


# --- a state that cannot be written ----------------------------------------------------------


class FullState(Faulty):
    """Some methods of the state fail while *full*."""

    def __init__(self, inner: Any, *methods: str) -> None:
        super().__init__(inner)
        self.methods = methods
        self.left = 10**9

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        if call.method in self.methods and self.left > 0:
            self.left -= 1
            raise StateError("database or disk is full")
        return await go()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("again", [False, True])
async def test_a_stop_ends_although_the_state_cannot_be_written(
    lab: Lab, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    monkeypatch.setattr(recorder_module, "STATE_RETRY", 0.01)
    monkeypatch.setattr(daemon_module, "LAST_WRITE", 0.1)
    lab.pace = replace(QUICK, drain_timeout=3600.0 if again else 0.2)
    lab.put(b"1", 10)
    lab.wrap_state = lambda state: FullState(state, "save")

    def watch(event: object) -> None:
        if isinstance(event, Warned):
            lab.stop.set()
            if again:
                lab.abandon.set()

    lab.subscribers.append(watch)
    counted = await lab.sync()
    assert counted == {Outcome.PENDING: 1}
    lab.wrap_state, lab.pace = (lambda state: state), QUICK
    lab.abandon.clear()
    lab.subscribers.clear()
    assert await lab.sync() == {Outcome.VERIFIED: 1}


async def test_a_full_state_fails_no_object_whose_upload_begins(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "STATE_RETRY", 0.001)
    lab.change(**PARTS)
    for number in range(5):
        lab.put(b"%d" % number, 3000)

    def full(state: Any) -> Any:
        made = FullState(state, "remember_upload")
        made.left = 40
        return made

    lab.wrap_state = full
    assert await lab.sync() == {Outcome.VERIFIED: 5}
    assert lab.differences() == []
    assert lab.uploads() == []


async def test_an_upload_that_cannot_be_forgotten_does_not_end_the_daemon(lab: Lab) -> None:
    lab.put(b"1", 10)
    lab.wrap_state = lambda state: FullState(state, "uploads_removed")

    class Abandoned(Faulty):
        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            if call.method == "abandoned_uploads":
                return [("from", b"1", "gone")]
            return await go()

    inner = lab.wrap_state
    lab.wrap_state = lambda state: Abandoned(inner(state))
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert any("gone" in event.message for event in lab.of(Warned))


# --- waiting ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["source", "target"])
@pytest.mark.timeout(30)
async def test_a_store_that_asks_for_years_is_asked_again_in_minutes(
    lab: Lab, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "LONGEST_WISH", 0.02)
    for number in range(3):
        lab.put(b"%d" % number, 10)
    setattr(lab, end, Throttling(getattr(lab, end), every=1, times=2, retry_after=999_999_999.0))
    assert await lab.sync() == {Outcome.VERIFIED: 3}


@pytest.mark.timeout(30)
async def test_a_clock_that_was_years_ahead_leaves_nobody_waiting(lab: Lab) -> None:
    lab.put(b"1", 10)
    years = 10 * 365 * 86_400.0
    lab.source = Raising(lab.src, ConnectionLost("x"), lambda call: call.method == "get_object")
    lab.stop_at(Retried)
    lab.pace = replace(QUICK, backoff=retry.Backoff(years, years))
    assert await lab.sync() == {Outcome.PENDING: 1}
    lab.source, lab.pace = lab.src, QUICK
    lab.subscribers.clear()
    assert await lab.sync() == {Outcome.VERIFIED: 1}
