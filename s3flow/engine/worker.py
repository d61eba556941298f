"""Claim, transfer, verify, record: one of a flow's transfer slots; decides retry or failure."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from s3flow.crashpoints import passing
from s3flow.engine import retry, thawing
from s3flow.engine.feed import Supply
from s3flow.engine.recorder import STATE_RETRY, Entry, Records
from s3flow.engine.retry import Again, Backoff
from s3flow.engine.route import Copied, Route, Stopped
from s3flow.engine.throttle import Blockade
from s3flow.engine.transfer import transfer_object
from s3flow.engine.uploads import abort
from s3flow.errors import (
    Archived,
    BadAnswer,
    Blocked,
    Conflict,
    Corrupted,
    NoSuchUpload,
    S3flowError,
    SourceChanged,
    SourceGone,
    StateError,
    StateLost,
    TargetExists,
    Throttled,
    Transient,
)
from s3flow.events import Retried, TransferEnded, TransferStarted
from s3flow.lanes import heed_cancellation
from s3flow.model import ARCHIVES, Change, Listed, Proof, State, Transfer
from s3flow.policies import LOST_METADATA, WEAK_PROOF, Mode, Overwrite, RestorePolicy

# After these no part counts any more: an attempt that sent some has got no further.
_FOR_NOTHING = (Conflict, Corrupted, NoSuchUpload, SourceChanged)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Worker:
    """Takes transfers until the feed has none."""

    route: Route
    feed: Supply
    recorder: Records
    blockade: Blockade
    backoff: Backoff

    async def run(self) -> None:
        """Work until the flow is drained or the daemon stops."""
        while (transfer := await self.feed.take()) is not None:
            try:
                entry = await self._handle(transfer)
                await self.recorder.record(entry)
                passing("object.ended")
            finally:
                self.route.begun.pop(transfer.id, None)
                self.route.advanced.discard(transfer.id)
                self.feed.done()

    async def _handle(self, transfer: Transfer) -> Entry:
        passing("object.begun")
        self.route.emit(TransferStarted(transfer))
        started = time.monotonic()
        entry = await self._try(transfer)
        self.route.emit(TransferEnded(entry.change, time.monotonic() - started))
        return entry

    async def _try(self, transfer: Transfer) -> Entry:
        """Try until there is an outcome. Being throttled or blocked is none: it is waited out."""
        throttled = 0
        while True:
            scout = await self.blockade.enter()
            error: BaseException | None = None
            delay = 0.0
            try:
                if self.route.stop.is_set():
                    return Entry(self._pending(transfer))
                return await self._move(transfer)
            except (Throttled, StateError) as caught:
                error = caught
                throttled += 1
                delay = self._patience(caught, throttled)
                self._tell_retry(transfer, caught, delay)
            except Blocked as caught:
                error = caught
            except Stopped as caught:
                error = caught
                return Entry(self._pending(transfer))
            except Exception as caught:  # noqa: BLE001  the one place where an attempt's failure ends
                error = caught
                return Entry(await self._failed(transfer, caught))
            except BaseException as caught:
                error = caught
                raise
            finally:
                self.blockade.leave(error, scout=scout)
            heed_cancellation()
            if delay:
                await self.route.stopped_within(delay)
            if self.route.stop.is_set():
                return Entry(self._pending(transfer))
            transfer = self.route.begun.get(transfer.id, transfer)

    def _patience(self, error: Throttled | StateError, tries: int) -> float:
        if isinstance(error, StateLost):
            raise error  # nothing of what this process does is ever recorded again
        if isinstance(error, StateError):
            # No fault of the object, whose failure could not be recorded either.
            return STATE_RETRY
        self.route.gate.throttled(error.endpoint)
        return retry.patience(error, tries, self.backoff)

    def _tell_retry(self, transfer: Transfer, error: Exception, delay: float) -> None:
        reason = getattr(error, "reason", retry.UNEXPECTED)
        self.route.emit(Retried(transfer, reason, str(error), delay))

    async def _move(self, transfer: Transfer) -> Entry:
        bucket, key = self.route.destination(transfer)
        self.route.target.refuse(bucket, key)
        heeds = self.route.flow.overwrite is Overwrite.NEVER and not transfer.upload_id
        if heeds and await self._is_taken(bucket, key):
            return await self._set_aside(
                Change(transfer, State.SKIPPED, reason=TargetExists.reason)
            )
        if transfer.storage_class in ARCHIVES and self._thaws():
            frozen = await thawing.look(self.route, transfer)
            if frozen is not None:
                return await self._set_aside(frozen)
        try:
            copied = await transfer_object(self.route, transfer)
        except Archived as error:
            if not self._thaws():
                raise
            return await self._set_aside(await thawing.refused(self.route, transfer, error))
        self.route.gate.succeeded()
        return self._verified(transfer, copied)

    async def _is_taken(self, bucket: str, key: bytes) -> bool:
        """Say whether the target has that key: as no later run asks again, two answers have to agree."""
        target = self.route.target
        if await target.head_object(bucket, key) is None:
            return False
        if await target.head_object(bucket, key) is None:
            # To believe the second could write over what is there.
            name = key.decode(errors="backslashreplace")
            raise BadAnswer(
                f"{target.name}:{bucket}/{name}: there by one answer and not by the next; does a "
                "proxy mix up answers?"
            )
        return True

    async def _set_aside(self, change: Change) -> Entry:
        """Record that nothing is sent now; first remove an upload that only the row's state tells of."""
        transfer = self.route.begun.get(change.transfer.id, change.transfer)
        if transfer.state is State.TRANSFERRING and not transfer.upload_id:
            await abort(self.route, transfer)
        return Entry(change)

    def _thaws(self) -> bool:
        return self.route.flow.restore is RestorePolicy.AUTO

    def _verified(self, transfer: Transfer, copied: Copied) -> Entry:
        passing("object.proven")
        change = Change(
            transfer,
            State.VERIFIED,
            method=copied.method,
            proof=copied.proof,
            target_etag=copied.stored.etag or copied.told,
            attempts=transfer.attempts + 1,
            dropped=copied.dropped,
            version_id=copied.version_id or "",
        )
        if self.route.flow.mode is Mode.MOVE:
            self._doom(change)
        if copied.stored.settle is None:
            return Entry(change)
        return Entry(change, self.route.target, copied.stored)

    def _doom(self, change: Change) -> None:
        """Say when the source may be deleted: never on its size alone."""
        if change.proof == Proof.SIZE:
            change.reason = WEAK_PROOF
            change.message = "nothing but the sizes could be compared"
        elif LOST_METADATA in change.dropped:
            change.reason = LOST_METADATA
            change.message = "it has metadata that HTTP cannot carry: the copy lacks it"
        else:
            change.due_at = int((time.time() + self.route.flow.delete_after) * 1000)

    def _pending(self, transfer: Transfer) -> Change:
        """Leave the transfer for the next start, with its upload."""
        current = self.route.begun.get(transfer.id, transfer)
        begun = current.upload_id or current.state is State.TRANSFERRING
        return Change(
            transfer,
            State.TRANSFERRING if begun else State.DISCOVERED,
            attempts=transfer.attempts,
            upload_id=current.upload_id,
            part_size=current.part_size,
        )

    async def _failed(self, transfer: Transfer, error: Exception) -> Change:
        heed_cancellation()
        attempts = transfer.attempts
        if transfer.id in self.route.advanced and not isinstance(error, _FOR_NOTHING):
            attempts = 0  # or nothing of ten thousand parts would ever arrive whole
        verdict = retry.decide(error, attempts, self.route.flow.max_attempts, self.backoff)
        if not isinstance(error, S3flowError):
            _log.error("unexpected error in a transfer", exc_info=error)
        if isinstance(verdict, Again):
            self._tell_retry(transfer, error, verdict.delay)
            if isinstance(error, SourceChanged):
                change = await self._planned_again(transfer)
            else:
                change = self._pending(transfer)
            change.attempts = verdict.attempts
            change.retry_at = int((time.time() + verdict.delay) * 1000)
            change.reason = getattr(error, "reason", retry.UNEXPECTED)
            change.message = str(error)
            return change
        current = self.route.begun.get(transfer.id, transfer)
        left = await self._abort(current)
        told = str(error) or type(error).__name__
        if left is not None and not current.upload_id:
            if self._looks_again(left, verdict.attempts):
                # Nothing but this state tells of the upload: once more, until it could be looked for.
                change = self._pending(transfer)
                change.attempts = verdict.attempts if isinstance(left, Transient) else attempts
                change.message = told
                change.retry_at = int((time.time() + self.backoff.delay(verdict.attempts)) * 1000)
                return change
            told += f"; an upload may be left open at the target, where none could be looked for: {left}"
        return Change(
            transfer,
            # Nothing is lost with an object that its owner deleted.
            State.SKIPPED if isinstance(error, SourceGone) else State.FAILED,
            reason=verdict.reason,
            message=told,
            attempts=verdict.attempts,
            upload_id=None if left is None else current.upload_id,
        )

    def _looks_again(self, left: Exception, attempts: int) -> bool:
        """Say whether to look for an upload once more, as *left* was in the way of it."""
        if isinstance(left, Throttled | Blocked):
            return True  # waited out, as everywhere
        # As often again as it was tried. A flow that is to end does so, whatever the target does.
        return isinstance(left, Transient) and attempts < 2 * self.route.flow.max_attempts

    async def _planned_again(self, transfer: Transfer) -> Change:
        """Go on with the version that is at the source now; nothing of the old one is kept."""
        left = await self._abort(self.route.begun.get(transfer.id, transfer))
        change = Change(transfer, State.DISCOVERED if left is None else State.TRANSFERRING)
        try:
            info = await self.route.source.head_object(transfer.bucket, transfer.key)
        except Exception as error:  # noqa: BLE001  the next try finds out by itself
            self._tell_retry(transfer, error, 0.0)
            return change
        if info is not None:  # else the next try finds it gone
            change.version = Listed(
                transfer.key, info.size, info.etag, info.modified, info.storage_class
            )
        return change

    async def _abort(self, transfer: Transfer) -> Exception | None:
        """Abort the upload of a failed transfer; gives what went wrong with that as well."""
        try:
            await abort(self.route, transfer)
        except Exception as error:  # noqa: BLE001  the failure being handled is the one to report
            self._tell_retry(transfer, error, 0.0)
            return error
        return None
