"""Servers that give their place to another one: what is connected to the old one must not stay there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest

from s3flow.errors import StateError
from s3flow.state.mysql.database import MySqlDatabase
from tests import mariadb
from tests.contract.mysql_kit import Wire, count, make_counter, opened, seen, until

SCHEMA = "s3flow_twins"


class Twin:
    """One of two servers with the same schema; nobody but root writes to it while it is read-only."""

    def __init__(self, server: mariadb.MariaDb) -> None:
        self.schemas = mariadb.Schemas(server.address("mysql"))
        self.address = server.address(SCHEMA, user="plain", password="pass word")

    def make(self) -> None:
        self.run(f"CREATE OR REPLACE DATABASE {SCHEMA}")
        self.run("CREATE OR REPLACE USER plain@'%' IDENTIFIED BY 'pass word'")
        self.run(f"GRANT ALL ON {SCHEMA}.* TO plain@'%'")
        make_counter(self.schemas, self.address)
        self.freeze(False)

    def run(self, statement: str) -> None:
        self.schemas.query(statement)

    def freeze(self, frozen: bool) -> None:
        self.run(f"SET GLOBAL read_only = {int(frozen)}")

    def follow(self, other: Twin) -> None:
        """Get what *other* has committed, as a replica does."""
        for table in ("holder", "counter"):
            rows = other.schemas.query(f"SELECT * FROM {SCHEMA}.{table}")
            values = ", ".join(f"({', '.join(map(repr, row))})" for row in rows)
            self.run(f"DELETE FROM {SCHEMA}.{table}")
            self.run(f"INSERT INTO {SCHEMA}.{table} VALUES {values}")


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[mariadb.MariaDb, mariadb.MariaDb]]:
    with mariadb.running() as one, mariadb.running() as other:
        yield one, other


@pytest.fixture
async def twins(servers: tuple[mariadb.MariaDb, mariadb.MariaDb]) -> tuple[Twin, Twin]:
    old, new = Twin(servers[0]), Twin(servers[1])
    for twin in (old, new):
        twin.make()
    async with opened(new.address):
        pass  # makes the tables
    return old, new


@contextlib.asynccontextmanager
async def named(twin: Twin) -> AsyncIterator[tuple[Wire, MySqlDatabase]]:
    """Give a state under a name that leads to *twin* until it is given to another one."""
    async with (
        Wire(twin.address.port).open() as wire,
        opened(replace(twin.address, port=wire.port)) as database,
    ):
        assert await database.write(count) == 1
        yield wire, database


async def test_a_server_that_lost_its_place_is_left_for_the_one_that_has_it(
    twins: tuple[Twin, Twin],
) -> None:
    old, new = twins
    async with named(old) as (wire, database):
        old.freeze(True)
        new.follow(old)
        wire.server = new.address.port
        assert await database.write(count) == 2
        assert not database.trouble
    assert new.schemas.query(f"SELECT n FROM {SCHEMA}.counter") == ((2,),)


async def test_a_replica_that_is_behind_is_waited_for(twins: tuple[Twin, Twin]) -> None:
    old, new = twins
    async with opened(old.address):
        pass  # of which the replica has not heard yet
    async with named(old) as (wire, database):
        old.freeze(True)
        new.freeze(True)
        wire.server = new.address.port
        work = asyncio.create_task(database.write(count))
        await until(lambda: "a replica that is behind" in database.trouble)
        assert not work.done()
        new.follow(old)
        new.freeze(False)
        assert await work == 2
        assert await database.read(seen) == 2


# --- errors that only other servers than the tests' have: said by a trigger, with their numbers --


def said(number: int) -> str:
    return (
        f"CREATE OR REPLACE TRIGGER {SCHEMA}.refusing BEFORE UPDATE ON {SCHEMA}.counter FOR EACH ROW"
        f" IF NEW.n > 1 AND @asked IS NULL THEN SET @asked = 1; SIGNAL SQLSTATE 'HY000'"
        f" SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = 'as MySQL says it'; END IF"
    )


@pytest.mark.parametrize(("number", "elsewhere"), [(3101, False), (3100, True)])
async def test_what_a_group_of_servers_refuses_is_tried_again(
    twins: tuple[Twin, Twin], number: int, elsewhere: bool
) -> None:
    old, new = twins
    async with named(old) as (wire, database):
        new.follow(old)
        old.run(said(number))
        if elsewhere:
            wire.server = new.address.port
        assert await database.write(count) == 2
        assert not database.trouble


async def test_a_binary_log_that_takes_no_rows_is_named() -> None:
    with mariadb.running("--log-bin=bin", "--binlog-format=STATEMENT", "--server-id=1") as server:
        address = mariadb.Schemas(server.address("mysql")).make()
        with pytest.raises(StateError, match="set binlog_format to MIXED or ROW on the server"):
            await MySqlDatabase.open(address, read_only=False)
