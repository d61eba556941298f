"""An upload that is denied at any of its calls is left nowhere; all else that fails: `tests/torture`."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from s3flow.errors import NoSuchUpload
from s3flow.model import Outcome
from tests.faults import NthCallFails
from tests.unit.lab import PARTS, Lab


async def test_a_target_that_denies_any_one_upload_leaves_none_behind(tmp_path: Path) -> None:
    n, calls, outcomes = 1, 0, Counter[Outcome]()
    while n == 1 or n <= calls:
        folder = tmp_path / str(n)
        folder.mkdir()
        lab = Lab(folder)
        lab.change(**PARTS, lanes=2, max_attempts=1)
        lab.put(b"empty", 0)
        lab.put(b"put", 50, tags={"t": "1"})
        lab.put(b"parts", 1500)
        lab.put(b"repeated", 1500, part_size=1000)
        lab.target = denying = NthCallFails(lab.dst, n, NoSuchUpload("x"))
        outcomes += await lab.sync()
        calls = denying.calls
        lab.target = lab.dst
        await lab.sync()
        assert lab.uploads() == [], f"call {n}"
        n += 1
    assert outcomes[Outcome.FAILED] > 0
