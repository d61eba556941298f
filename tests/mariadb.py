"""A real MariaDB of the tests' own: started in well under a second, stopped and killed at will."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pymysql
import pymysql.cursors

from s3flow.config.dsn import parse_state
from s3flow.state.address import MySqlAddress
from tests import servers

NAMED = "S3FLOW_TEST_MYSQL"  # mysql://root@host/mysql: another server, whose user may do everything
INSTALL = "apt-get install --no-install-recommends mariadb-server"
_PLACES = "/usr/sbin:/usr/local/sbin:/usr/libexec:/opt/homebrew/opt/mariadb/bin"
_numbers = itertools.count(1)


def find(program: str) -> str:
    """Give the path of one of the server's programs."""
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_PLACES}")
    if found is None:
        raise servers.ServerMissingError(f"{program} is not installed: run '{INSTALL}'")
    return found


class MariaDb:
    """A server with an empty password for root, on this machine alone."""

    def __init__(self, folder: Path, options: Sequence[str] = ()) -> None:
        self.folder = folder
        self.port = servers.free_port()
        self.socket = folder / "socket"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None
        self._install()

    def _install(self) -> None:
        # It refuses to run as root, and what it runs as must get through to its folder.
        if os.geteuid() == 0:
            self.folder.chmod(0o755)
        (self.folder / "tmp").mkdir()
        self._own(self.folder / "tmp")
        install = [
            find("mariadb-install-db"),
            *("--no-defaults", f"--datadir={self.folder / 'data'}", "--skip-test-db"),
            *("--auth-root-authentication-method=normal", "--skip-name-resolve"),
        ]
        (self.folder / "data").mkdir()
        self._own(self.folder / "data")
        done = subprocess.run([*_as_nobody(), *install], capture_output=True, check=False)
        if done.returncode:
            raise servers.ServerFailedError((done.stdout + done.stderr).decode(errors="replace"))
        self._own(self.folder)

    def _own(self, path: Path) -> None:
        if os.geteuid() == 0:
            shutil.chown(path, "nobody")

    def start(self, *more: str) -> None:
        """Start it, again on the same port and with what it held; give *more* options this time."""
        command = [
            find("mariadbd"),
            *(
                "--no-defaults",
                f"--datadir={self.folder / 'data'}",
                f"--tmpdir={self.folder / 'tmp'}",
            ),
            *(
                f"--socket={self.socket}",
                f"--pid-file={self.folder / 'pid'}",
                f"--port={self.port}",
            ),
            *(f"--bind-address={servers.HOST}", "--skip-name-resolve", "--performance-schema=0"),
            *("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=16M"),
            *self._options,
            *more,
        ]
        self._process = servers.spawn([*_as_nobody(), *command], self.folder)
        servers.wait_until(self._answers, self._process, self.folder / "log")

    def _answers(self) -> bool:
        try:
            self.connect().close()
        except pymysql.Error:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it: politely, or with SIGKILL in the midst of what it does."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(60)
            self._process = None

    def connect(self, **more: Any) -> pymysql.Connection[Any]:
        """Give a connection of root's; whoever asked for it closes it."""
        login = {"user": "root", "host": servers.HOST, "port": self.port, "autocommit": True}
        return pymysql.connect(**{**login, "connect_timeout": 5, **more})

    def address(self, database: str, **more: Any) -> MySqlAddress:
        """Give the address of a schema, as root unless *more* says otherwise."""
        found = {"host": servers.HOST, "port": self.port, "user": "root", "database": database}
        return MySqlAddress(**{**found, **more})


def _as_nobody() -> list[str]:
    if os.geteuid() != 0:
        return []
    return [find("setpriv"), "--reuid=nobody", "--regid=nogroup", "--clear-groups"]


@contextlib.contextmanager
def running(*options: str) -> Iterator[MariaDb]:
    """Run a server until the block ends. Its own options make it fast, and lose commits in a crash.

    Where that matters: "--innodb-flush-log-at-trx-commit=1". No disk is waited for even then, as
    what a killed server wrote the kernel still has; a schema is made in a sixth of the time.
    """
    fast = ("--innodb-flush-log-at-trx-commit=0", "--sync-binlog=0", "--loose-debug-no-sync")
    with tempfile.TemporaryDirectory(
        prefix="s3flow-mariadb-", ignore_cleanup_errors=True
    ) as folder:
        server = MariaDb(Path(folder), (*fast, *options))
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGKILL)


# --- schemas ------------------------------------------------------------------------------------


class Schemas:
    """Makes schemas on a server, each with a name that nothing else has, and drops them."""

    def __init__(self, root: MySqlAddress) -> None:
        self._root = root
        self._made: list[str] = []
        self._lock = threading.Lock()

    def query(self, statement: str, database: str | None = None) -> Sequence[Sequence[Any]]:
        """Run a statement as root, beside whatever else runs; give its rows."""
        with (
            self._lock,
            contextlib.closing(self.connect(database)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(statement)
            return cursor.fetchall()

    def explain(self, statement: str, database: str) -> list[dict[str, Any]]:
        """Say how the server goes about a statement, by the columns of EXPLAIN: they differ."""
        with (
            contextlib.closing(self.connect(database)) as connection,
            connection.cursor(pymysql.cursors.DictCursor) as cursor,
        ):
            cursor.execute(f"EXPLAIN {statement}")
            return list(cursor.fetchall())

    def connect(self, database: str | None = None) -> pymysql.Connection[Any]:
        """Give a connection of root's; whoever asked for it closes it."""
        root = self._root
        return pymysql.connect(
            host=root.host,
            port=root.port,
            unix_socket=root.unix_socket or None,
            user=root.user,
            password=root.password,
            database=database,
            charset="utf8mb4",
            autocommit=True,
        )

    def make(self, **more: Any) -> MySqlAddress:
        """Create an empty schema; give its address."""
        name = f"s3flow_{os.getpid()}_{next(_numbers)}"
        self.query(f"CREATE DATABASE `{name}`")
        self._made.append(name)
        found = {field: getattr(self._root, field) for field in ("host", "port", "unix_socket")}
        login = {"user": self._root.user, "password": self._root.password, "database": name}
        return MySqlAddress(**{**found, **login, **more})

    def drop(self) -> None:
        """Drop what was made."""
        while self._made:
            self.query(f"DROP DATABASE `{self._made.pop()}`")


@contextlib.contextmanager
def schemas() -> Iterator[Schemas]:
    """Give a server to make schemas on: the one that is named, else one of our own."""
    if named := os.environ.get(NAMED):
        address = parse_state(named).address
        assert isinstance(address, MySqlAddress), f"{NAMED} is no mysql:// address"
        found = Schemas(address)
        try:
            yield found
        finally:
            found.drop()
        return
    with running() as server:
        yield Schemas(server.address("mysql"))
