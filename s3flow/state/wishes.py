"""What a person asks of a running daemon, which has the state to itself: kept beside the state."""

from __future__ import annotations

import json
import os
from pathlib import Path

from s3flow.errors import StateError

LOOK_AGAIN = 2.0  # seconds; it costs one call of the system


class FileWishes:
    """A file for each flow that is to be listed again, beside that of the state: a line a wish."""

    interval = LOOK_AGAIN

    def __init__(self, state: Path) -> None:
        self._state = state.expanduser().resolve()

    async def put(self, flow: str, bucket: str | None) -> None:
        """Ask for *bucket*, or all of the flow's, to be listed again."""
        path = self._path(flow)
        try:
            # Once more where the file was taken meanwhile, maybe without the line: twice is harmless.
            while not self._append(path, json.dumps(bucket) + "\n"):
                pass
        except OSError as error:
            raise self._error(path, error) from error

    def _append(self, path: Path, line: str) -> bool:
        """Write *line*; say whether the file is still to be taken."""
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            try:
                return os.path.samestat(os.fstat(file.fileno()), path.stat())
            except FileNotFoundError:
                return False

    async def take(self, flow: str) -> list[str | None]:
        """Give what was asked for since the last time."""
        path = self._path(flow)
        taken = path.with_name(f"{path.name}.taken")  # a line that is written now is for later
        try:
            os.rename(path, taken)  # noqa: PTH104 -- Path.rename would make another Path
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._error(path, error) from error
        try:
            lines = taken.read_text("utf-8", errors="replace").splitlines()
            taken.unlink()
        except OSError as error:
            raise self._error(taken, error) from error
        return [_bucket(line) for line in lines]

    def _path(self, flow: str) -> Path:
        return self._state.with_name(f"{self._state.name}.rescan.{flow}")

    def _error(self, path: Path, error: OSError) -> StateError:
        return StateError(
            f"{path}, which asks for a listing, cannot be used: {error.strerror or error}"
        )


def _bucket(line: str) -> str | None:
    """Read a wish; one that cannot be read asks for everything."""
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, str) else None
