"""Starting is cheap: each command imports what it needs and no more."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests import mariadb
from tests.servers import clean_environment

ROOT = Path(__file__).parents[2]
# Runs a command and says what it had imported in the end, whatever its exit status.
PROBE = """
import atexit, json, pathlib, sys
place = pathlib.Path(sys.argv.pop(1))
atexit.register(lambda: place.write_text(json.dumps(sorted(sys.modules))))
from s3flow.__main__ import main
main()
"""
EMPTY = (
    b'<?xml version="1.0" encoding="UTF-8"?>'
    b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>from</Name><Prefix></Prefix>'
    b"<KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>"
)
# What takes 10 ms of CPU and more, and what brings such things with it.
RARE = {"aiobotocore", "botocore", "boto3"}  # 200 ms
LISTENER = {"aiohttp", "prometheus_client", "s3flow.web.server"}
LOGGING = {"structlog"}
WORK = {"_awscrt", "s3flow.app", "s3flow.engine.daemon", "s3flow.stores.s3", "s3flow.stores.local"}
MYSQL = {"aiomysql", "pymysql"}
STATE = {"aiosqlite", "sqlite3", "uvloop"}
SETTINGS = {"pydantic_settings", "s3flow.config"}


class _EmptyBucket(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(EMPTY)))
        self.end_headers()
        self.wfile.write(EMPTY)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing."""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give a configuration whose source is an empty bucket."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "nas").mkdir()
    with HTTPServer(("127.0.0.1", 0), _EmptyBucket) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        file = folder / "config.toml"
        file.write_text(f"""
            [daemon]
            state = "sqlite:///state.db"
            [endpoints.src]
            type = "s3"
            url = "http://127.0.0.1:{server.server_port}"
            addressing = "path"
            access_key_id = "someone"
            secret_access_key = "something"
            [endpoints.nas]
            type = "local"
            path = "nas"
            [[flows]]
            name = "one"
            source = "src:from/"
            target = "nas:"
        """)
        file.chmod(0o600)
        yield file
        server.shutdown()
        thread.join()


def imported(folder: Path, *words: str) -> set[str]:
    """Run a command; give the modules and packages that it imported."""
    place = folder / "modules.json"
    environ = clean_environment(folder, {"PYTHONPATH": str(ROOT)})
    subprocess.run(
        [sys.executable, "-c", PROBE, str(place), *words],
        check=True,
        env=environ,
        stdout=subprocess.DEVNULL,
        timeout=120,
    )
    return set(json.loads(place.read_text()))


def test_help_reads_no_settings(tmp_path: Path) -> None:
    found = imported(tmp_path, "--help")
    assert "s3flow.cli" in found
    assert not found & (RARE | LISTENER | LOGGING | WORK | STATE | SETTINGS)


@pytest.mark.parametrize(
    "words", [("status",), ("status", "--json"), ("failures",), ("retry",), ("report",)]
)
def test_asking_the_state_imports_neither_engine_nor_stores(
    config: Path, words: tuple[str, ...]
) -> None:
    found = imported(config.parent, *words, "--config", str(config))
    assert found > STATE | SETTINGS
    assert not found & (RARE | LISTENER | LOGGING | WORK | MYSQL)


def test_what_is_piped_needs_no_tables(config: Path) -> None:
    for words in (("status", "--json"), ("failures",), ("report",)):
        assert "rich" not in imported(config.parent, *words, "--config", str(config))


@pytest.mark.parametrize("command", ["sync", "scan"])
def test_a_run_imports_neither_botocore_nor_the_listener(config: Path, command: str) -> None:
    found = imported(config.parent, command, "--config", str(config))
    assert found >= WORK
    assert not found & (RARE | LISTENER | MYSQL)


def test_with_mysql_nothing_of_sqlite_is_imported(
    config: Path, mysql_schemas: mariadb.Schemas, tmp_path: Path
) -> None:
    made = mysql_schemas.make()
    state = f"mysql://{made.user}:{made.password}@{made.host}:{made.port}/{made.database}"
    other = tmp_path / "config.toml"
    other.write_text(config.read_text().replace("sqlite:///state.db", state))
    other.chmod(0o600)
    (tmp_path / "nas").mkdir()
    for command in ("sync", "status"):
        found = imported(tmp_path, command, "--config", str(other))
        assert found > MYSQL
        assert not found & {"aiosqlite", "sqlite3"}
