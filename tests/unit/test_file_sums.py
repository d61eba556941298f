"""What is recorded of a file lets its copy be proven when its source is long gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from s3flow.engine.reverify import Prover, Result, copy_of
from s3flow.engine.wiring import RouteMaker, Wiring
from s3flow.model import MIB, Proof, State
from s3flow.policies import Mode
from s3flow.records import Due
from s3flow.state.sqlite import open_sqlite
from s3flow.stores.crc64 import Crc64Nvme
from s3flow.stores.local import LocalStore
from tests.unit.lab import FLOW, QUICK, Lab, store

KEY = b"some/key"
DATA = b"precious" * 100_000


async def moved(folder: Path, **settings: object) -> tuple[Lab, LocalStore, Due]:
    """Move an object whose ETag says nothing of its bytes, but whose checksum does, to disk."""
    target = LocalStore("nas", folder)
    (folder / "state").mkdir()
    source = store("src", "from", with_checksums=True)
    lab = Lab(folder / "state", source, target)
    lab.change(mode=Mode.MOVE, **settings)
    lab.src.put("from", KEY, DATA, encryption="aws:kms")
    await lab.sync()
    assert lab.src.keys("from") == []
    state = await open_sqlite(lab.folder / "state.db", read_only=True)
    try:
        (record,) = await state.records(FLOW.name, "from")
        (due,) = await state.transfers(FLOW.name, "from", b"")
    finally:
        await state.close()
    assert (record.state, record.proof) == (State.DELETED, Proof.CHECKSUM)
    return lab, target, due


@pytest.mark.parametrize("settings", [{}, {"multipart_threshold": 1, "part_size": MIB // 4}])
async def test_a_file_whose_source_is_gone_is_proven_or_found_damaged(
    tmp_path: Path, settings: dict[str, object]
) -> None:
    lab, target, due = await moved(tmp_path, **settings)
    copy = copy_of(due)
    assert copy is not None
    maker = RouteMaker(QUICK, Crc64Nvme(), lambda event: None, asyncio.Event())
    prover = Prover(maker.route(Wiring(lab.flow, lab.source, target)))
    try:
        looked = await prover.prove(copy)
        assert (looked.result, looked.proof) == (Result.PROVEN, "recorded")
        (path,) = [it for it in tmp_path.rglob("key") if it.is_file()]
        path.write_bytes(DATA[:-1] + b"X")
        looked = await prover.prove(copy)
        assert looked.result is Result.DIFFERS
        assert "crc64nvme:" in looked.message
    finally:
        await target.close()
