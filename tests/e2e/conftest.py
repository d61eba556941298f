"""Fixtures of the end-to-end tests: a stage with a server, two accounts and a folder."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from botocore.client import BaseClient

from tests.e2e import content
from tests.e2e.gaps import other
from tests.e2e.program import Program, document
from tests.e2e.proxy import Proxy
from tests.e2e.supervisor import Supervisor
from tests.servers import Server, from_environment, make_bucket

MIB = 1024 * 1024


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what says nothing of the server that S3FLOW_TEST_S3_ENDPOINT names."""
    if from_environment() is None:
        return
    here = Path(__file__).parent
    foreign = [
        item
        for item in items
        if here in item.path.parents and "s3_server" not in getattr(item, "fixturenames", ())
    ]
    config.hook.pytest_deselected(items=foreign)
    items[:] = [item for item in items if item not in foreign]


@dataclass(slots=True)
class Stage:
    """A server with "ours", where objects come from, and "theirs"; and a folder "nas"."""

    server: Server
    folder: Path
    ours: BaseClient
    theirs: BaseClient
    stack: contextlib.ExitStack
    source: str = ""  # bucket of ours
    target: str = ""  # bucket of theirs
    endpoints: dict[str, dict[str, object]] = field(default_factory=dict)

    @property
    def nas(self) -> Path:
        """The folder of the endpoint "nas"."""
        path = self.folder / "nas"
        path.mkdir(exist_ok=True)
        return path

    def through(self, proxy: Proxy, *names: str) -> None:
        """Send what the endpoints of *names* ask through *proxy*."""
        for name in names:
            self.endpoints[name]["url"] = proxy.url

    def proxy(self, **options: Any) -> Proxy:
        """Put a counting proxy before the server, for both endpoints, until the test ends."""
        proxy = self.stack.enter_context(Proxy(self.server.url, **options))
        self.through(proxy, "ours", "theirs")
        return proxy

    def program(self, *flows: Mapping[str, object], **daemon: object) -> Program:
        """Configure s3flow with *flows*; one without a source or target gets ours and theirs.

        Bytes pass through s3flow unless a flow says otherwise, though the two ends are one server.
        """
        self.endpoints["nas"]["path"] = str(self.nas)
        names = {endpoint for flow in self._whole(flows) for endpoint in self._ends(flow)}
        text = document(
            {"state": "sqlite:///state.db", "listen": "off", **daemon},
            {name: table for name, table in self.endpoints.items() if name in names},
            self._whole(flows),
        )
        accounts = (self.server.accounts[0], self.server.accounts[other(self.server)])
        environ = {}
        for name, account in zip(("OURS", "THEIRS"), accounts, strict=True):
            environ[f"{name}_KEY"] = account.access_key
            environ[f"{name}_SECRET"] = account.secret_key
        program = Program.written(self.folder, text, environ)
        self.stack.callback(program.end)
        return program

    def _whole(self, flows: Sequence[Mapping[str, object]]) -> list[dict[str, object]]:
        ends = {"source": f"ours:{self.source}/", "target": f"theirs:{self.target}/"}
        usual = {"method": "stream-only", **ends}
        return [{"name": f"flow-{n}", **usual, **flow} for n, flow in enumerate(flows or ({},))]

    @staticmethod
    def _ends(flow: Mapping[str, object]) -> list[str]:
        return [str(flow[end]).partition(":")[0] for end in ("source", "target")]

    def bucket(self) -> str:
        """Make another bucket of theirs; its objects are deleted when the test ends."""
        name = make_bucket(self.server, other(self.server))
        self.stack.callback(content.empty, self.theirs, name)
        return name

    def put(self, key: str, body: bytes = b"some bytes", **about: object) -> str:
        """Put an object into the source bucket; gives its ETag."""
        done = self.ours.put_object(Bucket=self.source, Key=key, Body=body, **about)
        return str(done["ETag"]).strip('"')

    def there(self, key: str) -> bytes:
        """Read an object of the target bucket."""
        with self.theirs.get_object(Bucket=self.target, Key=key)["Body"] as body:
            return bytes(body.read())


def s3_endpoint(server: Server, name: str) -> dict[str, object]:
    """Describe *server* as an endpoint; the secrets come from the environment."""
    return {
        "type": "s3",
        "url": server.url,
        "region": server.region,
        "addressing": "path",
        "access_key_id": f"${{{name}_KEY}}",
        "secret_access_key": f"${{{name}_SECRET}}",
    }


@contextlib.contextmanager
def staged(server: Server, folder: Path) -> Iterator[Stage]:
    """Give a stage on *server* with fresh buckets."""
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(contextlib.closing(server.client(0)))
        theirs = stack.enter_context(contextlib.closing(server.client(other(server))))
        stage = Stage(server, folder, ours, theirs, stack)
        stage.endpoints = {
            "ours": s3_endpoint(server, "OURS"),
            "theirs": s3_endpoint(server, "THEIRS"),
            "nas": {"type": "local"},
        }
        stage.source = make_bucket(server, 0)
        stage.target = stage.bucket()
        yield stage


@pytest.fixture
def stage(s3_server: Server, tmp_path: Path) -> Iterator[Stage]:
    """Give a stage on the server under test."""
    with staged(s3_server, tmp_path) as stage:
        yield stage


@pytest.fixture
def ministack_stage(ministack_server: Server, tmp_path: Path) -> Iterator[Stage]:
    """Give a stage on ministack, for what no real server can be made to do."""
    with staged(ministack_server, tmp_path) as stage:
        yield stage


@pytest.fixture(scope="session")
def crowd(s3_server: Server) -> content.Crowd:
    """Give a bucket of 3,000 small objects, two of 96 MiB and one of 300 MiB."""
    large = {"large/one": 96 * MIB, "large/two": 96 * MIB + 1, "huge/one": 300 * MIB}
    return content.make_crowd(s3_server, 3000, large)


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    """Give a supervisor; a socket's path must be short."""
    with (
        tempfile.TemporaryDirectory(prefix="s3flow-") as folder,
        Supervisor(Path(folder) / "notify") as listening,
    ):
        yield listening
