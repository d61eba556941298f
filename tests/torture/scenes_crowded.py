"""Scenes in which others come first at every limit, and those that wait in few other places."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Any

from tests.faults import Call, Faulty
from tests.torture import scenes
from tests.torture.crowds import FULL
from tests.torture.promises import Version
from tests.torture.stage import Scene, Stage

EVERY = {**scenes.SCENES, **scenes.ENDLESS}
CROWDED = ("stopped", "versions", "by-source", "frozen", "scrubbed")


class Dying(Faulty):
    """A target beside which the daemon dies as soon as a call of *method* is done."""

    def __init__(self, stage: Stage, method: str) -> None:
        super().__init__(stage.target)
        self.stage = stage
        self.method = method

    async def around(self, call: Call, go: Callable[[], Awaitable[Any]]) -> Any:
        """Do it, and answer no more."""
        answer = await go()
        if call.method == self.method:
            self.stage.abandon.set()
            self.stage.stop.set()
            await asyncio.Event().wait()
        return answer


def _one(stage: Stage) -> None:
    """Put one object there, that goes in parts."""
    stage.put(b"parts", 1500)


def _odd(stage: Stage) -> None:
    """Put objects there whose ETags are made of no bytes; and more than can be looked at at a time."""
    scenes._some(stage)
    stage.put(b"sealed", 60, encryption="aws:kms")
    stage.put(b"strange", 1500, part_size=1000)
    found = stage.src.peek("from", b"strange")
    assert found is not None
    found.etag = f"{'0' * 32}-2"
    stage.written[b"strange"] = [Version(found.data, found.etag)]


async def _die_after(method: str, stage: Stage) -> None:
    target, stage.target = stage.target, Dying(stage, method)
    await stage.sync()
    stage.target = target
    stage.abandon.clear()


def _crowded(scene: Scene) -> Scene:
    return replace(scene, name=f"{scene.name}-crowded", patches=FULL)


MADE = (
    *(_crowded(EVERY[name]) for name in CROWDED),
    Scene("sent-crowded", _one, partial(_die_after, "upload_part"), patches=FULL),
    Scene(
        "completed-crowded",
        _one,
        partial(_die_after, "complete_multipart_upload"),
        patches=FULL,
    ),
    Scene("disk-odd-crowded", _odd, disk=True, patches=FULL),
    Scene("proven-crowded", _odd, scenes._copied, scenes._prove, looks=True, patches=FULL),
    Scene(
        "disk-proven-crowded",
        _odd,
        scenes._copied,
        scenes._prove,
        looks=True,
        disk=True,
        patches=FULL,
    ),
)
ENDLESS = {scene.name: scene for scene in MADE}
