"""Servers that were restored, emptied, or are behind a proxy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from s3flow.errors import StateError, StateLost
from s3flow.model import Change, State
from s3flow.state.address import MySqlAddress
from s3flow.state.mysql import session
from s3flow.state.opening import open_state
from s3flow.state.steps import Fetch, Steps
from tests import mariadb, servers
from tests.contract.mysql_kit import count, make_counter, opened, seen
from tests.contract.state_kit import FLOW, found, merge

CONNECTIONS = "SELECT id FROM information_schema.processlist WHERE db = '{}'"


@pytest.fixture
def address(mysql_schemas: mariadb.Schemas) -> MySqlAddress:
    made = mysql_schemas.make()
    make_counter(mysql_schemas, made)
    return made


# --- restored ---------------------------------------------------------------------------------


@pytest.mark.parametrize("connected", [True, False])
@pytest.mark.parametrize("older", ["UPDATE holder SET epoch = epoch - 1", "DELETE FROM holder"])
async def test_an_older_backup_is_not_taken_for_another_daemon(
    mysql_schemas: mariadb.Schemas, address: MySqlAddress, older: str, connected: bool
) -> None:
    async with opened(address):
        pass  # somebody was here before
    async with opened(address) as database:
        assert await database.write(count) == 1
        mysql_schemas.query(older, address.database)
        if not connected:
            for (thread,) in mysql_schemas.query(CONNECTIONS.format(address.database)):
                mysql_schemas.query(f"KILL {thread}")
        with pytest.raises(StateLost, match="came back without what it had committed"):
            await database.write(count)
        assert "backup" in database.trouble
        with pytest.raises(StateLost):
            await database.read(seen)
    async with opened(address) as database:
        assert await database.write(count) == 2


# --- refused ----------------------------------------------------------------------------------


async def test_what_the_server_refuses_for_good_is_a_trouble_until_something_is_written(
    mysql_schemas: mariadb.Schemas, address: MySqlAddress
) -> None:
    async with opened(address) as database:
        mysql_schemas.query("RENAME TABLE holder TO elsewhere", address.database)
        with pytest.raises(StateError, match="restore it from a backup"):
            await database.write(count)
        assert await database.read(seen) == 0
        assert "restore it from a backup" in database.trouble
        mysql_schemas.query("RENAME TABLE elsewhere TO holder", address.database)
        assert await database.write(count) == 1
        assert not database.trouble


async def test_statements_fit_the_server_whatever_they_are_written_in() -> None:
    with mariadb.running("--max-allowed-packet=4M") as server:
        mariadb.Schemas(server.address("mysql")).query("CREATE DATABASE small")
        state = await open_state(server.address("small"), patience=5.0)
        try:
            await state.open_flow(FLOW)
            await merge(state, *[found(b"%04d" % number) for number in range(1500)])
            transfers = await state.claim(FLOW.name, 2000)
            assert len(transfers) == 1500
            message = "\U0001f4a9" * 1000  # four bytes each
            await state.save([Change(it, State.FAILED, "odd", message) for it in transfers])
            assert len(await state.failures(FLOW.name, 2000)) == 1500
        finally:
            await state.close()


# --- slow -------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["read", "write"])
async def test_a_statement_that_takes_long_is_done_at_last(
    address: MySqlAddress, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    tries = 0

    def work() -> Steps[None]:
        nonlocal tries
        tries += 1
        yield Fetch("SELECT SLEEP(1)")

    async with opened(address, patience=20.0) as database:
        monkeypatch.setattr(session, "ANSWER", 0.6)
        for _ in range(2):
            tries = 0
            await (database.write(work) if how == "write" else database.read(work))
            assert tries > 1  # once is no habit
        assert not database.trouble


# --- behind a proxy ---------------------------------------------------------------------------


class Proxy:
    """Numbers connections by itself, and keeps those to the server open after ours are cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ours: list[asyncio.StreamWriter] = []
        self._kept: list[asyncio.StreamWriter] = []
        self.port = 0

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[Proxy]:
        tasks: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection(servers.HOST, self._port)
            self._ours.append(writer)
            self._kept.append(back)
            greeting = bytearray(await there.read(65_536))
            number = greeting.index(b"\0", 5) + 1
            greeting[number : number + 4] = b"\x01\x02\x03\x04"
            writer.write(greeting)
            for source, target in ((reader, back), (there, writer)):
                tasks.add(asyncio.create_task(_pass(source, target)))

        server = await asyncio.start_server(serve, servers.HOST, 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            self.cut()
            for writer in self._kept:
                writer.transport.abort()
            await asyncio.gather(*tasks)
            await server.wait_closed()

    def cut(self) -> None:
        """Cut what we have; the server hears nothing of it."""
        for writer in self._ours:
            writer.transport.abort()
        self._ours.clear()


async def _pass(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(65_536):
            target.write(data)


async def test_a_line_that_a_proxy_has_cut_is_no_other_daemon(address: MySqlAddress) -> None:
    async with (
        Proxy(address.port).open() as proxy,
        opened(replace(address, port=proxy.port)) as database,
    ):
        assert await database.write(count) == 1
        proxy.cut()
        assert await database.write(count) == 2
        assert not database.trouble
