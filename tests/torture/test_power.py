"""Power loss in small; and that it finds the syncs that are missing."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path

import pytest

from s3flow.state.database import SqliteDatabase
from s3flow.stores.local import LocalStore, uploads
from s3flow.stores.local.settle import Settlement
from tests.torture import bugs, power
from tests.torture.disk import Cut, Disk, Loss, Made, Synced, Wrote
from tests.torture.disk_calls import watched
from tests.torture.programme import Broken, Task

SEEDS = 12
PATIENCE = (
    200  # rounds; with these seeds the first one is enough, until what s3flow does is changed
)


def test_nothing_that_counts_is_lost_with_the_power(tmp_path: Path) -> None:
    counts = power.run(Task(tmp_path, seed=6, rounds=SEEDS))
    assert counts["rounds"] == SEEDS
    assert counts["simulated kills"]
    assert counts["with something lost"] > counts["power losses"] / 3
    assert counts["deleted"] > SEEDS


@pytest.mark.parametrize(
    ("name", "owner", "attribute", "seed"),
    [
        ("missing-fsync", Settlement, "_sync_data", 1),
        ("missing-fsync-of-names", Settlement, "_sync_directories", 1),
        ("missing-fsync-of-parts", uploads, "_commit", 2593816829),
        ("missing-fsync-of-adopted", LocalStore, "flush", 34),
        ("missing-fsync-of-state", SqliteDatabase, "_prepare", 1),
    ],
)
def test_a_missing_sync_is_found(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    owner: object,
    attribute: str,
    seed: int,
) -> None:
    monkeypatch.setattr(owner, attribute, getattr(owner, attribute))  # put back afterwards
    with pytest.raises(Broken, match=r"(?s)power lost after .* --seed [0-9]+\n"):
        power.run(Task(tmp_path, seed=seed, rounds=PATIENCE, bug=name))
    assert getattr(owner, attribute).__module__ == bugs.__name__


def test_what_a_killed_process_left_is_durable_before_work_begins(tmp_path: Path) -> None:
    # Found with the seed 2047704026: a directory that a killed process had made was not made again,
    # and its own name was nowhere synced when what was put into it counted as verified.
    disk = Disk()

    async def start() -> None:
        target = LocalStore("disk", tmp_path)
        await target.recognise("flow", written=False)
        await target.close()

    with watched(tmp_path, disk, lambda op: None):
        os.mkdir(tmp_path / "a")  # noqa: PTH102 - what the watch sees
        assert disk.dirty
        asyncio.run(start())
    assert disk.dirty == 0
    assert {b"a", b".s3flow-root"} <= disk.folder(0).durable.keys()


def test_a_disk_loses_what_was_not_synced_and_nothing_else() -> None:
    disk, draw = Disk(), random.Random(1)
    for op in (
        *(Made(0, b"old", 1, False), Wrote(1, 0, b"old"), Synced(None)),
        *(Made(0, b"new", 2, False), Wrote(2, 0, b"new"), Wrote(1, 0, b"OLDER"), Cut(1, 4)),
    ):
        disk.apply(op)

    def left(loss: Loss) -> dict[bytes, bytes]:
        return {path: leaf.data for path, leaf in disk.after(loss, draw).items() if leaf}

    assert left(Loss.ALL) == {b"old": b"old"}
    assert left(Loss.NONE) == {b"old": b"OLDE", b"new": b"new"}
    assert left(Loss.NAMES) == {b"old": b"OLDE"}
    assert left(Loss.BYTES) == {b"old": bytes(4), b"new": bytes(3)}
    assert left(Loss.SHORT) == {b"old": b"old", b"new": b""}
    seen = {tuple(sorted(left(Loss.ANY).items())) for _ in range(200)}
    assert len(seen) > 5
    disk.apply(Synced(2))
    assert b"new" not in left(Loss.ALL)  # a synced file whose name is not
    disk.apply(Synced(0))
    assert left(Loss.ALL) == {b"old": b"old", b"new": b"new"}
