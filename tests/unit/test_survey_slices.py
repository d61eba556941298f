"""Pages between whose keys more has vanished than is read of the state at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from s3flow.engine import survey
from s3flow.engine.survey import Range
from s3flow.errors import SourceGone
from s3flow.model import Outcome, Row
from tests.unit.lab import FLOW, Lab, store
from tests.unit.test_survey import Rows, survey_of, walk


@pytest.fixture(autouse=True)
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "ROWS_AT_ONCE", 5)


class Patient(Rows):
    """A state that is not asked for ever."""

    asked = 0

    async def rows(
        self, flow: str, bucket: str, after: bytes, upto: bytes | None, limit: int = -1
    ) -> list[Row]:
        self.asked += 1
        assert self.asked < 100
        return await super().rows(flow, bucket, after, upto, limit)


def keep(bucket: object, kept: Sequence[bytes]) -> None:
    bucket.keys[:] = kept  # type: ignore[attr-defined]
    bucket.objects = {key: bucket.objects[key] for key in kept}  # type: ignore[attr-defined]


KEYS = [b"%02d" % number for number in range(30)]


@pytest.mark.parametrize("kept", [[], KEYS[:1], KEYS[-1:], KEYS[14:15], KEYS[::2]])
async def test_all_that_vanished_is_found_whatever_is_left(kept: list[bytes]) -> None:
    source, state = store("src", "from"), Patient()
    for key in KEYS:
        source.put("from", key, b"x")
    it = survey_of(FLOW, source, store("dst", "to"))
    await walk(it, state)
    keep(source._contents("from"), kept)
    page, done = await it.page("from", b""), False
    async for changes, _ in it.changes(state, "from", page, Range(b"", None), adopting=False):
        assert not done
        done = changes.done
        state.apply(changes)
    assert done
    gone = [row.key for row in state.between(b"", None) if row.reason == SourceGone.reason]
    assert gone == [key for key in KEYS if key not in kept]


@pytest.mark.parametrize("kept", [[], KEYS[:1], KEYS[-1:], KEYS[14:15], KEYS[::2]])
async def test_it_is_recorded_slice_by_slice(tmp_path: Path, kept: list[bytes]) -> None:
    lab = Lab(tmp_path)
    for key in KEYS:
        lab.put(key, 1)
    assert await lab.sync(scan_only=True) == {Outcome.PENDING: 30}
    keep(lab.src._contents("from"), kept)
    found = await lab.sync(scan_only=True)
    assert found[Outcome.PENDING] == len(kept)
    assert found[Outcome.SKIPPED] == 30 - len(kept)
