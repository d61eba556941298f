"""What people and supervisors are told of buckets, stores and flows, and how a stop is heard."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
import typer
from structlog.testing import capture_logs

from s3flow import app, upkeep
from s3flow.commands import start
from s3flow.config import load
from s3flow.engine.daemon import Daemon
from s3flow.errors import (
    ConfigError,
    FlowChanged,
    S3flowError,
    StateError,
    TargetUnavailable,
    Throttled,
)
from s3flow.events import BucketFailed, ThrottleChanged, Warned
from s3flow.observe.logs import LogEvents
from s3flow.observe.metrics import Metrics
from s3flow.operations import forget_flow
from s3flow.process import Ending
from tests.faults import Call, Faulty
from tests.unit.lab import Lab


def test_a_warning_for_every_object_does_not_fill_the_log() -> None:
    structlog.reset_defaults()
    with capture_logs() as entries:
        tell = LogEvents(clock=lambda: 1.0)
        for number in range(10_000):
            tell(Warned("flow", f"{number} was not adopted"))
    assert 1 < len(entries) <= 100


def test_a_bucket_that_cannot_be_listed_is_counted() -> None:
    metrics = Metrics()
    for _ in range(3):
        metrics(BucketFailed("flow", "bucket", "access_denied", "no"))
    text = metrics.render().decode()
    assert 's3flow_scan_failures_total{flow="flow",reason="access_denied"} 3.0' in text


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (ExceptionGroup("", [ExceptionGroup("", [StateError("I/O")])]), Ending.INTERRUPTED),
        (ExceptionGroup("", [FlowChanged("x")]), Ending.USAGE),
        (TargetUnavailable("not mounted yet"), Ending.INTERRUPTED),
        (StateError("not a database"), Ending.USAGE),
        (ConfigError("x"), Ending.USAGE),
    ],
)
def test_a_disk_that_breaks_during_the_run_is_no_fault_of_the_configuration(
    error: S3flowError, ending: Ending
) -> None:
    # A supervisor does not start again what ended as misconfigured.
    with pytest.raises(typer.Exit) as caught:
        start.fail(error)
    assert caught.value.exit_code == ending


@pytest.mark.timeout(30)
async def test_a_stop_ends_the_search_for_leftovers_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def sweep(*args: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    async def finished(self: Daemon, *, once: bool) -> None:
        await begun.wait()

    monkeypatch.setattr(upkeep, "sweep", sweep)
    monkeypatch.setattr(Daemon, "run", finished)
    (tmp_path / "config.toml").write_text('[daemon]\nstate = "sqlite:///state.db"\n')
    work = app.Work(load(tmp_path / "config.toml"), [], once=True)
    running = asyncio.create_task(work.run())
    await begun.wait()
    await asyncio.sleep(0.2)  # all but the search has ended by now
    work.stop.set()
    ending, _ = await running
    assert ending is Ending.DONE


async def test_the_endpoint_that_asks_to_slow_down_is_named(tmp_path: Path) -> None:
    class Asking(Faulty):
        asked = 0

        async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
            self.asked += call.method == "put_object"
            if call.method == "put_object" and self.asked == 1:
                raise Throttled("slow down", endpoint="dst")
            return await go()

    lab = Lab(tmp_path)
    for number in range(20):
        lab.put(b"%d" % number, 10)
    lab.target = Asking(lab.dst)
    await lab.sync()
    assert {event.endpoint for event in lab.of(ThrottleChanged)} == {"dst"}


async def test_forgetting_a_flow_that_nobody_knows_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('[daemon]\nstate = "sqlite:///state.db"\n')
    settings = load(tmp_path / "config.toml")
    lab = Lab(tmp_path)
    lab.put(b"1", 10)
    await lab.sync()
    with pytest.raises(ConfigError, match=r"'folw'.*flow"):
        await forget_flow(settings, "folw")
    await forget_flow(settings, "flow")
    assert await lab.totals() == []
