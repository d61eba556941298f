"""The live display on a terminal: drawn in place, over what a new size or a shell made of it."""

from __future__ import annotations

import asyncio
import io
import signal

from rich.console import Console, ConsoleDimensions

from s3flow.observe.display import LiveDisplay
from s3flow.observe.progress import FlowSnapshot
from tests.unit.test_observe_display import BUSY, lines_of, take


async def test_it_redraws_and_leaves_the_end_on_the_screen() -> None:
    output = io.StringIO()
    console = Console(file=output, width=80, height=24, force_terminal=True, color_system=None)
    current = [take(BUSY)]
    asked = 0

    def now() -> list[FlowSnapshot]:
        nonlocal asked
        asked += 1
        return current

    view = LiveDisplay(console, now)
    with view:
        running = asyncio.create_task(view.run())
        before = asked
        while asked < before + 2:
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        current[:] = [take(BUSY[:3])]
    written = output.getvalue()
    assert written.rindex("(100%)") > written.rindex("(67%)")
    assert written.count("\x1b[?25l") == written.count("\x1b[?25h") == 1  # the cursor is back
    assert "\x1b[2J" not in written  # the screen is never cleared: that flickers


async def test_a_new_size_is_drawn_at_once_over_what_was_there() -> None:
    output = io.StringIO()
    console = Console(file=output, width=80, height=24, force_terminal=True, color_system=None)
    view = LiveDisplay(console, lambda: [take(BUSY)])
    with view:
        running = asyncio.create_task(view.run())
        while output.getvalue().count("docs") < 2:  # the second picture is `run`'s
            await asyncio.sleep(0.01)
        console.size = ConsoleDimensions(40, 24)
        before = len(output.getvalue())
        signal.raise_signal(signal.SIGWINCH)
        while len(output.getvalue()) == before:
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    frames = output.getvalue()[before:]
    first = frames[: frames.index("docs")]
    # Six lines of the first picture are wider than 40 columns: a terminal made two of each.
    wide = sum(len(line) > 40 for line in lines_of(take(BUSY)))
    assert first.count("\x1b[1A") == wide + len(lines_of(take(BUSY))) - 1


async def test_what_a_shell_wrote_meanwhile_is_left_alone() -> None:
    output = io.StringIO()
    console = Console(file=output, width=80, height=24, force_terminal=True, color_system=None)
    view = LiveDisplay(console, lambda: [take(BUSY)])
    with view:
        running = asyncio.create_task(view.run())
        while output.getvalue().count("docs") < 2:  # the second picture is `run`'s
            await asyncio.sleep(0.01)
        output.write("\n[1]+  Stopped  s3flow sync\n")
        signal.raise_signal(signal.SIGCONT)
        before = len(output.getvalue())
        while output.getvalue().count("\n", before) < 2 * len(lines_of(take(BUSY))) - 1:
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    after = output.getvalue().partition("Stopped  s3flow sync\n")[2]
    assert after.startswith("\n" * len(lines_of(take(BUSY))))
    assert after.partition("docs")[0].count("\x1b[1A") == len(lines_of(take(BUSY))) - 1
