"""The programmes: what each is worth of the time, and which planted bugs it is to find."""

from __future__ import annotations

import importlib
from typing import NamedTuple

from tests.torture.programme import Programme

STATES = ("sqlite", "mysql")


class Entry(NamedTuple):
    """A programme: the module `tests.torture.<name>` with a function `run`."""

    name: str
    about: str
    share: float  # of a turn's time, beside the others' shares
    states: tuple[str, ...] = STATES  # it has nothing more to find with the others
    once: bool = False  # it needs all its time in one piece
    least: float = 20.0  # seconds; with less it is all preparation

    def load(self) -> Programme:
        """Import the programme: some need servers and libraries that others do not."""
        programme: Programme = importlib.import_module(f"tests.torture.{self.name}").run
        return programme


ENTRIES = {
    entry.name: entry
    for entry in (
        Entry("nth", "each call of each port fails in turn", 1.5, ("sqlite",), least=60),
        Entry("sim", "lifetimes in one simulated machine", 2, ("sqlite",)),
        Entry("model", "what people do, beside a model of it", 2),
        Entry("storm", "a proxy that spoils what passes", 3, least=60),
        Entry("kill", "kill -9 at named and random moments", 3, least=60),
        Entry("power", "what was not fsynced is gone", 0.7, ("sqlite",)),
        Entry("names", "adversarial names and metadata", 0.7),
        Entry("hostile", "servers and clients that mean harm", 0.7, ("sqlite",)),
        Entry("secrets", "canaries, and failures to make them sing", 0.7),
        Entry("soak", "hours of changes, faults and restarts", 1.5, once=True, least=60),
    )
}

CATCHES: dict[str, tuple[str, ...]] = {
    "state-before-upload": ("sim", "model", "kill"),
    "delete-before-durable": ("sim", "model", "kill"),
    "missing-if-match-read": ("sim", "model", "storm"),
    "missing-if-match-delete": ("sim", "model"),
    "missing-fsync": ("power",),
    "swallowed-cancellation": ("sim", "nth"),
    "reused-dirty-connection": ("hostile", "storm"),
    "lost-lease": ("sim",),
    "forgotten-work": ("sim",),
    "leaked-secret": ("secrets",),
    "leaked-memory": ("soak",),
}
"""Which programmes are to find a planted bug, the quickest first, and those that begin with its name."""

TELLS: dict[str, tuple[str, ...]] = {
    "nth": ("trials", "awaits", "cancelled"),
    "sim": ("lives", "simulated kills", "simulated hours", "deletes"),
    "model": ("histories", "steps", "crashes", "deletes"),
    "storm": ("kinds of fault", "lives", "killed in flight"),
    "kill": ("in_flight", "points", "checks"),
    "power": ("power losses", "with something lost", "simulated kills", "claims"),
    "names": ("objects", "refused", "characters read"),
    "hostile": ("lies refused", "attacks on the listener", "servers without an end"),
    "secrets": ("commands", "keys given", "answers that gossip", "bytes searched"),
    "soak": ("objects", "samples", "stops"),
}
"""The counts that say most of what a programme did, beside those that all have."""


def catchers(bug: str) -> tuple[str, ...]:
    """Name the programmes that are to find *bug*."""
    return next(names for known, names in CATCHES.items() if bug.startswith(known))
