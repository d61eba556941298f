"""The state in a SQLite file: `StateStore` for one daemon, without a server."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from s3flow.errors import StateEmpty, StateError
from s3flow.model import (
    Change,
    Flow,
    KeyRange,
    PageChanges,
    Row,
    Sample,
    Scan,
    ScanSummary,
    State,
    Total,
    Transfer,
)
from s3flow.ports import ROWS_AT_ONCE, Clock
from s3flow.state import bulk, flows, pages, sql
from s3flow.state import changes as outcomes
from s3flow.state.claims import Claims
from s3flow.state.database import Database
from s3flow.state.lock import StateLock, refuse_network


async def open_sqlite(
    path: Path, *, clock: Clock = time.time, read_only: bool = False
) -> SqliteState:
    """Open the state at *path*, creating it if need be; *read_only* works beside a running daemon.

    Raises `StateLocked` when another process has it, `StateError` when it cannot be used.
    """
    opening = asyncio.create_task(_open(path, clock, read_only))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        # It goes on by itself, and would hold the lock for nobody.
        with contextlib.suppress(StateError):
            await (await opening).close()
        raise


async def _open(path: Path, clock: Clock, read_only: bool) -> SqliteState:
    path = await asyncio.to_thread(_check_place, path, read_only)
    lock = None if read_only else await asyncio.to_thread(StateLock, path)
    try:
        database = await Database.open(path, read_only=read_only)
    except BaseException:
        if lock is not None:
            lock.release()
        raise
    state = SqliteState(database, lock, clock)
    try:
        await state.prepare()
    except BaseException:
        await state.close()
        raise
    return state


def _check_place(path: Path, read_only: bool) -> Path:
    # Resolved, so that two names of one file meet at one lock.
    path = path.expanduser().resolve()
    if not path.parent.is_dir():
        raise StateError(f"state {path}: {path.parent} is no folder; create it first")
    if read_only and not path.exists():
        raise StateEmpty(f"there is no state at {path} yet: nothing has run, or it is elsewhere")
    refuse_network(path)
    return path


class SqliteState:
    """`StateStore` over one `Database`: a method is one hop to its thread, or a few in slices."""

    def __init__(self, database: Database, lock: StateLock | None, clock: Clock) -> None:
        self._database = database
        self._lock = lock
        self._clock = clock
        self._claims = Claims()
        self._next_id = 1
        self._background: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None

    async def prepare(self) -> None:
        """Finish what a dead process left, and find the next free id."""
        if not self._database.read_only:
            while await self._database.write(flows.sweep):
                pass
        row = await self._database.read(lambda db: db.execute(sql.LAST_ID).fetchone())
        # Counted here, never reused: a late change must not meet another object under its id.
        self._next_id = (row[0] or 0) + 1

    @property
    def lease(self) -> tuple[int, ...]:
        """Descriptors that other processes inherit so that the lock outlives this one with them."""
        return () if self._lock is None else (self._lock.fileno(),)

    async def open_flow(self, flow: Flow) -> None:
        """Begin, or continue, a flow. Raises `FlowChanged`."""
        await self._database.write(lambda db: flows.open_flow(db, flow, self._clock()))

    async def flow_names(self) -> list[str]:
        """Name the flows that are known."""
        rows = await self._database.read(lambda db: db.execute(sql.FLOW_NAMES).fetchall())
        return [name for (name,) in rows]

    async def begin_scan(self, flow: str) -> tuple[Scan, bool]:
        """Continue the unfinished scan (True) or begin one (False)."""
        return await self._database.write(lambda db: flows.begin_scan(db, flow, self._clock()))

    async def ranges(self, scan: Scan, bucket: str) -> list[KeyRange]:
        """Give the ranges that the bucket's keys are listed in, in byte order; none at first."""

        def work(db: sqlite3.Connection) -> list[KeyRange]:
            found = db.execute(sql.RANGES, (scan.id, bucket))
            return [KeyRange(start, last, end, bool(done)) for start, last, end, done in found]

        return await self._database.read(work)

    async def rows(
        self, flow: str, bucket: str, after: bytes, upto: bytes | None, limit: int = ROWS_AT_ONCE
    ) -> list[Row]:
        """Give the first rows with after < key <= upto (None: to the end), in byte order."""
        states = sql.STATES

        def work(db: sqlite3.Connection) -> list[Row]:
            place = _place(db, flow, bucket)
            if place is None:
                return []
            if upto is None:
                found = bulk.read(db, sql.ROWS_TO_THE_END, (*place, after, limit))
            else:
                found = bulk.read(db, sql.ROWS, (*place, after, upto, limit))
            return [
                Row(row_id, bytes.fromhex(key), size, etag, states[state], reason)
                for row_id, key, size, etag, state, reason in found
            ]

        return await self._database.read(work)

    async def known(self, flow: str, bucket: str, keys: Sequence[bytes]) -> set[bytes]:
        """Say which of *keys* have a row (skipped and failed ones left out)."""

        def work(db: sqlite3.Connection) -> set[bytes]:
            place = _place(db, flow, bucket)
            found: set[bytes] = set()
            for start in range(0, len(keys) if place else 0, 500):
                some = keys[start : start + 500]
                statement = sql.in_list(sql.KNOWN, len(some))
                found.update(key for (key,) in db.execute(statement, (*(place or ()), *some)))
            return found

        return await self._database.read(work)

    async def apply_page(self, scan: Scan, changes: PageChanges) -> None:
        """Record a merged page, its cursor and its range's cut; repeating it changes nothing."""

        def work(db: sqlite3.Connection) -> list[int]:
            flow_id = flows.need_flow(db, scan.flow)
            merge = pages.PageMerge(
                db,
                flow_id,
                changes.bucket,
                first_id=self._next_id,
                now=self._now(),
                held=self._claims.held,
            )
            self._next_id += len(changes.new)
            return pages.apply_page(db, scan, changes, merge)

        def look_again(ids: list[int]) -> None:
            for row_id in ids:
                self._claims.look_again(scan.flow, row_id)

        await self._database.write(work, look_again)

    async def list_again(self, flow: str) -> None:
        """Let the unfinished scan list again the buckets that it has listed to their end."""
        await self._database.write(lambda db: flows.list_again(db, flow))

    async def finish_scan(self, scan: Scan) -> None:
        """End the scan; its ranges are gone."""
        await self._database.write(lambda db: flows.finish_scan(db, scan, self._clock()))

    async def drained(self, flow: str) -> None:
        """Note that all that the last finished scan has found is done."""
        await self._database.write(lambda db: flows.drained(db, flow))

    async def last_scan(self, flow: str) -> ScanSummary:
        """Sum up the flow's last finished scan."""
        return await self._database.read(lambda db: flows.last_scan(db, flow))

    async def claim(self, flow: str, limit: int) -> list[Transfer]:
        """Take up to *limit* pending transfers that nobody has and whose wait is over."""
        if self._database.read_only:
            raise StateError("a state that is open for reading only hands out no work")
        taken: list[Transfer] = []

        def work(db: sqlite3.Connection) -> None:
            flow_id = flows.find_flow(db, flow)
            if flow_id is not None and limit > 0:
                taken.extend(self._claims.take(db, flow, flow_id, limit, self._now()))

        try:
            await self._database.read(work)
        except asyncio.CancelledError:
            # The thread takes them all the same, and nobody would ever give them back.
            self._later(lambda: self._claims.give_back(taken))
            raise
        return taken

    async def release(self, transfers: Sequence[Transfer]) -> None:
        """Give claimed transfers back unchanged."""
        await self._database.read(lambda _: self._claims.give_back(transfers))

    async def save(self, changes: Sequence[Change]) -> None:
        """Record changes in one transaction and end their claims; fenced ones change nothing."""
        now = self._now()
        await self._database.write(
            lambda db: outcomes.save(db, changes, now),
            lambda pending: self._claims.end([it.transfer.id for it in changes], pending),
        )

    async def remember_upload(self, transfer: Transfer, upload_id: str, part_size: int) -> Transfer:
        """Make the upload id durable before the first part is sent; the claim goes on.

        The id "" says that one is about to be asked for: a row that is `TRANSFERRING` without an
        upload id after a crash may have left an unknown upload at its key.
        If a newer version has superseded the transfer, the id is kept among the abandoned ones.
        """
        now = self._now()
        await self._database.write(
            lambda db: outcomes.remember_upload(db, transfer, upload_id, part_size, now)
        )
        return transfer._replace(
            state=State.TRANSFERRING, upload_id=upload_id or None, part_size=part_size
        )

    async def uploads(self, flow: str) -> set[str]:
        """Give the upload ids that unfinished transfers of the flow will continue."""
        return {upload_id for (upload_id,) in await self._select(sql.UPLOADS, flow)}

    async def abandoned_uploads(self, flow: str) -> list[tuple[str, bytes, str]]:
        """Give (bucket, source key, upload id) of uploads that no transfer will continue."""
        return await self._select(sql.ABANDONED, flow)

    async def uploads_removed(self, flow: str, upload_ids: Sequence[str]) -> None:
        """Forget abandoned uploads: the target does not hold them any more."""

        def work(db: sqlite3.Connection) -> None:
            flow_id = flows.need_flow(db, flow)
            db.executemany(sql.DROP_ABANDONED, [(flow_id, it) for it in upload_ids])

        await self._database.write(work)

    async def totals(self, flow: str) -> list[Total]:
        """Give the lines of the totals that are not zero."""
        return [
            Total(bucket, sql.STATES[state], reason, method, proof, objects, size)
            for bucket, state, reason, method, proof, objects, size in await self._select(
                sql.TOTALS, flow
            )
        ]

    async def dropped(self, flow: str) -> dict[str, int]:
        """Say of how many verified objects the target could not carry a field, by field."""
        return dict(await self._select(sql.DROPPED, flow))

    async def failures(self, flow: str, limit: int) -> list[tuple[str, bytes, str, str]]:
        """Give (bucket, key, reason, message) of failed objects, in the order of discovery."""
        return await self._select(sql.FAILURES, flow, limit)

    async def sample(self, flow: str, sample: Sample) -> None:
        """Keep a sample for the rate: the last hour, at least a second apart."""
        await self._database.write(lambda db: flows.add_sample(db, flow, sample))

    async def samples(self, flow: str) -> list[Sample]:
        """Give the samples that are kept, in the order of time."""
        return [Sample._make(row) for row in await self._select(sql.SAMPLES, flow)]

    async def retry(self, flow: str, reason: str | None) -> int:
        """Send failed objects (of one reason) back to work, in slices; says how many."""
        count, last = 0, 0

        def work(db: sqlite3.Connection) -> list[int]:
            flow_id = flows.find_flow(db, flow)
            if flow_id is None:
                return []
            return outcomes.retry(db, flow_id, reason, last, self._now())

        def look_again(ids: list[int]) -> None:
            if ids:
                self._claims.look_again(flow, ids[0])

        while ids := await self._database.write(work, look_again):
            count, last = count + len(ids), ids[-1]
        return count

    async def next_retry(self, flow: str) -> float | None:
        """Say when the next waiting transfer may be claimed (seconds), None if none waits."""

        def work(db: sqlite3.Connection) -> float | None:
            flow_id = flows.find_flow(db, flow)
            for row_id, retry_at in db.execute(sql.WAITING, (flow_id,)):
                if row_id not in self._claims.held:
                    return float(retry_at / 1000)
            return None

        return await self._database.read(work)

    async def forget(self, flow: str) -> bool:
        """Drop all that is known of a flow: at once for readers, row by row behind their backs."""
        was_known = await self._database.write(
            lambda db: flows.unname(db, flow), lambda _: self._claims.forget(flow)
        )
        while await self._database.write(flows.sweep):
            pass
        return was_known

    async def close(self) -> None:
        """Close the file and give up the lock, even if cancelled. Twice is harmless."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            if self._background:
                await asyncio.wait(self._background)
            await self._database.close()
        finally:
            if self._lock is not None:
                self._lock.release()

    async def _select(self, statement: str, flow: str, *more: int) -> list[Any]:
        def work(db: sqlite3.Connection) -> list[Any]:
            return db.execute(statement, (flows.find_flow(db, flow), *more)).fetchall()

        return await self._database.read(work)

    def _later(self, work: Callable[[], None]) -> None:
        task = asyncio.create_task(self._database.read(lambda _: work()))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _now(self) -> int:
        """Give the time in milliseconds."""
        return int(self._clock() * 1000)


def _place(db: sqlite3.Connection, flow: str, bucket: str) -> tuple[int, int] | None:
    """Give the ids of a flow and a bucket, None if one of them is unknown."""
    flow_id, row = flows.find_flow(db, flow), db.execute(sql.BUCKET_ID, (bucket,)).fetchone()
    return None if flow_id is None or row is None else (flow_id, int(row[0]))
