"""Stands in for systemd: a socket that hears what a daemon tells its supervisor."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from types import TracebackType
from typing import Self


class Supervisor:
    """Listens at *path* while its context lasts."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._heard: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)

    def __enter__(self) -> Self:
        self._socket.bind(str(self.path))
        self._socket.setblocking(False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()
        self.path.unlink()

    @property
    def environ(self) -> dict[str, str]:
        """What systemd sets for a service with WatchdogSec=200ms."""
        return {"NOTIFY_SOCKET": str(self.path), "WATCHDOG_USEC": "200000"}

    def heard(self) -> list[str]:
        """Give all that was told so far, in order."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._heard += self._socket.recv(4096).decode().split("\n")
        return self._heard
