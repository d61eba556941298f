"""Scenes in which one thing goes wrong after another, and those of who only looks: doctor, plan, verify."""

from __future__ import annotations

import os
from collections.abc import Coroutine, Iterator
from typing import Any

from s3flow.engine import breaker
from s3flow.engine.flow import OwnHands, RunningFlow
from s3flow.engine.preview import preview
from s3flow.engine.restorer import TIMES
from s3flow.engine.survey import Survey
from s3flow.errors import AccessDenied, ConnectionLost
from s3flow.events import Recorded, Retried
from s3flow.model import Outcome, Place, State
from s3flow.policies import Mode, Overwrite, RestorePolicy, RestoreTier
from s3flow.state.sqlite import open_sqlite
from tests.torture.lies import ALWAYS, Lying, alters, loses, raises
from tests.torture.scenes import (
    ENDS,
    Wish,
    _again,
    _examine,
    _maker,
    _only_list,
    _prove,
    _run,
)
from tests.torture.scenes_proofs import _begun, _inside, lie
from tests.torture.stage import Scene, Stage, sync
from tests.unit.lab import store

COLD = b"cold"
LOST = ConnectionLost("the line is dead")


def _one(stage: Stage) -> None:
    stage.put(b"put", 50)


# --- moves -------------------------------------------------------------------------------------------


def _few(stage: Stage) -> None:
    for number in range(4):
        stage.put(b"%d" % number, 50)


async def _lost_most(stage: Stage) -> None:
    """Copy, lose most of the copies, and from now on move."""
    await stage.sync()
    for number in range(3):
        stage.touched.add(b"%d" % number)
        await stage.dst.delete_object("to", b"%d" % number, etag="")
    stage.change(mode=Mode.MOVE)


async def _released(stage: Stage) -> object:
    """Run until the deletes are held, and again after a person has looked at why."""
    await stage.sync()
    await stage.holds.drop(stage.flow.name)
    return await stage.sync()


async def _written_anew(stage: Stage) -> None:
    """Copy, let somebody give the copy another time, and from now on move."""
    await stage.sync()
    for path in (stage.folder / "disk" / "to").rglob("put"):
        os.utime(path, (1, 1))
    stage.change(mode=Mode.MOVE)


# --- flows -------------------------------------------------------------------------------------------


class Shirking(OwnHands):
    """Takes a transfer and gives it back, as for a process that has died, before it does the rest."""

    def hands(self, flow: RunningFlow) -> Iterator[Coroutine[Any, Any, None]]:
        """Give one hand more, which does nothing."""
        yield self._shirk(flow)
        yield from super().hands(flow)

    async def _shirk(self, flow: RunningFlow) -> None:
        transfer = await flow.feed.take()
        if transfer is not None:
            await flow.feed.returned([transfer])


def _shirked(stage: Stage) -> None:
    _few(stage)
    stage.crew = Shirking()


def _denied_at_first(stage: Stage) -> None:
    _one(stage)
    lie(stage, "source", list_page=raises(AccessDenied("not for you"), 3))


async def _allowed(stage: Stage) -> object:
    """Run once, with nothing denied."""
    stage.source = stage.src
    return await _again(stage)


def _asked_to_list(stage: Stage) -> None:
    _one(stage)
    stage.wishes = Wish()


def _long(stage: Stage) -> None:
    stage.put(b"parts", 5000)


async def _abandoned(stage: Stage) -> None:
    """Stop in the midst of the parts of what is not listed any more."""
    await _begun(stage)
    await stage.src.delete_object("from", b"parts", etag="")
    del stage.written[b"parts"]
    stage.put(b"put", 50)
    stage.wishes = Wish()
    await stage.sync(scan_only=True)
    stage.wishes = None


async def _without_the_gone(stage: Stage) -> object:
    """Run, and count what is there still."""
    counted = await stage.sync()
    del counted[Outcome.SKIPPED]
    return counted


def _scrubbed(stage: Stage) -> None:
    _one(stage)
    stage.change(scrub=1.0)


def _overlapping(stage: Stage) -> None:
    """Let both ends have a bucket of one name, and one prefix lie in the other."""
    stage.target = store("dst", "from")
    stage.change(target=Place("dst", "from", b"copies/"))
    _one(stage)


# --- what is set aside ---------------------------------------------------------------------------------


def _there_meanwhile(stage: Stage) -> None:
    """Let somebody write to the target's key just when the answer to the upload's beginning is lost."""
    data = stage.put(b"parts", 1500)
    stage.change(overwrite=Overwrite.NEVER)

    def then() -> None:
        stage.dst.put("to", b"parts", data)

    lie(stage, "target", create_multipart_upload=loses(LOST, then))


def _frozen_meanwhile(stage: Stage) -> None:
    """Let what was thawed freeze again at that moment."""
    stage.change(restore_poll=0.004)
    stage.put(COLD, 1500, storage_class="GLACIER")
    found = stage.src.peek("from", COLD)
    assert found is not None
    found.thaws_at = 1

    def then() -> None:
        found.freezes_at = 2

    lie(stage, "target", create_multipart_upload=loses(LOST, then))


def _archived_meanwhile(stage: Stage) -> None:
    """Let an upload be meant, and nothing be known of it; by then the object is archived, and goes whole."""
    stage.change(restore_poll=0.004)
    stage.put(COLD, 1500)
    lie(stage, "target", create_multipart_upload=loses(LOST))


async def _archived(stage: Stage) -> None:
    stage.stop_at(Retried)
    await stage.sync()
    stage.subscribers.clear()
    stage.change(multipart_threshold=2000)
    found = stage.src.peek("from", COLD)
    assert found is not None
    found.archive_status = "ARCHIVE_ACCESS"


# --- restores ------------------------------------------------------------------------------------------


def _cold(stage: Stage) -> None:
    stage.src.restore_seconds = 0.004
    stage.change(restore_poll=0.004)
    stage.put(COLD, 20, storage_class="GLACIER")


def _cold_and_hasty(stage: Stage) -> None:
    """Let there be no Expedited restores, and a day's budget."""
    _cold(stage)
    stage.src.expedites = False
    stage.change(restore_tier=RestoreTier.EXPEDITED, restore_objects_per_day=100)


async def _restored_in_vain(stage: Stage) -> None:
    """Note as many restores of the object as there may be of one version."""
    await stage.sync(scan_only=True)
    state = await open_sqlite(stage.folder / "state.db")
    try:
        [transfer] = await state.claim(stage.flow.name, 1)
        for _ in range(TIMES):
            await state.note_restores([transfer], 1)
        await state.release([transfer])
    finally:
        await state.close()


async def _until_it_is_retried(stage: Stage) -> object:
    """Let it fail, and be tried again."""
    await stage.sync()
    return await _again(stage)


async def _no_more_restores(stage: Stage) -> None:
    """Stop when the object waits to be restored; from now on nothing is."""

    def watch(event: Any) -> None:
        waits = {State.RESTORE_REQUESTED, State.RESTORING}
        if isinstance(event, Recorded) and any(it.state in waits for it in event.changes):
            stage.stop.set()

    stage.subscribers.append(watch)
    await stage.sync()
    stage.subscribers.clear()
    stage.change(restore=RestorePolicy.NEVER)


async def _restored(stage: Stage) -> object:
    """Run with restores, and what failed."""
    stage.change(restore=RestorePolicy.AUTO)
    return await _again(stage)


# --- who only looks ------------------------------------------------------------------------------------


def _account(stage: Stage) -> None:
    """Take all buckets that match, and let keys of two folders have the same places."""
    stage.put(b"a/1", 10)
    stage.change(source=Place("src", "fr*", b""), rewrite=(("a/", "b/"),))


async def _copied_and_more(stage: Stage) -> None:
    await stage.sync()
    stage.src.put("from", b"a/2", b"more")


async def _plan(stage: Stage) -> object:
    """Say what the next scan would do, by what the state knows."""
    stage.stop.clear()
    state = await open_sqlite(stage.folder / "state.db")
    try:
        survey = Survey(_maker(stage), stage.pace.backoff, may_write=False)
        return await preview(survey, stage.wrap_state(state), is_new=False)
    finally:
        await state.close()


async def _gone(stage: Stage) -> None:
    """Copy, and lose the copy; a daemon copies it once more while that is found out."""
    await stage.sync()
    stage.touched.add(b"a/1")
    await stage.dst.delete_object("to", b"b/1", etag="")

    def anew(rows: Any) -> Any:
        return [each._replace(target_etag="another") for each in rows]

    lying = alters(anew, ALWAYS, lambda call: call.args[-1] == 1)
    stage.wrap_state = lambda state: Lying(state, transfers=lying)  # type: ignore[assignment,return-value]


def _seen_by_nobody(stage: Stage) -> None:
    """Let only the source's credentials copy, and the target's not see it."""
    _inside(stage)
    _few(stage)
    stage.copier = stage.target
    no = AccessDenied("not for you")
    lie(
        stage,
        "target",
        copy_object=raises(no, ALWAYS),
        upload_part_copy=raises(no, ALWAYS),
        head_object=raises(no, ALWAYS),
    )


def _accounts(stage: Stage) -> None:
    """Let two accounts of a service have buckets of the same names."""
    dst = store("dst", "from")
    dst.service = stage.src.service
    stage.target = dst
    _few(stage)
    stage.change(
        source=Place("src", "fr*", b""), target=Place("dst", "{bucket}", b"copies/"), mode=Mode.MOVE
    )


LEAST = ((breaker, "LEAST", 1),)
ENDLESS = {
    scene.name: scene
    for scene in (
        Scene("tripped", _few, _lost_most, sync, _released, moves=True, patches=LEAST),
        Scene("written-anew", _one, _written_anew, moves=True, disk=True),
        Scene("shirked", _shirked),
        Scene("denied-at-first", _denied_at_first, None, _run, _allowed),
        Scene("asked-to-list", _asked_to_list, None, _only_list, _again),
        Scene("abandoned", _long, _abandoned, sync, _without_the_gone),
        Scene("scrubbed-early", _scrubbed),
        Scene("overlapping", _overlapping),
        Scene("there-meanwhile", _there_meanwhile),
        Scene("frozen-meanwhile", _frozen_meanwhile),
        Scene("archived-meanwhile", _archived_meanwhile, _archived),
        Scene("in-haste", _cold_and_hasty),
        Scene("in-vain", _cold, _restored_in_vain, sync, _until_it_is_retried),
        Scene("no-more-restores", _cold, _no_more_restores, sync, _restored),
        Scene("plan-known", _account, _copied_and_more, _plan, looks=True, ports=ENDS),
        Scene("proven-gone", _account, _gone, _prove, looks=True, ports=ENDS),
        Scene("doctor-unseen", _seen_by_nobody, None, _examine, looks=True, ports=ENDS),
        Scene("doctor-accounts", _accounts, None, _examine, looks=True, ports=ENDS),
    )
}
