"""Writes what the last run of the programmes did into README.md: `python -m tests.torture.page`.

Of each programme and state the latest run in the ledger counts. What is written also stands in
`last.json`, from which a test makes the block of README.md again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.torture.programme import Told
from tests.torture.registry import ENTRIES, TELLS
from tests.torture.runner import BROKE_DOWN, LEDGER, ROOT, shown, totals

LAST = Path(__file__).with_name("last.json")
README = ROOT / "README.md"
BEGIN = "<!-- The numbers of the last run, written by `python -m tests.torture.page`: -->"
END = "<!-- So much for the last run. -->"
STATES = {"sqlite": "SQLite", "mysql": "MariaDB"}
IN_ALL = ("kills", "faults", "operations")  # what is also added up over all programmes


@dataclass(slots=True)
class Numbers:
    """What is told of the last run."""

    day: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)  # of a programme and state each
    bugs: dict[str, tuple[str, float]] = field(default_factory=dict)  # by whom, after what seconds


def read(ledger: Path) -> list[Told]:
    """Read what the ledger holds."""
    return [Told(**json.loads(line)) for line in ledger.read_text().splitlines()]


def summed(told: Sequence[Told]) -> Numbers:
    """Add up the latest run of each programme and state, and of the planted bugs."""
    latest: dict[tuple[str, str, bool], str] = {}
    for one in told:
        latest[one.name, one.state, bool(one.bug)] = one.run
    last = [one for one in told if one.run == latest[one.name, one.state, bool(one.bug)]]
    clean = [one for one in last if not one.bug]
    order = [*ENTRIES]
    rows = [
        {"name": name, "state": state, **dict(counts)}
        for (name, state), counts in sorted(
            totals(clean).items(), key=lambda it: (order.index(it[0][0]), [*STATES].index(it[0][1]))
        )
    ]
    day = max((one.run for one in clean), default="")[:10]
    return Numbers(day, rows, _caught(one for one in told if one.bug))


def _caught(told: Iterable[Told]) -> dict[str, tuple[str, float]]:
    """Say of each bug who caught it when it was last planted, "" if nobody did, and after how long."""
    found: dict[str, tuple[str, float]] = {}
    runs: dict[str, str] = {}
    for one in told:
        if runs.get(one.bug) != one.run:
            runs[one.bug], found[one.bug] = one.run, ("", 0.0)
        _, spent = found[one.bug]
        caught = one.finding and not one.finding.startswith(BROKE_DOWN)
        found[one.bug] = (one.name if caught else "", round(spent + one.seconds, 1))
    return found


def block(numbers: Numbers) -> str:
    """Give the block of README.md, its marks included."""
    everything = Counter[str]()
    for row in numbers.rows:
        everything.update({what: n for what, n in row.items() if isinstance(n, int)})
    hours = everything["seconds"] / 3600
    sums = "".join(f"{everything[what]:,} {what}, " for what in IN_ALL)
    lines = [
        BEGIN,
        "",
        f"The last run ({numbers.day}): {hours:.1f} hours, {everything['seeds']:,} seeds, {sums}"
        f"**{_plural(everything['findings'], 'finding')}**.",
        "",
        "| programme | state | hours | seeds | kills | faults | operations | besides | findings |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        *(_row(row) for row in numbers.rows),
        "",
        *_bugs(numbers),
        END,
    ]
    return "\n".join(lines)


def _row(row: dict[str, Any]) -> str:
    counts = shown({what: n for what, n in row.items() if isinstance(n, int)})
    besides = ", ".join(
        f"{counts[what]:,} {what.replace('_', ' ')}"
        for what in TELLS[row["name"]]
        if what in counts
    )
    cells = (f"`{row['name']}`", STATES[row["state"]], f"{row['seconds'] / 3600:.2f}")
    numbers = (f"{counts[what]:,}" if what in counts else "" for what in ("seeds", *IN_ALL))
    return "| " + " | ".join((*cells, *numbers, besides, str(row["findings"]))) + " |"


def _bugs(numbers: Numbers) -> list[str]:
    if not numbers.bugs:
        return []
    told = [
        f"`{bug}` by `{by}` within {math.ceil(seconds)} s" if by else f"`{bug}` **by nobody**"
        for bug, (by, seconds) in numbers.bugs.items()
    ]
    return [f"Bugs planted on purpose were caught: {', '.join(told)}.", ""]


def _plural(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"


def put(text: str, new: str) -> str:
    """Put the block in the place of the one in *text*."""
    before, _, rest = text.partition(BEGIN)
    old, _, after = rest.partition(END)
    if not old or not after:
        raise ValueError(f"{README.name} lacks the marks {BEGIN!r} and {END!r}")
    return before + new + after


def load() -> Numbers:
    """Give the numbers that README.md shows."""
    known = json.loads(LAST.read_text())
    bugs = {bug: (by, seconds) for bug, (by, seconds) in known["bugs"].items()}
    return Numbers(known["day"], known["rows"], bugs)


def main(arguments: Sequence[str]) -> int:
    """Write both."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.page", description=__doc__)
    parser.add_argument("ledgers", nargs="*", type=Path, default=[LEDGER])
    told = [one for ledger in parser.parse_args(arguments).ledgers for one in read(ledger)]
    numbers = summed(told)
    if not numbers.rows:
        print("the ledger tells of no run")
        return 1
    known = {"day": numbers.day, "rows": numbers.rows, "bugs": numbers.bugs}
    LAST.write_text(json.dumps(known, indent=1) + "\n")
    README.write_text(put(README.read_text(), block(load())))
    print(block(numbers))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
