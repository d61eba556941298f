"""The state in a database that one daemon writes to: `StateStore`, whichever database it is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from s3flow.crashpoints import passing
from s3flow.errors import StateError, UnguardedDelete
from s3flow.model import Change, Flow, PageChanges, Sample, Scan, State, Transfer, Verdict
from s3flow.ports import Clock
from s3flow.records import Due, Scrubbed, Spending, Unlisted
from s3flow.state import changes as outcomes
from s3flow.state import flows, inventory, moves, pages, proven, restores, routes, sql
from s3flow.state.claims import Claims, Taken
from s3flow.state.queries import Database, Queries, fetch, find_due
from s3flow.state.steps import Each, Fetch, Steps
from s3flow.state.trail import Trail, this_process


class SqlState(Queries):
    """A method is one work for the database, or a few in slices."""

    def __init__(self, database: Database, clock: Clock, *, audited: bool = True) -> None:
        super().__init__(database)
        self._clock = clock
        self._process = this_process() if audited else ""
        self._claims = Claims()
        self._next_id = 1
        self._background: set[asyncio.Task[object]] = set()
        self._closing: asyncio.Task[None] | None = None

    async def prepare(self, *, partial: bool = False) -> None:
        """Finish what a dead process left, and find the next free id.

        Raises `StateError` where an import was cut off, unless *partial*.
        """
        marked = await self._database.read(lambda: fetch(sql.GET_META, "importing"))
        if marked and not partial:
            raise StateError(
                "the state is only a part of what was to be imported: run `s3flow state import` again"
            )
        if not self._database.read_only:
            while await self._database.write(flows.sweep):
                pass
        [(last,)] = await self._database.read(lambda: fetch(sql.LAST_ID))
        # Counted here, never reused: a late change must not meet another object under its id.
        self._next_id = (last or 0) + 1
        passing("start.opened")

    @property
    def lease(self) -> tuple[int, ...]:
        """Descriptors that other processes inherit so that the right to write outlives this one."""
        return self._database.lease

    @property
    def database(self) -> Database:
        """What it is kept in: for those who carry it elsewhere."""
        return self._database

    @property
    def trouble(self) -> str:
        """What of the database is waited for, in words; "" when it is well."""
        return self._database.trouble

    def hurry(self) -> None:
        """Wait for the database no longer: what cannot be had at once is an error."""
        self._database.hurry()

    # --- flows and scans ----------------------------------------------------------------------

    async def open_flow(self, flow: Flow) -> None:
        """Begin, or continue, a flow. Raises `FlowChanged`."""
        await self._database.write(lambda: flows.open_flow(flow, self._clock()))

    async def identity(self) -> str:
        """Give what tells this state from every other; "" where it has none yet, and is only read."""
        known = await self._database.read(lambda: flows.identity(""))
        if known or self._database.read_only:
            return known
        made = os.urandom(8).hex()
        return await self._database.write(lambda: flows.identity(made))

    async def open_routes(self, flow: str, endpoints: str) -> list[Verdict]:
        """Give what is known of the flow's ways; nothing if other *endpoints* were asked."""
        return await self._database.write(lambda: routes.open_routes(flow, endpoints))

    async def keep_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Keep verdicts in the place of earlier ones."""
        await self._database.write(lambda: routes.keep_verdicts(verdicts))

    async def begin_scan(self, flow: str) -> tuple[Scan, bool]:
        """Continue the unfinished scan (True) or begin one (False)."""
        return await self._database.write(lambda: flows.begin_scan(flow, self._clock()))

    async def apply_page(self, scan: Scan, changes: PageChanges) -> None:
        """Record a merged page, its cursor and its range's cut; repeating it changes nothing."""

        def work() -> Steps[list[int]]:
            flow_id = yield from flows.need_flow(scan.flow)
            merge = pages.PageMerge(
                (scan.flow, flow_id),
                (changes.bucket, (yield from pages.bucket_id(changes.bucket))),
                Trail(self._process),
                first_id=self._next_id,
                now=self._now(),
                held=self._claims.held,
            )
            self._next_id += len(changes.new)
            return (yield from pages.apply_page(scan, changes, merge))

        def look_again(ids: list[int]) -> None:
            for row_id in ids:
                self._claims.look_again(scan.flow, row_id)

        await self._database.write(work, look_again)

    async def list_again(self, flow: str) -> None:
        """Let the unfinished scan list again the buckets that it has listed to their end."""
        await self._database.write(lambda: inventory.list_again(flow))

    async def rescan(self, flow: str, bucket: str | None) -> None:
        """Let the next start list *bucket* anew, or all. Raises `StateError` for an unknown flow."""
        await self._database.write(lambda: inventory.rescan(flow, bucket, self._clock()))

    async def note_unlisted(self, flow: str, bucket: str, reason: str, message: str) -> None:
        """Keep why a bucket could not be listed, and since when."""
        found = Unlisted(bucket, reason, message, self._clock())
        await self._database.write(lambda: inventory.note_unlisted(flow, found))

    async def forget_unlisted(self, flow: str, buckets: Sequence[str]) -> None:
        """Forget that *buckets* could not be listed: they were, or they are not meant any more."""
        await self._database.write(lambda: inventory.listed(flow, buckets))

    async def finish_scan(self, scan: Scan) -> None:
        """End the scan; its ranges are gone."""
        await self._database.write(lambda: flows.finish_scan(scan, self._clock()))

    async def drained(self, flow: str) -> None:
        """Note that all that the last finished scan has found is done."""
        await self._database.write(lambda: flows.drained(flow))

    async def sample(self, flow: str, sample: Sample) -> None:
        """Keep a sample for the rate: the last hour, at least a second apart."""
        await self._database.write(lambda: flows.add_sample(flow, sample))

    # --- transfers ----------------------------------------------------------------------------

    async def claim(self, flow: str, limit: int) -> list[Transfer]:
        """Take up to *limit* pending transfers that nobody has and whose wait is over."""
        if self._database.read_only:
            raise StateError("a state that is open for reading only hands out no work")
        taken: list[Transfer] = []

        def work() -> Steps[Taken | None]:
            flow_id = yield from flows.find_flow(flow)
            if flow_id is None or limit <= 0:
                return None
            return (yield from self._claims.find(flow, flow_id, limit, self._now()))

        def hold(found: Taken | None) -> None:
            if found is not None:
                self._claims.hold(flow, found)
                taken.extend(found.transfers)

        try:
            await self._database.read(work, hold)
        except asyncio.CancelledError:
            # The database goes on all the same, and nobody would ever give them back.
            task = asyncio.create_task(self.release(taken))
            self._background.add(task)
            task.add_done_callback(self._background.discard)
            raise
        return taken

    async def release(self, transfers: Sequence[Transfer]) -> None:
        """Give claimed transfers back unchanged."""
        await self._database.read(_nothing, lambda _: self._claims.give_back(transfers))

    async def claim_due(self, flow: str, before: int, limit: int) -> list[Due]:
        """Give and claim the first *limit* VERIFIED objects whose time is not after *before* (ms)."""
        return await self._database.read(
            lambda: find_due(flow, State.VERIFIED, before, limit),
            lambda dues: self._claims.hold_due(flow, [due.transfer for due in dues]),
        )

    async def save(self, changes: Sequence[Change]) -> None:
        """Record changes in one transaction and end their claims; fenced ones change nothing."""
        now = self._now()
        await self._database.write(
            lambda: outcomes.save(changes, Trail(self._process), now),
            lambda pending: self._claims.end([it.transfer for it in changes], pending),
        )

    async def refute(self, changes: Sequence[Change]) -> list[Change]:
        """Record failures of copies that were proven; gives those whose rows still said so."""
        now = self._now()
        return await self._database.write(lambda: proven.refute(changes, Trail(self._process), now))

    async def note_scrubbed(self, flow: str, scrubbed: Scrubbed) -> None:
        """Keep how far the flow's copies were proven again."""
        await self._database.write(lambda: proven.note_scrubbed(flow, scrubbed))

    async def note_spending(self, flow: str, spending: Spending) -> None:
        """Keep what the flow has spent."""
        await self._database.write(lambda: flows.note_spent(flow, spending))

    async def remember_upload(self, transfer: Transfer, upload_id: str, part_size: int) -> Transfer:
        """Make the upload id durable before the first part is sent; the claim goes on.

        The id "" says that one is about to be asked for: a row that is `TRANSFERRING` without an
        upload id after a crash may have left an unknown upload at its key.
        If a newer version has superseded the transfer, the id is kept among the abandoned ones.
        """
        now = self._now()
        await self._database.write(
            lambda: outcomes.remember_upload(transfer, upload_id, part_size, now)
        )
        return transfer._replace(
            state=State.TRANSFERRING, upload_id=upload_id or None, part_size=part_size
        )

    async def uploads_removed(self, flow: str, upload_ids: Sequence[str]) -> None:
        """Forget abandoned uploads: the target does not hold them any more."""

        def work() -> Steps[None]:
            flow_id = yield from flows.need_flow(flow)
            yield Each(sql.DROP_ABANDONED, [(flow_id, it) for it in upload_ids])

        await self._database.write(work)

    async def retry(self, flow: str, reason: str | None) -> int:
        """Send failed objects (of one reason) back to work, in slices; says how many."""
        count, last = 0, 0

        def work() -> Steps[list[int]]:
            flow_id = yield from flows.find_flow(flow)
            if flow_id is None:
                return []
            trail = Trail(self._process)
            return (yield from outcomes.retry(flow, flow_id, reason, last, trail, self._now()))

        def look_again(ids: list[int]) -> None:
            if ids:
                self._claims.look_again(flow, ids[0])

        while ids := await self._database.write(work, look_again):
            count, last = count + len(ids), ids[-1]
        return count + await self._retry_kept(flow, reason)

    async def _retry_kept(self, flow: str, reason: str | None) -> int:
        """Let sources that could not be deleted be tried again, in slices; says how many."""
        count, last = 0, 0

        def work() -> Steps[list[int]]:
            flow_id = yield from flows.find_flow(flow)
            if flow_id is None or not (yield from moves.kept(flow_id)):
                return []
            trail = Trail(self._process)
            place = (flow_id, flow, reason, last)
            return (yield from moves.retry_kept(*place, trail, self._now()))

        while ids := await self._database.write(work):
            count, last = count + len(ids), ids[-1]
        return count

    async def make_due(self, flow: str, at: int, *, unguarded: bool = False) -> int:
        """Let the sources of proven copies that have no time yet be deleted at *at*; says how many."""
        more = UnguardedDelete.reason if unguarded else ""
        count, last = 0, 0

        def work() -> Steps[list[int]]:
            flow_id = yield from flows.need_flow(flow)
            if not last and not (yield from moves.undue(flow_id, more)):
                return []
            return (yield from moves.make_due(flow_id, last, at, more))

        while ids := await self._database.write(work):
            count, last = count + len(ids), ids[-1]
        return count

    async def next_retry(self, flow: str) -> float | None:
        """Say when the next waiting transfer may be claimed (seconds), None if none waits."""

        def work() -> Steps[float | None]:
            flow_id = yield from flows.find_flow(flow)
            waiting = yield Fetch(sql.WAITING, (flow_id, len(self._claims.held) + 1))
            due: int | None = next(self._claims.free(waiting), None)
            return None if due is None else due / 1000

        return await self._database.read(work)

    async def note_restores(self, transfers: Sequence[Transfer], at: int) -> list[int]:
        """Note that restores are about to be asked for; says how often that was, of each."""
        return await self._database.write(lambda: restores.note(transfers, at))

    async def hasten(self, flow: str, bucket: str, keys: Sequence[bytes], at: int) -> int:
        """Let those of *keys* that are RESTORING be due at *at* (ms), if not earlier."""
        return await self._database.write(lambda: restores.hasten(flow, bucket, keys, at))

    async def forget(self, flow: str) -> bool:
        """Drop all that is known of a flow: at once for readers, row by row behind their backs."""
        was_known = await self._database.write(
            lambda: flows.unname(flow, Trail(self._process), self._now()),
            lambda _: self._claims.forget(flow),
        )
        while await self._database.write(flows.sweep):
            pass
        return was_known

    async def close(self) -> None:
        """Close the database and give up the right to write, even if cancelled. Twice is harmless."""
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    async def _close(self) -> None:
        try:
            if self._background:
                await asyncio.wait(self._background)
        finally:
            await self._database.close()

    def _now(self) -> int:
        """Give the time in milliseconds."""
        return int(self._clock() * 1000)


def _nothing() -> Steps[None]:
    yield from ()
