"""Bugs to plant: each breaks one promise, to see that the programmes find it.

Planted in this process by `plant`, or in an s3flow of its own: `python -m tests.torture.bugs NAME
COMMAND …` runs the command line with the bug in it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

BUGS: dict[str, Callable[[], None]] = {}


def bug(plant: Callable[[], None]) -> Callable[[], None]:
    """Name a bug after the function that plants it: `state_before_upload` is "state-before-upload"."""
    BUGS[plant.__name__.replace("_", "-")] = plant
    return plant


def plant(name: str) -> None:
    """Break the s3flow of this process; "" breaks nothing."""
    if name:
        BUGS[name]()


if __name__ == "__main__":
    from s3flow.__main__ import main

    plant(sys.argv.pop(1))
    main()
