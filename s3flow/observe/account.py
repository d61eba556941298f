"""The report of a run as data: what programs read, and what the report for people is written from."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypedDict

from s3flow import __version__
from s3flow.model import OUTCOMES, Flow, Method, Outcome, State
from s3flow.observe.progress import FlowSnapshot
from s3flow.observe.tally import NOTHING, Failure, FlowTally, Named, Share, merged
from s3flow.policies import CopyBy, MethodPolicy

FORMAT = 1  # raised when a field changes its meaning
STREAMED = frozenset({Method.PUT.value, Method.MULTIPART.value})
PERCENTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}


class ShareAccount(TypedDict):
    """Objects and bytes of one kind, and their part of the whole; *share* is 0 to 1."""

    objects: int
    bytes: int
    share: float


class ObjectAccount(TypedDict):
    """A transferred object that stands out. *key* is readable; *key_hex* exact, where it is not UTF-8."""

    bucket: str
    key: str
    key_hex: str | None
    size: int
    seconds: float
    method: str


class FailureAccount(TypedDict):
    """A failed object; the key as in `ObjectAccount`."""

    bucket: str
    key: str
    key_hex: str | None
    reason: str
    message: str


class RouteAccount(TypedDict):
    """Which way the objects of a bucket go, or those in parts, and why."""

    bucket: str
    what: str
    way: str
    reason: str
    decided: str


class StreamedAccount(TypedDict):
    """What did not go inside the store, and why as far as it is known."""

    objects: int
    bytes: int
    share: float
    why: list[str]


class Figures(TypedDict):
    """What was done in a time. Files were transferred unless they were adopted, skipped or failed."""

    started: str
    ended: str
    duration_ms: int
    files_processed: int
    succeeded: int
    transferred: int
    adopted: int
    skipped: int
    failed: int
    deleted_at_source: int  # of those that were verified, now or before
    bytes: int
    bytes_adopted: int
    average_size: float
    files_per_s: float
    megabytes_per_s: float
    scans_finished: int
    listed: int
    unchanged: int
    methods: dict[str, ShareAccount]
    proofs: dict[str, ShareAccount]
    streamed: StreamedAccount
    skip_reasons: dict[str, int]
    failure_reasons: dict[str, int]
    failures: list[FailureAccount]
    retries: dict[str, int]
    throttles: dict[str, int]
    blocked: dict[str, int]
    seconds: dict[str, float | None]
    slowest: list[ObjectAccount]
    largest: list[ObjectAccount]


class FlowAccount(Figures):
    """One flow: what was done, what troubled it, and where it stands by the state."""

    name: str
    source: str
    target: str
    routes: list[RouteAccount]
    unlisted_buckets: dict[str, str]
    warnings: dict[str, int]
    warnings_left_out: int
    state: dict[str, int]
    state_bytes: dict[str, int]
    sources_kept: dict[str, int]  # by reason: proven copies whose sources had to stay
    listed_to_the_end: bool


class Account(TypedDict):
    """A whole report."""

    format: int
    s3flow: str
    host: str
    command: str
    ending: str
    exit_code: int | None
    interrupted: bool
    error: str
    total: Figures
    flows: list[FlowAccount]
    loop_holds: int
    loop_held_seconds: float
    worker_deaths: dict[str, int]


class End(NamedTuple):
    """How what is reported came about and ended; *code*: the exit status, None while running."""

    command: str
    ending: str
    code: int | None = None
    interrupted: bool = False
    error: str = ""


def account(
    end: End,
    tallies: Sequence[FlowTally],
    flows: Mapping[str, Flow],
    snapshots: Mapping[str, FlowSnapshot],
    why_streamed: Mapping[str, str],
) -> Account:
    """Put a report together; *why_streamed* says by flow why it could not be otherwise, or nothing."""
    total = merged(tallies)
    accounts = [
        _flow_account(one, flows[one.flow], snapshots.get(one.flow), why_streamed.get(one.flow))
        for one in tallies
    ]
    why = [reason for one in accounts for reason in one["streamed"]["why"]]
    return Account(
        format=FORMAT,
        s3flow=__version__,
        host=socket.gethostname(),
        command=end.command,
        ending=end.ending,
        exit_code=end.code,
        interrupted=end.interrupted,
        error=end.error,
        total=_figures(total, list(dict.fromkeys(why))),
        flows=accounts,
        loop_holds=total.holds.times,
        loop_held_seconds=round(total.holds.seconds, 3),
        worker_deaths=total.deaths,
    )


def why_streamed(flow: Flow, source: str, target: str) -> str:
    """Say why nothing of a flow is copied inside a store, "" if it may be; the services of its ends."""
    if flow.method is MethodPolicy.STREAM_ONLY:
        return 'the flow says so: method = "stream-only"'
    if not target:
        return f"{flow.target.endpoint} is a folder"
    if source != target:
        return f"{flow.source.endpoint} and {flow.target.endpoint} are two services"
    return ""


def _flow_account(
    tally: FlowTally, flow: Flow, snapshot: FlowSnapshot | None, policy: str | None
) -> FlowAccount:
    streamed = [one for one in tally.routes if one.way == CopyBy.STREAMED]
    why = [f"{one.what} of {one.bucket}: {one.reason}" for one in streamed]
    if policy and not why:
        why = [policy]
    return FlowAccount(
        **_figures(tally, why),
        name=flow.name,
        source=str(flow.source),
        target=str(flow.target),
        routes=[
            RouteAccount(
                bucket=one.bucket,
                what=one.what,
                way=str(one.way),
                reason=one.reason,
                decided=_iso(one.decided),
            )
            for one in tally.routes
        ],
        unlisted_buckets=dict(tally.unlisted),
        warnings=dict(tally.notes),
        warnings_left_out=tally.notes_left_out,
        state=snapshot.objects.as_json() if snapshot else {},
        state_bytes=snapshot.bytes.as_json() if snapshot else {},
        sources_kept=dict(snapshot.kept) if snapshot else {},
        listed_to_the_end=bool(
            snapshot and snapshot.scan and snapshot.scan.finished and not snapshot.scan.unfinished
        ),
    )


def _figures(tally: FlowTally, why: list[str]) -> Figures:
    done = _summed(tally, lambda fate: OUTCOMES[fate.state])
    deleted = done.pop(Outcome.DELETED, NOTHING)  # it was verified first, and counted as that
    succeeded = done.get(Outcome.VERIFIED, NOTHING)
    methods = _summed(tally, lambda fate: fate.method if fate.state is State.VERIFIED else "")
    proofs = _summed(tally, lambda fate: fate.proof if fate.state is State.VERIFIED else "")
    adopted = methods.get(Method.ADOPTED, NOTHING)
    moved = succeeded.plus(-adopted.objects, -adopted.bytes)
    seconds = max(tally.ended - tally.began, 0.001)
    streamed = NOTHING
    for method in STREAMED & methods.keys():
        streamed = streamed.plus(*methods[method])
    durations: dict[str, float | None] = {
        name: _rounded(tally.percentile(share)) for name, share in PERCENTILES.items()
    }
    durations["max"] = _rounded(tally.longest) if any(tally.durations) else None
    return Figures(
        started=_iso(tally.began),
        ended=_iso(tally.ended),
        duration_ms=round(seconds * 1000),
        files_processed=sum(share.objects for share in done.values()),
        succeeded=succeeded.objects,
        transferred=moved.objects,
        adopted=adopted.objects,
        skipped=done.get(Outcome.SKIPPED, NOTHING).objects,
        failed=done.get(Outcome.FAILED, NOTHING).objects,
        deleted_at_source=deleted.objects,
        bytes=moved.bytes,
        bytes_adopted=adopted.bytes,
        average_size=round(moved.bytes / moved.objects, 1) if moved.objects else 0.0,
        files_per_s=round(moved.objects / seconds, 3),
        megabytes_per_s=round(moved.bytes / seconds / 1_000_000, 3),
        scans_finished=tally.scans,
        listed=tally.listed,
        unchanged=max(0, tally.listed - tally.new - tally.changed),
        methods=_shares(methods, succeeded),
        proofs=_shares(proofs, succeeded),
        streamed=StreamedAccount(
            objects=streamed.objects,
            bytes=streamed.bytes,
            share=_part(streamed.objects, moved.objects),
            why=why if streamed.objects else [],
        ),
        skip_reasons=_reasons(tally, Outcome.SKIPPED),
        failure_reasons=_reasons(tally, Outcome.FAILED),
        failures=[_failure(one) for one in tally.failures],
        retries=_most_first(tally.retries),
        throttles=_most_first(tally.throttles),
        blocked=_most_first(tally.blocks),
        seconds=durations,
        slowest=_objects(tally.slowest),
        largest=_objects(tally.largest),
    )


def _summed(tally: FlowTally, by: Callable[..., str]) -> dict[str, Share]:
    """Sum up by what *by* says of a fate; nothing without a name is summed."""
    sums: dict[str, Share] = {}
    for fate, share in tally.fates.items():
        name = by(fate)
        if name:
            sums[name] = sums.get(name, NOTHING).plus(*share)
    return sums


def _shares(sums: Mapping[str, Share], whole: Share) -> dict[str, ShareAccount]:
    ordered = sorted(sums.items(), key=lambda item: (-item[1].objects, item[0]))
    return {
        str(name): ShareAccount(
            objects=share.objects, bytes=share.bytes, share=_part(share.objects, whole.objects)
        )
        for name, share in ordered
    }


def _reasons(tally: FlowTally, outcome: Outcome) -> dict[str, int]:
    counts: dict[str, int] = {}
    for fate, share in tally.fates.items():
        if OUTCOMES[fate.state] is outcome:
            counts[fate.reason] = counts.get(fate.reason, 0) + share.objects
    return _most_first(counts)


def _most_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _objects(named: Iterable[Named]) -> list[ObjectAccount]:
    return [
        ObjectAccount(
            bucket=one.bucket,
            key=_readable(one.key),
            key_hex=_hex(one.key),
            size=one.size,
            seconds=round(one.seconds, 6),
            method=one.method,
        )
        for one in sorted(named, reverse=True)
    ]


def _failure(one: Failure) -> FailureAccount:
    return FailureAccount(
        bucket=one.bucket,
        key=_readable(one.key),
        key_hex=_hex(one.key),
        reason=one.reason,
        message=one.message,
    )


def _readable(key: bytes) -> str:
    return key.decode(errors="backslashreplace")


def _hex(key: bytes) -> str | None:
    try:
        key.decode()
    except UnicodeDecodeError:
        return key.hex()
    return None


def _part(part: int, whole: int) -> float:
    return round(part / whole, 6) if whole else 0.0


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
