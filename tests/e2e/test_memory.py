"""Memory stays below its bound, whatever the number and size of objects."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.e2e.conftest import MIB, Stage
from tests.e2e.content import Crowd, digests_of_bucket, digests_of_folder, make_crowd
from tests.e2e.program import Program, Running
from tests.e2e.test_kill import check_bytes, under_fire
from tests.servers import Server

BOUND = 128 * MIB
GIB = 1024 * MIB


class Gauge:
    """Reads the high-water mark of a process's memory until it ends."""

    def __init__(self, running: Running) -> None:
        self.peak = 0  # bytes
        self._status = Path(f"/proc/{running.process.pid}/status")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="gauge")
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.peak = max(self.peak, self._mark())

    def _mark(self) -> int:
        try:
            lines = self._status.read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            return 0
        marks = [line.split() for line in lines if line.startswith("VmHWM:")]
        return int(marks[0][1]) * 1024 if marks else 0  # a zombie has none

    def close(self) -> int:
        """Stop reading; gives the peak."""
        self._over.set()
        self._thread.join()
        return self.peak


def peak_of(program: Program, *words: str) -> int:
    """Run a command and give the peak of its memory, in bytes."""
    running = program.start(*words)
    gauge = Gauge(running)
    try:
        running.wait(0)
    finally:
        peak = gauge.close()
    assert peak > 20 * MIB, "nothing was measured"
    return peak


@pytest.mark.parametrize("target", ["s3", "disk"])
def test_memory_stays_below_its_bound(stage: Stage, crowd: Crowd, target: str) -> None:
    place = "nas:" if target == "disk" else f"theirs:{stage.target}/"
    flow = {"source": f"ours:{crowd.bucket}/", "target": place, "exclude": ["large/*"]}
    program = stage.program(flow)
    peak = peak_of(program, "sync")
    expected = crowd.below("small/", "huge/")
    found = program.flow()
    assert found["objects"]["verified"] == len(expected)
    assert found["methods"] == {"put": len(expected) - 1, "multipart": 1}
    if target == "disk":
        assert digests_of_folder(stage.nas) == expected
    assert peak < BOUND, f"{peak / MIB:.0f} MiB"


# --- the long way --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def multitude(s3_server: Server) -> Crowd:
    """Give 20,000 objects of 4 KiB and one of 3 GiB."""
    return make_crowd(s3_server, 20_000, {"huge/one": 3 * GIB})


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_a_multitude_moves_in_bounded_memory(stage: Stage, multitude: Crowd) -> None:
    program = stage.program(
        {"name": "s3", "source": f"ours:{multitude.bucket}/"},
        {"name": "disk", "source": f"ours:{multitude.bucket}/", "target": "nas:copy/"},
    )
    peaks = [peak_of(program, "sync", "--flow", name) for name in ("s3", "disk")]
    assert digests_of_folder(stage.nas / "copy") == multitude.digests
    assert digests_of_bucket(stage.theirs, stage.target) == multitude.digests
    assert max(peaks) < BOUND, f"{[round(peak / MIB) for peak in peaks]} MiB"


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_ten_kills_change_nothing_in_a_multitude(stage: Stage, multitude: Crowd) -> None:
    under_fire(
        stage,
        multitude.bucket,
        len(multitude.digests),
        seed=20_263,
        pace=400 * MIB,
        longest=3.0,
    )
    check_bytes(stage, multitude.digests)
