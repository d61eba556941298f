"""Scenes in which stores lie, or say too little: what follows a proof that is wrong, or that is missing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from s3flow.engine.retry import Backoff
from s3flow.errors import AccessDenied, Conflict, ConnectionLost, Refused, ServerError
from s3flow.events import BytesMoved
from s3flow.model import Limits, Place
from s3flow.policies import MethodPolicy
from tests.faults import Call
from tests.torture.lies import (
    ALWAYS,
    Lie,
    Lying,
    alters,
    flipped,
    loses,
    of,
    raises,
    with_etag,
    with_more,
)
from tests.torture.scenes import ENDS, _copied, _prove
from tests.torture.stage import Scene, Stage
from tests.unit.lab import store

SEALED = "aws:kms"  # the ETag of what is encrypted so is no digest of it


@dataclass(frozen=True, slots=True)
class Steady(Backoff):
    """Waits always as long: what need not wait at all is cancelled only by chance."""

    def delay(self, tries: int) -> float:
        """Give so many seconds as there is time to cancel in."""
        return 0.005


def lie(stage: Stage, end: str, **lies: Lie) -> None:
    """Let a port of the *stage* answer so."""
    setattr(stage, end, Lying(getattr(stage, end), **lies))


def by_number(call: Call) -> bool:
    """Take the questions for a part by its number."""
    return "part_number" in call.kwargs


# --- bytes that pass ---------------------------------------------------------------------------------


def _streamed(stage: Stage) -> None:
    """Let a target name another ETag, lose the answer that an upload is complete, and read wrong."""
    stage.put(b"put", 50)
    stage.put(b"parts", 1500)
    lost = ConnectionLost("the line is dead")
    lie(
        stage,
        "target",
        put_object=alters(with_etag),
        complete_multipart_upload=loses(lost),
        head_object=raises(lost),
        get_object=alters(flipped),
    )


def _parts_of_another_etag(stage: Stage) -> None:
    """Let the parts that a target holds have other ETags than the source's, and somebody be in the way."""
    stage.put(b"repeated", 3000, part_size=1000)
    conflict = raises(Conflict("409"), 2)
    lie(stage, "target", list_parts=alters(_altered_part), complete_multipart_upload=conflict)


def _altered_part(parts: Any) -> Any:
    return [parts[0]._replace(etag="0" * 32), *parts[1:]]


def _folder(stage: Stage) -> None:
    """Let a folder hash wrongly, once, and a source not know its parts by their numbers."""
    stage.put(b"parts", 1500)
    stage.put(b"repeated", 1500, part_size=1000)
    lie(stage, "target", digest=alters(lambda _: b"another", when=of(b"parts")))
    lie(stage, "source", head_object=raises(Refused("no such number"), ALWAYS, by_number))


def _with_sums(stage: Stage) -> None:
    stage.src._with_checksums = True
    stage.put(b"parts", 5000)


async def _begun(stage: Stage) -> None:
    """Stop when a part has come."""
    stage.stop_at(BytesMoved)
    await stage.sync()
    stage.subscribers.clear()


async def _streamed_so_far(stage: Stage) -> None:
    """Begin to stream what only the store is to copy."""
    stage.change(method=MethodPolicy.STREAM_ONLY)
    await _begun(stage)
    stage.change(method=MethodPolicy.SERVER_ONLY)


# --- copies that the store makes -----------------------------------------------------------------------


def _inside(stage: Stage, **limits: int) -> None:
    bounds = Limits(**{"min_part_size": 1, **limits})
    stage.target = store("dst", "to", beside=stage.src, limits=bounds)


def _copies(stage: Stage) -> None:
    """Let copies have other ETags, sizes and versions, and parts that make no object."""
    _inside(stage, min_part_size=2000, max_put_size=2900)
    stage.put(b"sealed", 50, encryption=SEALED)
    stage.put(b"sealed parts", 3000, encryption=SEALED)
    stage.put(b"cut small", 1500, part_size=1000)
    stage.put(b"refused", 5000, part_size=2500)
    lie(stage, "source", head_object=alters(with_etag, when=of(b"sealed")))
    lie(
        stage,
        "target",
        head_object=alters(with_more, when=of(b"sealed")),
        complete_multipart_upload=raises(Refused("InvalidPart"), when=of(b"refused")),
    )


def _only_whole(stage: Stage) -> None:
    """Let a store be the only one that may copy."""
    _inside(stage)
    stage.put(b"parts", 5000)


def _by_source(stage: Stage) -> None:
    """Let only the source's credentials copy, who can neither end it nor let it be seen."""
    _inside(stage)
    stage.put(b"small", 20)
    stage.put(b"failing", 3000, part_size=1000)
    stage.put(b"refused", 3000, part_size=1000)
    stage.copier = stage.target
    no = AccessDenied("not for you")
    lie(
        stage,
        "target",
        copy_object=raises(no, ALWAYS),
        upload_part_copy=raises(no, ALWAYS),
        head_object=raises(no, ALWAYS, of(b"small")),
    )
    lie(
        stage,
        "copier",
        upload_part_copy=_some_refused,
        abort_multipart_upload=raises(no, ALWAYS),
    )


async def _some_refused(call: Call, go: Any) -> Any:
    if of(b"refused")(call):
        raise Refused("no parts of this")
    raise ServerError("500")


def _namesakes(stage: Stage) -> None:
    """Let two accounts of a service have buckets of one name, and one object of one name."""
    dst = store("dst", "from")
    dst.service = stage.src.service
    stage.target = dst
    stage.change(target=Place("dst", "from", b""))
    stage.put(b"small", 20)


# --- copies that are proven again ------------------------------------------------------------------------


def _sealed(stage: Stage) -> None:
    stage.put(b"sealed", 50, encryption=SEALED)


def _sealed_or_summed(stage: Stage) -> None:
    _sealed(stage)
    stage.src._with_checksums = True
    stage.put(b"summed", 50)


async def _prove_patiently(stage: Stage) -> object:
    """Prove them, though the source fails at first."""
    stage.pace = replace(stage.pace, backoff=Steady())
    lie(stage, "source", head_object=raises(ConnectionLost("the line is dead")))
    return await _prove(stage)


ENDLESS = {
    scene.name: scene
    for scene in (
        Scene("lied-to", _streamed),
        Scene("lied-to-parts", _parts_of_another_etag, _begun),
        Scene("lied-to-disk", _folder, disk=True),
        Scene("summed-disk", _with_sums, _begun, disk=True),
        Scene("lied-to-copies", _copies),
        Scene("whole-at-last", _only_whole, _streamed_so_far),
        Scene("lied-to-by-source", _by_source),
        Scene("namesakes", _namesakes),
        Scene("proven-patiently", _sealed, _copied, _prove_patiently, looks=True, ports=ENDS),
        Scene(
            "disk-proven-sealed",
            _sealed_or_summed,
            _copied,
            _prove,
            looks=True,
            disk=True,
            ports=ENDS,
        ),
    )
}
