"""The proof ladder: how a copy is shown to be equal to its source, strongest evidence first.

1. checksum: the same full-object checksum on both sides, or the CRC64NVME of the bytes that passed
   equals the one a side states.
2. etag: both sides' ETags are equal. A single-part ETag also goes out as Content-MD5, so that the
   target refuses other bytes; a multipart one is reproduced by keeping the source's part boundaries.
3. md5: the MD5 of the bytes that passed equals a stated one.
4. size: nothing better exists.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence

from s3flow.engine import plan
from s3flow.engine.plan import is_md5, parts_in
from s3flow.engine.readback import ReadAnew
from s3flow.engine.route import Route, object_name
from s3flow.errors import (
    AccessDenied,
    Conflict,
    CopyRefused,
    Corrupted,
    Refused,
    SourceChanged,
    SourceGone,
)
from s3flow.model import Limits, ObjectInfo, Part, Proof, Span, Stored, Transfer
from s3flow.ports import Body, Digest

MD5 = "md5"
CRC64 = "crc64nvme"
REMOVED = "; the copy was removed"
KEYED = {"aws:kms", "aws:kms:dsse", "customer"}  # their ETags are no digests of the bytes


class HashingBody:
    """A body that is hashed as it passes. CRC64NVME costs next to nothing, MD5 does not.

    *whole* goes on with what passes, beside the digests of this body.
    """

    def __init__(self, body: Body, route: Route, *, md5: bool, whole: Digest | None = None) -> None:
        self._body = body
        self._route = route
        self._digests: dict[str, Digest] = {CRC64: route.crc64.new()}
        if md5:
            self._digests[MD5] = hashlib.md5(usedforsecurity=False)
        self._fed = (*self._digests.values(), *(() if whole is None else (whole,)))
        self.info = body.info
        self.size = body.size

    async def read(self) -> memoryview:
        """Give the next chunk, hashed and counted."""
        chunk = await self._body.read()
        self._route.passed += len(chunk)
        for digest in self._fed:
            digest.update(chunk)
        return chunk

    def close(self) -> None:
        """Close the body below."""
        self._body.close()

    def digests(self) -> dict[str, bytes]:
        """Give the digests of what has been read."""
        return {name: digest.digest() for name, digest in self._digests.items()}


def stated_md5(info: ObjectInfo) -> bytes | None:
    """Give the MD5 that the source states by its ETag, where that is what its ETag is."""
    if info.encryption in KEYED or not is_md5(info.etag):
        return None
    return bytes.fromhex(info.etag)


def needs_md5(info: ObjectInfo, limits: Limits, stated: bytes | None) -> bool:
    """Say whether MD5 must be computed while the bytes pass, because nothing cheaper proves them.

    *stated* is what `stated_md5` gives of *info*.
    """
    if limits.etags:
        return stated is None  # to be compared with the target's ETag
    return CRC64 not in info.checksums and stated is not None


def only_md5(info: ObjectInfo, limits: Limits) -> bytes | None:
    """Give the MD5 that the source states, where parts can be compared by nothing else of the whole.

    The target tells of its parts, and a folder is hashed at the end.
    """
    return None if CRC64 in info.checksums or not limits.etags else stated_md5(info)


def prove(info: ObjectInfo, stored: Stored, passed: Mapping[str, bytes]) -> Proof:
    """Say how strongly *stored* is shown to equal the source; *passed* holds digests of its bytes.

    Raises `Corrupted` when two values that must be equal are not.
    """
    if stored.size != info.size:
        raise Corrupted(f"the target holds {stored.size:,} of {info.size:,} bytes")
    found = _by_checksum(info, stored, passed) or _by_etag(info, stored, passed)
    if found is None and not info.size:
        return Proof.CHECKSUM  # there is but one sum of no bytes: a key's ETag hides nothing here
    return found or Proof.SIZE


def _by_checksum(info: ObjectInfo, stored: Stored, passed: Mapping[str, bytes]) -> Proof | None:
    if not info.checksums and not stored.checksums:
        return None
    here = {CRC64: base64.b64encode(passed[CRC64]).decode()} if CRC64 in passed else {}
    proof = None
    for left, right in (
        (info.checksums, stored.checksums),
        (here, stored.checksums),
        (here, info.checksums),
    ):
        for algorithm in left.keys() & right.keys():
            if left[algorithm] != right[algorithm]:
                raise Corrupted(f"{algorithm} {left[algorithm]} became {right[algorithm]}")
            # Between what passed and the source alone it proves the reading, and for files the file:
            # what was written is what passed. A store with ETags must confirm that it holds it.
            if right is stored.checksums or not stored.etag:
                proof = Proof.CHECKSUM
    return proof


def _by_etag(info: ObjectInfo, stored: Stored, passed: Mapping[str, bytes]) -> Proof | None:
    is_equal = stored.etag == info.etag and (is_md5(info.etag) or bool(parts_in(info.etag)))
    if is_equal and MD5 not in passed:
        return Proof.ETAG
    source_md5 = stated_md5(info)
    if source_md5 and MD5 in passed and passed[MD5] != source_md5:
        raise Corrupted(f"MD5 {source_md5.hex()} became {passed[MD5].hex()} on the way")
    if not stored.etag:
        return Proof.MD5 if source_md5 and MD5 in passed else None
    if is_equal:
        return Proof.ETAG
    if stored.encryption in KEYED or not is_md5(stored.etag):
        return None
    expected = source_md5 or passed.get(MD5)
    if expected is None:
        return None
    if stored.etag != expected.hex():
        raise Corrupted(f"MD5 {expected.hex()} became {stored.etag}")
    return Proof.MD5


def file_sum(crc64: bytes) -> str:
    """Give what is recorded of a file in the place of an ETag: it can be hashed again at any time."""
    return f"{CRC64}:{base64.b64encode(crc64).decode()}"


def check_part(part: Part, passed: Mapping[str, bytes]) -> Proof | None:
    """Compare what the target says of a part with the bytes that passed. Raises `Corrupted`."""
    if part.checksum and CRC64 in passed:
        if part.checksum != base64.b64encode(passed[CRC64]).decode():
            raise Corrupted(f"part {part.number}: the target's CRC64NVME is not that of its bytes")
        return Proof.CHECKSUM
    # Under KMS a part's ETag has the form of an MD5 without being one.
    if is_md5(part.etag) and MD5 in passed and part.encryption not in KEYED:
        if part.etag != passed[MD5].hex():
            raise Corrupted(f"part {part.number}: the target's ETag is not the MD5 of its bytes")
        return Proof.MD5
    return None


def check_crc(stated: str, passed: bytes) -> None:
    """Compare the CRC64NVME that the source states with that of what passed. Raises `Corrupted`."""
    found = base64.b64encode(passed).decode()
    if found != stated:
        raise Corrupted(f"{CRC64} {stated} became {found} on the way")


def multipart_etag(parts: Sequence[Part]) -> str:
    """Give the ETag that a store makes of parts with MD5 ETags; "" where they are none."""
    if not parts or not all(is_md5(part.etag) for part in parts):
        return ""
    joined = b"".join(bytes.fromhex(part.etag) for part in parts)
    return f"{hashlib.md5(joined, usedforsecurity=False).hexdigest()}-{len(parts)}"


async def confirm(
    route: Route, transfer: Transfer, info: ObjectInfo, stored: Stored, passed: dict[str, bytes]
) -> Proof:
    """Prove a copy, hashing a file where nothing else can; a copy that differs is removed.

    Raises `Corrupted`.
    """
    try:
        proof = prove(info, stored, passed)
        if proof is Proof.SIZE and not route.target.limits.etags:
            proof = await _file_proof(route, transfer, info)
    except Corrupted as error:
        left = await remove(route, *route.destination(transfer), stored)
        raise Corrupted(f"{object_name(transfer)}: {error}{left or REMOVED}") from error
    return proof


async def _file_proof(route: Route, transfer: Transfer, info: ObjectInfo) -> Proof:
    """Hash a file, fresh in the page cache, in the way the source's ETag was made."""
    stated = info.checksums.get(CRC64)
    place = route.destination(transfer)
    if stated:
        digest = await route.target.digest(*place, CRC64, None)
        found = base64.b64encode(digest).decode() if digest else "none: it is gone"
        if found == stated:
            return Proof.CHECKSUM
        raise Corrupted(f"the source's CRC64NVME is {stated}, and that of the file {found}")
    if info.encryption in KEYED:
        return Proof.SIZE
    equal = await file_equals(route, transfer, transfer.etag)
    if equal is False:
        digest = await route.target.digest(*place, MD5, None)
        found = digest.hex() if digest else "none: it is gone"
        raise Corrupted(f"the source's MD5 is {transfer.etag}, and that of the file {found}")
    if equal is None and plan.parts_in(transfer.etag):
        await _read_again(route, transfer, info)
        return Proof.READBACK
    return Proof.MD5 if equal else Proof.SIZE


async def _read_again(route: Route, transfer: Transfer, info: ObjectInfo) -> None:
    """Compare a file with its source read once more, where a multipart ETag does not come out of it.

    Either bytes were damaged on the way, or the parts had other boundaries, or the ETag is no digest at
    all. What is read a second time and equals the file is what the source holds, whatever its ETag is
    made of. Raises `Corrupted` where they differ.
    """
    async with route.gate, route.room(transfer.size):
        body = ReadAnew(route, transfer, info, Span(0, transfer.size))
        try:
            hashing = HashingBody(body, route, md5=False)
            while await hashing.read():
                pass
        finally:
            body.close()
    passed = hashing.digests()[CRC64]
    if await route.target.digest(*route.destination(transfer), CRC64, None) != passed:
        found = base64.b64encode(passed).decode()
        raise Corrupted(f"the source was read twice, and is not the file: its {CRC64} is {found}")


async def file_equals(route: Route, transfer: Transfer, etag: str) -> bool | None:
    """Say whether the file at the target has the source's ETag; None where that cannot be told."""
    bucket, key = route.destination(transfer)
    if plan.is_md5(etag):
        return await route.target.digest(bucket, key, MD5, None) == bytes.fromhex(etag)
    layout = await source_layout(route, transfer, Limits(min_part_size=1))
    if layout is None:
        return None
    digest = await route.target.digest(bucket, key, MD5, layout.part_size)
    if digest is not None and f"{digest.hex()}-{layout.parts}" == etag:
        return True
    # The boundaries may be a guess: a mismatch proves nothing then.
    return None


async def source_layout(route: Route, transfer: Transfer, limits: Limits) -> plan.Layout | None:
    """Find the boundaries of the source's parts, asking for part 1 where the source knows it."""
    if not plan.parts_in(transfer.etag):
        return None
    first = await _first_part(route, transfer)
    knows = first is not None and first.parts_count is not None
    route.part_numbers = route.part_numbers or knows
    size = first.size if first is not None and knows else None
    return plan.source_layout(transfer.size, transfer.etag, size, limits)


async def _first_part(route: Route, transfer: Transfer) -> ObjectInfo | None:
    """Ask for part 1 by its number; None where the source does not take such questions.

    A guess at its boundaries leaves an object without a proof for good, and a HEAD has no body that
    would say why it was refused. So it is asked twice; of a source that has told of other parts, also
    where an answer tells of none, and a second refusal is an error. An answer with another ETag is of
    another version, or of another object: proxies have mixed them up.
    """
    first: ObjectInfo | None = None
    for last in (False, True):
        try:
            first = await route.source.head_object(transfer.bucket, transfer.key, part_number=1)
        except Refused:
            if last and route.part_numbers:
                raise
            continue
        if first is None or first.etag != transfer.etag:
            first = None
            continue
        if not route.part_numbers or first.parts_count is not None:
            break
    return first


async def same_version(route: Route, transfer: Transfer, stored: Stored) -> ObjectInfo:
    """Make sure that the source still holds what was planned, where the copy's ETag does not tell.

    A store may ignore the condition on a copy's source. Raises `SourceChanged`, and the copy of who
    knows which version is removed; or `SourceGone`, and it stays: it is one version, and may be the
    last copy of it, where another move of the same object has just deleted the source.
    """
    info = await route.source.head_object(transfer.bucket, transfer.key)
    if info is not None and info.etag == transfer.etag:
        return info
    if info is None:
        name = object_name(transfer)
        raise SourceGone(f"{name} was deleted while the store copied it; the copy stays")
    left = await remove(route, *route.destination(transfer), stored)
    raise SourceChanged(
        f"{object_name(transfer)} changed while the store copied it "
        f"(etag {transfer.etag} -> {info.etag}){left or REMOVED}"
    )


async def by_looking(route: Route, transfer: Transfer, stored: Stored) -> tuple[Proof, Stored]:
    """Prove a copy that the store made, and whose ETag is not the source's, by what both sides say.

    That the store took a request for it proves nothing, not even a size. Raises `CopyRefused` where
    the target may be written, and not looked at.
    """
    info = await same_version(route, transfer, stored)
    try:
        there = await route.target.head_object(*route.destination(transfer))
    except AccessDenied as error:
        raise CopyRefused(f"nothing can show that the copy is equal: {error}") from error
    if there is None or there.etag != stored.etag:
        raise Conflict(f"{object_name(transfer)}: somebody else wrote to the copy's key meanwhile")
    seen = Stored(
        there.size,
        there.etag,
        {**there.checksums, **stored.checksums},
        stored.version_id,
        there.encryption or stored.encryption,
    )
    return await confirm(route, transfer, info, seen, {}), seen


async def readable(route: Route, transfer: Transfer, stored: Stored) -> None:
    """Make sure that the target's account has what was written with the source's credentials.

    Where a bucket takes ACLs, an object belongs to who wrote it, and its bucket's owner may be unable
    to read it. Raises `CopyRefused` then; the copy is removed.
    """
    bucket, key = route.destination(transfer)
    try:
        there = await route.target.head_object(bucket, key)
    except AccessDenied as error:
        left = await remove(route, bucket, key, stored)
        raise CopyRefused(
            f"not readable by the target's account, for the copy belongs to the source's: {error}"
            f"{left}"
        ) from error
    if there is None or there.etag != stored.etag:
        raise Conflict(f"{object_name(transfer)}: somebody else wrote to the copy's key meanwhile")


async def is_readable(route: Route, bucket: str, key: bytes) -> bool:
    """Say whether the target's account may look at what is at *key*."""
    try:
        return await route.target.head_object(bucket, key) is not None
    except AccessDenied:
        return False


async def remove(route: Route, bucket: str, key: bytes, stored: Stored) -> str:
    """Remove a copy as its owner, or as its bucket's; say what is in the way if neither may."""
    left = ""
    for store in dict.fromkeys((route.copier or route.target, route.target)):
        try:
            await store.discard(bucket, key, stored)
        except (AccessDenied, Refused) as error:
            left = f"; and it could not be removed: {error}"
        else:
            return ""
    return left


async def read_back(route: Route, transfer: Transfer, etag: str) -> bytes | None:
    """Read the copy with *etag* from the target and give its MD5; None if it cannot be read."""
    if route.reader is None:
        return None
    bucket, key = route.destination(transfer)
    md5 = hashlib.md5(usedforsecurity=False)
    async with route.slots:
        body = await route.reader.get_object(bucket, key, etag=etag)
        try:
            while chunk := await body.read():
                md5.update(chunk)
        finally:
            body.close()
    return md5.digest()
