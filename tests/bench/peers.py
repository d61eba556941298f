"""The peers: found or installed, each set as fast as its own documentation says how."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from tests.bench.cases import CannotError, Command, Kind, Scene
from tests.bench.install import aws, first_line, module_version, program
from tests.bench.ours import environment

LISTS = " (lists, records nothing)"
NO_STATE = "it keeps no state that a start could read"
ONE_ENDPOINT = "it knows one endpoint: no copy to another one"


class Contender(Protocol):
    """A program that does cases. `command` raises `CannotError` with the reason when it cannot."""

    @property
    def name(self) -> str: ...

    def version(self) -> str: ...

    def command(self, scene: Scene) -> Command: ...

    def check(self, scene: Scene) -> None: ...


@dataclass(frozen=True)
class Does:
    """How a peer does one kind of case: words with {places}, and flags, which are shown."""

    words: str
    flags: str = ""
    note: str = ""
    needs_usual_ports: bool = False


@dataclass(frozen=True)
class Peer:
    """A peer in words. *before* comes ahead of the words of a case, *cannot* says why not.

    *files* are written into the run's folder, *env* is added to a small environment, *env_tls* too
    where the endpoint speaks TLS. {at_once} is the number of objects under way.
    """

    name: str
    find: Callable[[], str]
    version_words: tuple[str, ...]
    before: str
    does: Mapping[Kind, Does]
    cannot: Mapping[Kind, str]
    files: Mapping[str, str] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    env_tls: Mapping[str, str] = field(default_factory=dict)
    has_own_python: bool = False
    go_module: str = ""
    flags_of: Callable[[str], str] = lambda found: ""

    def version(self) -> str:
        """Give the first line that it says of itself, or nothing where it is missing."""
        try:
            found = self.find()
        except CannotError:
            return ""
        # What `go install` builds does not know its version; Go does.
        built = module_version(found, self.go_module) if self.go_module else ""
        return built or first_line((found, *self.version_words))

    def command(self, scene: Scene) -> Command:
        """Give the command of a run. Raises `CannotError`."""
        kind = scene.case.kind
        if kind in self.cannot:
            raise CannotError(self.cannot[kind])
        does = self.does[kind]
        if does.needs_usual_ports and not scene.usual_url:
            raise CannotError("its client knows no ports but 80 and 443, which are not to be had")
        found = self.find()
        places = _places(scene)
        for name, text in self.files.items():
            (scene.folder / name).write_text(text.format(**places))
        flags = f"{does.flags} {self.flags_of(found)}".format(**places).split()
        env = {**environment(), "HOME": str(scene.folder), **self.env}
        if scene.ca_file:
            env |= self.env_tls
        if self.has_own_python:
            del env["PYTHONPATH"]
        shown = (" ".join(flags) + does.note.format(**places)).strip()
        return Command(
            (found, *_fill(self.before, places), *_fill(does.words, places), *flags),
            {name: value.format(**places) for name, value in env.items()},
            shown,
        )

    def check(self, scene: Scene) -> None:
        """Nothing beyond what the target holds."""


def _fill(words: str, places: Mapping[str, str]) -> list[str]:
    return [word.format(**places) for word in words.split()]


def _places(scene: Scene) -> dict[str, str]:
    parts = urlsplit(scene.url)
    is_large = scene.case.name.startswith("large")
    return {
        "access_key": scene.access_key,
        "at_once": "8" if is_large else "64",
        # The default is best for small objects, this for large ones; 100 Gb/s makes both slower.
        "bandwidth": "5GB/s" if is_large else "5Gb/s",
        "ca": str(scene.ca_file),
        "disk": str(scene.disk),
        "folder": str(scene.folder),
        "host": parts.netloc,
        "scheme": parts.scheme,
        "secret_key": scene.secret_key,
        "source": scene.source,
        "target": scene.target,
        "tls": "?tls=true" if scene.tls else "",
        "url": scene.url,
        "usual_url": scene.usual_url or scene.url,
    }


# --- rclone: https://rclone.org/flags and https://rclone.org/s3 ---------------------------------

_REMOTE = """\
[{name}]
type = s3
provider = Other
access_key_id = {{access_key}}
secret_access_key = {{secret_key}}
endpoint = {{url}}
region = us-east-1
force_path_style = true
no_check_bucket = true

"""
_COPY = "--transfers {at_once} --checkers 64 --fast-list --no-check-dest --ignore-checksum"
_WRITE = (
    f"{_COPY} --s3-disable-checksum --s3-use-unsigned-payload=true --s3-no-head"
    " --s3-upload-cutoff 64Mi --s3-chunk-size 16Mi --s3-upload-concurrency 8"
)
RCLONE = Peer(
    name="rclone",
    find=lambda: program("rclone"),
    version_words=("version",),
    before="--config {folder}/rclone.conf",
    files={"rclone.conf": _REMOTE.format(name="src") + _REMOTE.format(name="dst")},
    env_tls={"SSL_CERT_FILE": "{ca}"},
    does={
        Kind.TO_S3: Does("copy src:{source} dst:{target}", _WRITE),
        Kind.TO_DISK: Does("copy src:{source} {disk}", f"{_COPY} --s3-no-head-object"),
        # One remote means a copy by the server, two mean that the bytes pass through rclone.
        Kind.SERVER_COPY: Does("copy src:{source} src:{target}", f"{_COPY} --s3-no-head"),
        Kind.SCAN: Does("lsf src:{source}", "--recursive --format ps --fast-list", LISTS),
        Kind.RESCAN: Does(
            "copy src:{source} dst:same-{source}", "--checkers 64 --fast-list --size-only"
        ),
    },
    cannot={Kind.RESTART: NO_STATE},
)

# --- s5cmd: https://github.com/peak/s5cmd#configuring-concurrency ---------------------------------

# Its defaults, spelled out: parts of 16 MiB or 64 workers cost it more CPU and time.
_S5CMD = "--numworkers 256"
_S5CMD_PARTS = "--concurrency 5 --part-size 50"
S5CMD = Peer(
    name="s5cmd",
    find=lambda: program("s5cmd"),
    version_words=("version",),
    before="--log error --endpoint-url {url} " + _S5CMD,
    env={
        "AWS_ACCESS_KEY_ID": "{access_key}",
        "AWS_SECRET_ACCESS_KEY": "{secret_key}",
        "AWS_REGION": "us-east-1",
    },
    env_tls={"SSL_CERT_FILE": "{ca}", "AWS_CA_BUNDLE": "{ca}"},
    does={
        Kind.TO_DISK: Does(
            f"cp {_S5CMD_PARTS} s3://{{source}}/* {{disk}}/",
            note=f"{_S5CMD} {_S5CMD_PARTS}",
        ),
        Kind.SERVER_COPY: Does("cp s3://{source}/* s3://{target}/", note=_S5CMD),
        Kind.SCAN: Does("ls s3://{source}/*", note=f"ls{LISTS}"),
    },
    cannot={
        Kind.TO_S3: ONE_ENDPOINT,
        Kind.RESCAN: "its sync compares with one endpoint only",
        Kind.RESTART: NO_STATE,
    },
)

# --- aws-cli 2: https://docs.aws.amazon.com/cli/latest/topic/s3-config.html -----------------------

_AWS_CONFIG = """\
[default]
region = us-east-1
s3 =
  preferred_transfer_client = crt
  addressing_style = path
  max_concurrent_requests = 64
  multipart_chunksize = 16MB
  target_bandwidth = {bandwidth}
"""
_CRT = "preferred_transfer_client = crt, target_bandwidth = {bandwidth}, multipart_chunksize = 16MB"
_CLASSIC = "classic client (CRT does no {what}), max_concurrent_requests = 64"
AWS = Peer(
    name="aws-cli",
    find=aws,
    version_words=("--version",),
    # The CRT client of the versions that Debian has ignores the port of --endpoint-url.
    before="--endpoint-url {usual_url} s3",
    files={"aws-config": _AWS_CONFIG},
    env={
        "AWS_ACCESS_KEY_ID": "{access_key}",
        "AWS_SECRET_ACCESS_KEY": "{secret_key}",
        "AWS_CONFIG_FILE": "{folder}/aws-config",
        "AWS_EC2_METADATA_DISABLED": "true",
    },
    env_tls={"AWS_CA_BUNDLE": "{ca}"},
    has_own_python=True,
    does={
        Kind.TO_DISK: Does(
            "cp --recursive --only-show-errors s3://{source}/ {disk}/",
            note=_CRT,
            needs_usual_ports=True,
        ),
        Kind.SERVER_COPY: Does(
            "cp --recursive --only-show-errors s3://{source}/ s3://{target}/",
            note=_CLASSIC.format(what="copies"),
        ),
        Kind.SCAN: Does(
            "ls --recursive s3://{source}/", note=_CLASSIC.format(what="listings") + LISTS
        ),
    },
    cannot={
        Kind.TO_S3: ONE_ENDPOINT,
        Kind.RESCAN: "its sync compares with one endpoint only",
        Kind.RESTART: NO_STATE,
    },
)

# --- MinIO's mc: mc mirror --help, https://github.com/minio/mc/pull/5220 --------------------------


def _workers_of_mc(found: str) -> str:
    """Give the flag for workers to versions that have it; others begin with one for each core."""
    helped = subprocess.run(
        (found, "mirror", "--help"), capture_output=True, text=True, check=False
    )
    return "--max-workers {at_once}" if "--max-workers" in helped.stdout else ""


_MC_PARTS = {"MC_UPLOAD_MULTIPART_SIZE": "16MiB", "MC_UPLOAD_MULTIPART_THREADS": "8"}
_MC_NOTE = " ".join(f"{name}={value}" for name, value in _MC_PARTS.items())
_MC_OWN = " (it adds workers by itself, from one a core on)"
_ALIAS = "{scheme}://{access_key}:{secret_key}@{host}"
MC = Peer(
    name="mc mirror",
    find=lambda: program("mc"),
    version_words=("--version",),
    go_module="github.com/minio/mc",
    before="--config-dir {folder}/mc",
    env={"MC_HOST_src": _ALIAS, "MC_HOST_dst": _ALIAS, **_MC_PARTS},
    env_tls={"SSL_CERT_FILE": "{ca}"},
    does={
        Kind.TO_S3: Does("mirror --quiet src/{source} dst/{target}", note=f" {_MC_NOTE}{_MC_OWN}"),
        Kind.TO_DISK: Does("mirror --quiet src/{source} {disk}/", note=_MC_OWN),
        # Within one alias the server copies, between two the bytes pass through mc.
        Kind.SERVER_COPY: Does("mirror --quiet src/{source} src/{target}", note=_MC_OWN),
        Kind.SCAN: Does("ls --recursive --json src/{source}", note="ls --recursive" + LISTS),
        Kind.RESCAN: Does("mirror --quiet src/{source} dst/same-{source}", note=_MC_OWN),
    },
    cannot={Kind.RESTART: NO_STATE},
    flags_of=_workers_of_mc,
)

# --- JuiceFS: https://juicefs.com/docs/community/guide/sync ---------------------------------------

_PLACE = "minio://{access_key}:{secret_key}@{host}"
_THREADS = "--threads 64 --list-threads 4"
JUICEFS = Peer(
    name="juicefs sync",
    find=lambda: program("juicefs"),
    version_words=("--version",),
    before="sync",
    env={"MINIO_REGION": "us-east-1"},
    env_tls={"SSL_CERT_FILE": "{ca}", "S3_USE_HTTPS": "1"},
    does={
        Kind.TO_S3: Does(f"{_PLACE}/{{source}}/{{tls}} {_PLACE}/{{target}}/{{tls}}", _THREADS),
        Kind.TO_DISK: Does(f"{_PLACE}/{{source}}/{{tls}} file://{{disk}}/", _THREADS),
        Kind.RESCAN: Does(
            f"{_PLACE}/{{source}}/{{tls}} {_PLACE}/same-{{source}}/{{tls}}", _THREADS
        ),
    },
    cannot={
        Kind.SERVER_COPY: "its sync moves bytes through itself",
        Kind.SCAN: "it does not only list",
        Kind.RESTART: NO_STATE,
    },
)

PEERS: tuple[Contender, ...] = (RCLONE, S5CMD, AWS, MC, JUICEFS)
