"""Connections to the server: over TLS where it is asked for, and never half open."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import TypeVar

import aiomysql
from pymysql.constants import CLIENT
from pymysql.err import Error

from s3flow.errors import StateError
from s3flow.state.address import MySqlAddress
from s3flow.state.mysql.session import Session
from s3flow.state.steps import Steps

T = TypeVar("T")


class _Connection(aiomysql.Connection):  # type: ignore[misc] # it has no types
    """aiomysql's, which would go on in the clear with a server that has no TLS."""

    tls_required = False
    _ssl_context: ssl.SSLContext | None

    async def _request_authentication(self) -> None:
        if self._ssl_context and not self.server_capabilities & CLIENT.SSL:
            if self.tls_required:
                raise StateError(
                    "the server has no TLS: set it up there (ssl_cert, ssl_key), or use tls=false"
                    " in the state's address if nobody can listen in between"
                )
            self._ssl_context = None
            self.client_flag &= ~CLIENT.SSL
        await super()._request_authentication()


async def dial(address: MySqlAddress, *, read_only: bool) -> Session:
    """Open a session. Raises what the driver does, `OSError`, or `StateError` for a useless server."""
    connection = _Connection(
        host=address.host or "localhost",
        port=address.port,
        unix_socket=address.unix_socket or None,
        user=address.user,
        # The driver encodes it as Latin-1; the server compares bytes, which every client sends as UTF-8.
        password=address.password.encode().decode("latin-1"),
        db=address.database,
        charset="utf8mb4",
        autocommit=None,
        # An UPDATE counts the rows that it finds, also where it changes nothing.
        client_flag=CLIENT.FOUND_ROWS,
        ssl=_context(address),
        program_name="s3flow",
    )
    connection.tls_required = address.tls in {"required", "unverified"}
    session = Session(connection)
    try:
        # Around it all: the driver's own limit ends with TCP's handshake.
        async with asyncio.timeout(address.connect_timeout):
            await connection._connect()  # noqa: SLF001  aiomysql.connect() loses it when cancelled
            await session.prepare(read_only=read_only)
    except BaseException:
        session.close()
        raise
    return session


async def ask(address: MySqlAddress, work: Callable[[], Steps[T]], trouble: str) -> T:
    """Do *work* over a connection of its own. Raises `StateError`, which says *trouble* and why."""
    session: Session | None = None
    try:
        session = await dial(address, read_only=False)
        return await session.run(work())
    except (Error, OSError, EOFError, TimeoutError) as error:
        raise StateError(f"state {address}: {trouble}: {error}") from error
    finally:
        if session is not None:
            await session.end()


def _context(address: MySqlAddress) -> ssl.SSLContext | None:
    if address.tls == "off" or address.unix_socket:
        return None
    try:
        context = ssl.create_default_context(cafile=address.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise StateError(f"the CA file {address.ca_file} cannot be used: {error}") from error
    if address.tls != "required":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
