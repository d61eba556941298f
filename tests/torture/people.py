"""People who write, overwrite and delete at a source all the time, and know what they did."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from botocore.client import BaseClient

from tests.servers import Server
from tests.torture.promises import Version

KEYS = 150  # of each prefix: what is there grows no more after some minutes
PAUSE = 0.12  # seconds between two changes, on average
LARGE = 6 * 1024 * 1024  # bytes; one change of so many is such an object
LARGE_ONE_IN = 60
COPIES, MOVES = "copies/", "moves/"


@dataclass(slots=True)
class People:
    """They change *bucket* while their context lasts: copies/ as they like, moves/ by writing."""

    server: Server
    bucket: str
    draw: random.Random
    changes: int = 0
    broken: Exception | None = None
    written: dict[str, list[Version]] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    _over: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._go_on, name="people")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()
        if self.broken is not None and error is None:
            raise self.broken

    def _go_on(self) -> None:
        try:
            with contextlib.closing(self.server.client(0)) as client:
                while not self._over.wait(self.draw.expovariate(1 / PAUSE)):
                    self._change(client)
                    self.changes += 1
        except Exception as error:  # noqa: BLE001 - told by whoever waits for them
            self.broken = error

    def _change(self, client: BaseClient) -> None:
        prefix = COPIES if self.draw.random() < 0.6 else MOVES
        key = f"{prefix}{self.draw.randrange(KEYS):03}"
        # What is to be moved is theirs no more: one who deletes it too would wonder at the copy.
        if prefix == COPIES and key in self.written and self.draw.random() < 0.2:
            client.delete_object(Bucket=self.bucket, Key=key)
            self.removed.add(key)
            return
        is_large = self.draw.randrange(LARGE_ONE_IN) == 0
        body = self.draw.randbytes(LARGE if is_large else self.draw.randrange(20_000))
        version = Version(hashlib.sha256(body).hexdigest(), hashlib.md5(body).hexdigest())
        self.written.setdefault(key, []).append(version)
        self.removed.discard(key)
        client.put_object(Bucket=self.bucket, Key=key, Body=body)

    def of(self, prefix: str) -> tuple[Mapping[bytes, Sequence[Version]], frozenset[bytes]]:
        """Give what was written below *prefix*, and what was deleted again."""
        written = {
            key.encode(): all_ for key, all_ in self.written.items() if key.startswith(prefix)
        }
        return written, frozenset(key.encode() for key in self.removed if key.startswith(prefix))
