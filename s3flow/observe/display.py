"""What a person at a terminal sees while s3flow runs."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.cells import cell_len
from rich.console import Console, Group
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType
from rich.text import Text

from s3flow import events
from s3flow.observe.frame import Paper, frame
from s3flow.observe.news import News
from s3flow.observe.progress import FlowSnapshot

REFRESH = 2.0  # seconds
_AT_FIRST = (0.25, 0.75, 1.0)  # seconds: the first numbers are there soon
_SETTLE = 0.05  # seconds that a terminal gets while it is being resized

Snapshots = Callable[[], Sequence[FlowSnapshot]]


class LiveDisplay:
    """Redraws the flows in place. Use as a context manager, subscribe it to events, await `run`.

    *snapshots* gives what the daemon last read, *alarms* what holds all flows up; neither does I/O.
    """

    def __init__(
        self,
        console: Console,
        snapshots: Snapshots,
        alarms: Callable[[], Sequence[str]] = tuple,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console = console
        self._snapshots = snapshots
        self._alarms = alarms
        self._news = News(clock)
        self.told: Mapping[type, Callable[..., None]] = self._news.told
        self._drawn: list[int] = []  # columns of the lines that are on the screen
        self._columns = 0  # that the terminal had then
        self._continued = False  # others wrote on the terminal meanwhile
        # Its own thread would draw while the loop changes what is drawn. What was sent to a file
        # must go on to get there.
        self._live = Live(
            console=console,
            auto_refresh=False,
            redirect_stderr=sys.stderr.isatty(),
            vertical_overflow="crop",
        )

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.start()
        self._draw(self.lines())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Draw once more, so that the end is on the screen, and leave the terminal as it was."""
        self._draw(self.lines())
        self._live.stop()

    def __call__(self, event: events.Event) -> None:
        """Take what snapshots do not say."""
        self._news(event)

    async def run(self) -> None:
        """Redraw until cancelled, at once when the terminal changes its size, or is ours again."""
        with _called(self._continue) as called:
            for pause in itertools.chain(_AT_FIRST, itertools.repeat(REFRESH)):
                if _in_front(self._console):
                    # A terminal that takes no more (Ctrl-S, a lost ssh) must not hold the transfers.
                    await asyncio.to_thread(self._draw, self.lines())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await called.wait()
                    await asyncio.sleep(_SETTLE)
                    called.clear()

    def lines(self) -> list[Text]:
        """Give the lines as they are now."""
        width, height = self._console.size
        simple = not self._console.encoding.startswith("utf")
        # The last line stays free: a terminal scrolls when it is full.
        paper = Paper(width, max(1, height - 1), unicode=not simple)
        return frame(self._snapshots(), self._news, paper, self._alarms())

    def _continue(self) -> None:
        self._continued = True

    def _draw(self, lines: list[Text]) -> None:
        if self._continued:
            # What the shell wrote would be taken for the picture, and drawn over.
            self._console.file.write("\n" * len(self._drawn))
            self._continued = False
        self._make_up_for_a_narrower_terminal()
        self._live.update(Group(*lines), refresh=True)
        self._drawn = [cell_len(line.plain) for line in lines]

    def _make_up_for_a_narrower_terminal(self) -> None:
        """Take away what lines became when the terminal broke them: the drawn ones are taken for whole."""
        columns = self._console.size.width
        if columns < self._columns:
            broken = sum(max(0, length - 1) // columns for length in self._drawn)
            up = ((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1))
            self._console.control(Control(*(up * broken)))
        self._columns = columns


@contextlib.contextmanager
def _called(on_continue: Callable[[], None]) -> Iterator[asyncio.Event]:
    """Give an event that is set when the terminal changes its size, or we go on after Ctrl-Z."""
    called = asyncio.Event()

    def continued() -> None:
        on_continue()
        called.set()

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGWINCH, called.set)
    loop.add_signal_handler(signal.SIGCONT, continued)
    try:
        yield called
    finally:
        for number in (signal.SIGWINCH, signal.SIGCONT):
            loop.remove_signal_handler(number)


def _in_front(console: Console) -> bool:
    """Say whether the terminal is ours: a job in the background would scribble over the shell."""
    try:
        return os.tcgetpgrp(console.file.fileno()) == os.getpgrp()
    except (OSError, ValueError):  # no terminal, or not the one that controls us
        return True
