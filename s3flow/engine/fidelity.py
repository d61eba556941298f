"""What goes with the bytes: headers, metadata, tags, storage class; and what the target cannot carry."""

from __future__ import annotations

from s3flow.engine import plan
from s3flow.engine.route import TOKEN_HEADER, Route, object_name
from s3flow.errors import AccessDenied, TagsUnreadable
from s3flow.model import Attributes, ObjectInfo, Transfer
from s3flow.policies import LOST_METADATA, TagPolicy


async def attributes_of(
    route: Route, transfer: Transfer, info: ObjectInfo
) -> tuple[Attributes, tuple[str, ...]]:
    """Collect what travels with the object, and name what the target cannot carry."""
    limits = route.target.limits
    dropped = [] if limits.carries_headers else sorted({_field(name) for name in info.headers})
    if info.missing_metadata:
        dropped.append(LOST_METADATA)
    tags, tags_dropped = await _tags(route, transfer, info)
    if tags_dropped:
        dropped.append("tags")
    storage_class = plan.target_storage_class(route.flow, info.storage_class)
    if not limits.carries_storage_class and info.storage_class != "STANDARD":
        dropped.append("storage-class")
    headers = info.headers
    if TOKEN_HEADER in headers:  # of the flow that brought the object here
        headers = {name: value for name, value in headers.items() if name != TOKEN_HEADER}
    modified = info.modified or transfer.modified
    return Attributes(headers, tags, storage_class, modified), tuple(dropped)


def _field(header: str) -> str:
    return "metadata" if header.startswith("x-amz-meta-") else header


async def _tags(route: Route, transfer: Transfer, info: ObjectInfo) -> tuple[dict[str, str], bool]:
    policy = route.flow.tags
    if policy is TagPolicy.DROP or not route.target.limits.carries_tags:
        return {}, info.tag_count > 0
    # The count is shown only to those who may read the tags, so its absence proves something
    # only once tags of this bucket could be read.
    if not info.tag_count and transfer.bucket in route.tags_known:
        return {}, False
    try:
        tags = await route.source.get_object_tagging(transfer.bucket, transfer.key)
    except AccessDenied as error:
        if policy is TagPolicy.BEST_EFFORT:
            return {}, True
        raise TagsUnreadable(
            f"{object_name(transfer)}: its tags may not be read ({error}). "
            f'Allow s3:GetObjectTagging, or set tags = "best_effort" or "drop" for this flow'
        ) from error
    route.tags_known.add(transfer.bucket)
    return tags, False
