"""One bucket behind two endpoints: a flow that reads what it writes would never come to its end."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence

from s3flow.engine import plan
from s3flow.engine.route import Route
from s3flow.errors import Conflict, Permanent, SameObject
from s3flow.lanes import heed_cancellation
from s3flow.model import Attributes, Listed, ObjectInfo, Stored
from s3flow.probes import DELETE_PROBE, FOLDER_PROBE, ending

TRIES = 3  # to remove a probe
LOOKS = 3  # objects that must be the same ones on both sides
_PLAIN = Attributes({}, {}, "STANDARD", 0)


def name_of(route: Route) -> str:
    """Give the end of a probe's key: what a death leaves of it goes with the flow's next one.

    Two daemons whose flows have one name must not remove each other's probe while it is looked for, so
    the name is made of what stays and what nobody else has: the identity of the state, which is the
    same after each start, in whatever container, and which one process at a time has the lock of. With
    a new state what the old one left has another name; `upkeep.sweep_probes` removes it by its age.
    Who has no state is known by its machine, and what it leaves goes by its age too.
    """
    return ending(route.mark or socket.gethostname(), route.flow.name)


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


async def refuse_selfsame_for_moves(route: Route, bucket: str) -> None:
    """Raise `SameObject` if a move from *bucket* would delete what it has just written.

    By an alias, an access point or another URL one bucket has two names, and a folder has a second one
    where a gateway serves it: what is deleted by one of them is gone by the other. So an object is
    written at the target, and looked for at the source.
    """
    flow, target = route.flow, route.target
    read, written = flow.source.prefix, flow.target.prefix
    there = plan.target_bucket(flow, bucket)
    name = name_of(route).encode()
    if not target.limits.etags:
        key = read + FOLDER_PROBE + name
        place = plan.target_key(flow, key)
    elif read.startswith(written) or written.startswith(read):
        # Within what the source lists: the permissions of the flow show it there for certain.
        # By the name of what tries how deletes are done: no flow takes it for an object of its own.
        key = place = max(read, written, key=len) + DELETE_PROBE + name
    else:
        return  # two places of which neither is in the other, whatever bucket it is
    stored = await target.put_object(there, place, _Mark(key), _PLAIN, md5=None)
    try:
        [error] = await target.settle([stored])  # files have no name before
        if error is not None:
            raise error
        page = await route.source.list_page(bucket, key, b"")
        seen = any(entry.key == key and entry.size == len(key) for entry in page.entries)
        # Who else tries it, as the scan and the deletes of one flow may, has the same probe.
        if not seen and not await target.find(there, [place]):
            raise Conflict(
                f"{there}: the probe {place.decode(errors='backslashreplace')} was removed by somebody "
                f"else, so that it is not known whether {flow.source} and {flow.target} are the same"
            )
    finally:
        await _take_back(route, there, place, stored)
    if seen:
        raise SameObject(
            f"{flow.source} and {flow.target} are the same objects: what was written to {there} by "
            f"{target.name} is seen in {bucket} by {route.source.name}. A move would delete its own "
            "copies; choose another target bucket, or a prefix beside the source's"
        )


async def _take_back(route: Route, bucket: str, key: bytes, probe: Stored) -> None:
    """Remove what was written to be looked for; failing at that, it stays until the flow's next one."""
    tries = 0
    while True:
        try:
            await route.target.discard(bucket, key, probe)
        except Permanent:
            raise
        except (Exception, asyncio.CancelledError):  # also what a library gives up by itself
            heed_cancellation()
            tries += 1
            if tries == TRIES:
                raise
            await route.stopped_within(route.backoff.delay(tries))
        else:
            return


class _Mark:
    """A body that is its own name."""

    def __init__(self, key: bytes) -> None:
        self.info = ObjectInfo(len(key), "")
        self.size = len(key)
        self._left = key

    async def read(self) -> memoryview:
        chunk, self._left = self._left, b""
        return memoryview(chunk)

    def close(self) -> None:
        """Nothing is held."""
