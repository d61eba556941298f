"""One programme in a process of its own, started by the one command: what it spoils ends with it."""

from __future__ import annotations

import faulthandler
import json
import sys
from dataclasses import asdict
from pathlib import Path

from tests.torture.programme import Task, carry_out
from tests.torture.registry import ENTRIES

TOLD = "told.json"
UNHURRIED = 900.0  # seconds beside the planned ones; a programme that takes more hangs


LONGEST = 24 * 3600.0  # seconds that one with a number of rounds may take for them


def main(name: str, folder: Path, task: Task) -> None:
    """Carry a task out and leave what is told of it in *folder*."""
    task.folder.mkdir()
    faulthandler.dump_traceback_later(min(task.seconds, LONGEST) + UNHURRIED, exit=True)
    told = carry_out(name, ENTRIES[name].load(), task)
    faulthandler.cancel_dump_traceback_later()
    (folder / TOLD).write_text(json.dumps(asdict(told)))


if __name__ == "__main__":
    name, where, seed, seconds, rounds, state, bug = sys.argv[1:]
    folder = Path(where)
    task = Task(folder / "work", int(seed), float(seconds), int(rounds) or None, state, bug)
    main(name, folder, task)
