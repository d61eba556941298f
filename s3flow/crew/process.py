"""A worker process as its seat knows it: started, spoken to over a line, and ended."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from typing import Protocol

from s3flow.crew.link import Link


class Process(Protocol):
    """One that was started, and may have ended since."""

    @property
    def pid(self) -> int:
        """Its number, for people."""
        ...

    async def connect(self, link: Link) -> None:
        """Let *link* be this end of its line."""
        ...

    async def ended(self, seconds: float | None = None) -> int:
        """Wait for its end, and give its exit code. Raises `TimeoutError` if it lives on."""
        ...

    def kill(self) -> None:
        """End it at once, whatever it does."""
        ...


Start = Callable[[], Process]


class Child:
    """A process of its own, with one end of a socket pair.

    *command* gives its command line from the descriptor that it finds its line at; *lease* are
    descriptors whose locks hold as long as any process lives.
    """

    def __init__(self, command: Callable[[int], Sequence[str]], lease: Sequence[int]) -> None:
        self._line, theirs = socket.socketpair()
        with theirs:
            # In this thread: Linux takes the end of the thread that forked for the parent's death.
            # It takes 2 ms, most of them in the kernel.
            # A stop goes to all processes of a terminal, or a unit: this one is not to die of it, or
            # to complain, before its first instruction, which ignores it.
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
            try:
                self._process = subprocess.Popen(  # noqa: S603  our own program
                    command(theirs.fileno()),
                    stdin=subprocess.DEVNULL,
                    pass_fds=(theirs.fileno(), *lease),
                )
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    async def connect(self, link: Link) -> None:
        """Let *link* be this end of its line."""
        await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=self._line)

    async def ended(self, seconds: float | None = None) -> int:
        """Wait for its end in a thread."""
        try:
            return await asyncio.to_thread(self._process.wait, seconds)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError from error

    def kill(self) -> None:
        """Send it SIGKILL, unless it has ended."""
        self._process.kill()
