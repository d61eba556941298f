"""One world of a seed, told step by step: `python -m tests.torture.sim SEED`."""

from __future__ import annotations

import sys

from tests.torture.sim import live

if __name__ == "__main__":
    live(int(sys.argv[1]), tell=print)
