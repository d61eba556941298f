"""What a flow is, without any of how: two dictionaries, and what may become of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from s3flow.engine.reverify import Result
from s3flow.errors import DeleteFailed, TargetExists, UnguardedDelete
from s3flow.model import OUTCOMES, Outcome, State
from s3flow.policies import Guard, Mode, Overwrite
from tests.torture.promises import (
    Claim,
    Seen,
    Version,
    all_arrived,
    no_source_lost,
    no_upload_left,
)

DONE = (State.VERIFIED, State.DELETED)


class Row(NamedTuple):
    """What the state says of a key. *generation*: how often it was of another version."""

    state: State
    etag: str
    reason: str = ""
    upload_id: str = ""
    generation: int = 0


class End(NamedTuple):
    """What the state says of an object after a run, and what its copy holds. DELETED: the source is gone."""

    state: State
    copy: bytes | None


@dataclass
class Terms:
    """How the flow is configured, and what its source can do; *held*: a person holds the deletes."""

    mode: Mode = Mode.COPY
    overwrite: Overwrite = Overwrite.CHANGED
    excluded: frozenset[bytes] = frozenset()
    guard: Guard = Guard.EACH
    unguarded: bool = False
    held: bool = False

    @property
    def deletes(self) -> bool:
        """Whether a source may be deleted once its copy is proven."""
        may = self.guard is not Guard.NOT or self.unguarded
        return self.mode is Mode.MOVE and may and not self.held


@dataclass
class Model:
    """Both ends of a flow, by key: *here* the source, *there* the target, each the bytes it holds.

    *written* is all that people ever put there, in its order; *seen* what was there at some moment of
    the run at hand. *doubtful*: keys of which the state may be wrong, for others than s3flow changed
    their copies, or it. *lost*: keys whose last version nobody can ask for any more.
    """

    here: dict[bytes, bytes] = field(default_factory=dict)
    there: dict[bytes, bytes] = field(default_factory=dict)
    written: dict[bytes, list[Version]] = field(default_factory=dict)
    seen: dict[bytes, set[bytes]] = field(default_factory=dict)
    doubtful: set[bytes] = field(default_factory=set)
    lost: set[bytes] = field(default_factory=set)
    gone: set[bytes] = field(default_factory=set)  # that people removed, and not s3flow
    wrong: list[str] = field(default_factory=list)

    # --- people, and what s3flow does before their eyes ---------------------------------------------

    def write(self, key: bytes, data: bytes, etag: str) -> None:
        """Take what somebody puts at the source."""
        self.here[key] = data
        self.written.setdefault(key, []).append(Version(data, etag))
        self.seen.setdefault(key, set()).add(data)
        self.lost.discard(key)
        self.gone.discard(key)

    def remove(self, key: bytes) -> None:
        """Take that somebody deletes it there; an object that s3flow moved is nobody's to delete."""
        if self.here.pop(key, None) is not None:
            self.gone.add(key)

    def tamper(self, key: bytes, data: bytes | None) -> None:
        """Take that somebody puts *data* where the copy was, or takes it away."""
        self.doubtful.add(key)
        if key not in self.here:
            self.lost.add(key)
        if data is None:
            self.there.pop(key, None)
        else:
            self.there[key] = data

    def deleted(
        self,
        key: bytes,
        copy: bytes | None,
        row: Row | None,
        terms: Terms,
        proven: Collection[str],
    ) -> None:
        """Look at a delete of s3flow's in the moment that it is done; what must hold, holds then.

        *proven*: ETags of the versions that the audit trail calls proven. The row may be of a version
        that was listed meanwhile and is gone again.
        """
        data = self.here.pop(key)
        etag = self.etag(key, data)
        if copy != data:
            self.wrong.append(f"{key!r} was deleted as {data[:20]!r}, and its copy is {copy!r:.40}")
        overtaken = row is not None and row.etag != etag and etag in proven
        if row is None or ((row.state, row.etag) != (State.VERIFIED, etag) and not overtaken):
            self.wrong.append(f"{key!r} was deleted, and the state has it as {row}")
        if not terms.deletes or key in terms.excluded:
            self.wrong.append(f"{key!r} was deleted, and the flow does not say so: {terms}")

    def etag(self, key: bytes, data: bytes) -> str:
        """Give the ETag of what was written once."""
        return next(it.etag for it in self.written[key] if it.content == data)

    # --- a run that nothing disturbs, and that lists everything -------------------------------------

    def expect(
        self, rows: Mapping[bytes, Row], terms: Terms, *, adopting: bool
    ) -> dict[bytes, End]:
        """Say how each object ends that such a run lists; what is under way may end in two ways."""
        return {
            key: self._end(key, data, row, terms, adopting=adopting and row is None)
            for key, data in self.here.items()
            if (row := rows.get(key)) is None
            or OUTCOMES[row.state] is not Outcome.PENDING
            or not (key in terms.excluded or (row.upload_id and terms.overwrite is Overwrite.NEVER))
        }

    def _end(
        self, key: bytes, data: bytes, row: Row | None, terms: Terms, *, adopting: bool
    ) -> End:
        copy, etag = self.there.get(key), self.etag(key, data)
        state = row.state if row is not None and row.etag == etag else None
        reason = row.reason if row is not None and state else ""
        is_kept = terms.overwrite is Overwrite.NEVER and copy is not None
        if state is State.FAILED:
            return End(state, copy)  # until a person says more
        if reason == TargetExists.reason and terms.overwrite is Overwrite.NEVER:
            return End(State.SKIPPED, copy)
        done_with = terms.overwrite is not Overwrite.ALWAYS or terms.mode is Mode.MOVE
        if state is State.VERIFIED and done_with:
            again = ("", DeleteFailed.reason, UnguardedDelete.reason if terms.unguarded else "")
            if key in terms.excluded or reason not in again or not terms.deletes:
                return End(state, copy)
            if is_kept and copy != data:
                return End(State.SKIPPED, copy)
        elif key in terms.excluded or (is_kept and not (adopting and copy == data)):
            return End(State.SKIPPED, copy)
        return End(State.DELETED if terms.deletes else State.VERIFIED, data)

    def proofs(self, key: bytes, row: Row) -> tuple[Result, ...]:
        """Say what a further look at a copy may find, whose row says that it is done."""
        copy = self.there.get(key)
        data = None if row.state is State.DELETED else self.here.get(key)
        if copy is None:
            return (Result.MISSING,)
        if data is not None and self.etag(key, data) != row.etag:
            return (Result.SOURCE_CHANGED,)
        # Of some versions that are gone nobody can tell any more in which parts their ETag was made.
        return (Result.PROVEN if self.is_true(key, row) else Result.DIFFERS, Result.SIZE_ONLY)

    # --- a run in which anything may happen ---------------------------------------------------------

    def begin(self) -> None:
        """Forget what was there in earlier runs."""
        self.seen = {key: {data} for key, data in self.here.items()}

    def accept(
        self, there: Mapping[bytes, bytes], before: Mapping[bytes, Row], terms: Terms
    ) -> None:
        """Take the target as it was found, if a run may have left it like that."""
        for key in sorted(self.there.keys() | there.keys()):
            was, now = self.there.get(key), there.get(key)
            row = before.get(key)
            under_way = row is not None and OUTCOMES[row.state] is Outcome.PENDING
            never = terms.overwrite is Overwrite.NEVER and not (row is not None and row.upload_id)
            if now == was:
                continue
            if now is None or now not in self.seen.get(key, ()):
                self.wrong.append(f"the copy of {key!r} was {was!r:.40} and became {now!r:.40}")
            elif never and was is not None:
                self.wrong.append(f"the copy of {key!r} was written over")
            elif key in terms.excluded and not under_way:
                self.wrong.append(f"{key!r} was copied, and is excluded")
        self.there = dict(there)

    # --- what always holds --------------------------------------------------------------------------

    def judge(self, before: Mapping[bytes, Row], after: Mapping[bytes, Row]) -> list[str]:
        """Say what is wrong with both ends, or with what the state says of them."""
        for key, row in after.items():
            was = before.get(key)
            if was is None or (row.state, row.generation) != (was.state, was.generation):
                # A copy was proven, or looked at before a delete: what others did to it was earlier.
                self.doubtful -= {key} if row.state in DONE else set()
            if not self.is_true(key, row) and key not in self.doubtful:
                self.wrong.append(f"{key!r} is {row}, and its copy is {self.there.get(key)!r:.40}")
        return self.wrong + no_source_lost(self.look(after))

    def is_true(self, key: bytes, row: Row) -> bool:
        """Say whether a row is right in calling its object done, if it does."""
        copy = self.there.get(key)
        if row.state not in DONE:
            return True
        return any(it.content == copy and it.etag == row.etag for it in self.written[key])

    def doubt(self, rows: Mapping[bytes, Row]) -> None:
        """Take an older state for the state: what is wrong in it was right once."""
        self.doubtful |= {key for key, row in rows.items() if not self.is_true(key, row)}

    def look(self, rows: Mapping[bytes, Row], uploads: Sequence[str] = ()) -> Seen:
        """Give what there is, for the promises that all programmes look at."""
        claims = [Claim(key, row.state, row.etag, row.reason) for key, row in rows.items()]
        known = [row.upload_id for row in rows.values() if row.upload_id]
        ends = (self.here, self.there, self.written)
        return Seen(*ends, self.gone, self.lost, claims, uploads, known)

    def rest(self, rows: Mapping[bytes, Row], uploads: Sequence[str]) -> list[str]:
        """Say what is wrong when all should have been moved: nothing is in the way of it."""
        seen = self.look(rows, uploads)
        return all_arrived(seen, moved=True) + no_upload_left(seen, at_rest=True)
