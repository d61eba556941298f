"""One object to its target, by the method that the plan chose."""

from __future__ import annotations

from s3flow.crashpoints import passing
from s3flow.engine import plan, verify
from s3flow.engine.copying import copy_inside
from s3flow.engine.fidelity import attributes_of
from s3flow.engine.multipart import copy_in_parts
from s3flow.engine.route import BY_SOURCE, Copied, Route
from s3flow.engine.uploads import abort_all, drop
from s3flow.events import BytesMoved
from s3flow.model import Method, State, Transfer


async def transfer_object(route: Route, transfer: Transfer) -> Copied:
    """Move one object version. Cancelling or stopping leaves a multipart upload to be resumed."""
    if transfer.state is State.TRANSFERRING and not transfer.upload_id:
        # An upload was asked for, and its id never recorded, or its version superseded.
        await abort_all(route, *route.destination(transfer))
    if route.verdicts is not None:
        copied = await copy_inside(route, route.verdicts, transfer)
        if copied is not None:
            return copied
        transfer = route.begun.get(transfer.id, transfer)  # some parts may be there
    if transfer.upload_id and transfer.upload_id.startswith(BY_SOURCE):
        transfer = await drop(route, transfer)  # what is streamed is the target's own
    method = plan.choose_method(route.flow, route.target.limits, transfer.size, transfer.etag)
    copied = None
    # What began in parts ends in parts, though the flow's threshold may be another by now.
    if method is not Method.PUT or transfer.upload_id:
        copied = await copy_in_parts(route, transfer)
    return copied or await _put(route, transfer)


async def _put(route: Route, transfer: Transfer) -> Copied:
    bucket, key = route.destination(transfer)
    await route.turn()
    async with route.gate, route.room(transfer.size):
        body = await route.open(transfer)
        try:
            info = body.info
            attributes, dropped = await attributes_of(route, transfer, info)
            limits, md5 = route.target.limits, verify.stated_md5(info)
            hashing = verify.HashingBody(body, route, md5=verify.needs_md5(info, limits, md5))
            if not limits.etags:
                md5 = None
            stored = await route.target.put_object(bucket, key, hashing, attributes, md5=md5)
        finally:
            body.close()
    passing("put.done")
    route.emit(BytesMoved(route.flow.name, transfer.size))
    passed = hashing.digests()
    proof = await verify.confirm(route, transfer, info, stored, passed)
    told = "" if limits.etags else verify.file_sum(passed[verify.CRC64])
    return Copied(Method.PUT, proof, stored, dropped, info.version_id, told)
