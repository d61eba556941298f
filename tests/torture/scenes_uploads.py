"""Scenes of uploads that were asked for, and whose ids nobody has heard."""

from __future__ import annotations

from s3flow.events import Retried
from s3flow.model import Filters, Outcome
from s3flow.state.sqlite import open_sqlite
from tests.faults import LostAnswer
from tests.torture.stage import Scene, Stage, sync


def _long(stage: Stage) -> None:
    stage.put(b"parts", 5000)


async def _left_out(stage: Stage) -> None:
    """Lose the answer that names an upload, and let filters leave the object out from now on."""
    stage.target = LostAnswer(stage.dst, "create_multipart_upload")
    stage.stop_at(Retried)
    await stage.sync()
    stage.subscribers.clear()
    stage.target = stage.dst
    stage.put(b"parts", 4000)
    del stage.written[b"parts"]
    stage.put(b"put", 50)
    stage.change(filters=Filters(exclude=("parts",)))
    state = await open_sqlite(stage.folder / "state.db")
    await state.rescan(stage.flow.name, None)
    await state.close()
    await stage.sync(scan_only=True)


async def _without_the_skipped(stage: Stage) -> object:
    counted = await stage.sync()
    del counted[Outcome.SKIPPED]
    return counted


ENDLESS = {
    scene.name: scene
    for scene in (Scene("abandoned-unknown", _long, _left_out, sync, _without_the_skipped),)
}
