"""Every failure of the catalogue has tests that exist, or a reason why it has none."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from tests.catalogue import FAILURES, Failure

TESTS = Path(__file__).parents[1]
# Numbers are not used again, so that they keep their meaning in comments and commits.
NUMBERS = (
    *range(1, 28),  # reading, copies and uploads
    *range(30, 39),  # changes and checksums
    *range(40, 49),  # identity, regions, throttling
    *range(50, 60),  # keys
    *range(60, 70),  # moves
    *range(70, 75),  # local disk
    *range(75, 80),  # archive tiers
    *range(90, 96),  # a server for the state
    *(111, 112, 114, 116),  # processes and their tasks
    *range(130, 135),  # passwords, secrets, forged lines
    *(138, 139),  # hostile servers and clients
)


@cache
def names_in(path: Path) -> frozenset[str]:
    """Name the test functions of a file."""
    nodes = ast.parse(path.read_text(encoding="utf-8")).body
    functions = (n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return frozenset(n.name for n in functions if n.name.startswith("test_"))


def test_every_failure_is_in_the_catalogue_once_and_in_order() -> None:
    assert [failure.id for failure in FAILURES] == [f"B-{number:02d}" for number in NUMBERS]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.id)
def test_a_failure_names_tests_that_exist_or_says_why_there_are_none(failure: Failure) -> None:
    assert failure.wrong
    assert failure.tests or failure.reason
    assert [name for name, times in Counter(failure.tests).items() if times > 1] == []
    for named in failure.tests:
        path, _, function = named.partition("::")
        assert (TESTS / path).is_file(), f"{named}: there is no such file"
        assert function in names_in(TESTS / path), f"{named}: there is no such test"


def test_no_two_failures_have_the_same_words() -> None:
    words = Counter(failure.wrong for failure in FAILURES)
    assert [text for text, times in words.items() if times > 1] == []
