"""Real servers for tests and scripts: started on free loopback ports, ended with their parent."""

from __future__ import annotations

import contextlib
import functools
import http.client
import importlib.util
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from botocore.client import BaseClient
from botocore.config import Config
from botocore.session import Session

HOST = "127.0.0.1"
REGION = "us-east-1"
START_ATTEMPTS = 5
READY_SECONDS = 120.0  # how long a server may take to answer; slow machines need most of it
ENVIRONMENT = "S3FLOW_TEST_S3_"

# The kernel ends a server when whoever started it is gone, however that died. prctl's "parent" is
# the *thread* that started the child, so servers are started from threads that outlive them.
# A fresh interpreter sets it, because preexec_fn is unsafe (and warned about) beside threads.
_BOUND_TO_PARENT = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 9)\n"  # PR_SET_PDEATHSIG, SIGKILL
    "os.getppid() == int(sys.argv[1]) or os._exit(1)\n"
    "os.execvp(sys.argv[2], sys.argv[2:])\n"
)


class ServerMissingError(RuntimeError):
    """A server is not installed; the message says which command installs it."""


class ServerFailedError(RuntimeError):
    """A server did not start; the message carries the end of its output."""


class Account(NamedTuple):
    """Credentials of one user of a server."""

    access_key: str
    secret_key: str


@dataclass(slots=True)
class Server:
    """A running S3 server and the accounts it knows; *store* names the product."""

    store: str
    url: str
    accounts: Sequence[Account]
    region: str = REGION
    buckets: list[tuple[int, str]] = field(default_factory=list)

    @property
    def access_key(self) -> str:
        """Access key of the first account."""
        return self.accounts[0].access_key

    @property
    def secret_key(self) -> str:
        """Secret key of the first account."""
        return self.accounts[0].secret_key

    def client(self, account: int = 0, service: str = "s3") -> BaseClient:
        """Give a synchronous client of *account*; whoever asked for it closes it."""
        with _opening:
            return _session().create_client(
                service,
                region_name=self.region,
                endpoint_url=self.url,
                aws_access_key_id=self.accounts[account].access_key,
                aws_secret_access_key=self.accounts[account].secret_key,
                config=Config(
                    s3={"addressing_style": "path"},
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                    retries={"mode": "standard", "total_max_attempts": 4},
                ),
            )


# A session reads the whole model of S3 before its first client: 50 ms, and 4 for each one after that.
_opening = threading.Lock()


@functools.cache
def _session() -> Session:
    session = Session()
    session.set_config_variable("config_file", os.devnull)
    session.set_config_variable("credentials_file", os.devnull)
    return session


def make_bucket(server: Server, account: int = 0, *, name: str = "") -> str:
    """Create a bucket with a name that nothing else has, and return the name."""
    name = name or f"s3flow-test-{uuid.uuid4().hex[:20]}"
    with contextlib.closing(server.client(account)) as client:
        client.create_bucket(Bucket=name)
    server.buckets.append((account, name))
    return name


def remove_buckets(server: Server) -> None:
    """Empty and delete what `make_bucket` made: for servers that outlive the tests."""
    while server.buckets:
        account, name = server.buckets.pop()
        with contextlib.closing(server.client(account)) as client:
            for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=name):
                for upload in page.get("Uploads", []):
                    client.abort_multipart_upload(
                        Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"]
                    )
            for page in client.get_paginator("list_object_versions").paginate(Bucket=name):
                for entry in (*page.get("Versions", ()), *page.get("DeleteMarkers", ())):
                    client.delete_object(
                        Bucket=name, Key=entry["Key"], VersionId=entry["VersionId"]
                    )
            client.delete_bucket(Bucket=name)


def from_environment(environ: Mapping[str, str] = os.environ) -> Server | None:
    """Give the server that S3FLOW_TEST_S3_ENDPOINT names, None when it names none.

    …_ACCESS_KEY and …_SECRET_KEY belong to it, and …_ACCESS_KEY2 and …_SECRET_KEY2 when it has a
    second user; …_STORE says which product it is, …_REGION where it thinks it stands.
    """
    url = environ.get(ENVIRONMENT + "ENDPOINT")
    if not url:
        return None
    accounts = []
    for suffix in ("", "2"):
        pair = [environ.get(f"{ENVIRONMENT}{word}_KEY{suffix}") for word in ("ACCESS", "SECRET")]
        if pair[0] and pair[1]:
            accounts.append(Account(pair[0], pair[1]))
    if not accounts:
        raise ServerMissingError(
            f"{ENVIRONMENT}ENDPOINT is set: set {ENVIRONMENT}ACCESS_KEY and {ENVIRONMENT}SECRET_KEY"
        )
    store = environ.get(ENVIRONMENT + "STORE", "unknown")
    return Server(store, url, accounts, environ.get(ENVIRONMENT + "REGION", REGION))


# --- starting and ending -----------------------------------------------------------------------


def free_port() -> int:
    """Give a loopback port that the kernel hands to nobody else for the next minute.

    A connection that was closed here leaves the port in TIME_WAIT: it is then no candidate for
    other sockets that ask for any port, yet servers, which set SO_REUSEADDR, can bind it.
    """
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        with socket.create_connection((HOST, port)):
            listener.accept()[0].close()  # the side that closes first keeps the TIME_WAIT
    return port


def clean_environment(folder: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """Give an environment without this machine's cloud settings and proxies; home is *folder*."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    return {**kept, "HOME": str(folder), "TMPDIR": str(folder), "PYTHONUNBUFFERED": "1", **extra}


def spawn(
    command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None, log: str = "log"
) -> subprocess.Popen[bytes]:
    """Start *command* in *folder*, its output in the file *log* there, bound to our life."""
    bound = (sys.executable, "-ISc", _BOUND_TO_PARENT, str(os.getpid()), *command)
    with (folder / log).open("ab") as output:
        return subprocess.Popen(
            bound,
            cwd=folder,
            env=clean_environment(folder, env or {}),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes], grace: float = 5.0) -> None:
    """End a process that `spawn` started, with everything it started itself, and wait for it."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answers(url: str) -> bool:
    """Say whether the server at *url* answers a request, whatever it answers."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=10)
    try:
        connection.request("GET", address.path or "/")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until *ready*; `ServerFailedError` when the process ends or takes too long."""
    deadline = time.monotonic() + READY_SECONDS
    for pause in itertools.chain((0.02,) * 50, itertools.repeat(0.2)):
        is_ready = ready()
        if process.poll() is not None:  # asked last: somebody else may have answered on its port
            raise ServerFailedError(
                f"{log.parent.name} ended with {process.returncode}: {tail(log)}"
            )
        if is_ready:
            return
        if time.monotonic() > deadline:
            raise ServerFailedError(f"no answer after {READY_SECONDS:.0f} s: {tail(log)}")
        time.sleep(pause)


def tail(log: Path, size: int = 2000) -> str:
    """Give the end of a server's output."""
    return log.read_bytes()[-size:].decode(errors="replace").strip()


Command = Callable[[int, Path], Sequence[str]]
Environment = Callable[[int, Path], Mapping[str, str]]


@contextlib.contextmanager
def serve(
    store: str,
    command: Command,
    *,
    accounts: Sequence[Account],
    env: Environment = lambda port, folder: {},
    probe: str = "/",
) -> Iterator[Server]:
    """Run what *command* and *env* describe for a port and folder, until the block ends."""
    with tempfile.TemporaryDirectory(
        prefix=f"s3flow-{store}-", ignore_cleanup_errors=True
    ) as folder:
        process, url = start(command, env, Path(folder), probe)
        try:
            yield Server(store, url, accounts)
        finally:
            end(process)


def start(
    command: Command, env: Environment, folder: Path, probe: str
) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server, on another port when its port was taken meanwhile; gives its URL as well."""
    attempt = 0
    while True:
        attempt += 1
        port = free_port()
        url = f"http://{HOST}:{port}"
        log = f"log.{attempt}"
        process = spawn(command(port, folder), folder, env(port, folder), log)
        try:
            wait_until(functools.partial(answers, url + probe), process, folder / log)
        except BaseException as error:
            end(process)
            lost_the_port = isinstance(error, ServerFailedError) and "in use" in str(error)
            if lost_the_port and attempt < START_ATTEMPTS:
                continue
            raise
        return process, url


# --- the servers that pip installs -------------------------------------------------------------

_MINISTACK = (
    "import os, ministack.services.s3 as s3\n"
    "s3._RESTORE_DELAY_SECONDS = float(os.environ['RESTORE_SECONDS'])\n"
    "from ministack.app import main\n"
    "main()\n"
)


def _need(module: str, install: str) -> None:
    if importlib.util.find_spec(module) is None:
        raise ServerMissingError(
            f"{module} is not installed: {sys.executable} -m pip install {install}"
        )


@contextlib.contextmanager
def ministack(
    *, auth: bool = False, env: Mapping[str, str] | None = None, restore_seconds: float = 0.3
) -> Iterator[Server]:
    """Run ministack with two accounts. Restores from archive tiers take *restore_seconds*.

    Without *auth* any secret is taken. With it, signatures and policies are enforced for users but
    never for the root keys (12 digits: that account), so each account here is a user with s3:*.
    """
    _need("ministack", "'ministack==1.5.33'")
    roots = [Account("111111111111", "first"), Account("222222222222", "second")]

    def environment(port: int, folder: Path) -> Mapping[str, str]:
        return {
            "BIND_HOST": HOST,
            "GATEWAY_PORT": str(port),
            "AUTH": str(auth).lower(),
            "RESTORE_SECONDS": str(restore_seconds),
            **(env or {}),
        }

    with serve(
        "ministack",
        lambda port, folder: (sys.executable, "-c", _MINISTACK),
        accounts=roots,
        env=environment,
        probe="/_ministack/ready",
    ) as server:
        if auth:
            server.accounts = [_make_user(server, account) for account in range(len(roots))]
        yield server


def _make_user(server: Server, account: int) -> Account:
    policy = (
        '{"Version": "2012-10-17", "Statement":'
        ' [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
    )
    with contextlib.closing(server.client(account, "iam")) as iam:
        iam.create_user(UserName="flow")
        iam.put_user_policy(UserName="flow", PolicyName="s3", PolicyDocument=policy)
        key = iam.create_access_key(UserName="flow")["AccessKey"]
    return Account(key["AccessKeyId"], key["SecretAccessKey"])


@contextlib.contextmanager
def moto() -> Iterator[Server]:
    """Run moto with one account. It takes wrong checksums: no proof of integrity."""
    _need("moto", "'moto[server]'")
    _need("flask", "'moto[server]'")
    with serve(
        "moto",
        lambda port, folder: (sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)),
        accounts=[Account("testing", "testing")],
        probe="/moto-api/",
    ) as server:
        yield server
