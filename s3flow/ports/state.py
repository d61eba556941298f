"""Where is kept what is known of every object."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

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
    Verdict,
)
from s3flow.records import (
    Audited,
    ClassTotal,
    Due,
    Hold,
    Record,
    Scrubbed,
    Spending,
    Spent,
    Unlisted,
)

# More may lie between two listed keys: those that vanished at the source, or were moved away. With
# the longest keys, eight listings that had 10,000 each in hand took 170 MiB.
ROWS_AT_ONCE = 2_500


class Wishes(Protocol):
    """What a person asks of a running daemon, past the lock on its state: listings.

    *interval*: seconds between looks.
    """

    interval: float

    async def put(self, flow: str, bucket: str | None) -> None:
        """Ask for *bucket*, or all of the flow's, to be listed again."""
        ...

    async def take(self, flow: str) -> list[str | None]:
        """Give what was asked for since the last time; None asks for all buckets."""
        ...


class StateStore(Protocol):
    """What is known of every object, durable. One row an object; totals kept in the same transactions.

    A generation fences: a change whose transfer's generation is not the row's changes nothing.
    *trouble* says what of its database is waited for, in words without secrets; "" when it is well.
    """

    @property
    def trouble(self) -> str: ...

    async def open_flow(self, flow: Flow) -> None:
        """Begin, or continue, a flow. Raises `FlowChanged` if its source, target or mapping differ."""
        ...

    async def identity(self) -> str:
        """Give what tells this state from every other, and stays.

        "" where it has none yet, and may only be read.
        """
        ...

    async def open_routes(self, flow: str, endpoints: str) -> list[Verdict]:
        """Give what is known of the ways that the flow's objects go.

        All of it is dropped when it was found out with other endpoints than those that *endpoints*
        tells from others.
        """
        ...

    async def keep_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Keep verdicts in the place of earlier ones about the same."""
        ...

    async def verdicts(self, flow: str) -> list[Verdict]:
        """Give what is known of the ways that the flow's objects go, by bucket; also what has expired."""
        ...

    async def begin_scan(self, flow: str) -> tuple[Scan, bool]:
        """Continue the unfinished scan (True) or begin one (False)."""
        ...

    async def ranges(self, scan: Scan, bucket: str) -> list[KeyRange]:
        """Give the ranges that the bucket's keys are listed in, in byte order and without gaps.

        None before the first page: the whole bucket is one range then.
        """
        ...

    async def rows(
        self, flow: str, bucket: str, after: bytes, upto: bytes | None, limit: int = ROWS_AT_ONCE
    ) -> list[Row]:
        """Give the first *limit* rows with after < key <= upto (None: to the end), in byte order."""
        ...

    async def known(self, flow: str, bucket: str, keys: Sequence[bytes]) -> set[bytes]:
        """Say which of *keys* have a row, skipped and failed ones left out."""
        ...

    async def apply_page(self, scan: Scan, changes: PageChanges) -> None:
        """Record a merged page, its cursor and the cut of its range in one transaction."""
        ...

    async def list_again(self, flow: str) -> None:
        """Let the unfinished scan list again the buckets that it has listed to their end.

        Those that could not be listed go on where they were.
        """
        ...

    async def note_unlisted(self, flow: str, bucket: str, reason: str, message: str) -> None:
        """Keep why a source bucket could not be listed to its end, and since when."""
        ...

    async def forget_unlisted(self, flow: str, buckets: Sequence[str]) -> None:
        """Forget that *buckets* could not be listed: they were, or they are not meant any more."""
        ...

    async def unlisted(self, flow: str) -> list[Unlisted]:
        """Give the source buckets that could not be listed, in the order of their names."""
        ...

    async def classes(self, flow: str) -> list[ClassTotal]:
        """Give what was listed by bucket and storage class: by the last walk that saw all of a bucket."""
        ...

    async def rescan(self, flow: str, bucket: str | None) -> None:
        """Let the next walk list *bucket* anew, or all, also where the last listing is being drained.

        Raises `StateError` for an unknown flow.
        """
        ...

    async def finish_scan(self, scan: Scan) -> None: ...

    async def drained(self, flow: str) -> None:
        """Note that all that the last finished scan has found is done; until then it is not."""
        ...

    async def last_scan(self, flow: str) -> ScanSummary: ...

    async def claim(self, flow: str, limit: int) -> list[Transfer]:
        """Take up to *limit* pending transfers that nobody has; they stay claimed until saved.

        Interrupted ones (with an upload id) come first, then in the order of their discovery.
        """
        ...

    async def release(self, transfers: Sequence[Transfer]) -> None:
        """Give claimed transfers back unchanged."""
        ...

    async def save(self, changes: Sequence[Change]) -> None:
        """Record changes in one transaction and end their claims.

        An upload that a final change still names could not be aborted: it becomes an abandoned one.
        """
        ...

    async def remember_upload(self, transfer: Transfer, upload_id: str, part_size: int) -> Transfer:
        """Make the upload id durable before the first part is sent; the claim goes on.

        The id "" says that an upload is about to be asked for: a transfer that comes back from a
        crash as TRANSFERRING without an id may have left an upload that nobody knows.
        """
        ...

    async def uploads(self, flow: str) -> set[str]:
        """Give the upload ids that unfinished transfers of the flow will continue."""
        ...

    async def abandoned_uploads(self, flow: str) -> list[tuple[str, bytes, str]]:
        """Give (bucket, source key, upload id) of uploads whose version was superseded or is gone.

        An id that begins with `UNKNOWN_UPLOAD` stands for whatever is open at the key.
        """
        ...

    async def uploads_removed(self, flow: str, upload_ids: Sequence[str]) -> None:
        """Forget abandoned uploads: the target does not hold them any more."""
        ...

    async def due(self, flow: str, state: State, before: int, limit: int) -> list[Due]:
        """Give the first *limit* objects in *state* whose `due_at` is not after *before* (ms), by time.

        They are not claimed: one task of a flow has to do with each state that nobody claims from.
        """
        ...

    async def claim_due(self, flow: str, before: int, limit: int) -> list[Due]:
        """Give and claim the first *limit* VERIFIED objects whose `due_at` is not after *before* (ms).

        Until they are saved or released no newer version of them is handed out: their copies are not
        replaced between the last look at them and the delete of their sources. The next call releases
        what is left of the one before: its answer may have been lost.
        """
        ...

    async def next_due(self, flow: str, state: State) -> int | None:
        """Say when the first object in *state* is due (milliseconds), None if none is."""
        ...

    async def make_due(self, flow: str, at: int, *, unguarded: bool = False) -> int:
        """Let sources be deleted at *at* (ms) whose copies are proven, and that have no time yet.

        So are those of adopted objects, of a flow that only copied so far, and those that could not
        be deleted, however often it was tried; with *unguarded* also those whose store does not
        compare. Says how many.
        """
        ...

    async def last_counts(self, flow: str) -> list[tuple[int, int]]:
        """Give (listed, deleted until the next one began) of the last two finished scans, newest first."""
        ...

    async def last_due(self, flow: str, state: State) -> int | None:
        """Say when the last object in *state* is due (milliseconds), None if none is."""
        ...

    async def note_restores(self, transfers: Sequence[Transfer], at: int) -> list[int]:
        """Note that restores of a flow's objects are about to be asked for at *at* (milliseconds).

        Gives, for each, how often that was noted of this version by now.
        """
        ...

    async def restores_since(self, flow: str, since: int) -> Spent:
        """Say what was noted after *since* (milliseconds)."""
        ...

    async def hasten(self, flow: str, bucket: str, keys: Sequence[bytes], at: int) -> int:
        """Let those of *keys* that are RESTORING be due at *at* (ms), if not earlier; says how many."""
        ...

    async def totals(self, flow: str) -> list[Total]: ...

    async def dropped(self, flow: str) -> dict[str, int]:
        """Say of how many verified objects the target could not carry a field, by field."""
        ...

    async def failures(self, flow: str, limit: int) -> list[tuple[str, bytes, str, str]]:
        """Give (bucket, key, reason, message) of failed objects."""
        ...

    async def buckets(self, flow: str) -> list[str]:
        """Name the buckets that the flow has objects in, in the order of their names."""
        ...

    async def records(
        self, flow: str, bucket: str, after: bytes = b"", limit: int = ROWS_AT_ONCE
    ) -> list[Record]:
        """Give all that is known of the first *limit* objects with keys over *after*, in byte order."""
        ...

    async def transfers(
        self, flow: str, bucket: str, start: bytes, limit: int = ROWS_AT_ONCE
    ) -> list[Due]:
        """Give the first *limit* objects with keys from *start* on, in byte order; not a claim."""
        ...

    async def refute(self, changes: Sequence[Change]) -> list[Change]:
        """Record failures of copies that were proven; gives those whose rows still said so."""
        ...

    async def scrubbed(self, flow: str) -> Scrubbed | None:
        """Say how far the flow's copies were proven again; None before the first."""
        ...

    async def note_scrubbed(self, flow: str, scrubbed: Scrubbed) -> None: ...

    async def spending(self, flow: str) -> Spending | None:
        """Say what the flow has spent; None where nothing counts it."""
        ...

    async def note_spending(self, flow: str, spending: Spending) -> None:
        """Keep it, in the place of what was noted before."""
        ...

    async def audit(self, flow: str, after: int = 0, limit: int = ROWS_AT_ONCE) -> list[Audited]:
        """Give the first *limit* facts of the flow with numbers over *after*: also of a forgotten one.

        A fact is there if and only if the change that it tells of is.
        """
        ...

    async def sample(self, flow: str, sample: Sample) -> None:
        """Keep a sample for the rate; old ones are dropped."""
        ...

    async def samples(self, flow: str) -> list[Sample]: ...

    async def retry(self, flow: str, reason: str | None) -> int:
        """Send failed objects (of one reason) back to work; says how many.

        Sources that could not be deleted are tried again as well.
        """
        ...

    async def next_retry(self, flow: str) -> float | None:
        """Say when the next waiting transfer may be claimed (seconds since the epoch), None if none waits."""
        ...

    async def forget(self, flow: str) -> bool:
        """Drop all that is known of a flow; False when nothing was."""
        ...

    async def close(self) -> None: ...


class Holds(Protocol):
    """Which flows' deletes are held. Beside the state, so that it can be changed while a daemon runs.

    Raises `StateError` where that cannot be known.
    """

    async def get(self, flow: str) -> Hold | None: ...

    async def put(self, flow: str, hold: Hold) -> None:
        """Hold the flow's deletes from now on."""
        ...

    async def drop(self, flow: str) -> bool:
        """Release them; False when they were not held."""
        ...
