"""The peers: found or installed, each set as fast as its own documentation says how."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from urllib.parse import urlsplit

from tests.bench.cases import CannotError, Command, Kind, Scene
from tests.bench.install import aws, first_line, program, version_of
from tests.bench.ours import environment

REGION = "us-east-1"


class Contender(Protocol):
    """A program that does cases. `command` raises `CannotError` with the reason when it cannot."""

    name: str

    def version(self) -> str: ...

    def command(self, scene: Scene) -> Command: ...

    def check(self, scene: Scene) -> None: ...


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
        return version_of("rclone", "version")

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
        return version_of("s5cmd", "version")

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
        return version_of("mc")

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
        return version_of("juicefs")

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


# --- aws-cli ------------------------------------------------------------------------------------

_AWS_CONFIG = """\
[default]
region = us-east-1
s3 =
  preferred_transfer_client = crt
  addressing_style = path
  max_concurrent_requests = 64
  multipart_chunksize = 16MB
  target_bandwidth = 5GB/s
"""


class AwsCli:
    """The aws command, version 2, with the Common Runtime where it moves bytes."""

    name = "aws-cli"

    def version(self) -> str:
        """Give its version."""
        try:
            return first_line((aws(), "--version"))
        except CannotError:
            return ""

    def command(self, scene: Scene) -> Command:
        """Give the command of a run."""
        kind = scene.case.kind
        _refuse_state(scene, self.name)
        if kind is Kind.TO_S3:
            raise CannotError("aws-cli knows one endpoint: no copy to another one")
        if kind is Kind.RESCAN:
            raise CannotError("aws s3 sync compares with one endpoint only")
        if kind is Kind.TO_DISK and not scene.usual_url:
            # Its CRT client ignores the port of --endpoint-url.
            raise CannotError(
                "aws-cli's CRT client needs ports 80 and 443, which are not to be had"
            )
        config = scene.folder / "aws-config"
        config.write_text(_AWS_CONFIG)
        source = f"s3://{scene.source}/"
        target = f"{scene.disk}/" if kind is Kind.TO_DISK else f"s3://{scene.target}/"
        cp = ("cp", "--recursive", "--only-show-errors", source, target)
        words = ("ls", "--recursive", source) if kind is Kind.SCAN else cp
        ca = {"AWS_CA_BUNDLE": str(scene.ca_file)} if scene.ca_file else {}
        keys = {
            "AWS_ACCESS_KEY_ID": scene.access_key,
            "AWS_SECRET_ACCESS_KEY": scene.secret_key,
            "AWS_CONFIG_FILE": str(config),
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        environ = {**environment(), "HOME": str(scene.folder), **keys, **ca}
        del environ["PYTHONPATH"]  # ours is of another Python
        crt = "preferred_transfer_client = crt, target_bandwidth = 5GB/s"
        classic = "classic client (CRT does no copies or listings), max_concurrent_requests = 64"
        return Command(
            (aws(), "--endpoint-url", scene.usual_url or scene.url, "s3", *words),
            environ,
            (crt if kind is Kind.TO_DISK else classic) + ", multipart_chunksize = 16MB",
        )

    def check(self, scene: Scene) -> None:
        """Nothing beyond what the target holds."""


PEERS: tuple[Callable[[], Contender], ...] = (Rclone, S5cmd, AwsCli, Mc, JuiceFS)
