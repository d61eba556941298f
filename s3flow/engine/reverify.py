"""Copies are proven again, long after they were made: by what both sides say of them now, or by their bytes.

A rung above those of `verify`: the ETag that a target had when its copy was proven by its content, and
that it still has, shows that the copy is that very object.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeVar

from s3flow.engine import plan, readback, retry, verify
from s3flow.engine.retry import Again
from s3flow.engine.route import Route, Stopped
from s3flow.errors import Blocked, Corrupted, Permanent, Refused, S3flowError, Throttled
from s3flow.model import Change, Limits, ObjectInfo, Proof, State, Stored, Transfer
from s3flow.policies import VERIFICATION_FAILED
from s3flow.ports import Digest
from s3flow.records import Due

ATTEMPTS = 5
SHA256 = "sha256"  # as stores name it
PARTS = "parts"
RECORDED = "recorded"  # the proof by the target's ETag of then
_SUM = f"{verify.CRC64}:"  # what a file's sum begins with, in the place of an ETag
_ANY_PARTS = Limits(min_part_size=1)
_BY_CONTENT = {Proof.CHECKSUM, Proof.ETAG, Proof.MD5, Proof.READBACK}
Answer = TypeVar("Answer")


class Result(StrEnum):
    """What a look at a copy has shown."""

    PROVEN = "proven"
    SIZE_ONLY = "size_only"
    NOT_COMPARED = "not_compared"
    MISSING = "missing"
    DIFFERS = "differs"
    SOURCE_CHANGED = "source_changed"


REFUTED = frozenset({Result.MISSING, Result.DIFFERS})
DIFFERENT = REFUTED | {Result.SOURCE_CHANGED}


class Copy(NamedTuple):
    """A copy that is there, as the state or both listings say; and how it was proven then, if it was."""

    transfer: Transfer
    proof: str = ""
    target_etag: str = ""

    @property
    def gone(self) -> bool:
        """Whether its source was deleted by a move."""
        return self.transfer.state is State.DELETED

    @property
    def known_etag(self) -> str:
        """The target's ETag of a copy that was proven by its content; "" if there is none."""
        return self.target_etag if self.proof in _BY_CONTENT else ""


class Looked(NamedTuple):
    """What was found: the *proof* of what is proven, else a *message* for people."""

    result: Result
    proof: str = ""
    message: str = ""


def copy_of(due: Due) -> Copy | None:
    """Give the copy that a row tells of; None where there is none, or not for sure."""
    if due.transfer.state not in {State.VERIFIED, State.DELETED}:
        return None
    return Copy(due.transfer, due.proof, due.target_etag)


def refutal(copy: Copy, looked: Looked) -> Change:
    """Give what is recorded of a copy that is missing or not equal: `retry` brings it back."""
    it = copy.transfer
    return Change(
        it,
        State.FAILED,
        reason=VERIFICATION_FAILED,
        message=f"{looked.result}: {looked.message}",
        attempts=it.attempts,
    )


@dataclass(slots=True)
class Prover:
    """Looks at one flow's copies. It changes nothing. *reads*: the target's bytes count, not its words."""

    route: Route
    reads: bool = False

    async def prove(self, copy: Copy) -> Looked:
        """Look at a copy until there is an answer. Raises `Blocked`, and `Stopped` at a stop."""
        try:
            return await self.patiently(lambda: self._look(copy))
        except (Blocked, Stopped):
            raise
        except Corrupted as error:
            return Looked(Result.DIFFERS, message=str(error))
        except S3flowError as error:
            return Looked(Result.NOT_COMPARED, message=f"{error.reason}: {error}")

    async def patiently(self, call: Callable[[], Awaitable[Answer]]) -> Answer:
        """Call until it succeeds or has failed often enough; throttling counts as no failure."""
        attempts = throttled = 0
        route = self.route
        while True:
            try:
                async with route.gate:
                    answer = await call()
            except Throttled as error:
                throttled += 1
                route.gate.throttled(error.endpoint)
                delay = retry.patience(error, throttled, route.backoff)
            except (Blocked, Corrupted):
                raise
            except S3flowError as error:
                verdict = retry.decide(error, attempts, ATTEMPTS, route.backoff)
                if not isinstance(verdict, Again):
                    raise
                attempts, delay = verdict.attempts, verdict.delay
            else:
                route.gate.succeeded()
                return answer
            if await route.stopped_within(delay):
                raise Stopped("not looked at to the end")

    async def _look(self, copy: Copy) -> Looked:
        route, it = self.route, copy.transfer
        bucket, key = route.destination(it)
        try:
            route.target.refuse(bucket, key)
        except Permanent as error:
            return Looked(Result.MISSING, message=f"the target cannot hold it: {error}")
        await route.turn((not copy.gone) + route.target.limits.etags)
        there = await route.target.head_object(bucket, key)
        if there is None:
            return Looked(Result.MISSING, message="nothing is at the target's key")
        here = None if copy.gone else await route.source.head_object(it.bucket, it.key)
        if here is not None and here.etag != it.etag:
            return Looked(Result.SOURCE_CHANGED, message=f"ETag {it.etag} became {here.etag}")
        if there.size != it.size:
            raise Corrupted(f"the target has {there.size:,} bytes, the source {it.size:,}")
        if not route.target.limits.etags:
            return await self._file(copy, here)
        if self.reads:
            return await self._read(copy, here, there)
        return self._by_words(copy, here, there)

    # --- what stores say ---------------------------------------------------------------------------

    def _by_words(self, copy: Copy, here: ObjectInfo | None, there: ObjectInfo) -> Looked:
        etag = copy.transfer.etag
        if here is not None:
            stored = Stored(there.size, there.etag, there.checksums, encryption=there.encryption)
            proof = verify.prove(here, stored, {})
            if proof is not Proof.SIZE:
                return Looked(Result.PROVEN, proof)
        elif there.etag == etag and (plan.is_md5(etag) or plan.parts_in(etag)):
            return Looked(Result.PROVEN, Proof.ETAG)
        if not copy.known_etag:
            return _size_only(here)
        if copy.known_etag == there.etag:
            return Looked(Result.PROVEN, RECORDED)
        raise Corrupted(
            f"written over since it was proven (its ETag {copy.known_etag} became {there.etag}), "
            "and nothing tells that the bytes are the same"
        )

    # --- files -------------------------------------------------------------------------------------

    async def _file(self, copy: Copy, here: ObjectInfo | None) -> Looked:
        """Hash a file in the way that the source's sum was made, or that of its bytes was recorded."""
        stated = here.checksums.get(verify.CRC64) if here else None
        if not stated and copy.target_etag.startswith(_SUM) and (copy.known_etag or not self.reads):
            return await self._file_by_record(copy)
        if stated:
            digest = await self._digest(copy, verify.CRC64)
            if digest != base64.b64decode(stated):
                found = base64.b64encode(digest).decode()
                raise Corrupted(f"crc64nvme {stated} became {found}")
            return Looked(Result.PROVEN, Proof.CHECKSUM)
        looked = await self._file_by_etag(copy, here)
        if looked.result is Result.PROVEN or not self.reads or here is None:
            return looked
        source = await readback.of_source(self.route, copy.transfer)
        return _compared(source, await self._digest(copy, verify.CRC64))

    async def _file_by_record(self, copy: Copy) -> Looked:
        found = verify.file_sum(await self._digest(copy, verify.CRC64))
        if found != copy.target_etag:
            raise Corrupted(f"{copy.target_etag} became {found.removeprefix(_SUM)}")
        if copy.known_etag:
            return Looked(Result.PROVEN, RECORDED)
        message = "it is as it was written, and nothing has shown then that this is the source's"
        return Looked(Result.SIZE_ONLY, message=message)

    async def _file_by_etag(self, copy: Copy, here: ObjectInfo | None) -> Looked:
        etag = copy.transfer.etag
        if here is not None and here.encryption in verify.KEYED:
            return _size_only(here)
        # Of a source that is gone nobody can say any more whether its ETag was an MD5: it was, if the
        # copy was proven by it.
        sure = copy.proof == Proof.MD5
        if plan.is_md5(etag):
            found = (await self._digest(copy, verify.MD5)).hex()
            sure = sure or here is not None
        else:
            layout, told = await self._layout(copy, here)
            if layout is None:
                return _size_only(here)
            digest = await self._digest(copy, verify.MD5, layout.part_size)
            found = f"{digest.hex()}-{layout.parts}"
            sure = sure or told
        if found == etag:
            return Looked(Result.PROVEN, Proof.MD5)
        if sure:
            raise Corrupted(f"MD5 {etag} became {found}")
        why = "which the source's ETag need not be made of" if here else "and the source is gone"
        return Looked(Result.SIZE_ONLY, message=f"the file's MD5 is {found}, not {etag}, {why}")

    async def _digest(self, copy: Copy, algorithm: str, part_size: int | None = None) -> bytes:
        bucket, key = self.route.destination(copy.transfer)
        digest = await self.route.target.digest(bucket, key, algorithm, part_size)
        if digest is None:
            raise Refused(f"{key!r} cannot be hashed at the target: it was there a moment ago")
        return digest

    async def _layout(self, copy: Copy, here: ObjectInfo | None) -> tuple[plan.Layout | None, bool]:
        """Give the boundaries of the source's parts, and whether the source told them."""
        it, first = copy.transfer, None
        count = plan.parts_in(it.etag)
        if count and here is not None:
            try:
                first = await self.route.source.head_object(it.bucket, it.key, part_number=1)
            except Refused:
                first = None  # not every store can be asked for a part by its number
        is_it = first is not None and first.etag == it.etag and first.parts_count is not None
        size = first.size if first is not None and is_it else None
        told = size is not None or count == 1
        return plan.source_layout(it.size, it.etag, size, _ANY_PARTS), told

    # --- bytes -------------------------------------------------------------------------------------

    async def _read(self, copy: Copy, here: ObjectInfo | None, there: ObjectInfo) -> Looked:
        """Read the target, and the source where it states no sum of its bytes."""
        route, it = self.route, copy.transfer
        stated = here.checksums if here else {}
        digests: dict[str, Digest] = {verify.CRC64: route.crc64.new()}
        if verify.CRC64 not in stated:
            digests |= await self._others(copy, here)
        await readback.of_target(route, it, there.etag, digests.values())
        for name in digests.keys() & stated.keys():
            found = base64.b64encode(digests[name].digest()).decode()
            if found != stated[name]:
                raise Corrupted(f"{name} {stated[name]} became {found}")
            return Looked(Result.PROVEN, Proof.READBACK)
        md5, parts = digests.get(verify.MD5), digests.get(PARTS)
        etag = md5.digest().hex() if md5 else ""
        if isinstance(parts, readback.PartsMd5):
            etag = parts.etag()
        if etag == it.etag:
            return Looked(Result.PROVEN, Proof.READBACK)
        if here is None:
            return self._by_words(copy, here, there)
        if md5 and here.encryption not in verify.KEYED:
            raise Corrupted(f"MD5 {it.etag} became {etag}")
        return _compared(await readback.of_source(route, it), digests[verify.CRC64].digest())

    async def _others(self, copy: Copy, here: ObjectInfo | None) -> dict[str, Digest]:
        """Make the digest that tells most, where the source states no CRC64NVME."""
        if here is not None and SHA256 in here.checksums:
            return {SHA256: hashlib.sha256()}
        if plan.is_md5(copy.transfer.etag):
            return {verify.MD5: hashlib.md5(usedforsecurity=False)}
        layout, _ = await self._layout(copy, here)
        return {PARTS: readback.PartsMd5(layout.part_size)} if layout else {}


def _size_only(here: ObjectInfo | None) -> Looked:
    why = "no sum is stated at both ends" if here else "the source is gone, and told no sum"
    return Looked(Result.SIZE_ONLY, message=why)


def _compared(source: bytes, target: bytes) -> Looked:
    if source != target:
        here, there = (base64.b64encode(digest).decode() for digest in (source, target))
        raise Corrupted(f"both were read: crc64nvme {here} became {there}")
    return Looked(Result.PROVEN, Proof.READBACK)
