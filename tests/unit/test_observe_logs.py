"""Logs: one line an entry, no secret in any of them, and no flood."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3flow import events
from s3flow.model import Change, Sample, State, Total, Transfer
from s3flow.observe.logs import LogEvents, configure
from s3flow.observe.progress import Thawing, snapshot
from s3flow.observe.redact import HIDDEN, Redactor
from s3flow.observe.standing import ProgressLine, tell_stop
from tests.unit.test_observe_metrics import transfer
from tests.unit.test_observe_progress import FLOW, NOW

CANARY = 'canary/8c1+f0"b='

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def lines(capture: Capture) -> list[dict[str, Any]]:
    """Give the entries that were written as JSON since the last call."""
    captured = capture.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_entries_are_json_lines(capsys: Capture) -> None:
    configure("json", "info")
    structlog.get_logger("s3flow").info("scan finished", flow="docs", listed=3)
    logging.getLogger("other").warning("plain %s", "logging")
    first, second = lines(capsys)
    assert first.pop("timestamp").endswith("Z")
    assert first == {
        "event": "scan finished",
        "flow": "docs",
        "listed": 3,
        "level": "info",
        "logger": "s3flow",
    }
    assert (second["event"], second["level"]) == ("plain logging", "warning")


def test_auto_is_json_without_a_terminal(capsys: Capture) -> None:
    configure("auto", "info")
    structlog.get_logger("s3flow").info("hello")
    assert lines(capsys)[0]["event"] == "hello"


def test_configuring_again_replaces(capsys: Capture) -> None:
    configure("json", "info")
    configure("json", "warning")
    log = structlog.get_logger("s3flow")
    log.info("no")
    log.warning("yes")
    assert [entry["event"] for entry in lines(capsys)] == ["yes"]


def test_talkative_libraries_never_log_at_debug(capsys: Capture) -> None:
    configure("json", "debug")
    for name in ("botocore", "botocore.auth", "aiobotocore.endpoint", "aiohttp.client", "urllib3"):
        logging.getLogger(name).debug("Authorization: %s", CANARY)
    logging.getLogger("s3flow.x").debug("ours")
    assert [entry["event"] for entry in lines(capsys)] == ["ours"]
    configure("json", "error")
    logging.getLogger("botocore").warning("too quiet for this")
    assert lines(capsys) == []


# --- secrets --------------------------------------------------------------------------------------


def fail_with(text: str) -> None:
    """Raise an error that has *text* in itself and in its cause."""
    raise RuntimeError(f"wrapped {text}") from KeyError(text)


def spread_a_secret(secret: str) -> None:
    """Log *secret* in every way that entries offer."""
    log = structlog.get_logger("s3flow")
    log.info(f"message with {secret}")  # noqa: G004 -- what a careless caller would do
    log.info("field", key=f"a/{secret}/b", note=secret.encode())
    log.info("nested", headers={"x": [secret, {"y": secret}]}, pair=(1, secret))
    log.info("url", url=f"http://h/?X-Amz-Security-Token={quote(secret, safe='')}")
    log.info("object", thing=ValueError(secret))
    logging.getLogger("other").warning("argument %s", secret)
    logging.getLogger("other").warning("extra", extra={"note": secret})
    try:
        fail_with(secret)
    except RuntimeError:
        log.exception("ours failed")
        logging.getLogger("other").exception("theirs failed")


@pytest.mark.parametrize("form", ["json", "console"])
def test_secrets_never_appear(capsys: Capture, form: str) -> None:
    configure(form, "debug", [CANARY])
    spread_a_secret(CANARY)
    written = capsys.readouterr().err
    assert "theirs failed" in written
    assert "RuntimeError" in written
    for shape in (CANARY, quote(CANARY, safe=""), quote(CANARY), json.dumps(CANARY)[1:-1]):
        assert shape not in written
    assert "8c1" not in written
    assert HIDDEN in written


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(secret=st.text(st.characters(codec="utf-8"), min_size=20, max_size=60))
def test_any_secret_is_hidden(capsys: Capture, secret: str) -> None:
    configure("json", "info", [secret])
    structlog.get_logger("s3flow").info("field", note=f"<{secret}>", more={"x": [secret]})
    [entry] = lines(capsys)
    assert entry["note"] == f"<{HIDDEN}>"
    assert entry["more"] == {"x": [HIDDEN]}


@pytest.mark.parametrize(
    "name",
    ["authorization", "Authorization", "secret_access_key", "x-amz-security-token", "password"],
)
def test_fields_with_telling_names_go_whole(capsys: Capture, name: str) -> None:
    configure("json", "info")
    structlog.get_logger("s3flow").info("request", headers={name: "value-1"}, **{name: "value-1"})
    [entry] = lines(capsys)
    assert entry[name] == entry["headers"][name] == HIDDEN


def test_signatures_in_text_are_hidden() -> None:
    scrub = Redactor([]).scrub
    signed = "AWS4-HMAC-SHA256 Credential=A/b, SignedHeaders=host, Signature=0a1b2c"
    assert scrub(signed).endswith(f"Signature={HIDDEN}")
    url = scrub("https://h/k?X-Amz-Signature=abc&X-Amz-Security-Token=def&partNumber=1")
    assert "abc" not in url
    assert "def" not in url
    assert url.endswith("&partNumber=1")


# --- keys -----------------------------------------------------------------------------------------

HOSTILE = b'a\r\n{"event":"forged"}\x1b[2J\xe2\x80\xa8\xff' + b"x" * 2000


@pytest.mark.parametrize("form", ["json", "console"])
def test_keys_cannot_forge_lines(capsys: Capture, form: str) -> None:
    configure(form, "info")
    structlog.get_logger("s3flow").info("transfer failed", key=HOSTILE)
    logging.getLogger("other").warning("about %s", HOSTILE.decode(errors="replace"))
    written = capsys.readouterr().err
    assert len(written.splitlines()) == 2
    assert "\x1b" not in written
    assert "x" * 300 not in written


def test_exceptions_keep_their_lines_and_lose_their_escapes(capsys: Capture) -> None:
    configure("console", "info")
    try:
        fail_with("no such key: a\x1b[2Jb")
    except RuntimeError:
        structlog.get_logger("s3flow").exception("failed")
    written = capsys.readouterr().err
    assert "\x1b[2J" not in written
    assert "Traceback" in written
    assert written.count("\n") > 3


# --- events ---------------------------------------------------------------------------------------


class Watch:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def failed(reason: str = "access_denied") -> events.TransferEnded:
    change = Change(transfer(b"a\nb"), State.FAILED, reason, "403 from src", attempts=2)
    return events.TransferEnded(change, 1.0)


def test_failures_are_told_with_constant_messages(capsys: Capture) -> None:
    configure("json", "info")
    LogEvents()(failed())
    [entry] = lines(capsys)
    del entry["timestamp"]
    assert entry == {
        "event": "transfer failed",
        "level": "error",
        "logger": "s3flow",
        "flow": "docs",
        "bucket": "b",
        "key": "a\\nb",
        "size": 10,
        "reason": "access_denied",
        "message": "403 from src",
        "attempts": 2,
    }


def test_success_is_told_at_debug_only(capsys: Capture) -> None:
    configure("json", "debug")
    change = Change(transfer(), State.VERIFIED, method="put", proof="etag")
    LogEvents()(events.TransferEnded(change, 1.0))
    assert lines(capsys) == []
    LogEvents(debug=True)(events.TransferEnded(change, 1.0))
    [entry] = lines(capsys)
    assert (entry["event"], entry["level"], entry["proof"]) == ("transfer ended", "debug", "etag")


def test_floods_are_cut_and_counted(capsys: Capture) -> None:
    configure("json", "info")
    clock = Watch()
    log = LogEvents(clock=clock)
    for _ in range(120):
        log(failed())
    log(failed("archived"))
    assert [entry["reason"] for entry in lines(capsys)] == ["access_denied"] * 50 + ["archived"]
    clock.now = 11.0
    log(failed())
    assert lines(capsys)[0]["left_out"] == 70
    log(failed())
    assert "left_out" not in lines(capsys)[0]


def test_retries_and_throttles_are_paced(capsys: Capture) -> None:
    configure("json", "info")
    clock = Watch()
    log = LogEvents(clock=clock)
    for _ in range(20):
        log(events.Retried(transfer(), "stalled", "no bytes", 1.0))
        log(events.ThrottleChanged("src", 32, throttled=True))
        log(events.ThrottleChanged("src", 33, throttled=False))
    told = [entry["event"] for entry in lines(capsys)]
    assert told.count("transfer will be tried again") == 5
    assert told.count("endpoint asks to slow down") == 1
    assert len(told) == 6
    clock.now = 10.0
    log(events.ThrottleChanged("src", 16, throttled=True))
    assert lines(capsys)[0]["left_out"] == 19


@pytest.mark.parametrize(
    ("event", "message", "level"),
    [
        (events.ScanStarted("docs", resumed=False), "scan started", "info"),
        (events.ScanStarted("docs", resumed=True), "scan resumed", "info"),
        (events.ScanFinished("docs", 3, 1.0), "scan finished", "info"),
        (
            events.BucketFailed("docs", "b", "access_denied", "m"),
            "bucket cannot be listed",
            "error",
        ),
        (events.FlowBlocked("docs", "target_full", "m", 30.0), "flow is blocked", "error"),
        (events.FlowUnblocked("docs", "target_full"), "flow goes on", "info"),
        (events.UploadAborted("docs", "id"), "unfinished upload removed", "info"),
        (events.Warned("docs", "m"), "attention", "warning"),
    ],
)
def test_levels(capsys: Capture, event: events.Event, message: str, level: str) -> None:
    configure("json", "info")
    LogEvents()(event)
    [entry] = lines(capsys)
    assert (entry["event"], entry["level"], entry["flow"]) == (message, level, "docs")


def test_events_of_the_hot_path_say_nothing(capsys: Capture) -> None:
    configure("json", "debug")
    log = LogEvents(debug=True)
    moved: Transfer = transfer()
    for event in (
        events.TransferStarted(moved),
        events.BytesMoved("docs", 1),
        events.Recorded([Change(moved, State.VERIFIED)]),
    ):
        log(event)
    assert lines(capsys) == []


# --- progress -------------------------------------------------------------------------------------


async def test_progress_lines_stop_when_nothing_moves(capsys: Capture) -> None:
    configure("json", "info")
    work = [Sample(NOW - 1, 0, 0), Sample(NOW, 10, 1024)]
    waiting = Total("b", State.DISCOVERED, "", "", "", 10, 1024)
    done = Total("b", State.VERIFIED, "", "put", "etag", 10, 1024)
    line = ProgressLine()
    line([snapshot(FLOW, [done, waiting], work, {}, None, NOW)])
    [entry] = lines(capsys)
    assert entry["event"] == "progress"
    assert (entry["done"], entry["listed"], entry["percent"]) == (10, 20, "50%")
    assert (entry["rate"], entry["eta"]) == ("1.0 KiB/s", "1s")
    assert entry["states"] == {"verified": 10, "discovered": 10}
    asked = 0

    def same() -> list[Any]:
        nonlocal asked
        asked += 1
        return [snapshot(FLOW, [done, waiting], work, {}, None, NOW)]

    running = asyncio.create_task(line.run(same, 0.001))
    while asked < 3:
        await asyncio.sleep(0.001)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert lines(capsys) == []


def test_progress_tells_what_waits_for_a_restore_and_nothing_of_an_unlisted_flow(
    capsys: Capture,
) -> None:
    configure("json", "info")
    waiting = Total("b", State.RESTORING, "", "", "", 10, 1000)
    thawing = Thawing(10, 1000, NOW, NOW + 3600)
    line = ProgressLine()
    line([snapshot(FLOW, [], [], {}, None, NOW)])
    line([snapshot(FLOW, [waiting], [], {}, None, NOW, thawing=thawing)])
    [entry] = lines(capsys)
    assert (entry["thawing"], entry["thawing_bytes"]) == (10, 1000)
    assert entry["thaw_next"] == "2023-11-14T22:15:00+00:00"
    assert entry["thaw_last"] == "2023-11-14T23:15:00+00:00"


async def test_a_stop_is_told_when_it_comes_and_not_before(capsys: Capture) -> None:
    configure("json", "info")
    stop = asyncio.Event()
    telling = asyncio.create_task(tell_stop(stop, 20.0))
    await asyncio.sleep(0)
    assert lines(capsys) == []
    stop.set()
    await telling
    [entry] = lines(capsys)
    assert entry["event"].startswith("stopping")
    assert entry["at_most"] == 20.0


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({"NO_COLOR": "1"}, False)],
)
def test_colours_only_where_they_are_wanted(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], coloured: bool
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stderr", terminal)
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    configure("console", "info")
    structlog.get_logger("s3flow").info("scan finished")
    assert ("\x1b[" in terminal.getvalue()) is coloured


def test_who_holds_the_loop_is_logged_once_in_a_while(capsys: Capture) -> None:
    configure("json", "info")
    now = [0.0]
    log = LogEvents(clock=lambda: now[0])
    for _ in range(3):
        log(events.LoopHeld(0.0204, "s3flow.engine.plan.rivals", "s3flow.engine.plan:55 rivals"))
    log(events.LoopHeld(0.5, "json.loads", "json:1 loads"))
    now[0] = 11.0
    log(events.LoopHeld(0.03, "s3flow.engine.plan.rivals", "s3flow.engine.plan:55 rivals"))
    first, other, later = lines(capsys)
    assert first["event"] == "the event loop was held"
    assert (first["seconds"], first["at"]) == (0.02, "s3flow.engine.plan:55 rivals")
    assert other["place"] == "json.loads"
    assert later["left_out"] == 2
