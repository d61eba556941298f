"""Stores that people run in earnest, started for tests: Ceph RGW, localstack, versitygw, MinIO."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.servers import (
    HOST,
    Account,
    Server,
    ServerFailedError,
    ServerMissingError,
    clean_environment,
    end,
    free_port,
    serve,
    spawn,
    start,
    wait_until,
)

CEPH_PACKAGES = ("radosgw", "ceph-mon", "ceph-osd")
CEPH_MEMORY = 4 * 1024**3  # what the store may hold, in bytes; it lives in memory
LOCALSTACK_PINS = (
    "localstack-core[base-runtime]==4.12.0",  # later ones need Python 3.12 or are no server
    "cbor2<5.8",
    "pyopenssl<26",
    "cryptography<47",
    "service_identity",
)
GO_PACKAGES = {
    "versitygw": "github.com/versity/versitygw/cmd/versitygw@v1.8.0",
    "minio": "github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c",
}


def cache() -> Path:
    """Give the folder where built servers stay between runs."""
    named = os.environ.get("S3FLOW_TEST_CACHE")
    folder = Path(named) if named else Path.home() / ".cache" / "s3flow-tests"
    folder.mkdir(parents=True, exist_ok=True)
    return folder.resolve()


def _run(command: Sequence[str | Path], folder: Path) -> str:
    """Run a command of a server's set-up; its output, or `ServerFailedError` with it."""
    done = subprocess.run(
        [str(word) for word in command],
        cwd=folder,
        env=clean_environment(folder, {}),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        output = (done.stdout + done.stderr)[-2000:].strip()
        raise ServerFailedError(f"{command[0]} ended with status {done.returncode}: {output}")
    return done.stdout


def _install(what: str, command: Sequence[str], **extra: str) -> None:
    print(f"installing {what}: {' '.join(command)}", flush=True)
    done = subprocess.run(command, env={**os.environ, **extra}, check=False)
    if done.returncode:
        raise ServerMissingError(
            f"{what} could not be installed: {' '.join(command)} ended with {done.returncode}"
        )


# --- Ceph RGW ----------------------------------------------------------------------------------

_CEPH_CONF = """\
[global]
fsid = {fsid}
keyring = {folder}/keyring
mon host = [v2:{host}:{port}]
mon initial members = a
public addr = {host}
cluster addr = {host}
ms bind port min = {low}
ms bind port max = {high}
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon warn on pool no redundancy = false
mon max pg per osd = 5000
mon data avail crit = 0
mon data avail warn = 0
osd crush chooseleaf type = 0
auth allow insecure global id reclaim = false
admin socket = {folder}/run/$name.asok
run dir = {folder}/run
log file = {folder}/$name.log
rgw init timeout = 60
[mon.a]
mon data = {folder}/mon
[osd]
osd data = {folder}/osd0
osd objectstore = memstore
osd class load list = *
osd class default list = *
memstore device bytes = {memory}
# One contiguous buffer for each object: the paged kind is slow for ranges.
memstore page set = false
osd max object name len = 460
osd max object namespace len = 64
"""

# "auth … = none" would be simpler, but then radosgw 16 never connects.
_CEPH_KEYS = {
    "mon.": {"mon": "allow *"},
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *", "mds": "allow *"},
    "client.rgw": {"mon": "allow rw", "osd": "allow rwx", "mgr": "allow rw"},
    "osd.0": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
}


def _need_ceph() -> None:
    if shutil.which("radosgw") and shutil.which("ceph-mon") and shutil.which("ceph-osd"):
        return
    install = ("apt-get", "install", "-y", "--no-install-recommends", *CEPH_PACKAGES)
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise ServerMissingError(f"Ceph is not installed: sudo {' '.join(install)}")
    _install("Ceph's package lists", ("apt-get", "update"))
    _install("Ceph", install, DEBIAN_FRONTEND="noninteractive")


def _write_ceph_folder(folder: Path, fsid: str, port: int) -> None:
    for name in ("mon", "osd0", "run"):
        (folder / name).mkdir()
    values = {"folder": folder, "host": HOST, "port": port, "memory": CEPH_MEMORY, "fsid": fsid}
    ports = {"low": 20000 + port % 10000, "high": 20100 + port % 10000}  # below ephemeral ones
    (folder / "ceph.conf").write_text(_CEPH_CONF.format(**values, **ports))
    for name, grants in _CEPH_KEYS.items():
        caps = [word for service, right in grants.items() for word in ("--cap", service, right)]
        create = () if (folder / "keyring").exists() else ("--create-keyring",)
        _run(("ceph-authtool", *create, "keyring", "--gen-key", "-n", name, *caps), folder)


@contextlib.contextmanager
def ceph() -> Iterator[Server]:
    """Run a monitor, an OSD in memory and radosgw, with two users: real policies and owners."""
    _need_ceph()
    with (
        tempfile.TemporaryDirectory(prefix="s3flow-ceph-", ignore_cleanup_errors=True) as temporary,
        contextlib.ExitStack() as running,
    ):
        folder = Path(temporary)
        daemon = functools.partial(_ceph_daemon, folder, running)
        ceph_command = ("ceph", "-c", folder / "ceph.conf", "--connect-timeout", "5")
        fsid = str(uuid.uuid4())
        port = free_port()
        _write_ceph_folder(folder, fsid, port)
        address = f"[v2:{HOST}:{port}]"
        _run(("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, "monmap"), folder)
        conf = ("-c", "ceph.conf")
        files = ("--monmap", "monmap", "--keyring", "keyring")
        _run(("ceph-mon", "--mkfs", "-i", "a", *files, *conf), folder)
        daemon("ceph-mon", ("-i", "a"), lambda: _succeeds((*ceph_command, "-s"), folder))
        osd = str(uuid.uuid4())
        _run((*ceph_command, "osd", "new", osd), folder)
        _run(("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd, *conf), folder)
        daemon(
            "ceph-osd", ("-i", "0"), lambda: "1 up" in _run((*ceph_command, "osd", "stat"), folder)
        )
        process, url = start(
            lambda port, folder: (
                *("radosgw", "-f", "-n", "client.rgw", "-c", str(folder / "ceph.conf")),
                f"--rgw-frontends=beast endpoint={HOST}:{port}",
            ),
            lambda port, folder: {},
            folder,
            "/",
        )
        running.callback(end, process)
        yield Server("ceph", url, [_ceph_user(folder, name) for name in ("first", "second")])


def _ceph_daemon(
    folder: Path,
    running: contextlib.ExitStack,
    program: str,
    name: Sequence[str],
    ready: Callable[[], bool],
) -> None:
    log = f"{program}.out"
    process = spawn((program, "-f", *name, "-c", str(folder / "ceph.conf")), folder, log=log)
    running.callback(end, process)
    wait_until(ready, process, folder / log)


def _succeeds(command: Sequence[str | Path], folder: Path) -> bool:
    try:
        _run(command, folder)
    except ServerFailedError:
        return False
    return True


def _ceph_user(folder: Path, name: str) -> Account:
    account = Account(f"AK{name}", uuid.uuid4().hex)
    keys = (f"--access-key={account.access_key}", f"--secret={account.secret_key}")
    user = (f"--uid={name}", f"--display-name={name}", *keys)
    _run(("radosgw-admin", "-c", "ceph.conf", "user", "create", *user), folder)
    return account


# --- localstack --------------------------------------------------------------------------------


def _need_localstack() -> Path:
    """Give the interpreter of localstack's own environment: it pins an old botocore."""
    home = cache() / "localstack"
    python = home / "bin" / "python"
    marker = home / "pins"
    pinned = marker.read_text().splitlines() if marker.exists() and python.exists() else []
    if pinned != list(LOCALSTACK_PINS):
        _install("localstack", (sys.executable, "-m", "venv", "--clear", str(home)))
        pip = (str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
        _install("localstack", (*pip, *LOCALSTACK_PINS))
        marker.write_text("\n".join(LOCALSTACK_PINS))
    return python


@contextlib.contextmanager
def localstack() -> Iterator[Server]:
    """Run localstack's S3: the most faithful checksums; no signatures, one account."""
    python = str(_need_localstack())

    def environment(port: int, folder: Path) -> dict[str, str]:
        flags = (
            *("EAGER_SERVICE_LOADING", "STRICT_SERVICE_LOADING", "DISABLE_EVENTS"),
            *("SKIP_SSL_CERT_DOWNLOAD", "SKIP_INFRA_DOWNLOADS", "DISABLE_CORS_CHECKS"),
        )
        return {
            **dict.fromkeys(flags, "1"),
            "SERVICES": "s3",
            "LOCALSTACK_VOLUME_DIR": str(folder / "data"),
            "FILESYSTEM_ROOT": str(folder / "data"),
            "DNS_ADDRESS": "0",
            "OVERRIDE_IN_DOCKER": "0",
            "USE_SSL": "0",
            "GATEWAY_SERVER": "hypercorn",  # its other server listens on every interface
            "GATEWAY_LISTEN": f"{HOST}:{port}",
            "LOCALSTACK_HOST": f"localhost:{port}",
        }

    with serve(
        "localstack",
        lambda port, folder: (python, "-m", "localstack.runtime.main"),
        accounts=[Account("test", "test")],
        env=environment,
        probe="/_localstack/health",
    ) as server:
        yield server


# --- what Go builds ----------------------------------------------------------------------------


def _need_go_binary(name: str) -> str:
    """Find *name* in $S3FLOW_GOBIN, on PATH or in the cache; else build it there."""
    built = cache() / "bin"
    for folder in (os.environ.get("S3FLOW_GOBIN"), None, str(built)):
        if found := shutil.which(name, path=folder):
            return found
    package = GO_PACKAGES[name]
    if not shutil.which("go"):
        raise ServerMissingError(
            f"{name} is not installed: get Go from https://go.dev/dl, then"
            f" GOBIN={built} go install {package}"
        )
    _install(name, ("go", "install", package), GOBIN=str(built))
    return str(built / name)


@contextlib.contextmanager
def versitygw() -> Iterator[Server]:
    """Run versitygw over a folder, with two users. The file system needs extended attributes."""
    program = _need_go_binary("versitygw")
    root = Account("root", uuid.uuid4().hex)

    def command(port: int, folder: Path) -> Sequence[str]:
        for name in ("data", "iam"):
            (folder / name).mkdir(exist_ok=True)
        keys = ("--access", root.access_key, "--secret", root.secret_key)
        where = ("--port", f"{HOST}:{port}", "--iam-dir", str(folder / "iam"))
        return (program, *keys, *where, "posix", str(folder / "data"))

    with serve("versitygw", command, accounts=[root]) as server:
        server.accounts = [_versitygw_user(program, server, name) for name in ("first", "second")]
        yield server


def _versitygw_user(program: str, server: Server, name: str) -> Account:
    account = Account(name, uuid.uuid4().hex)
    root = ("--access", server.access_key, "--secret", server.secret_key)
    user = ("--access", account.access_key, "--secret", account.secret_key, "--role", "userplus")
    where = ("--endpoint-url", server.url)
    _run((program, "admin", *root, *where, "create-user", *user), Path.cwd())
    return account


@contextlib.contextmanager
def minio() -> Iterator[Server]:
    """Run MinIO on one folder, with its root user: its admin API makes others, and S3's cannot."""
    program = _need_go_binary("minio")
    root = Account("rootuser", uuid.uuid4().hex)
    with serve(
        "minio",
        lambda port, folder: (
            program,
            "server",
            "--address",
            f"{HOST}:{port}",
            str(folder / "data"),
        ),
        accounts=[root],
        env=lambda port, folder: {
            "MINIO_ROOT_USER": root.access_key,
            "MINIO_ROOT_PASSWORD": root.secret_key,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
        },
        probe="/minio/health/ready",
    ) as server:
        wait_for_buckets(server)
        yield server


def wait_for_buckets(server: Server, seconds: float = 60.0) -> None:
    """Wait until *server* lists buckets: some answer requests before their storage is ready."""
    deadline = time.monotonic() + seconds
    with contextlib.closing(server.client()) as client:
        while True:
            try:
                client.list_buckets()
            except client.exceptions.ClientError as error:
                if time.monotonic() > deadline:
                    raise ServerFailedError(f"{server.store} lists no buckets: {error}") from error
                time.sleep(0.1)
            else:
                return


SERVERS: dict[str, Callable[[], contextlib.AbstractContextManager[Server]]] = {
    "ceph": ceph,
    "localstack": localstack,
    "versitygw": versitygw,
    "minio": minio,
}
