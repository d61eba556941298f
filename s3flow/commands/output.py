"""Where a command's long output goes: a file, whole or not at all, or the terminal."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TextIO

from s3flow.errors import ConfigError
from s3flow.observe.text import shown


class Written(Protocol):
    """What text is written to."""

    def write(self, text: str, /) -> object:
        """Write it."""


class _Shown:
    """A terminal, for texts in which people may have written anything."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal

    def write(self, text: str, /) -> int:
        """Write it for people to read."""
        return self._terminal.write(shown(text, len(text), keep="\n"))


@contextlib.contextmanager
def written(path: Path | None) -> Iterator[Written]:
    """Give what to write to: the file *path*, which appears at the end, or standard output.

    A terminal is shown what could act on it escaped; files and pipes get everything as it is.
    Raises `ConfigError` when the file cannot be written.
    """
    if path is None:
        yield _Shown(sys.stdout) if sys.stdout.isatty() else sys.stdout
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
                yield file
                file.flush()
                os.fsync(descriptor)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
