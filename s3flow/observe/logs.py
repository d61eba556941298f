"""Logging: JSON lines or a console; events become entries at a bounded rate."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog

from s3flow import events
from s3flow.model import State, Transfer
from s3flow.observe.redact import Redactor
from s3flow.policies import CopyBy

# At DEBUG these print Authorization headers and the bodies of STS answers (botocore#2626).
_TALKATIVE = ("aiohttp", "asyncio", "boto3", "urllib3")
# A refusal of theirs that cannot be read is a WARNING with all of it, keys included; we tell of it too.
_INDISCREET = ("aiobotocore", "botocore")
_WINDOW = 10.0  # seconds that a limit on similar entries is counted over


class _Stderr(logging.StreamHandler[TextIO]):
    """Writes to what sys.stderr is now: a live display puts itself there to keep lines above it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]  # an attribute there
        return sys.stderr


def configure(log_format: str, level: str, secrets: Iterable[str] = ()) -> None:
    """Set up logging for the process, once more if called again.

    *log_format* is "json", "console" or "auto" (console on a terminal); *level* a name of
    logging's; *secrets* values that must never be shown.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    console = log_format == "console" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[Callable[..., Any]] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    renderer = (
        structlog.dev.ConsoleRenderer(colors=_takes_colours())
        if console
        else structlog.processors.JSONRenderer()
    )
    handler = _Stderr()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                Redactor(secrets),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    for old in [one for one in root.handlers if isinstance(one, _Stderr)]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(number)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(number, logging.INFO))
    for name in _INDISCREET:
        logging.getLogger(name).setLevel(max(number, logging.ERROR))


def _takes_colours() -> bool:
    """Say whether stderr is a terminal with colours; https://no-color.org asks for any value but ""."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") in ("dumb", "unknown")
    return sys.stderr.isatty() and not plain


class _Pace:
    """Lets *most* entries of a kind through in each window, and counts the rest."""

    __slots__ = ("_clock", "_kinds", "_most")

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._kinds: dict[tuple[str, ...], list[float]] = {}  # window's begin, passed, held back

    def admit(self, *kind: str) -> int | None:
        """Give how many were held back before this one, or None to hold it back too."""
        now = self._clock()
        window = self._kinds.get(kind)
        if window is None or now - window[0] >= _WINDOW:
            held = int(window[2]) if window else 0
            self._kinds[kind] = [now, 1.0, 0.0]
            return held
        if window[1] < self._most:
            window[1] += 1
            return 0
        window[2] += 1
        return None


class LogEvents:
    """Logs events; subscribe it with `events.fan_out`. *debug*: say every object's end too.

    Failures and retries of one reason, and a flow's warnings, are logged up to a limit each ten
    seconds, and the next entry says how many were left out: status and metrics count them all.
    """

    def __init__(self, *, debug: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = structlog.get_logger("s3flow")
        self._debug = debug
        self._failures = _Pace(50, clock)
        self._retries = _Pace(5, clock)
        self._keeps = _Pace(5, clock)
        self._throttles = _Pace(1, clock)
        self._warnings = _Pace(50, clock)
        self._holds = _Pace(1, clock)
        self.told: dict[type, Callable[..., None]] = {
            events.ScanStarted: self._scan_started,
            events.ScanFinished: self._scan_finished,
            events.ListingKept: self._listing_kept,
            events.BucketFailed: self._bucket_failed,
            events.TransferEnded: self._ended,
            events.Retried: self._retried,
            events.ThrottleChanged: self._throttle_changed,
            events.FlowBlocked: self._flow_blocked,
            events.FlowUnblocked: self._flow_unblocked,
            events.DeletesHeld: self._deletes_held,
            events.DeletesResumed: self._deletes_resumed,
            events.Kept: self._kept,
            events.UploadAborted: self._upload_aborted,
            events.RouteDecided: self._route_decided,
            events.LoopHeld: self._loop_held,
            events.Warned: self._warned,
            events.WorkerStarted: self._worker_started,
            events.WorkerEnded: self._worker_ended,
        }
        if debug:
            self.told[events.PageMerged] = self._page_merged

    def __call__(self, event: events.Event) -> None:
        """Log *event* if it is worth a line."""
        told = self.told.get(type(event))
        if told is not None:
            told(event)

    def _scan_started(self, event: events.ScanStarted) -> None:
        self._log.info("scan resumed" if event.resumed else "scan started", flow=event.flow)

    def _listing_kept(self, event: events.ListingKept) -> None:
        when = datetime.fromtimestamp(event.finished, UTC).isoformat(timespec="seconds")
        self._log.info(
            "an interrupted run goes on, its listing is kept", flow=event.flow, listed=when
        )

    def _scan_finished(self, event: events.ScanFinished) -> None:
        self._log.info(
            "scan finished", flow=event.flow, listed=event.listed, seconds=round(event.seconds, 3)
        )

    def _page_merged(self, event: events.PageMerged) -> None:
        fields = event._asdict()
        del fields["decided"], fields["refused"]
        self._log.debug("page merged", **fields)

    def _bucket_failed(self, event: events.BucketFailed) -> None:
        # A NamedTuple's "message" field; the constant string is the entry's own.
        self._log.error(
            "bucket cannot be listed",
            flow=event.flow,
            bucket=event.bucket,
            reason=event.reason,
            message=event.message,
        )

    def _ended(self, event: events.TransferEnded) -> None:
        change = event.change
        if change.state is State.FAILED:
            held = self._failures.admit(change.transfer.flow, change.reason)
            if held is not None:
                self._log.error(
                    "transfer failed",
                    **_object(change.transfer),
                    reason=change.reason,
                    message=change.message,
                    attempts=change.attempts,
                    **_held(held),
                )
        elif self._debug:
            self._log.debug(
                "transfer ended",
                **_object(change.transfer),
                state=change.state.value,
                reason=change.reason,
                method=change.method,
                proof=change.proof,
                seconds=round(event.seconds, 4),
            )

    def _retried(self, event: events.Retried) -> None:
        held = self._retries.admit(event.transfer.flow, event.reason)
        if held is not None:
            self._log.warning(
                "transfer will be tried again",
                **_object(event.transfer),
                reason=event.reason,
                message=event.message,
                attempts=event.transfer.attempts,
                delay=round(event.delay, 3),
                **_held(held),
            )

    def _throttle_changed(self, event: events.ThrottleChanged) -> None:
        if not event.throttled:
            if self._debug:
                self._log.debug(
                    "pace raised", endpoint=event.endpoint, concurrency=event.concurrency
                )
            return
        held = self._throttles.admit(event.endpoint)
        if held is not None:
            self._log.warning(
                "endpoint asks to slow down",
                endpoint=event.endpoint,
                concurrency=event.concurrency,
                **_held(held),
            )

    def _flow_blocked(self, event: events.FlowBlocked) -> None:
        self._log.error(
            "flow is blocked",
            flow=event.flow,
            reason=event.reason,
            message=event.message,
            retry_after=event.retry_after,
        )

    def _flow_unblocked(self, event: events.FlowUnblocked) -> None:
        self._log.info("flow goes on", flow=event.flow, reason=event.reason)

    def _deletes_held(self, event: events.DeletesHeld) -> None:
        say = self._log.error if event.reason == "circuit_breaker" else self._log.warning
        say(
            "no source is deleted, copies go on",
            flow=event.flow,
            reason=event.reason,
            message=event.message,
            remedy=f"s3flow release {event.flow}",
        )

    def _deletes_resumed(self, event: events.DeletesResumed) -> None:
        self._log.info("sources are deleted again", flow=event.flow)

    def _kept(self, event: events.Kept) -> None:
        change = event.change
        held = self._keeps.admit(change.transfer.flow, change.reason)
        if held is not None:
            self._log.warning(
                "source stays, its copy is proven",
                **_object(change.transfer),
                reason=change.reason,
                message=change.message,
                **_held(held),
            )

    def _upload_aborted(self, event: events.UploadAborted) -> None:
        self._log.info("unfinished upload removed", flow=event.flow, upload_id=event.upload_id)

    def _route_decided(self, event: events.RouteDecided) -> None:
        flow, bucket, what, way, reason, *_ = event.verdict
        # That they are streamed is told with what it means, as a warning.
        if way != CopyBy.STREAMED:
            self._log.info(
                "copied inside the store",
                flow=flow,
                bucket=bucket,
                what=what,
                by=way,
                reason=reason,
            )

    def _loop_held(self, event: events.LoopHeld) -> None:
        held = self._holds.admit(event.place)
        if held is not None:
            self._log.warning(
                "the event loop was held",
                seconds=round(event.seconds, 3),
                place=event.place,
                at=event.at,
                **_held(held),
            )

    def _warned(self, event: events.Warned) -> None:
        held = self._warnings.admit(event.flow)
        if held is not None:
            self._log.warning("attention", flow=event.flow, message=event.message, **_held(held))

    def _worker_started(self, event: events.WorkerStarted) -> None:
        self._log.info("worker process started", worker=event.worker, pid=event.pid)

    def _worker_ended(self, event: events.WorkerEnded) -> None:
        self._log.error(
            "worker process died",
            worker=event.worker,
            how=event.how,
            returned=event.returned,
            delay=event.delay,
        )


def _object(transfer: Transfer) -> dict[str, str | bytes | int]:
    return {
        "flow": transfer.flow,
        "bucket": transfer.bucket,
        "key": transfer.key,
        "size": transfer.size,
    }


def _held(number: int) -> dict[str, int]:
    return {"left_out": number} if number else {}
