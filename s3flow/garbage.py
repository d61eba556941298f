"""When the interpreter looks for reference cycles: seldom, and not among what stays."""

from __future__ import annotations

import gc


def collect_seldom() -> None:
    """Look for cycles after 20,000 new objects, not 700: 7 % of the CPU of small objects.

    What a transfer makes is freed by its reference counts; cycles come from errors alone. And a
    start, whose imports make much and drop nothing, takes 25 ms less.
    """
    gc.set_threshold(20_000, 20, 50)


def spare_what_is_there() -> None:
    """Leave out for ever what was imported and set up until now."""
    gc.freeze()
