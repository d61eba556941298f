"""Holds on deletes, kept beside the state: they can be changed while a daemon has that to itself."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path
from typing import Any

from s3flow.errors import StateError
from s3flow.records import Hold


def as_text(hold: Hold) -> str:
    """Write a hold down."""
    return json.dumps(hold._asdict())


def from_text(text: str, where: str) -> Hold:
    """Read a hold. What cannot be read holds as well: it was put there for a reason."""
    try:
        found: dict[str, Any] = json.loads(text)
        return Hold(str(found["why"]), float(found["since"]), bool(found["tripped"]))
    except (ValueError, KeyError, TypeError):
        return Hold(f"{where} says so, and cannot be read", 0.0)


class FileHolds:
    """A file for each flow that is held, beside the file of the state: `<state>.hold.<flow>`."""

    def __init__(self, state: Path) -> None:
        self._state = state.expanduser().resolve()

    async def get(self, flow: str) -> Hold | None:
        """Say whether the flow's deletes are held."""
        return self._get(flow)  # one call of the system, mostly for what is not there

    async def put(self, flow: str, hold: Hold) -> None:
        """Hold the flow's deletes, durably."""
        await asyncio.to_thread(self._put, flow, hold)

    async def drop(self, flow: str) -> bool:
        """Release them; False when they were not held."""
        path = self._path(flow)
        try:
            path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._error(path, error) from error
        return True

    def _path(self, flow: str) -> Path:
        return self._state.with_name(f"{self._state.name}.hold.{flow}")

    def _get(self, flow: str) -> Hold | None:
        path = self._path(flow)
        try:
            return from_text(path.read_text("utf-8", errors="replace"), str(path))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(path, error) from error

    def _put(self, flow: str, hold: Hold) -> None:
        path = self._path(flow)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            try:
                with part.open("w", encoding="utf-8") as file:
                    file.write(as_text(hold))
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(path)
                folder = os.open(path.parent, os.O_RDONLY)
                try:
                    os.fsync(folder)
                finally:
                    os.close(folder)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    part.unlink()
        except OSError as error:
            raise self._error(path, error) from error

    def _error(self, path: Path, error: OSError) -> StateError:
        return StateError(
            f"{path}, which holds deletes while it is there, cannot be used: "
            f"{error.strerror or error}"
        )
