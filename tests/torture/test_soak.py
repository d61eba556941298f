"""A soak of seconds: the daemon keeps its promises, and a leak would be seen."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree as ET

from tests.torture.programme import Task
from tests.torture.sampling import OF_A_LIFE, OF_ALL
from tests.torture.soak import soak


def test_a_daemon_soaks_for_some_seconds(tmp_path: Path) -> None:
    work, picture = tmp_path / "work", tmp_path / "soak.svg"
    work.mkdir()
    counts = soak(Task(work, seed=1, seconds=16.0), picture)
    assert counts["kills"] >= 1
    assert counts["operations"] > 20
    drawn = "".join(ET.fromstring(picture.read_text()).itertext())
    assert [name for name in (*OF_A_LIFE, *OF_ALL) if name not in drawn] == []
