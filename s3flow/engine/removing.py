"""What becomes of sources whose copies are proven: deleted, kept with the reason, or moved again."""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TypeVar

from s3flow.crashpoints import passing
from s3flow.engine import plan, selfsame, verify
from s3flow.engine.route import Route, object_name
from s3flow.errors import (
    AccessDenied,
    Blocked,
    DeleteDenied,
    DeleteFailed,
    Permanent,
    Refused,
    S3flowError,
    SourceChanged,
    SourceGone,
    TargetLost,
    Throttled,
    UnguardedDelete,
)
from s3flow.lanes import in_lanes
from s3flow.model import Change, Doomed, Listed, ObjectInfo, State
from s3flow.policies import DeletePolicy, Guard
from s3flow.records import Due

LOOKS = 16  # objects that are looked at one by one, at a time
SAME_TIME = 2_000  # milliseconds: what the coarsest of file systems and headers leave out
# Until a delete has succeeded in a bucket, so few are tried at once; if all are denied, no more.
FEW = 20
SINGLY = 100  # deletes in a request each, between looks at whether the daemon stops
T = TypeVar("T")
Answer = TypeVar("Answer")

_CONDITIONS = {
    Guard.EACH: "if its ETag matches",
    Guard.ONE: "if its ETag matches",
    Guard.NOT: "looked at just before, unguarded",
}
_BY_VERSION = "by its version id"
_GONE = "it was gone already"


@dataclass(slots=True)
class Removed:
    """How a batch ended. *kept* stay verified; of *unsure* ones nothing is known yet: they are due still."""

    changes: list[Change] = field(default_factory=list)
    kept: list[Change] = field(default_factory=list)
    unsure: list[Exception] = field(default_factory=list)
    seen: int = 0  # copies that were where they should be
    lost: int = 0  # and that were not
    error: S3flowError | None = None  # wrong with more than one object: what follows is due still


@dataclass(slots=True)
class Remover:
    """Deletes one flow's sources, after a last look at their copies."""

    route: Route
    # Rows whose copies were found to be bad since the batch was read: their sources stay.
    refuted: set[int] = field(default_factory=set)
    _guards: dict[str, Guard] = field(default_factory=dict)  # by bucket, once known
    _refused: dict[str, Permanent] = field(default_factory=dict)  # buckets that are not asked again
    _tries: dict[int, int] = field(default_factory=dict)  # of deletes without an outcome, by row
    _skip: plan.Skip | None = field(init=False)

    def __post_init__(self) -> None:
        # What was young enough to be copied grows too old by waiting: that says nothing.
        filters = replace(self.route.flow.filters, max_age=None)
        self._skip = plan.compile_filters(filters, self.route.flow.source.prefix)

    async def remove(self, dues: Sequence[Due]) -> Removed:
        """Delete what may be deleted of *dues*. What was done stands in the answer, also with an error."""
        removed = Removed()
        by_bucket = sorted(dues, key=lambda due: (due.transfer.bucket, due.transfer.key))
        for bucket, some in groupby(by_bucket, key=lambda due: due.transfer.bucket):
            try:
                await self._of_bucket(bucket, self._meant(bucket, list(some), removed), removed)
            except S3flowError as error:
                removed.error = error
                break
        return removed

    def _meant(self, bucket: str, dues: list[Due], removed: Removed) -> list[Due]:
        """Give those that the flow means as it is configured now; what it copied before stays."""
        flow, skip = self.route.flow, self._skip
        if any(fnmatch.fnmatchcase(bucket, glob) for glob in flow.exclude_buckets):
            refusal = DeleteFailed(f"exclude_buckets leaves {bucket} out by now; its copies stay")
            removed.kept += [_kept(due, refusal) for due in dues]
            return []
        now, meant = time.time(), []
        for due in dues:
            it = due.transfer
            if not it.etag:  # a condition without one may be none to the store
                refusal = DeleteFailed("its listing has no ETag that could be a delete's condition")
                removed.kept.append(_kept(due, refusal))
                continue
            if skip is None:
                meant.append(due)
                continue
            version = Listed(it.key, it.size, it.etag, it.modified, it.storage_class)
            if reason := skip(version, now):
                refusal = DeleteFailed(f"the flow's filters leave it out by now: {reason}")
                removed.kept.append(_kept(due, refusal))
            else:
                meant.append(due)
        return meant

    async def _of_bucket(self, bucket: str, dues: list[Due], removed: Removed) -> None:
        if dues and bucket not in self._guards and bucket not in self._refused:
            try:
                self._guards[bucket] = await self._find_guard(bucket)
            except Permanent as error:
                self._refused[bucket] = error
        refusal = self._refused.get(bucket)
        if dues and refusal is None:
            try:
                dues = await self._with_copies(bucket, dues, removed)
            except Permanent as error:  # whoever may not look deletes nothing
                refusal = DeleteFailed(f"the copies could not be looked at: {error}")
        worked = False
        most = len(dues) if self._guards.get(bucket) is Guard.EACH else SINGLY
        while dues and refusal is None and not self.route.stop.is_set():
            few = most if worked else FEW
            dues = [due for due in dues if due.transfer.id not in self.refuted]
            some, dues = dues[:few], dues[few:]
            denied = len(removed.kept)
            done = len(removed.changes)
            await self._delete(bucket, self._guards[bucket], some, removed)
            worked = worked or len(removed.changes) > done
            if not worked and len(removed.kept) - denied == FEW:
                message = removed.kept[-1].message
                self._refused[bucket] = refusal = DeleteDenied(f"and so were others: {message}")
        removed.kept += [_kept(due, refusal) for due in dues if refusal is not None]

    # --- before the first delete of a bucket -------------------------------------------------------

    async def _find_guard(self, bucket: str) -> Guard:
        route = self.route
        flow = route.flow
        await selfsame.refuse_selfsame_for_moves(route, bucket)
        why = "it deletes whatever is there, also what was never copied"
        try:
            guard = await self._ask_twice(bucket)
        except (AccessDenied, Refused) as error:
            guard = Guard.NOT
            why = (
                f"that could not be found out: {error}; let its credentials write (s3:PutObject) "
                f"and delete {flow.source.prefix.decode(errors='backslashreplace')}.s3flow-probe-*"
            )
        if guard is Guard.NOT and not flow.unguarded_delete:
            raise UnguardedDelete(
                f"{route.source.name}:{bucket}: the store does not compare ETags before it deletes, "
                f"so far as is known: {why}. With unguarded_delete = true s3flow looks just before "
                "each delete, and what is written in that moment would be lost. When the store has "
                "learnt it: s3flow retry"
            )
        return guard

    async def _ask_twice(self, bucket: str) -> Guard:
        """Ask the store for its guard, and again if it seems to have none: one odd answer decides nothing."""
        route = self.route

        async def ask() -> Guard:
            await self._turn(12)
            name = selfsame.name_of(route)
            return await route.source.guard_of(bucket, route.flow.source.prefix, name)

        try:
            guard = await ask()
        except (AccessDenied, Refused):
            guard = Guard.NOT
        return await ask() if guard is Guard.NOT else guard

    # --- the last look at the copies ---------------------------------------------------------------

    async def _with_copies(self, bucket: str, dues: list[Due], removed: Removed) -> list[Due]:
        """Give those whose copies are where they should be; the others are moved again."""
        flow, target = self.route.flow, self.route.target
        keys = {due.transfer.id: plan.target_key(flow, due.transfer.key) for due in dues}
        await self._turn(1)
        there = await target.find(plan.target_bucket(flow, bucket), sorted(set(keys.values())))

        async def look(due: Due) -> bool:
            copy = there.get(keys[due.transfer.id])
            return copy is not None and await self._is_the_copy(due, copy)

        present = []
        for due, is_there in zip(dues, await _all(dues, look), strict=True):
            if is_there:
                present.append(due)
            else:
                removed.changes.append(_lost(due))
        removed.seen += len(present)
        removed.lost += len(dues) - len(present)
        return present

    async def _is_the_copy(self, due: Due, copy: Listed) -> bool:
        transfer = due.transfer
        if copy.size != transfer.size:
            return False
        if self.route.target.limits.etags:
            return bool(copy.etag) and copy.etag in (due.target_etag, transfer.etag)
        if abs(copy.modified - transfer.modified) < SAME_TIME:
            return True
        # Adopted files have the times that others gave them.
        return await verify.file_equals(self.route, transfer, transfer.etag) is True

    # --- deletes -----------------------------------------------------------------------------------

    async def _delete(
        self, bucket: str, guard: Guard, dues: Sequence[Due], removed: Removed
    ) -> None:
        condition = _CONDITIONS[guard]
        doomed = [Doomed(due.transfer.key, due.transfer.etag) for due in dues]
        if self.route.flow.delete is DeletePolicy.VERSION:
            dues, doomed = await self._versions(dues, removed)
        if not dues:
            return
        await self._turn(1 if guard is Guard.EACH else len(dues))
        answers: Sequence[Exception | None]
        try:
            async with self.route.gate:
                passing("delete.asking")
                answers = await self.route.source.delete_objects(bucket, doomed, guard)
                passing("delete.answered")
        except (Throttled, Blocked):
            raise  # nothing was done, and everything would end so
        except S3flowError as error:
            answers = [error] * len(dues)

        async def conclude(one: tuple[Due, Doomed, Exception | None]) -> None:
            due, named, answer = one
            how = _BY_VERSION if named.version_id else condition
            await self._conclude(due, answer, how, removed)

        await _all(list(zip(dues, doomed, answers, strict=True)), conclude)

    async def _versions(
        self, dues: Sequence[Due], removed: Removed
    ) -> tuple[list[Due], list[Doomed]]:
        """Name the versions that were copied, as far as they are the newest still."""
        await self._turn(len(dues))

        left, doomed = [], []
        for due, info in zip(dues, await _all(dues, self._version_there), strict=True):
            it = due.transfer
            if info is None:
                removed.changes.append(_deleted(due, _GONE))
            elif info.etag != it.etag or abs(info.modified - it.modified) >= SAME_TIME:
                removed.changes.append(_changed(due, info))
            else:
                version = info.version_id or ""
                # The version "null" of a bucket that keeps none any more can be replaced.
                known = version if version != "null" and due.version_id in ("", version) else ""
                left.append(due)
                doomed.append(Doomed(it.key, it.etag, known))
        return left, doomed

    async def _conclude(
        self, due: Due, answer: Exception | None, condition: str, removed: Removed
    ) -> None:
        """Say what an answer to a delete means for its object."""
        if answer is None:
            removed.changes.append(_deleted(due, condition))
        elif isinstance(answer, SourceGone):
            removed.changes.append(_deleted(due, _GONE))
        elif isinstance(answer, Permanent):
            removed.kept.append(_kept(due, DeleteDenied(str(answer))))
        elif isinstance(answer, Throttled):
            removed.unsure.append(answer)
        elif isinstance(answer, Blocked):
            raise answer
        else:
            await self._look(due, answer, removed)
            return
        self._tries.pop(due.transfer.id, None)

    async def _look(self, due: Due, error: Exception, removed: Removed) -> None:
        """Look at the source: a lost answer, or one that says that it changed, proves nothing."""
        it = due.transfer
        try:
            info = await self._version_there(due)
        except Blocked:
            raise
        except S3flowError:
            removed.unsure.append(error)
            return
        if info is None:
            removed.changes.append(_deleted(due, _GONE))
        elif info.etag != it.etag:
            removed.changes.append(_changed(due, info))
        else:
            tries = self._tries[it.id] = self._tries.get(it.id, 0) + 1
            if tries < self.route.flow.max_attempts:
                removed.unsure.append(error)
                return
            removed.kept.append(_kept(due, DeleteFailed(str(error))))
        self._tries.pop(it.id, None)

    async def _version_there(self, due: Due) -> ObjectInfo | None:
        """Look at the source, twice if it seems gone: one wrong 404 would leave it there for good."""
        source, it = self.route.source, due.transfer
        info = await source.head_object(it.bucket, it.key)
        if info is None:
            await self._turn(1)
            info = await source.head_object(it.bucket, it.key)
        return info

    async def _turn(self, requests: int) -> None:
        for bucket in self.route.request_buckets:
            await bucket.take(requests)


def _deleted(due: Due, condition: str) -> Change:
    return Change(due.transfer, State.DELETED, message=condition)


def _kept(due: Due, error: Permanent) -> Change:
    return Change(
        due.transfer,
        State.VERIFIED,
        reason=error.reason,
        message=str(error),
        attempts=due.transfer.attempts,
    )


def _lost(due: Due) -> Change:
    return Change(
        due.transfer,
        State.DISCOVERED,
        reason=TargetLost.reason,
        message="its proven copy was not at the target any more when its source was to be deleted",
    )


def _changed(due: Due, info: ObjectInfo) -> Change:
    """Move the version that is there now as well."""
    it = due.transfer
    message = f"{object_name(it)} changed after it was copied (etag {it.etag} -> {info.etag})"
    version = Listed(it.key, info.size, info.etag, info.modified, info.storage_class)
    return Change(
        it, State.DISCOVERED, reason=SourceChanged.reason, message=message, version=version
    )


async def _all(items: Sequence[T], call: Callable[[T], Awaitable[Answer]]) -> list[Answer]:
    """Call for each, some at a time; give the answers in order."""
    answers: dict[int, Answer] = {}

    async def one(numbered: tuple[int, T]) -> None:
        index, item = numbered
        answers[index] = await call(item)

    await in_lanes(list(enumerate(items)), one, LOOKS)
    return [answers[index] for index in range(len(items))]
