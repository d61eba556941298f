"""Fixtures for all tests: real servers, and an environment without cloud settings."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import pytest
from botocore.client import BaseClient
from hypothesis import settings

from tests import mariadb, servers
from tests.blocks import (
    LIMIT,
    Blocks,
    blocks_found,
    collecting_as_the_program_does,
    slowness,
)

_FOREIGN = ("AWS_", "S3FLOW__", "NOTIFY_SOCKET", "WATCHDOG_", "HTTP_PROXY", "HTTPS_PROXY")


def pytest_configure(config: pytest.Config) -> None:
    """Hide this machine's credentials, profiles, proxies and settings from every test.

    And let property tests try the same each time: a change fails by what it did. New examples are
    looked for with `--hypothesis-seed`, each night.
    """
    if config.getoption("hypothesis_seed") is None:
        settings.load_profile("ci")
    for name in list(os.environ):
        if name.upper().startswith(_FOREIGN):
            del os.environ[name]
    os.environ.update(
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_EC2_METADATA_DISABLED="true",
        AWS_DEFAULT_REGION=servers.REGION,
    )


@pytest.fixture(scope="session")
def ministack_server() -> Iterator[servers.Server]:
    """Give ministack with two accounts, for the whole session."""
    with servers.ministack() as server:
        yield server


@pytest.fixture(scope="session")
def moto_server() -> Iterator[servers.Server]:
    """Give moto, the second opinion, for the whole session."""
    with servers.moto() as server:
        yield server


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest) -> Iterator[servers.Server]:
    """Give the server that S3FLOW_TEST_S3_ENDPOINT names, else ministack."""
    server = servers.from_environment()
    if server is None:
        yield request.getfixturevalue("ministack_server")
        return
    yield server
    servers.remove_buckets(server)


@pytest.fixture
def s3_client() -> Iterator[Callable[..., BaseClient]]:
    """Give a function (server, account=0) -> synchronous client; closes them all."""
    with contextlib.ExitStack() as stack:

        def open_client(server: servers.Server, account: int = 0) -> BaseClient:
            client = server.client(account)
            stack.callback(client.close)
            return client

        yield open_client


@pytest.fixture
def never_blocked() -> Iterator[Blocks]:
    """Fail the test if a step of its event loop took more than 10 ms of CPU, and name the place."""
    slow = slowness()
    with collecting_as_the_program_does(), blocks_found() as blocks:
        yield blocks
    limit = LIMIT * max(slow, slowness())
    held = blocks.blamed(limit)
    assert not held, "\n".join(held)


@pytest.fixture(scope="session")
def mysql_schemas() -> Iterator[mariadb.Schemas]:
    """Give the MySQL or MariaDB server that S3FLOW_TEST_MYSQL names, else a MariaDB, to make schemas on."""
    with mariadb.schemas() as schemas:
        yield schemas
