"""What the state's logic asks of its database, one step at a time, so that it is written once.

A generator yields steps and is sent what each of them gave. SQLite runs it on its thread, MySQL over
its connection; both within one transaction where something is written. Statements are SQLite's:
another database knows what it says instead (see `mysql_sql`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")
Values = Sequence[object]


class Select(NamedTuple):
    """A SELECT of many rows. *keys* says which columns are bytes, which JSON does not know.

    *rest* ends in a LIMIT: only then is its order sure to survive being a subquery.
    """

    columns: tuple[str, ...]
    rest: str
    keys: tuple[int, ...] = ()


class Fetch(NamedTuple):
    """Gives all rows of a statement: a list of sequences."""

    statement: str
    values: Values = ()


class FetchMany(NamedTuple):
    """Gives all rows of a `Select`: a list of lists."""

    select: Select
    values: Values = ()


class Execute(NamedTuple):
    """Runs a statement; gives the number of rows that it changed."""

    statement: str
    values: Values = ()


class Insert(NamedTuple):
    """Inserts one row; gives the id that it got."""

    statement: str
    values: Values = ()


class Each(NamedTuple):
    """Runs a statement once for each of *rows*, of which there may be none."""

    statement: str
    rows: Sequence[Values]


class Bulk(NamedTuple):
    """Runs a statement, which has {rows} in the place of its VALUES, for all of *rows*."""

    statement: str
    rows: Sequence[Values]


class Add(NamedTuple):
    """As `Bulk`, all or none: gives False, and has done nothing, if one of *rows* is there already."""

    statement: str
    rows: Sequence[Values]


Step = Fetch | FetchMany | Execute | Insert | Each | Bulk | Add
Steps = Generator[Step, Any, T]
Work = Callable[[], Steps[T]]  # called again where a transaction has to be repeated


def first(rows: Sequence[Sequence[Any]]) -> Sequence[Any] | None:
    """Give the first row, None if there is none."""
    return rows[0] if rows else None
