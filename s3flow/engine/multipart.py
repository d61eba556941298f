"""One object in parts: the missing ones, several at a time, resumable at any instant."""

from __future__ import annotations

from contextlib import suppress

from s3flow.crashpoints import passing
from s3flow.engine import plan, verify
from s3flow.engine.fidelity import attributes_of
from s3flow.engine.openupload import STREAMED, OpenUpload, Way
from s3flow.engine.reading import resumed
from s3flow.engine.route import (
    BY_SOURCE,
    TOKEN_HEADER,
    Copied,
    Route,
    object_name,
    wrong_size,
)
from s3flow.engine.uploads import abort, abort_all, forget
from s3flow.errors import (
    AccessDenied,
    Archived,
    Conflict,
    ConnectionLost,
    CopyRefused,
    Corrupted,
    NoSuchUpload,
    Refused,
    ServerError,
    SourceChanged,
    SourceGone,
    Stalled,
)
from s3flow.model import Attributes, ObjectInfo, Proof, Stored, Transfer

MAX_UPLOAD_RESTARTS = 3


async def copy_in_parts(route: Route, transfer: Transfer, way: Way = STREAMED) -> Copied | None:
    """Move an object in parts. None when no layout suits it: it goes in one piece."""
    info = await route.source.head_object(transfer.bucket, transfer.key)
    if info is None:
        raise SourceGone(f"{object_name(transfer)} was deleted before it was read")
    if info.etag != transfer.etag:
        raise SourceChanged(f"{object_name(transfer)}: etag {transfer.etag} became {info.etag}")
    if info.size != transfer.size:
        raise wrong_size(transfer, info.size)
    layout = await _layout(route, transfer, way.whole(route))
    if layout is None:
        return None
    attributes, dropped = await attributes_of(route, transfer, info)
    attributes = attributes._replace(token=plan.transfer_token(route.source.name, transfer))
    upload = OpenUpload(route, transfer, layout, info, _hashes_md5(route, info, layout), way)
    try:
        stored = await _upload(upload, attributes)
    except (SourceChanged, SourceGone, Corrupted):
        # Nobody can ever finish it, or it holds a part that must not be taken for a good one.
        await abort(route, upload.transfer)
        raise
    except Conflict:
        # Completing again helps after an OperationAborted, never after a ConditionalRequestConflict.
        if transfer.attempts:
            await abort(route, upload.transfer)
        raise
    route.readings.pop(upload.upload_id, None)
    if upload.upload_id.startswith(BY_SOURCE):
        try:
            await verify.readable(route, upload.transfer, stored)
        except CopyRefused:
            forget(route, upload.transfer)
            raise
    proof = await _multipart_proof(upload, stored)
    told = verify.file_sum(upload.crc) if upload.crc and not route.target.limits.etags else ""
    return Copied(way.method, proof, stored, dropped, info.version_id, told)


def _hashes_md5(route: Route, info: ObjectInfo, layout: plan.Layout) -> bool:
    if not route.target.limits.etags:
        return False  # a file is hashed at the end, from the page cache
    # With the source's boundaries the ETags will tell, unless a key makes them mean nothing.
    return not (layout.of_source and info.encryption in {"", "AES256"})


async def _layout(route: Route, transfer: Transfer, whole: int) -> plan.Layout | None:
    limits = route.target.limits
    if transfer.part_size:  # the same plan as when the upload began, or its parts are worth nothing
        repeats = plan.ceil_div(transfer.size, transfer.part_size) == plan.parts_in(transfer.etag)
        return plan.Layout(transfer.size, transfer.part_size, of_source=repeats)
    layout = await verify.source_layout(route, transfer, limits) if limits.etags else None
    if layout is None and transfer.size > whole:
        layout = plan.fit_layout(transfer.size, route.flow.part_size, limits)
    return layout


async def _upload(upload: OpenUpload, attributes: Attributes) -> Stored:
    """Send what the target lacks and complete; begin again, a few times, when the upload vanished."""
    for _ in range(MAX_UPLOAD_RESTARTS):
        try:
            if upload.transfer.upload_id:
                await _take_stock(upload)
            else:
                await _begin(upload, attributes)
            await _bring_all(upload)
            await _compare_unseen(upload)
            return await _complete(upload, attributes.token)
        except NoSuchUpload:
            stored = await _completed_before(upload, attributes.token)
            if stored is not None:
                return stored
            upload.route.readings.pop(upload.upload_id, None)
            # The id may have been in an answer to another question: what was begun is open then.
            with suppress(AccessDenied, Refused):
                await abort_all(upload.route, *upload.route.destination(upload.transfer))
            upload.transfer = upload.transfer._replace(upload_id=None)
            upload.done.clear()
    raise NoSuchUpload(f"{object_name(upload.transfer)}: the target lost the upload time and again")


async def _bring_all(upload: OpenUpload) -> None:
    """Send what the target lacks, and read what it has where only all in order can be compared."""
    numbers = range(1, upload.layout.parts + 1)
    stated = verify.only_md5(upload.info, upload.route.target.limits)
    if stated is None or upload.way is not STREAMED:
        await upload.in_lanes([n for n in numbers if n not in upload.done], upload.copy_part)
        return
    reading = resumed(upload.route.readings, upload.upload_id, upload.done)
    upload.reading, upload.proofs, upload.crcs = reading, reading.proofs, reading.crcs
    await upload.in_lanes(list(numbers[len(reading.etags) :]), upload.take_part)
    reading.check(stated)


async def _compare_unseen(upload: OpenUpload) -> None:
    """Find damage before the upload is completed: from then on it is there for all, and may stay.

    Parts are read again only where the ETag that they will have together is not the source's. Then all
    are: that the target holds what passed says nothing of what was read.
    """
    stated = upload.info.checksums.get(verify.CRC64)
    if stated and len(upload.crcs) == upload.layout.parts:
        verify.check_crc(stated, upload.combined_crc())
        return
    parts = [upload.done[number] for number in sorted(upload.done)]
    if upload.way is not STREAMED or not upload.layout.of_source:
        return
    if verify.KEYED & {upload.info.encryption, *(part.encryption for part in parts)}:
        return  # what it calls ETags tells nothing
    if verify.multipart_etag(parts) not in {"", upload.transfer.etag}:
        await upload.in_lanes(sorted(upload.done), upload.hash_anew)


async def _begin(upload: OpenUpload, attributes: Attributes) -> None:
    route, transfer, layout = upload.route, upload.transfer, upload.layout
    bucket, key = route.destination(transfer)
    # The intent first: if the process dies before it knows the id, the next one looks for it here.
    transfer = await route.remember(transfer, "", layout.part_size)
    route.begun[transfer.id] = transfer
    passing("upload.intended")
    by_source = BY_SOURCE if upload.way.by_source else ""
    store, _ = route.held(by_source)
    begun = await store.create_multipart_upload(bucket, key, attributes, layout.size)
    passing("upload.created")
    upload_id = by_source + begun
    upload.transfer = await route.remember(transfer, upload_id, layout.part_size)
    route.begun[transfer.id] = upload.transfer
    passing("upload.remembered")


async def _take_stock(upload: OpenUpload) -> None:
    """Ask the target what it holds; only parts of exactly the planned size count."""
    bucket, key = upload.route.destination(upload.transfer)
    store, upload_id = upload.route.held(upload.upload_id)
    try:
        held = await store.list_parts(bucket, key, upload_id)
    except AccessDenied as error:
        if upload.upload_id == upload_id:
            raise
        # It was begun with credentials of the source's that are no longer these.
        raise NoSuchUpload(str(error)) from error
    passing("upload.resumed")
    count = upload.layout.parts
    upload.done = {
        part.number: part
        for part in held
        if part.number <= count and part.size == upload.layout.span(part.number).size
    }


async def _complete(upload: OpenUpload, token: str) -> Stored:
    bucket, key = upload.route.destination(upload.transfer)
    parts = [upload.done[number] for number in sorted(upload.done)]
    try:
        store, upload_id = upload.route.held(upload.upload_id)
        passing("upload.completing")
        stored = await store.complete_multipart_upload(bucket, key, upload_id, parts)
        passing("upload.completed")
    except (ConnectionLost, ServerError, Stalled):
        # The answer is lost, not the request: the target knows whether it was carried out.
        found = await _completed_before(upload, token)
        if found is None:
            raise
        return found
    stored.size = stored.size or upload.layout.size
    return stored


async def _completed_before(upload: OpenUpload, token: str) -> Stored | None:
    """Say whether the object at the key is this upload's; that *something* is there proves nothing."""
    bucket, key = upload.route.destination(upload.transfer)
    there = await upload.route.target.head_object(bucket, key)
    if there is None or there.size != upload.layout.size:
        return None
    if there.headers.get(TOKEN_HEADER) != token:
        return None
    if upload.layout.of_source and there.etag != upload.transfer.etag and not upload.done:
        return (
            None  # ours, but neither its ETag nor its parts can show what is in it: send it again
        )
    return Stored(there.size, there.etag, there.checksums, there.version_id, there.encryption)


async def _multipart_proof(upload: OpenUpload, stored: Stored) -> Proof:
    """Prove the whole, by its parts where nothing says it at once, else by reading it back."""
    route, parts = upload.route, upload.layout.parts
    passed: dict[str, bytes] = {}
    if len(upload.crcs) == parts:
        passed[verify.CRC64] = upload.crc = upload.combined_crc()
    proof = await verify.confirm(route, upload.transfer, upload.info, stored, passed)
    if proof is not Proof.SIZE or not route.target.limits.etags:
        return proof
    if upload.way is not STREAMED:  # what never passed here is not read for the proof either
        # The upload is complete: what cannot be proven so begins anew.
        forget(route, upload.transfer)
        return (await verify.by_looking(route, upload.transfer, stored))[0]
    try:
        return await _proof_by_parts(upload, stored) or await _proof_by_reading(upload, stored)
    except (Corrupted, NoSuchUpload):
        await route.target.discard(*route.destination(upload.transfer), stored)
        raise


async def _proof_by_parts(upload: OpenUpload, stored: Stored) -> Proof | None:
    """Compare each part with its bytes, reading again those that passed before this process."""
    whole = verify.multipart_etag([upload.done[n] for n in sorted(upload.done)])
    if len(upload.done) < upload.layout.parts or not whole or stored.etag != whole:
        return None
    stated = upload.info.checksums.get(verify.CRC64)
    parts = upload.done.values()
    if not stated and any(it.encryption in verify.KEYED and not it.checksum for it in parts):
        return None  # whatever is read again, there is nothing to compare it with
    unread = [n for n in sorted(upload.done) if n not in upload.proofs]
    await upload.in_lanes(unread, upload.hash_anew)
    if stated and len(upload.crcs) == upload.layout.parts:  # all of it, with what was read again
        verify.check_crc(stated, upload.combined_crc())
    weakest = set(upload.proofs.values()) if len(upload.proofs) == upload.layout.parts else set()
    if not weakest:
        return None
    return Proof.MD5 if Proof.MD5 in weakest else Proof.CHECKSUM


async def _proof_by_reading(upload: OpenUpload, stored: Stored) -> Proof:
    """Read back what an earlier process completed, whose parts nobody can name any more."""
    stated = verify.stated_md5(upload.info)
    if stated is None:
        return Proof.SIZE
    try:
        found = await verify.read_back(upload.route, upload.transfer, stored.etag)
    except Archived as error:
        # Not the source is: what is sent again is proven as it goes, and nothing has to be restored.
        raise NoSuchUpload(
            f"{object_name(upload.transfer)}: its upload was completed unseen, and the copy is archived, "
            f"so that nothing can show what is in it: it is sent again ({error})"
        ) from error
    if found is None:
        return Proof.SIZE
    if found != stated:
        raise Corrupted(f"{object_name(upload.transfer)}: the copy read back is not the source's")
    return Proof.READBACK
