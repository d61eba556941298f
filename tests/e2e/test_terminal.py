"""What a person sees at a terminal: the numbers of `status`, in lines that fit, and no key that acts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
from collections.abc import Mapping
from pathlib import Path

import pytest

from s3flow.observe.text import size
from tests.e2e.conftest import Stage
from tests.e2e.program import HANG, Program

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(
    program: Program,
    *words: str,
    columns: int = 80,
    lines: int = 24,
    code: int = 0,
    stderr: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> str:
    """Run a command on a terminal of that size; gives all that it was sent."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, here)
        elsewhere = stack.enter_context(stderr.open("wb")) if stderr else there
        process = subprocess.Popen(
            program.command(*words),
            cwd=program.folder,
            env={**program.environ, "TERM": "xterm-256color", **(environ or {})},
            stdin=there,
            stdout=there,
            stderr=elsewhere,
        )
        program.children.append(process)
        os.close(there)
        sent = b""
        with contextlib.suppress(OSError):  # EIO: the last one who had the terminal is gone
            while chunk := os.read(here, 65_536):
                sent += chunk
        assert process.wait(HANG) == code, sent
    return sent.decode()


def last_picture(sent: str) -> list[str]:
    """Give the lines that the display left behind, and what was printed after them."""
    return CONTROL.sub("", sent[sent.rindex("\x1b[1A") :]).replace("\r", "").splitlines()


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (200, 50), (40, 12)])
def test_the_end_stays_on_the_screen_and_is_what_status_says(
    stage: Stage, columns: int, lines: int
) -> None:
    for number in range(12):
        stage.put(f"key-{number}", b"x" * (100 + number))
    stage.put("left-out", b"y" * 7)
    program = stage.program({"exclude": ["left-*"]})
    sent = on_a_terminal(program, "sync", columns=columns, lines=lines)
    assert "\x1b[2J" not in sent
    assert sent.count("\x1b[?25l") == sent.count("\x1b[?25h") == 1  # the cursor is back
    picture = last_picture(sent)
    whole = program.flow()
    assert whole["objects"]["listed"] == 13
    assert any("objects 13 of 13 (100%)" in line for line in picture)
    for state, numbers in whole["states"].items():
        row = [line.split()[1:4] for line in picture if line.startswith(f"  {state} ")]
        wanted = [f"{numbers['objects']:,}", *size(numbers["bytes"]).split()]
        assert row == ([wanted] if numbers["objects"] else [])
    drawn = [line for line in picture if "━" in line or line.startswith("  ")]
    assert max(map(len, drawn)) <= columns


def test_a_hostile_key_that_fails_is_shown_and_does_not_act(stage: Stage) -> None:
    stage.put("a\x1b[2Jb", b"bytes")
    (stage.nas / "a\x1b[2Jb").mkdir()
    program = stage.program({"target": "nas:"})
    sent = on_a_terminal(program, "sync", code=1)
    assert "\x1b[2J" not in sent
    [failure] = [line for line in last_picture(sent) if line.startswith("failures ")]
    assert failure.split() == ["failures", "path_conflict", f"{stage.source}/a\\x1b[2Jb"]


@pytest.mark.parametrize("plain", [{"TERM": "dumb"}, {"TERM": "unknown"}])
def test_a_dumb_terminal_gets_lines(stage: Stage, plain: dict[str, str]) -> None:
    stage.put("a")
    program = stage.program({})
    sent = on_a_terminal(program, "sync", environ=plain)
    assert "\x1b" not in sent
    assert "scan finished" in sent
    assert "verified: 1 objects" in sent


def test_no_color_is_heeded(stage: Stage) -> None:
    stage.put("a")
    program = stage.program({})
    sent = on_a_terminal(program, "sync", environ={"NO_COLOR": "1"})
    colours = {code for style in re.findall(r"\x1b\[([0-9;]*)m", sent) for code in style.split(";")}
    assert colours <= {"", "0", "1", "2", "3", "4"}  # bold, dim and the like
    assert "━" in sent


def test_what_is_logged_into_a_file_stays_there(stage: Stage) -> None:
    stage.put("a")
    program = stage.program({})
    log = program.folder / "log"
    sent = on_a_terminal(program, "sync", stderr=log)
    assert "scan finished" in log.read_text()
    assert "scan finished" not in sent
    assert "\x1b" not in log.read_text()


def test_a_terminal_of_few_characters(stage: Stage) -> None:
    stage.put("a")
    program = stage.program({})
    sent = on_a_terminal(program, "sync", environ={"PYTHONIOENCODING": "latin-1"})
    assert "###" in sent
    assert sent.isascii()


def test_verify_draws_its_counts_and_leaves_what_differs(stage: Stage) -> None:
    for number in range(30):
        stage.put(f"{number:02}")
    proxy = stage.proxy()
    program = stage.program({"concurrency": 2})
    program.run("sync")
    stage.theirs.delete_object(Bucket=stage.target, Key="11")
    proxy.delay = lambda request: 0.05 if request.kind == "head" else 0.0
    sent = on_a_terminal(program, "verify", code=1)
    assert re.search(r"flow-0: [\d,]+ looked at", CONTROL.sub("", sent))
    left = CONTROL.sub("", sent).replace("\r", "").splitlines()
    assert any(re.search(r"flow-0\s+\S+/11\s+missing", line) for line in left)
    assert "30 copies looked at" in left[-1] or "30 copies looked at" in left[-2]
