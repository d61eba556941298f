"""The one command shares out its time, tells what came of it, and README.md tells the same."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.torture import __main__ as command
from tests.torture import page
from tests.torture.bugs import BUGS
from tests.torture.programme import Broken, Task, Told, carry_out, note
from tests.torture.registry import CATCHES, ENTRIES, STATES, catchers
from tests.torture.runner import BROKE_DOWN, Account, Round, Running, plan, totals


def test_every_programme_is_there() -> None:
    here = Path(__file__).parent
    there = {name for name in ENTRIES if (here / name).is_dir() or (here / f"{name}.py").is_file()}
    assert there == set(ENTRIES)


def test_every_planted_bug_has_somebody_to_find_it() -> None:
    assert {name for bug in BUGS for name in catchers(bug)} <= set(ENTRIES)
    assert [known for known in CATCHES if known not in BUGS] == []


def test_time_is_shared_out_and_every_turn_has_seeds_of_its_own() -> None:
    rounds = list(plan([*ENTRIES], STATES, 5, 7200.0))
    assert sum(one.seconds for one in rounds) == pytest.approx(7200, rel=0.3)
    assert {one.name for one in rounds} == set(ENTRIES)
    assert [one for one in rounds if one.state not in ENTRIES[one.name].states] == []
    mine = [one.seed for one in rounds if (one.name, one.state) == ("kill", "mysql")]
    assert mine[0] == 5
    assert len(set(mine)) == len(mine) == 6
    assert rounds == list(plan([*ENTRIES], STATES, 5, 7200.0))


def test_what_repeats_a_round_does_just_that() -> None:
    (one,) = plan(["nth"], ["sqlite"], 7, 30.0)
    words = one.repeat.split()
    assert words[:3] == ["python", "-m", "tests.torture"]
    assert command.rounds_of(command.parse(words[3:])) == [one]


def test_a_programme_that_breaks_down_is_a_finding(tmp_path: Path) -> None:
    what = Round("no-such", "sqlite", 1, 5.0)
    told = Running().do(what)
    assert told.finding.startswith(BROKE_DOWN)
    account = Account(tmp_path / "deep" / "ledger", "now")
    account.take(told, what)
    assert account.findings("no-such", "sqlite") == 1
    assert page.read(tmp_path / "deep" / "ledger") == [told]


def test_a_broken_promise_is_told_with_what_was_planted(tmp_path: Path) -> None:
    def breaking(task: Task) -> Counter[str]:
        raise Broken("I1")

    told = carry_out("nth", breaking, Task(tmp_path, 3, bug="some-bug"))
    assert (told.finding, told.bug, told.seed) == ("I1", "some-bug", 3)


def test_numbers_are_of_the_latest_run_of_each(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger"
    for run, kills in (("2026-01-01T", 1000), ("2026-02-02T", 5), ("2026-02-02T", 7)):
        note(
            ledger,
            Told(
                "kill", "sqlite", 1, 1800.0, {"kills": kills, "points": kills, "odds": 1}, run=run
            ),
        )
    note(ledger, Told("sim", "sqlite", 1, 3600.0, {"seeds": 90}, finding="I1", run="2026-01-01T"))
    note(ledger, Told("sim", "sqlite", 1, 2.0, {}, bug="missing-fsync", run="2026-02-02T"))
    found = Told("power", "sqlite", 1, 3.0, {}, "I5", "missing-fsync", "2026-02-02T")
    note(ledger, found)
    numbers = page.summed(page.read(ledger))
    assert numbers.bugs == {"missing-fsync": ("power", 5.0)}
    text = page.block(numbers)
    assert "(2026-02-02): 2.0 hours, 92 seeds, 12 kills" in text
    assert "**1 finding**" in text
    assert "| `kill` | SQLite | 1.00 | 2 | 12 |  |  | 7 points | 0 |" in text
    assert "`missing-fsync` by `power` within 5 s" in text
    assert totals([found])["power", "sqlite"]["findings"] == 1


def test_readme_shows_the_last_run() -> None:
    text = page.README.read_text()
    numbers = page.load()
    assert {row["name"] for row in numbers.rows} <= set(ENTRIES)
    assert page.put(text, page.block(numbers)) == text
    assert json.loads(page.LAST.read_text())["day"] in text
