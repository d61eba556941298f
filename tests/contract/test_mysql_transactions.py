"""A transaction takes effect once, whatever happens to its connection, its server or its caller."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial

import pytest

from s3flow.errors import StateError, StateLocked, StateLost
from s3flow.state.address import MySqlAddress
from s3flow.state.mysql import database as database_module
from s3flow.state.mysql import session
from s3flow.state.mysql.database import MySqlDatabase
from s3flow.state.steps import Execute, Steps
from tests import mariadb
from tests.contract.mysql_kit import WAITING, Wire, count, make_counter, opened, seen, until


@pytest.fixture
def address(mysql_schemas: mariadb.Schemas) -> MySqlAddress:
    made = mysql_schemas.make()
    make_counter(mysql_schemas, made)
    return made


@pytest.fixture
async def database(address: MySqlAddress) -> AsyncIterator[MySqlDatabase]:
    async with opened(address) as one:
        yield one


@pytest.fixture(scope="module")
def server() -> Iterator[mariadb.MariaDb]:
    """Give a server of our own, which keeps what it has committed when it is killed."""
    with mariadb.running("--innodb-flush-log-at-trx-commit=1") as one:
        yield one


@pytest.fixture
async def own(server: mariadb.MariaDb) -> AsyncIterator[tuple[mariadb.Schemas, MySqlAddress]]:
    schemas = mariadb.Schemas(server.address("mysql"))
    made = schemas.make()
    make_counter(schemas, made)
    yield schemas, made
    schemas.drop()


# --- other connections --------------------------------------------------------------------------


async def test_a_deadlock_is_tried_again(
    mysql_schemas: mariadb.Schemas, address: MySqlAddress, database: MySqlDatabase
) -> None:
    results: list[int] = []
    with contextlib.closing(mysql_schemas.connect(address.database)) as other:
        cursor = other.cursor()
        cursor.execute("CREATE TABLE heavy (n INT NOT NULL) ENGINE=InnoDB")
        cursor.execute("BEGIN")
        # The server ends the transaction that has changed less: this one must not be it.
        cursor.execute("INSERT INTO heavy VALUES " + ",".join(["(1)"] * 500))
        cursor.execute("UPDATE counter SET n = n + 10")
        ours = asyncio.create_task(database.write(count, results.append))
        await until(lambda: mysql_schemas.query(WAITING))
        await asyncio.to_thread(cursor.execute, "UPDATE holder SET since = 0")
        assert not results
        other.commit()
    assert await ours == 11
    assert results == [11]


async def test_a_row_that_stays_locked_is_waited_for(
    mysql_schemas: mariadb.Schemas, address: MySqlAddress, database: MySqlDatabase
) -> None:
    await database.read(_patient_for_a_second)
    with contextlib.closing(mysql_schemas.connect(address.database)) as other:
        cursor = other.cursor()
        cursor.execute("BEGIN")
        cursor.execute("UPDATE counter SET n = n + 10")
        ours = asyncio.create_task(database.write(count))
        await asyncio.sleep(1.5)
        assert not ours.done()
        other.commit()
    assert await ours == 11


def _patient_for_a_second() -> Steps[None]:
    yield Execute("SET SESSION innodb_lock_wait_timeout = 1")


async def test_a_connection_that_is_killed_in_mid_transaction(
    mysql_schemas: mariadb.Schemas, address: MySqlAddress, database: MySqlDatabase
) -> None:
    results: list[int] = []
    with contextlib.closing(mysql_schemas.connect(address.database)) as other:
        cursor = other.cursor()
        cursor.execute("BEGIN")
        cursor.execute("UPDATE counter SET n = n + 10")
        ours = asyncio.create_task(database.write(count, results.append))
        await until(lambda: mysql_schemas.query(WAITING))
        [(thread,)] = mysql_schemas.query(WAITING)
        mysql_schemas.query(f"KILL {thread}")
        await until(lambda: [it for (it,) in mysql_schemas.query(WAITING) if it != thread])
        other.commit()
    assert await ours == 11
    assert results == [11]


async def test_a_connection_that_was_killed_between_two_works(
    mysql_schemas: mariadb.Schemas, address: MySqlAddress, database: MySqlDatabase
) -> None:
    for expected in range(1, 4):
        threads = mysql_schemas.query(
            "SELECT id FROM information_schema.processlist"
            f" WHERE db = '{address.database}' AND command = 'Sleep'"
        )
        assert threads
        for (thread,) in threads:
            mysql_schemas.query(f"KILL {thread}")
        assert await database.write(count) == expected
        assert await database.read(seen) == expected


# --- the answer to a COMMIT ---------------------------------------------------------------------


@pytest.mark.parametrize("arrives", [False, True])
async def test_a_commit_without_an_answer_counts_once(
    address: MySqlAddress, *, arrives: bool
) -> None:
    results: list[int] = []
    async with Wire(address.port).open() as wire, opened(replace(address, port=wire.port)) as it:
        assert await it.write(count, results.append) == 1
        wire.cut_before, wire.cut_after = not arrives, arrives
        assert await it.write(count, results.append) == 2
        assert wire.cuts == 1
        assert await it.read(seen) == 2
        assert await it.write(count, results.append) == 3
    assert results == [1, 2, 3]


async def test_what_was_committed_unheard_is_told_before_the_next_work(
    address: MySqlAddress,
) -> None:
    told: list[str] = []
    async with (
        Wire(address.port).open() as wire,
        opened(replace(address, port=wire.port), patience=0.0) as it,
    ):
        wire.cut_after = True
        with pytest.raises(StateError):
            await it.write(count, lambda _: told.append("first"))
        assert await it.read(seen, lambda _: told.append("second")) == 1
    assert told == ["first", "second"]


async def test_a_server_that_does_not_answer_is_given_up(
    address: MySqlAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "ANSWER", 1.0)
    monkeypatch.setattr(database_module, "SILENT", 0.1)
    async with Wire(address.port).open() as wire, opened(replace(address, port=wire.port)) as it:
        assert await it.write(count) == 1
        wire.silent = True
        work = asyncio.create_task(it.write(count))
        await until(lambda: "has not answered for" in it.trouble)
        assert await work == 2
        assert not it.trouble


async def test_a_server_that_does_not_answer_holds_no_stop(
    address: MySqlAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "LAST_ANSWER", 0.2)
    async with Wire(address.port).open() as wire, opened(replace(address, port=wire.port)) as it:
        wire.silent = True
        work = asyncio.create_task(it.write(count))
        await until(lambda: not wire.silent)
        it.hurry()
        with pytest.raises(StateError):
            await work
        assert await it.read(seen) == 0
        wire.silent = True
        work = asyncio.create_task(it.write(count))
        await until(lambda: not wire.silent)
        await it.close()
        with pytest.raises(StateError, match="is closed"):
            await work


# --- the server ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_server_that_goes_and_comes_back(
    server: mariadb.MariaDb, own: tuple[mariadb.Schemas, MySqlAddress], how: signal.Signals
) -> None:
    async with opened(own[1]) as database:
        assert await database.write(count) == 1
        await asyncio.to_thread(server.stop, how)
        works = [asyncio.create_task(database.write(count)) for _ in range(3)]
        await until(lambda: database.trouble)
        assert "see that the server runs" in database.trouble
        await asyncio.to_thread(server.start)
        assert await asyncio.gather(*works) == [2, 3, 4]
        assert not database.trouble


async def test_a_server_that_is_killed_in_the_midst_of_commits(
    server: mariadb.MariaDb, own: tuple[mariadb.Schemas, MySqlAddress]
) -> None:
    results: list[int] = []

    async def work(database: MySqlDatabase) -> None:
        for _ in range(200):
            await database.write(count, results.append)

    async with opened(own[1]) as database:
        working = asyncio.create_task(work(database))
        for reached in (20, 60, 120):
            await until(lambda reached=reached: len(results) >= reached)  # type: ignore[misc]
            await asyncio.to_thread(server.stop, signal.SIGKILL)
            await asyncio.to_thread(server.start)
        await working
        assert await database.read(seen) == 200
    assert results == list(range(1, 201))


async def test_a_server_that_takes_no_writes_for_a_while(
    own: tuple[mariadb.Schemas, MySqlAddress],
) -> None:
    schemas, address = own
    schemas.query("CREATE OR REPLACE USER plain@'%' IDENTIFIED BY 'pass word'")
    schemas.query(f"GRANT ALL ON {address.database}.* TO plain@'%'")
    async with opened(replace(address, user="plain", password="pass word")) as database:
        schemas.query("SET GLOBAL read_only = 1")
        try:
            work = asyncio.create_task(database.write(count))
            await until(lambda: database.trouble)
            assert "read-only: work goes on when it takes writes again" in database.trouble
            assert not work.done()
        finally:
            schemas.query("SET GLOBAL read_only = 0")
        assert await work == 1
        assert not database.trouble


async def test_patience_ends(
    server: mariadb.MariaDb, own: tuple[mariadb.Schemas, MySqlAddress]
) -> None:
    async with opened(own[1], patience=0.2) as database:
        await asyncio.to_thread(server.stop)
        try:
            with pytest.raises(StateError, match="see that the server runs"):
                await database.write(count)
        finally:
            await asyncio.to_thread(server.start)
        assert await database.write(count) == 1


async def test_closing_does_not_wait_for_the_server(
    server: mariadb.MariaDb, own: tuple[mariadb.Schemas, MySqlAddress]
) -> None:
    async with opened(own[1], patience=1e9) as database:
        await asyncio.to_thread(server.stop)
        try:
            work = asyncio.create_task(database.write(count))
            await until(lambda: database.trouble)
            await database.close()
            with pytest.raises(StateError):
                await work
        finally:
            await asyncio.to_thread(server.start)
        with pytest.raises(StateError, match="is closed"):
            await database.read(seen)


# --- callers ------------------------------------------------------------------------------------


async def test_a_cancelled_caller_cuts_nothing(address: MySqlAddress) -> None:
    async with opened(address) as database:
        for expected in range(1, 30):
            work = asyncio.create_task(database.write(count))
            for _ in range(expected % 7):
                await asyncio.sleep(0)
            work.cancel()
            others = await asyncio.gather(*(database.read(partial(_say, n)) for n in range(5)))
            assert others == [0, 1, 2, 3, 4]
            with contextlib.suppress(asyncio.CancelledError):
                await work
        # Cancelled before it began, it may not have been asked for at all; else it was carried out.
        assert await database.read(seen) == 29 - 29 // 7


def _say(number: int) -> Steps[int]:
    from s3flow.state.steps import Fetch

    [(said,)] = yield Fetch("SELECT ?", (number,))
    return int(said)


async def test_a_work_that_fails_changes_nothing(database: MySqlDatabase) -> None:
    def work() -> Steps[None]:
        yield Execute("UPDATE counter SET n = 100")
        raise LookupError("no such thing")

    with pytest.raises(LookupError):
        await database.write(work)
    assert await database.read(seen) == 0
    assert await database.write(count) == 1


# --- who may write ------------------------------------------------------------------------------


async def test_a_second_daemon_is_refused_and_told_who_has_it(address: MySqlAddress) -> None:
    async with opened(address) as database:
        with pytest.raises(StateLocked, match=r"in use by pid \d+ on "):
            await MySqlDatabase.open(address, read_only=False)
        assert await database.write(count) == 1
    async with opened(address) as next_one:
        assert await next_one.write(count) == 2


async def test_readers_are_welcome_and_write_nothing(
    address: MySqlAddress, database: MySqlDatabase
) -> None:
    await database.write(count)
    async with opened(address, read_only=True, patience=0.0) as reader:
        assert await reader.read(seen) == 1
        with pytest.raises(StateError, match="for reading only"):
            await reader.write(count)
        with pytest.raises(StateError, match="READ ONLY transaction"):
            await reader.read(count)


async def test_who_was_overtaken_writes_nothing_more(
    mysql_schemas: mariadb.Schemas, address: MySqlAddress, database: MySqlDatabase
) -> None:
    await database.write(count)
    mysql_schemas.query(
        "UPDATE holder SET epoch = epoch + 1, name = 'pid 7 on there'", address.database
    )
    with pytest.raises(StateLost, match="taken over by pid 7 on there"):
        await database.write(count)
    with pytest.raises(StateLost):
        await database.read(seen)
    assert mysql_schemas.query("SELECT n FROM counter", address.database) == ((1,),)


async def test_a_server_that_lost_commits_is_not_written_to(
    mysql_schemas: mariadb.Schemas, address: MySqlAddress, database: MySqlDatabase
) -> None:
    for _ in range(3):
        await database.write(count)
    mysql_schemas.query("UPDATE holder SET serial = 1", address.database)
    for (thread,) in mysql_schemas.query(
        f"SELECT id FROM information_schema.processlist WHERE db = '{address.database}'"
    ):
        mysql_schemas.query(f"KILL {thread}")
    with pytest.raises(StateLost, match="came back without what it had committed"):
        await database.read(seen)
