"""A counter in a schema, to see how often a transaction took effect; and a wire that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable

from s3flow.state.address import MySqlAddress
from s3flow.state.mysql.database import MySqlDatabase
from s3flow.state.steps import Execute, Fetch, Steps
from tests import servers
from tests.mariadb import Schemas

COUNT = "UPDATE counter SET n = n + ?"
SEEN = "SELECT n FROM counter"
# MariaDB's and MySQL's name for what a connection of a schema waits for.
WAITING = (
    "SELECT trx_mysql_thread_id FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
)


def make_counter(schemas: Schemas, address: MySqlAddress) -> None:
    schemas.query("CREATE TABLE counter (n INT NOT NULL) ENGINE=InnoDB", address.database)
    schemas.query("INSERT INTO counter VALUES (0)", address.database)


def count(by: int = 1) -> Steps[int]:
    """Add to the counter; give what it says then."""
    yield Execute(COUNT, (by,))
    [(n,)] = yield Fetch(SEEN)
    return int(n)


def seen() -> Steps[int]:
    [(n,)] = yield Fetch(SEEN)
    return int(n)


@contextlib.asynccontextmanager
async def opened(
    address: MySqlAddress, *, read_only: bool = False, patience: float = 60.0
) -> AsyncIterator[MySqlDatabase]:
    database = await MySqlDatabase.open(address, read_only=read_only, patience=patience)
    try:
        yield database
    finally:
        await database.close()


async def until(true: Callable[[], object]) -> None:
    """Wait until *true* says so; the test's own limit ends it."""
    while not await asyncio.to_thread(true):
        # innodb_trx shows what it showed before to those who ask again within 0.1 s.
        await asyncio.sleep(0.15)


class Wire:
    """A line to the server that is cut at the next COMMIT: on its way there, or on its answer's way back."""

    def __init__(self, port: int) -> None:
        self.server = port  # what is opened from now on leads there
        self.cut_before = False
        self.cut_after = False
        self.cuts = 0
        self.silent = False  # whatever is open passes nothing on, and what is opened does
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Wire]:
        server = await asyncio.start_server(self._serve, servers.HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    def reset(self) -> None:
        """Cut what is open with an RST, as a firewall does that has forgotten it."""
        for writer in self._open:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        there, back = await asyncio.open_connection(servers.HOST, self.server)
        answers = asyncio.create_task(self._pass(there, writer))
        self._open.add(writer)
        try:
            while data := await reader.read(65_536):
                if b"\x03COMMIT" in data and (self.cut_before or self.cut_after):
                    self.cuts += 1
                    if self.cut_after:
                        answers.cancel()
                        back.write(data)
                        await there.read(65_536)  # it was committed, and nobody hears of it
                    self.cut_before = self.cut_after = False
                    break
                if self.silent:
                    self.silent = False
                    answers.cancel()
                    await reader.read()  # until who asked gives up
                    break
                back.write(data)
        finally:
            answers.cancel()
            self._open.discard(writer)
            for end in (back, writer):
                end.transport.abort()
            await asyncio.gather(answers, return_exceptions=True)

    @staticmethod
    async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.transport.abort()
