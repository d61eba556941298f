"""What a review of the listing in ranges found."""

from __future__ import annotations

import pytest

from s3flow.engine import ranges as ranges_module
from s3flow.engine.ranges import TOP, KeySpace


def test_no_cut_parts_a_name_from_what_is_below_it_when_samples_were_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ranges_module, "SAMPLES", 4)
    space, cursor = KeySpace(b""), b"b-1"
    space.learn([b"a", cursor, b"ba.-x1", b"ba.-x2", b"z"])  # drops the cursor
    cut = space.cut(cursor, f"bb{TOP}".encode())
    assert cut is not None
    assert f"ba/{TOP}".encode() < cut or cut < b"ba"
