"""Moves: a source is deleted once its copy is proven and durable, and for no other reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from s3flow.events import DeletesHeld, DeletesResumed, Kept, Recorded, ScanFinished
from s3flow.model import Doomed, Outcome, State
from s3flow.policies import DeletePolicy, Guard, Mode
from s3flow.records import Fact
from s3flow.state.sqlite import open_sqlite
from tests.faults import Call, Faulty, Raising, Recording
from tests.unit.lab import PARTS, Lab, left_tasks, store


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    lab = Lab(tmp_path)
    lab.change(mode=Mode.MOVE)
    return lab


async def test_what_is_proven_is_deleted_and_the_rest_is_not_there_twice(lab: Lab) -> None:
    lab.change(**PARTS)
    data = {key: lab.put(key, size) for key, size in ((b"a", 10), (b"b", 0), (b"c", 2500))}
    assert await lab.sync() == {Outcome.DELETED: 3}
    assert lab.src.keys("from") == []
    assert {key: lab.copy_of(key) for key in data} == data
    assert await left_tasks() == []
    assert await lab.sync() == {Outcome.DELETED: 3}
