"""One run of a program: wall time, CPU of the whole process tree, peak memory."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLING = 0.025  # seconds between looks at the memory of the tree


@dataclass(frozen=True, slots=True)
class Run:
    """What one run took. *cpu*: user and system seconds; *peak*: bytes resident, of all processes."""

    exit_code: int
    wall: float
    user: float
    system: float
    peak: int
    server_cpu: float = 0.0

    @property
    def cpu(self) -> float:
        """CPU seconds of the process and of its children."""
        return self.user + self.system


class _Memory(threading.Thread):
    """Watches a process tree's high-water marks.

    Not ru_maxrss: a child inherits that of whoever forked it, which is this program, and it names
    the largest process of a tree, not their sum.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._pid = pid
        self._marks: dict[int, int] = {}
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(SAMPLING):
            for pid in _tree(self._pid):
                mark = _high_water(pid)
                if mark:
                    self._marks[pid] = mark

    def peak(self) -> int:
        """Stop watching; the sum over all processes, in bytes."""
        self._ended.set()
        self.join()
        return sum(self._marks.values())


def _tree(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [pid, *(found for child in children for found in _tree(int(child)))]


def _high_water(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)


def run(command: Sequence[str], env: Mapping[str, str], folder: Path, log: Path) -> Run:
    """Run *command* in *folder* to its end, its output in *log*."""
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        memory = _Memory(process.pid)
        memory.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            for pid in _tree(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
            raise
        wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    return Run(process.returncode, wall, usage.ru_utime, usage.ru_stime, memory.peak())
