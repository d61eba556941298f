"""What a transaction does to objects goes into the audit trail, and is counted for the newest scan."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Sequence

from s3flow.crashpoints import passing
from s3flow.errors import SourceGone
from s3flow.model import Change, State
from s3flow.records import Fact
from s3flow.state import audit, sql
from s3flow.state.audit import Fields, Happened, Head
from s3flow.state.steps import Bulk, Execute, Fetch, Insert, Steps, first

DETAIL_LIMIT = 1000  # characters
_FINAL = {
    sql.CODES[State.VERIFIED]: Fact.VERIFIED,
    sql.CODES[State.DELETED]: Fact.DELETED,
    sql.CODES[State.SKIPPED]: Fact.SKIPPED,
    sql.CODES[State.FAILED]: Fact.FAILED,
}
_COUNTED = (Fact.VERIFIED, Fact.ADOPTED, Fact.SKIPPED, Fact.FAILED, Fact.DELETED)
ADOPTED = "adopted"


def this_process() -> str:
    """Name this process as the trail does: host and process id."""
    return f"{socket.gethostname()}:{os.getpid()}"


class Trail:
    """The facts of one transaction, by flow. *process* is who writes; "": only counts are kept."""

    __slots__ = ("_facts", "_process", "_workers")

    def __init__(self, process: str) -> None:
        self._process = process
        self._workers: dict[int | None, str] = {}
        self._facts: dict[str, list[Fields]] = {}

    def ended(
        self, change: Change, bucket_id: int, state: int, size: int, method: str, proof: str
    ) -> None:
        """Take a change that leaves its object in the final *state*. Called for each object."""
        _, flow, bucket, key, _, etag, *_ = change.transfer
        worker, reason = change.worker, change.reason
        who = self._workers.get(worker)
        if who is None:
            number = "" if worker is None else f"/{worker}"
            who = self._workers[worker] = f"{self._process}{number}"
        facts = self._facts.get(flow)
        if facts is None:
            facts = self._facts[flow] = []
        facts.append(
            (
                fact_of(state, method, reason),
                bucket_id,
                bucket,
                key,
                size,
                etag,
                change.target_etag,
                change.version_id,
                method,
                proof,
                reason,
                change.message[:DETAIL_LIMIT],
                who,
            )
        )

    def note(self, flow: str, fact: Happened) -> None:
        """Take a fact that this process found by itself."""
        named = fact._replace(worker=self._process, detail=fact.detail[:DETAIL_LIMIT])
        self._facts.setdefault(flow, []).append(named)

    def write(self, now: int) -> Steps[None]:
        """Append all to their chains, and count them; in the transaction that they tell of."""
        for flow, facts in self._facts.items():
            if self._process:
                yield from _append(flow, facts, now)
            yield from _count(flow, facts)


def fact_of(state: int, method: str, reason: str) -> Fact:
    """Say what a final state means, with how and why it was reached."""
    fact = _FINAL[state]
    if fact is Fact.VERIFIED and method == ADOPTED:
        return Fact.ADOPTED
    if fact is Fact.SKIPPED and reason == SourceGone.reason:
        return Fact.VANISHED
    return fact


def _append(flow: str, facts: Sequence[Fields], now: int) -> Steps[None]:
    row = first((yield Fetch(sql.CHAIN, (flow,))))
    if row is None:
        chain_id, head = (yield Insert(sql.ADD_CHAIN, (flow, b""))), Head()
    else:
        chain_id, head = int(row[0]), Head(int(row[1]), bytes(row[2]).hex())
    rows, head = audit.seal(int(chain_id), flow, head, now, facts)
    yield Bulk(sql.ADD_AUDIT, rows)
    passing("audit.chained")
    yield Execute(sql.SET_CHAIN, (head.seq, bytes.fromhex(head.hash), chain_id))


def _count(flow: str, facts: Sequence[Fields]) -> Steps[None]:
    found = Counter([it[0] for it in facts])
    counts = [found[fact] for fact in _COUNTED]
    if not any(counts):
        return
    [(scan_id,)] = yield Fetch(sql.NEWEST_SCAN, (flow,))
    if scan_id is not None:
        moved = sum([it[4] for it in facts if it[0] is Fact.VERIFIED])
        yield Execute(sql.ADD_BATCH, (scan_id, *counts, moved))
