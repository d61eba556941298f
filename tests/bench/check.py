"""Whether a folder holds the objects, by name and size and by every byte."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from s3flow.stores.local.paths import ROOT_MARK
from tests.bench.objects import MIB, Described


def files(folder: Path, objects: Sequence[Described]) -> None:
    """Raise `AssertionError` unless *folder* has exactly these files; s3flow also leaves its mark."""
    wanted = {found.key: found.size for found in objects}
    held = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            if name == os.fsdecode(ROOT_MARK):
                continue
            path = Path(parent, name)
            held[str(path.relative_to(folder))] = path.stat().st_size
    missing = len(wanted.keys() - held.keys())
    other = len(held.keys() - wanted.keys())
    assert not missing, f"{missing} files are missing"
    assert not other, f"{other} other files are there"
    wrong = sum(1 for key, size in wanted.items() if held[key] != size)
    assert not wrong, f"{wrong} files have another size"


def contents(folder: Path, objects: Iterable[Described]) -> None:
    """Raise `AssertionError` unless each file's bytes are the object's."""
    for found in objects:
        with (folder / found.key).open("rb") as file:
            step = found.part_size or max(found.size, 1)
            md5s = []
            while piece := file.read(min(step, 64 * MIB)):
                md5s.append(hashlib.md5(piece, usedforsecurity=False).hexdigest())
        assert tuple(md5s) == found.md5s, f"{found.key} has other bytes"
