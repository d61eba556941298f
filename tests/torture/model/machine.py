"""The same sequence through s3flow and through the model, compared after each step."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from s3flow.policies import Guard, Mode, Overwrite
from tests.torture.model.loop import begin_anew
from tests.torture.model.reference import Terms
from tests.torture.model.runs import Meanwhile, Runs, Trouble
from tests.torture.model.states import InFile, Kept
from tests.torture.model.world import KEYS, World

RAM = Path("/dev/shm")

keys = st.sampled_from(KEYS)
misfortunes = [*Meanwhile, Meanwhile.WRITE, Meanwhile.WRITE, Meanwhile.WRITE_BACK]
troubles = st.lists(
    st.builds(
        Trouble, st.integers(0, 20), st.sampled_from(misfortunes), st.integers(0, len(KEYS) - 1)
    ),
    min_size=1,
    max_size=5,
)
terms = st.builds(
    Terms,
    st.sampled_from([Mode.MOVE, Mode.MOVE, Mode.COPY]),
    st.sampled_from([Overwrite.CHANGED, Overwrite.CHANGED, Overwrite.NEVER, Overwrite.ALWAYS]),
    st.frozensets(keys, max_size=1),
    st.sampled_from([Guard.EACH, Guard.EACH, Guard.NOT]),
    st.booleans(),
)


class FlowMachine(RuleBasedStateMachine):
    """People, s3flow and misfortune take turns. *loop* stays, *counts* are of all histories."""

    loop: ClassVar[asyncio.AbstractEventLoop]
    counts: ClassVar[Counter[str]] = Counter()
    keep: ClassVar[Callable[[Path], Kept]] = InFile

    def __init__(self) -> None:
        super().__init__()
        self._folder = contextlib.ExitStack()
        place = tempfile.TemporaryDirectory(prefix="s3flow-", dir=RAM if RAM.is_dir() else None)
        self.folder = Path(self._folder.enter_context(place))
        self.steps = 0

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something of s3flow's to its end."""
        self.loop.run_until_complete(work)

    @initialize(to_disk=st.booleans(), sums=st.booleans(), terms=terms, order=st.integers(0, 2**32))
    def begin(self, to_disk: bool, sums: bool, terms: Terms, order: int) -> None:
        begin_anew(self.loop, order)
        self.world = World(self.folder, type(self).keep(self.folder), to_disk=to_disk, sums=sums)
        self.runs = Runs(self.world)
        self.world.configure(terms)
        for key in KEYS:
            self.world.write(key)
        self.loop.run_until_complete(self.world.opened())

    # --- people ------------------------------------------------------------------------------------

    @rule(key=keys)
    def write(self, key: bytes) -> None:
        self.world.write(key)

    @rule(key=keys, back=st.integers(0, 2))
    def write_again(self, key: bytes, back: int) -> None:
        self.world.write_again(key, back)

    @rule(key=keys)
    def remove(self, key: bytes) -> None:
        self.world.remove(key)

    @rule(key=keys, gone=st.booleans())
    def tamper(self, key: bytes, gone: bool) -> None:
        self.world.tamper(key, gone=gone)

    @rule(terms=terms)
    def configure(self, terms: Terms) -> None:
        self.world.configure(replace(terms, held=self.world.terms.held))

    @rule(held=st.booleans())
    def hold(self, held: bool) -> None:
        self.do(self.world.hold(held=held))

    @rule()
    def retry(self) -> None:
        self.do(self._retry())

    @rule()
    def rescan(self) -> None:
        self.do(self._rescan())

    # --- s3flow ------------------------------------------------------------------------------------

    @rule()
    def sync(self) -> None:
        self.do(self.runs.run())

    @rule(troubles=troubles)
    def sync_in_trouble(self, troubles: list[Trouble]) -> None:
        self.do(self.runs.run(troubles))

    @rule(troubles=troubles)
    def sync_in_other_trouble(self, troubles: list[Trouble]) -> None:
        self.do(self.runs.run(troubles))

    @rule(troubles=st.one_of(st.just([]), troubles))
    def scan(self, troubles: list[Trouble]) -> None:
        self.do(self.runs.run(troubles, scan_only=True))

    @rule(reads=st.booleans())
    def verify(self, reads: bool) -> None:
        self.do(self.runs.verify(reads=reads))

    # --- the state ---------------------------------------------------------------------------------

    @rule()
    def restart(self) -> None:
        self.do(self.world.restart())

    @rule()
    def lose_state(self) -> None:
        self.do(self.world.lose_state())

    @rule()
    def back_up(self) -> None:
        self.do(self.world.back_up())

    @precondition(lambda self: self.world.backup is not None)
    @rule()
    def restore(self) -> None:
        self.do(self.world.restore())

    # --- what holds --------------------------------------------------------------------------------

    @invariant()
    def nothing_is_wrong(self) -> None:
        self.steps += 1
        _nothing(self.world.model.wrong)

    def teardown(self) -> None:
        """Let all be moved in peace, unless something was wrong already; then end."""
        try:
            if hasattr(self, "world") and not self.world.model.wrong:
                self.do(self._rest())
        finally:
            if hasattr(self, "world"):
                self.do(self.world.close())
                self.world.kept.close()
                type(self).counts.update(self.world.counts)
            type(self).counts["steps"] += self.steps
            type(self).counts["histories"] += 1
            self._folder.close()

    async def _rest(self) -> None:
        await self.world.hold(held=False)
        self.world.configure(Terms(Mode.MOVE))
        await self.runs.run()
        await self._retry()
        await self._rescan()
        await self.runs.run()
        uploads = [] if self.world.orphans and self.world.disk is None else self.world.leftovers()
        model = self.world.model
        _nothing(model.wrong + model.rest(self.world.rows(), uploads))

    async def _retry(self) -> None:
        await (await self.world.opened()).retry("flow", None)

    async def _rescan(self) -> None:
        await (await self.world.opened()).rescan("flow", None)


def _nothing(wrong: list[str]) -> None:
    if wrong:
        raise AssertionError("\n  ".join(wrong))
