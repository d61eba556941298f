"""Where the state is kept: a file of SQLite's, or a schema on a MySQL or MariaDB server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

# "preferred": encrypted if the server can, unverified; "required": encrypted and verified;
# "unverified": encrypted, whoever answers.
Tls = Literal["off", "preferred", "required", "unverified"]


@dataclass(frozen=True, slots=True)
class SqliteAddress:
    """A file of this machine."""

    path: Path

    def __str__(self) -> str:
        """Give the address as messages show it."""
        return f"sqlite:///{self.path}"


@dataclass(frozen=True, slots=True)
class MySqlAddress:
    """A schema on a server. With *unix_socket* (not ""), host and port are not used."""

    host: str = "localhost"
    port: int = 3306
    unix_socket: str = ""
    user: str = ""
    password: str = field(default="", repr=False)
    database: str = "s3flow"
    tls: Tls = "off"
    ca_file: Path | None = None  # None: the system's
    connect_timeout: float = 10.0  # seconds

    def __str__(self) -> str:
        """Give the address as messages show it: without the password."""
        place = self.unix_socket or f"{self.host}:{self.port}"
        return f"mysql://{self.user}@{place}/{self.database}"


StateAddress = SqliteAddress | MySqlAddress
