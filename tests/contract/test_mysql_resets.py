"""An idle connection that is reset: each loop says so in its own way, and the state goes on over another."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Coroutine, Iterator
from dataclasses import replace

import pytest
import uvloop
from pymysql.err import Error

from s3flow.errors import StateError
from s3flow.state.address import MySqlAddress
from s3flow.state.mysql.database import MySqlDatabase
from s3flow.state.mysql.dialing import dial
from s3flow.state.mysql.session import Session
from s3flow.state.mysql.troubles import Cure, cure
from s3flow.state.steps import Fetch, Steps
from tests import mariadb
from tests.contract.mysql_kit import Wire, count, make_counter, opened

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def address(mysql_schemas: mariadb.Schemas) -> MySqlAddress:
    made = mysql_schemas.make()
    make_counter(mysql_schemas, made)
    return made


@pytest.fixture(params=list(LOOPS))
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
        yield runner


def session_of(database: MySqlDatabase) -> Session:
    session = database._session
    assert session is not None
    return session


async def reset(wire: Wire, session: Session) -> None:
    """Reset the connection, and wait until the loop knows."""
    reader = session._connection._reader
    wire.reset()
    while reader.exception() is None:
        await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_a_state_goes_on_over_another_connection(
    runner: asyncio.Runner, address: MySqlAddress
) -> None:
    async def main() -> None:
        async with (
            Wire(address.port).open() as wire,
            opened(replace(address, port=wire.port)) as database,
        ):
            assert await database.write(count) == 1
            await reset(wire, session_of(database))
            assert await database.write(count) == 2
            assert not database.trouble

    runner.run(main())


def test_a_state_is_closed_in_good_order(runner: asyncio.Runner, address: MySqlAddress) -> None:
    async def main() -> None:
        async with Wire(address.port).open() as wire:
            async with opened(replace(address, port=wire.port)) as database:
                await reset(wire, session_of(database))
            async with opened(address) as database:  # the lock was given up
                assert await database.write(count) == 1

    runner.run(main())


def test_between_two_statements_it_is_a_reason_to_connect_again(
    runner: asyncio.Runner, address: MySqlAddress
) -> None:
    async def main() -> None:
        async with Wire(address.port).open() as wire:
            session = await dial(replace(address, port=wire.port), read_only=False)
            assert session.usable
            await reset(wire, session)
            assert not session.usable
            with pytest.raises((Error, OSError)) as caught:
                await session.query("SELECT 1")
            assert cure(caught.value) is Cure.RECONNECT
            await session.end()

    runner.run(main())


@pytest.mark.parametrize("is_cancelled", [True, False])
def test_a_failure_that_nobody_waits_for_any_more_is_no_complaint_of_the_loop(
    runner: asyncio.Runner, address: MySqlAddress, is_cancelled: bool
) -> None:
    told: list[str] = []

    def fails() -> Steps[None]:
        yield Fetch("SELECT SLEEP(0.2)")
        raise StateError("the work's own refusal")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(str(context)))
        async with opened(address) as database:
            asking: Coroutine[object, object, None] = database.write(fails)
            task = asyncio.create_task(asking)
            while not database._tasks:
                await asyncio.sleep(0)
            if is_cancelled:
                task.cancel()
                await asyncio.wait({task})
                assert task.cancelled()
                await asyncio.wait(database._tasks)
            else:
                with pytest.raises(StateError, match="own refusal"):
                    await task
            del task
        gc.collect()

    runner.run(main())
    assert told == []
