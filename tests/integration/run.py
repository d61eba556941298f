"""Run the end-to-end suite against each real store in turn, and say at the end how it went."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from tests.integration.servers_real import SERVERS
from tests.servers import ENVIRONMENT, Server, ServerFailedError, ServerMissingError

NO_TESTS = 5  # pytest's exit status when nothing was collected
SUITE = "tests/e2e"
# Millions of bytes and ten kills more, where the store itself is quick and keeps them on disk.
LONG_STORE = "versitygw"


class Outcome(NamedTuple):
    """How the suite went against one store."""

    store: str
    passed: bool
    detail: str
    seconds: float


def environment(server: Server) -> dict[str, str]:
    """Name *server* and its users the way `tests.servers.from_environment` reads them."""
    given = {"ENDPOINT": server.url, "STORE": server.store, "REGION": server.region}
    for suffix, account in zip(("", "2"), server.accounts, strict=False):
        given[f"ACCESS_KEY{suffix}"] = account.access_key
        given[f"SECRET_KEY{suffix}"] = account.secret_key
    kept = {name: text for name, text in os.environ.items() if not name.startswith(ENVIRONMENT)}
    return kept | {ENVIRONMENT + name: text for name, text in given.items()}


def run_suite(store: str, extra: Sequence[str]) -> Outcome:
    """Start *store* and run the suite against it."""
    began = time.monotonic()
    try:
        with SERVERS[store]() as server:
            print(f"\n=== {store}: ready after {time.monotonic() - began:.1f} s", flush=True)
            began = time.monotonic()
            marked = () if store == LONG_STORE else ("-m", "not long")
            command = (sys.executable, "-m", "pytest", SUITE, *marked, *extra)
            status = subprocess.run(command, env=environment(server), check=False).returncode
    except ServerMissingError as error:
        return Outcome(store, False, f"not to be had: {error}", time.monotonic() - began)
    except ServerFailedError as error:
        return Outcome(store, False, f"did not start: {error}", time.monotonic() - began)
    words = {0: "passed", NO_TESTS: "no test was found"}
    detail = words.get(status, f"failed (pytest ended with {status}, see above)")
    return Outcome(store, status == 0, detail, time.monotonic() - began)


def report(outcomes: Sequence[Outcome], allowed: Sequence[str]) -> bool:
    """Print the table; say whether the whole run counts as passed."""
    table = Table("store", "result", "seconds")
    good = True
    for outcome in outcomes:
        missing = outcome.detail.startswith("not to be had")
        excused = missing and outcome.store in allowed
        good = good and (outcome.passed or excused)
        detail = f"{outcome.detail} (allowed)" if excused else outcome.detail
        table.add_row(outcome.store, detail, f"{outcome.seconds:.0f}")
    Console().print(table)
    return good


def main(arguments: Sequence[str]) -> int:
    """Parse *arguments*, run, and give the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.integration.run",
        description=__doc__,
        epilog="What follows -- goes to pytest.",
    )
    parser.add_argument("stores", nargs="*", metavar="STORE", help=f"of {', '.join(SERVERS)}")
    parser.add_argument(
        "--allow-missing",
        action="append",
        default=[],
        choices=[*SERVERS],
        help="a store that need not be had here; may be given again",
    )
    own, extra = list(arguments), []
    if "--" in own:
        cut = own.index("--")
        own, extra = own[:cut], own[cut + 1 :]
    chosen = parser.parse_args(own)
    if unknown := set(chosen.stores) - set(SERVERS):
        parser.error(f"unknown store {', '.join(sorted(unknown))}: there are {', '.join(SERVERS)}")
    outcomes = [run_suite(store, extra) for store in chosen.stores or SERVERS]
    return 0 if report(outcomes, chosen.allow_missing) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
