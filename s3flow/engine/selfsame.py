"""One bucket behind two endpoints: a flow that reads what it writes would never come to its end."""

from __future__ import annotations

from collections.abc import Sequence

from s3flow.engine import plan
from s3flow.engine.route import Route
from s3flow.errors import Permanent, SameObject
from s3flow.model import Listed

LOOKS = 3  # objects that must be the same ones on both sides


def may_meet(route: Route, bucket: str) -> bool:
    """Say whether, if both ends were one account, copies from *bucket* would land among what is read.

    The configuration refuses that where two endpoints are one for certain; by other names, or with
    other keys, they may be as well. Equal places do no harm: everything is there already.
    """
    flow = route.flow
    read, written = flow.source.prefix, flow.target.prefix
    return (
        plan.target_bucket(flow, bucket) == bucket
        and route.target.limits.etags
        and (read != written or bool(flow.rewrite))
        and (read.startswith(written) or written.startswith(read))
    )


async def refuse_selfsame(route: Route, bucket: str, entries: Sequence[Listed]) -> None:
    """Raise `SameObject` if the target's *bucket* has the very objects that the source lists."""
    seen = 0
    for entry in entries[:LOOKS]:
        try:
            here = await route.source.head_object(bucket, entry.key)
            there = await route.target.head_object(bucket, entry.key)
        except Permanent:
            return  # whoever may not look cannot tell
        if here is None:
            continue
        if there is None:
            return
        if (here.etag, here.size, here.modified) != (there.etag, there.size, there.modified):
            return
        seen += 1
    if not seen:
        return
    flow = route.flow
    raise SameObject(
        f"{flow.source} and {flow.target} overlap: {route.source.name} and {route.target.name} "
        f"have the same objects in {bucket}, and the flow would copy its own copies; "
        "choose another target bucket, or a prefix beside the source's"
    )
