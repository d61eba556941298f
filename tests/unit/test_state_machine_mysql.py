"""The same random histories on MySQL or MariaDB."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings

from s3flow.state.opening import open_state
from s3flow.state.store import SqlState
from tests import mariadb
from tests.unit.test_state_machine import FLOW, StateMachine


class MySqlMachine(StateMachine):
    """Each history has a schema of its own."""

    schemas: ClassVar[mariadb.Schemas]

    def __init__(self) -> None:
        self.address = self.schemas.make()
        super().__init__()

    async def _open(self) -> SqlState:
        state = await open_state(self.address, clock=lambda: self.now)
        await state.open_flow(FLOW)
        return state

    def teardown(self) -> None:
        super().teardown()
        self.schemas.drop()


@pytest.fixture(scope="module", autouse=True)
def _server(mysql_schemas: mariadb.Schemas) -> Iterator[None]:
    MySqlMachine.schemas = mysql_schemas
    yield
    del MySqlMachine.schemas


MySqlMachine.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestMySqlMachine = MySqlMachine.TestCase
