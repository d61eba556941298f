"""Copies inside the store: one request for most objects, no byte through s3flow, and proven all the same."""

from __future__ import annotations

from collections.abc import Sequence

from s3flow.crashpoints import passing
from s3flow.engine import plan, verify
from s3flow.engine.multipart import copy_in_parts
from s3flow.engine.openupload import OpenUpload, Way
from s3flow.engine.route import BY_SOURCE, Copied, Route, object_name
from s3flow.engine.uploads import abort, drop
from s3flow.engine.verdicts import Verdicts, of_parts
from s3flow.errors import (
    AccessDenied,
    Archived,
    Conflict,
    CopyRefused,
    Corrupted,
    Permanent,
    Refused,
    S3flowError,
    SameObject,
    ServerError,
    SourceChanged,
    SourceGone,
    Stalled,
)
from s3flow.events import BytesMoved, Warned
from s3flow.model import Method, Original, Part, Proof, Transfer
from s3flow.policies import CopyBy, MethodPolicy, TagPolicy

# After so many failures of whatever kind, an object that may be streamed is: a store that answers
# 500 to every copy must not fail what a GET and a PUT can move.
ATTEMPTS = 3
REDIRECT_HEADER = "x-amz-website-redirect-location"


async def copy_inside(route: Route, verdicts: Verdicts, transfer: Transfer) -> Copied | None:
    """Let the store copy an object; None when it has to be streamed.

    Raises `CopyRefused` instead where the flow is not to stream, `SameObject` for a copy onto itself.
    """
    bucket = transfer.bucket
    only = route.flow.method is MethodPolicy.SERVER_ONLY
    there = route.destination(transfer)
    if there == (bucket, transfer.key):
        await _not_onto_itself(route, verdicts, transfer)
        if only:
            raise CopyRefused(_server_only(transfer, "source and target have one name there"))
        return None
    if not only and (transfer.attempts >= ATTEMPTS or _was_streamed(route, transfer)):
        return None
    in_parts = _in_parts(route, transfer)
    learnt = of_parts(bucket) if in_parts else bucket
    if learnt not in verdicts.works and not await verdicts.ask(learnt) and not only:
        return None
    return await _some_way(route, verdicts, transfer, learnt, in_parts=in_parts)


async def _some_way(
    route: Route, verdicts: Verdicts, transfer: Transfer, learnt: str, *, in_parts: bool
) -> Copied | None:
    """Ask for the copy with the credentials that may; None when it is refused to all of them."""
    why = ""  # what was tried in vain, and what came of it
    for way in _ways(verdicts, transfer, learnt):
        try:
            if in_parts or transfer.upload_id:
                copied = await _copy_parts(route, verdicts, transfer, way)
            else:
                copied = await _copy_whole(route, transfer, way)
        except CopyRefused as error:
            why = f"{why}; {_with(way)}{error}" if why else f"{_with(way)}{error}"
            begun = await _for_the_next(route, transfer)
            if begun is None:
                break
            transfer = begun
        except S3flowError as error:
            _learn(route, verdicts, transfer, learnt, error)
            raise
        except BaseException:
            verdicts.tried(learnt)
            raise
        else:
            if verdicts.failing or verdicts.strays or verdicts.works.get(learnt) != way:
                verdicts.copied(learnt, way, why)
            return copied
    _learn(route, verdicts, transfer, learnt, CopyRefused(why))
    return None


def _ways(verdicts: Verdicts, transfer: Transfer, learnt: str) -> Sequence[CopyBy]:
    if transfer.upload_id:  # whoever began it goes on with it
        return (CopyBy.SOURCE if transfer.upload_id.startswith(BY_SOURCE) else CopyBy.TARGET,)
    return verdicts.ways(learnt)


def _with(way: CopyBy) -> str:
    return "" if way is CopyBy.TARGET else f"with the {way}: "


async def _for_the_next(route: Route, transfer: Transfer) -> Transfer | None:
    """Give a refused transfer as the next way may begin it; None if it is to be streamed.

    Parts that were copied with the target's credentials are worth something in a stream, which goes
    by the same ones.
    """
    begun = route.begun.get(transfer.id, transfer)
    if not begun.upload_id:
        return begun
    if begun.upload_id.startswith(BY_SOURCE):
        return await drop(route, begun)
    if route.copier is None or transfer.upload_id or transfer.id in route.advanced:
        return None
    return await drop(route, begun)


def _learn(
    route: Route, verdicts: Verdicts, transfer: Transfer, learnt: str, error: S3flowError
) -> None:
    """Remember a copy that was not made, and tell of it if it is the verdict.

    Where nothing else may be done than what was refused, raise.
    """
    is_verdict = False
    if isinstance(error, CopyRefused):
        is_verdict = verdicts.refused(learnt, str(error))
    elif isinstance(error, Conflict | Corrupted | ServerError | Stalled):
        is_verdict = verdicts.failed(learnt, str(error))
    else:
        verdicts.tried(learnt)
    if route.flow.method is not MethodPolicy.SERVER_ONLY:
        if is_verdict:
            route.emit(Warned(route.flow.name, _streaming(route, transfer.bucket, learnt, error)))
    elif isinstance(error, CopyRefused):
        raise CopyRefused(_server_only(transfer, str(error))) from error


def _server_only(transfer: Transfer, why: str) -> str:
    return (
        f"{object_name(transfer)}: the store does not copy it, and the flow is not to stream: {why}; "
        "let the target's credentials read the source bucket (s3:GetObject, s3:GetObjectTagging), "
        'or set method = "server-first" for the flow'
    )


def _streaming(route: Route, bucket: str, learnt: str, error: Exception) -> str:
    there = plan.target_bucket(route.flow, bucket)
    what = "objects" if learnt == bucket else "objects in parts"
    return f"{there} takes no {what} from {bucket} inside the store, so they are streamed: {error}"


def _was_streamed(route: Route, transfer: Transfer) -> bool:
    """Say whether an unfinished upload has parts of no layout that a copy inside would use."""
    in_parts = plan.parts_in(transfer.etag) or transfer.size > route.target.limits.max_put_size
    return bool(transfer.upload_id) and not in_parts


async def _not_onto_itself(route: Route, verdicts: Verdicts, transfer: Transfer) -> None:
    """Raise `SameObject` if the one name means one object; other accounts may see other buckets."""
    bucket, key = transfer.bucket, transfer.key
    if bucket in verdicts.apart:
        return
    try:
        there = await route.target.head_object(bucket, key)
    except AccessDenied:
        verdicts.apart.add(bucket)  # whoever may not look cannot tell, and a stream needs no look
        return
    here = await route.source.head_object(bucket, key)
    if here is None:
        return
    if there is None or (here.etag, here.size, here.modified) != (
        there.etag,
        there.size,
        there.modified,
    ):
        verdicts.apart.add(bucket)
        return
    raise SameObject(
        f"{object_name(transfer)}: {route.source.name} and {route.target.name} name the same "
        "object; give the flow another target bucket or prefix"
    )


# --- one object ------------------------------------------------------------------------------


def _in_parts(route: Route, transfer: Transfer) -> bool:
    limits = route.target.limits
    method = plan.choose_method(route.flow, limits, transfer.size, transfer.etag, inside=True)
    return method is Method.SERVER_MULTIPART


async def _copy_parts(route: Route, verdicts: Verdicts, transfer: Transfer, way: CopyBy) -> Copied:
    """Copy an object in parts, or as a whole where the target cannot repeat its source's."""
    if _in_parts(route, transfer):
        try:
            copied = await copy_in_parts(route, transfer, _by_parts(verdicts, way))
        except (Refused, AccessDenied) as error:
            if isinstance(error, AccessDenied) and way is CopyBy.TARGET:
                raise  # a stream would be refused as well
            # Of the upload as a whole: nothing says that its parts are worth anything in a stream.
            await drop(route, route.begun.get(transfer.id, transfer))
            raise CopyRefused(str(error)) from error
        if copied is not None:
            return copied
    if transfer.upload_id:
        await abort(route, transfer)  # of a plan with parts, which is not the plan any more
    return await _copy_whole(route, transfer, way)


async def _copy_whole(route: Route, transfer: Transfer, way: CopyBy) -> Copied:
    flow, size = route.flow, transfer.size
    bucket, key = route.destination(transfer)
    storage_class = plan.target_storage_class(flow, transfer.storage_class)
    if storage_class == transfer.storage_class == "STANDARD":
        storage_class = ""  # what every store takes an object for when nothing is said
    copier = route.target if way is CopyBy.TARGET else route.copier or route.target
    redirect = ""
    if not size or route.websites.get(transfer.bucket) is not False:
        redirect = await _redirect(route, transfer)
    if route.request_buckets:
        await route.turn(1)
    async with route.gate:
        try:
            stored = await copier.copy_object(
                _original(route, transfer),
                bucket,
                key,
                storage_class=storage_class,
                with_tags=flow.tags is not TagPolicy.DROP,
                redirect=redirect,
            )
        except (Permanent, SourceChanged) as error:
            raise await _judged(route, transfer, error) from error
    passing("copy.done")
    route.passed += size
    route.emit(BytesMoved(flow.name, size))
    if way is CopyBy.SOURCE:
        await verify.readable(route, transfer, stored)
    etag, version_id = transfer.etag, stored.source_version_id
    if stored.etag == etag and (plan.is_md5(etag) or plan.parts_in(etag)):
        return Copied(Method.SERVER_COPY, Proof.ETAG, stored, (), version_id)
    proof, stored = await verify.by_looking(route, transfer, stored)
    return Copied(Method.SERVER_COPY, proof, stored, (), version_id)


async def _redirect(route: Route, transfer: Transfer) -> str:
    """Say where the object redirects to, which no store copies by itself.

    Objects that do so are empty, most of them. Others are looked at where the bucket is a website.
    """
    is_website = route.websites.get(transfer.bucket)
    if is_website is None:
        is_website = await route.source.is_website(transfer.bucket)
        route.websites[transfer.bucket] = is_website
    if transfer.size and not is_website:
        return ""
    info = await route.source.head_object(transfer.bucket, transfer.key)
    # Gone, or another version: the copy's own condition finds that out.
    is_it = info is not None and info.etag == transfer.etag
    return info.headers.get(REDIRECT_HEADER, "") if info is not None and is_it else ""


def _original(route: Route, transfer: Transfer) -> Original:
    source = route.source
    return Original(
        transfer.bucket, transfer.key, transfer.etag, transfer.size, source.owner, source.opening
    )


def _by_parts(verdicts: Verdicts, by: CopyBy) -> Way:
    async def bring(upload: OpenUpload, number: int) -> tuple[Part, dict[str, bytes]]:
        route, transfer = upload.route, upload.transfer
        bucket, key = route.destination(transfer)
        span = upload.layout.span(number)
        store, upload_id = route.held(upload.upload_id)
        await route.turn(1)
        async with route.gate:
            try:
                part = await store.upload_part_copy(
                    _original(route, transfer), bucket, key, upload_id, number, span
                )
            except (Permanent, SourceChanged) as error:
                raise await _judged(route, transfer, error) from error
        route.passed += span.size
        if by is CopyBy.TARGET:  # else it is known once the target's account has seen the whole
            verdicts.goes(of_parts(transfer.bucket))
        return part, {}

    return Way(
        Method.SERVER_MULTIPART,
        bring,
        lambda route: route.target.limits.max_put_size,
        by_source=by is CopyBy.SOURCE,
    )


async def _judged(route: Route, transfer: Transfer, error: S3flowError) -> S3flowError:
    """Say what it means that a copy was not made: `CopyRefused`, unless streaming would end like that.

    That the source is gone or changed is for the source to say: the target's credentials may see
    another bucket of that name, or none.
    """
    if isinstance(error, Archived):
        return error
    if isinstance(error, SourceGone | SourceChanged):
        info = await route.source.head_object(transfer.bucket, transfer.key)
        if info is None or info.etag != transfer.etag:
            return error
    return CopyRefused(str(error))
