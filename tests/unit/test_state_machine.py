"""The state against a model of it in dictionaries, through random histories with restarts."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from s3flow.model import Change, Discovered, Flow, Listed, PageChanges, Place, State, Transfer
from s3flow.records import Fact
from s3flow.state import sql
from s3flow.state.audit import Check
from s3flow.state.sqlite import open_sqlite
from s3flow.state.store import SqlState

T = TypeVar("T")

FLOW = Flow("documents", Place("src", "*", b""), Place("dst", "{bucket}", b""))
KEYS = [b"A", b"a", b"a ", b"a\x00", b"caf\xc3\xa9", b"cafe\xcc\x81", b"\xff", b"z/", b"z//"]
PENDING = {state for state, code in sql.CODES.items() if code < sql.FIRST_FINAL}
FOR_WORKERS = PENDING - {State.RESTORE_REQUESTED, State.RESTORING}
FOUND = [State.DISCOVERED, State.SKIPPED, State.FAILED, State.VERIFIED]
TELLS = {
    "verified": State.VERIFIED,
    "skipped": State.SKIPPED,
    "vanished": State.SKIPPED,
    "failed": State.FAILED,
    "deleted": State.DELETED,
}
REASONS = ["", "stalled", "refused"]
Name = tuple[str, bytes]


@dataclass
class Model:
    """What a row is expected to say."""

    size: int
    etag: str
    state: State
    reason: str = ""
    generation: int = 1
    attempts: int = 0
    retry_at: int = 0
    upload_id: str | None = None
    dropped: tuple[str, ...] = ()
    claimed: Transfer | None = field(default=None, repr=False)


class StateMachine(RuleBasedStateMachine):
    """Each rule does the same to both; the invariants compare them."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp())
        self.now = 1_000.0
        self.rows: dict[Name, Model] = {}
        self.late: list[tuple[Name, Transfer]] = []
        self.pages = 0
        self.versions = 0
        self.state: SqlState = self.run(self._open())

    def run(self, work: Coroutine[object, object, T]) -> T:
        return self.runner.run(work)

    async def _open(self) -> SqlState:
        state = await open_sqlite(self.folder / "state.db", clock=lambda: self.now)
        await state.open_flow(FLOW)
        return state

    def teardown(self) -> None:
        self.run(self.state.close())
        self.runner.close()
        shutil.rmtree(self.folder)

    # --- what happens ---

    @rule(
        bucket=st.sampled_from(["one", "two"]),
        keys=st.sets(st.sampled_from(KEYS), min_size=1),
        state=st.sampled_from(FOUND),
        gone=st.sets(st.sampled_from(KEYS)),
    )
    def page(self, bucket: str, keys: set[bytes], state: State, gone: set[bytes]) -> None:
        self.versions += 1
        self.pages += 1
        reason = "refused" if state in {State.SKIPPED, State.FAILED} else ""
        changes = PageChanges(bucket, b"%08d" % self.pages, False, len(keys), 0)
        for key in sorted(keys):
            entry = Listed(key, self.versions, f"e{self.versions}", 0, "STANDARD")
            item = Discovered(entry, state, reason)
            old = self.rows.get((bucket, key))
            if old is None:
                changes.new.append(item)
                self.rows[bucket, key] = Model(entry.size, entry.etag, state, reason)
                continue
            changes.changed.append((self._id(bucket, key), item))
            begun = old.upload_id or old.state is State.TRANSFERRING
            marked = State.TRANSFERRING if begun and state is State.DISCOVERED else state
            self.rows[bucket, key] = Model(
                entry.size, entry.etag, marked, reason, old.generation + 1, claimed=old.claimed
            )
        for key in sorted(gone - keys):
            row = self.rows.get((bucket, key))
            if row is None:
                continue
            changes.vanished.append(self._id(bucket, key))
            if row.state is State.TRANSFERRING and not row.upload_id:
                continue  # it may have an upload that nobody knows
            if row.claimed is None and row.state in PENDING | {State.FAILED}:
                self.rows[bucket, key] = Model(
                    row.size, row.etag, State.SKIPPED, "source_gone", row.generation + 1
                )
        scan, _ = self.run(self.state.begin_scan("documents"))
        self.run(self.state.apply_page(scan, changes))

    @rule(limit=st.integers(1, 6))
    def claim(self, limit: int) -> None:
        free = {
            name
            for name, row in self.rows.items()
            if row.state in FOR_WORKERS and row.claimed is None and row.retry_at <= self.now * 1000
        }
        taken = self.run(self.state.claim("documents", limit))
        assert len(taken) == min(limit, len(free))
        names = [(it.bucket, it.key) for it in taken]
        assert len(set(names)) == len(names)
        assert set(names) <= free
        interrupted = [name for name in free if self.rows[name].upload_id]
        head = names[: len(interrupted)]
        assert set(head) <= set(interrupted) if len(interrupted) >= len(names) else True
        assert set(interrupted) <= set(head) if len(interrupted) < len(names) else True
        fresh = [it.id for it in taken if not it.upload_id and not self._row(it).retry_at]
        assert fresh == sorted(fresh)
        for transfer in taken:
            row = self._row(transfer)
            assert (transfer.size, transfer.etag) == (row.size, row.etag)
            assert (transfer.state, transfer.generation) == (row.state, row.generation)
            assert (transfer.attempts, transfer.upload_id) == (row.attempts, row.upload_id)
            row.claimed = transfer

    @precondition(lambda self: any(row.claimed for row in self.rows.values()))
    @rule(
        outcomes=st.lists(
            st.tuples(
                st.sampled_from(list(State)),
                st.sampled_from(REASONS),
                st.integers(0, 3),
                st.sampled_from([None, "u1", "u2"]),
                st.sampled_from([(), ("tags",), ("tags", "expires")]),
            ),
            min_size=1,
            max_size=4,
        )
    )
    def save(self, outcomes: list[tuple[State, str, int, str | None, tuple[str, ...]]]) -> None:
        claimed = [(name, row) for name, row in self.rows.items() if row.claimed]
        changes = []
        for (name, row), (state, reason, wait, upload_id, dropped) in zip(
            claimed, outcomes, strict=False
        ):
            transfer = row.claimed
            assert transfer is not None
            row.claimed = None
            why = "" if state is State.VERIFIED else reason  # that of a source which is kept
            self.late.append((name, transfer))
            retry_at = int((self.now + wait) * 1000) if wait and state in PENDING else 0
            changes.append(
                Change(
                    transfer,
                    state,
                    why,
                    "message",
                    attempts=3,
                    retry_at=retry_at,
                    upload_id=upload_id,
                    dropped=dropped,
                )
            )
            if transfer.generation == row.generation:
                row.state, row.reason, row.attempts = state, why, 3
                # Nobody continues the upload of a final row: it is kept for the sweep instead.
                row.retry_at = retry_at
                row.upload_id = upload_id if state in PENDING else None
                if state is not State.DELETED:
                    row.dropped = dropped if state is State.VERIFIED else ()
        self.run(self.state.save(changes))

    @precondition(lambda self: any(row.claimed for row in self.rows.values()))
    @rule(number=st.integers(0, 5), upload_id=st.sampled_from(["", "v1", "v2"]))
    def remember(self, number: int, upload_id: str) -> None:
        claimed = [row for row in self.rows.values() if row.claimed]
        row = claimed[number % len(claimed)]
        assert row.claimed is not None
        after = self.run(self.state.remember_upload(row.claimed, upload_id, 5))
        if row.claimed.generation == row.generation:
            row.state, row.upload_id = State.TRANSFERRING, upload_id or None
        row.claimed = after

    @precondition(lambda self: any(row.claimed for row in self.rows.values()))
    @rule(number=st.integers(1, 4))
    def release(self, number: int) -> None:
        claimed = [row for row in self.rows.values() if row.claimed][:number]
        self.run(self.state.release([row.claimed for row in claimed if row.claimed]))
        for row in claimed:
            row.claimed = None

    @rule(state=st.sampled_from([State.VERIFIED, State.FAILED]))
    def save_what_is_fenced_off(self, state: State) -> None:
        fenced = [
            transfer
            for name, transfer in self.late
            if self.rows[name].generation != transfer.generation and self.rows[name].claimed is None
        ]
        self.run(self.state.save([Change(it, state, "late", dropped=("tags",)) for it in fenced]))

    @rule(reason=st.sampled_from([None, "refused", "stalled"]))
    def retry(self, reason: str | None) -> None:
        expected = 0
        for row in self.rows.values():
            if row.state is State.FAILED and (reason is None or row.reason == reason):
                row.state, row.reason, row.attempts, row.retry_at = State.DISCOVERED, "", 0, 0
                expected += 1
        assert self.run(self.state.retry("documents", reason)) == expected

    @rule(seconds=st.integers(1, 3))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def finish_scan(self) -> None:
        scan, _ = self.run(self.state.begin_scan("documents"))
        self.run(self.state.finish_scan(scan))

    @rule()
    def restart(self) -> None:
        self.run(self.state.close())
        for row in self.rows.values():
            row.claimed = None
        self.state = self.run(self._open())

    # --- what must be true ---

    @invariant()
    def rows_are_the_models(self) -> None:
        for bucket in ("one", "two"):
            found = self.run(self.state.rows("documents", bucket, b"", None))
            assert [(it.key, it.size, it.etag, it.state, it.reason) for it in found] == [
                (key, row.size, row.etag, row.state, row.reason)
                for (where, key), row in sorted(self.rows.items())
                if where == bucket
            ]

    @invariant()
    def totals_are_sums_of_rows(self) -> None:
        expected: Counter[tuple[str, State, str]] = Counter()
        sizes: Counter[tuple[str, State, str]] = Counter()
        for (bucket, _), row in self.rows.items():
            expected[bucket, row.state, row.reason] += 1
            sizes[bucket, row.state, row.reason] += row.size
        totals = self.run(self.state.totals("documents"))
        assert {(it.bucket, it.state, it.reason): it.objects for it in totals} == dict(expected)
        assert {(it.bucket, it.state, it.reason): it.bytes for it in totals} == dict(sizes)

    @invariant()
    def dropped_fields_are_counted(self) -> None:
        expected = Counter(field for row in self.rows.values() for field in row.dropped)
        assert self.run(self.state.dropped("documents")) == dict(expected)

    @invariant()
    def the_trail_holds_and_tells_how_each_object_ended(self) -> None:
        rows = self.run(self.state.audit("documents"))
        check = Check()
        check.rows(rows)
        assert check.end(self.run(self.state.audited()).get("documents")) is None
        # That a version was deleted is told also when its row is of the next one by then.
        last = {
            name: it
            for it in rows
            if (name := (it.bucket, it.key)) in self.rows
            and (it.fact != Fact.DELETED or it.etag == self.rows[name].etag)
        }
        for name, row in self.rows.items():
            if row.state not in PENDING:
                assert TELLS[last[name].fact] is row.state
                assert (last[name].reason, last[name].size) == (row.reason, row.size)

    @invariant()
    def uploads_and_waits_are_known(self) -> None:
        pending = [row for row in self.rows.values() if row.state in PENDING]
        uploads = {row.upload_id for row in pending if row.upload_id}
        assert self.run(self.state.uploads("documents")) == uploads
        waits = [
            row.retry_at
            for row in pending
            if row.retry_at and row.claimed is None and row.state in FOR_WORKERS
        ]
        due = self.run(self.state.next_retry("documents"))
        assert due == (min(waits) / 1000 if waits else None)

    def _row(self, transfer: Transfer) -> Model:
        return self.rows[transfer.bucket, transfer.key]

    def _id(self, bucket: str, key: bytes) -> int:
        found = self.run(self.state.rows("documents", bucket, b"", None))
        return next(row.id for row in found if row.key == key)


StateMachine.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestStateMachine = StateMachine.TestCase
