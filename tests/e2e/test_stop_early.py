"""A stop before anything has begun: no traceback, nobody left behind, and an exit status that says it."""

from __future__ import annotations

import random
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import Stage
from tests.e2e.program import Program, Running

MOMENTS = 6
CODES = {"run": {0}, "sync": {0, 75}, "scan": {0, 75}}


def catches(pid: int, number: signal.Signals) -> bool:
    """Say whether a process has a handler for a signal by now; before, only the kernel decides."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    [mask] = [line.split()[1] for line in status.splitlines() if line.startswith("SigCgt")]
    return bool(int(mask, 16) & 1 << number - 1)


def of_group(group: int) -> list[str]:
    """Name the processes of a group, those aside that are dead and wait for their parent."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            line = (place / "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        state, _, its_group = line.rpartition(")")[2].split()[:3]
        if int(its_group) == group and state != "Z":
            found.append((place / "cmdline").read_bytes().decode().replace("\0", " "))
    return found


def stopped_at(program: Program, command: str, number: signal.Signals, seconds: float) -> Running:
    """Send a signal so long after the start, as soon as there is a handler, and wait for the end."""
    running = program.start(command, own_group=True)
    time.sleep(seconds)
    while running.process.poll() is None and not catches(running.process.pid, signal.SIGTERM):
        time.sleep(0.001)
    running.process.send_signal(number)
    running.wait(None)
    return running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("command", CODES)
def test_a_stop_at_any_moment_of_the_start_is_a_stop(
    stage: Stage, command: str, number: signal.Signals
) -> None:
    draw = random.Random(f"{command} {number}")
    for name in range(30):
        stage.put(f"small/{name}")
    program = stage.program(workers=2)
    ended = []
    for _ in range(MOMENTS):
        running = stopped_at(program, command, number, draw.random() * 0.6)
        said = running.err.read_text()
        assert "Traceback" not in said, said
        assert running.process.returncode in CODES[command], said
        assert of_group(running.process.pid) == []
        ended.append(running.process.returncode)
    if command != "run":
        assert 75 in ended, "all of them were done before"
    assert program.run("sync").code == 0


@pytest.mark.parametrize("command", ["run", "sync"])
def test_a_stop_ends_a_daemon_that_waits_for_its_state(stage: Stage, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"mysql://u:p@127.0.0.1:{silent.getsockname()[1]}/db"
        running = stage.program(state=address).start(command)
        accepted, _ = silent.accept()
        with accepted:
            running.stop()
            done = running.wait({"run": 0, "sync": 75}[command])
    assert "Traceback" not in done.err
