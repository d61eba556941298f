"""The one command: `python -m tests.torture --minutes 60` runs the programmes, `--bugs` tries them."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from tests.torture.bugs import BUGS
from tests.torture.registry import ENTRIES, STATES
from tests.torture.runner import LEDGER, Account, Catch, Round, hunt, plan, told_of, torture, totals


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line; ends the program where it makes no sense."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for all together (10)")
    parser.add_argument("--seconds", type=float, default=0.0, help="instead of minutes")
    parser.add_argument("--rounds", type=int, default=0, help="each programme does so many, once")
    parser.add_argument("--state", choices=(*STATES, "both"), default="both")
    parser.add_argument("--only", default="", metavar="NAMES", help=f"of {','.join(ENTRIES)}")
    parser.add_argument("--seed", type=int, default=None, help="of the first turn; else a new one")
    parser.add_argument("--jobs", type=int, default=1, help="programmes at a time (1)")
    parser.add_argument("--bug", choices=sorted(BUGS), default="", help="plant this bug")
    parser.add_argument(
        "--bugs", action="store_true", help="plant each bug (or --bug's): it must be caught"
    )
    parser.add_argument("--ledger", type=Path, help=f"what is kept, of whole runs in {LEDGER}")
    chosen = parser.parse_args(arguments)
    chosen.names = [name for name in chosen.only.split(",") if name] or [*ENTRIES]
    if unknown := set(chosen.names) - set(ENTRIES):
        parser.error(f"no programme {', '.join(sorted(unknown))}: there are {', '.join(ENTRIES)}")
    chosen.states = STATES if chosen.state == "both" else (chosen.state,)
    chosen.seconds = chosen.seconds or 60 * chosen.minutes
    if not (chosen.ledger or chosen.only or chosen.rounds or chosen.bug):
        chosen.ledger = LEDGER
    if chosen.seed is None:
        chosen.seed = random.SystemRandom().getrandbits(32)
    return chosen


def rounds_of(chosen: argparse.Namespace) -> list[Round]:
    """Say what is to be done, and how often."""
    planned = plan(chosen.names, chosen.states, chosen.seed, chosen.seconds, chosen.bug)
    if not chosen.rounds:
        return list(planned)
    first = {(one.name, one.state): one for one in reversed(list(planned))}
    endless = float("inf")
    return [one._replace(rounds=chosen.rounds, seconds=endless) for one in first.values()][::-1]


def print_totals(account: Account) -> None:
    """Print what each programme did in all."""
    print()
    for (name, state), counts in totals(account.told).items():
        known = ("seeds", "seconds", "findings")
        rest = told_of({what: n for what, n in counts.items() if what not in known})
        head = f"{name:8} {state:7} seeds {counts['seeds']:<7,} {counts['seconds']:6,} s  "
        print(f"{head}findings {counts['findings']}  {rest}")
    print(f"{sum(bool(one.finding) for one in account.told)} findings", flush=True)


def print_catches(catches: Sequence[Catch]) -> None:
    """Print how the planted bugs fared."""
    print(f"\n{'planted bug':28} {'caught by':10} {'after':>8}  seed")
    for one in catches:
        by = one.by or "NOBODY"
        print(f"{one.bug:28} {by:10} {one.seconds:6.1f} s  {one.seed or ''}")


def main(arguments: Sequence[str]) -> int:
    """Run, and give the exit status."""
    chosen = parse(arguments)
    print(f"seed {chosen.seed}", flush=True)
    began = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    catches: list[Catch] = []
    wanted = [chosen.bug] if chosen.bug else [*BUGS]
    account = Account(chosen.ledger, began)
    try:
        if chosen.bugs:
            for bug in wanted:
                catches.append(hunt(bug, chosen.seed, chosen.states[0], account))
        else:
            deadline = float("inf") if chosen.rounds else time.monotonic() + chosen.seconds
            rounds = rounds_of(chosen)
            torture(iter(rounds), account, jobs=chosen.jobs, deadline=deadline)
    except KeyboardInterrupt:
        print("\ninterrupted", flush=True)
    if chosen.bugs:
        print_catches(catches)
        return int(len(catches) < len(wanted) or not all(one.by for one in catches))
    print_totals(account)
    return int(not account.told or any(one.finding for one in account.told))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
