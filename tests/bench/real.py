"""A server that people run in earnest, with the interface that the benchmark has of nginx."""

from __future__ import annotations

import contextlib
import hashlib
import random
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from botocore.response import StreamingBody

from tests.bench.front import Front, tls_front
from tests.bench.install import program
from tests.bench.objects import Described, describe
from tests.bench.server import Held
from tests.integration.servers_real import SERVERS
from tests.servers import Server, make_bucket

SAMPLE = 32  # objects of a target that are read back and hashed after each run
_REMOTE = """\
[real]
type = s3
provider = Other
access_key_id = {access_key}
secret_access_key = {secret_key}
endpoint = {url}
force_path_style = true
"""


class RealServer:
    """One of `SERVERS`, filled with the sets; *front* speaks TLS for it. No look inside."""

    has_tls = True

    def __init__(self, server: Server, front: Front, data: Path, folder: Path) -> None:
        self._server = server
        self._front = front
        self.ca_file = front.ca_file
        self._data = data
        self._config = folder / "rclone.conf"
        self._targets: set[str] = set()
        self.name = server.store
        self.access_key, self.secret_key = server.access_key, server.secret_key
        text = _REMOTE.format(
            access_key=self.access_key, secret_key=self.secret_key, url=server.url
        )
        self._config.write_text(text)

    def url(self, *, tls: bool) -> str:
        """Give the endpoint's URL."""
        return self._front.url if tls else self._server.url

    def usual_url(self, *, tls: bool) -> str:
        """Say that it does not listen on the usual ports."""
        return ""

    def fill(self, names: list[str]) -> None:
        """Upload the sets, multipart objects in the parts that the index names."""
        for name in names:
            print(f"uploading the objects of {name!r} to {self.name}", flush=True)
            make_bucket(self._server, name=name)
            make_bucket(self._server, name=f"to-{name}")
            self._targets.add(f"to-{name}")
            parts = ("--s3-upload-cutoff", "16Mi", "--s3-chunk-size", "16Mi")
            source = str(self._data / name / "objects")
            self._rclone("copy", source, f"real:{name}", "--transfers", "32", *parts)

    def reset(self) -> None:
        """Empty the targets."""
        for name in self._targets:
            self._rclone("delete", f"real:{name}", "--checkers", "32", "--transfers", "32")

    def held(self, bucket: str) -> Held:
        """Compare the target's names, sizes and ETags with the index, and the bytes of a sample."""
        wanted = {found.key: found for found in describe(self._data, bucket.removeprefix("to-"))}
        equal = unequal = size = 0
        with contextlib.closing(self._server.client()) as client:
            for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
                for entry in page.get("Contents", ()):
                    found = wanted.get(entry["Key"])
                    if found and _equal(found, entry["Size"], entry["ETag"].strip('"')):
                        equal, size = equal + 1, size + entry["Size"]
                    else:
                        unequal += 1
            keys = sorted(wanted)
            for key in random.sample(keys, min(SAMPLE, len(keys))) if equal == len(keys) else ():
                body = client.get_object(Bucket=bucket, Key=key)["Body"]
                if not _same_bytes(wanted[key], body):
                    equal, unequal = equal - 1, unequal + 1
        return Held(equal, unequal, size)

    def first_byte(self) -> float:
        """Raise: only nginx tells. The case that asks is not run here."""
        raise NotImplementedError("the first byte is only seen by the benchmark's own server")

    def cpu_seconds(self) -> float:
        """Give 0: its processes are not watched."""
        return 0.0

    def _rclone(self, *words: str) -> None:
        command = (program("rclone"), "--config", str(self._config), *words)
        subprocess.run(command, check=True, capture_output=True)


def _equal(found: Described, size: int, etag: str) -> bool:
    """Compare; an ETag of other parts than the source's proves nothing either way."""
    return found.size == size and ("-" in etag or "-" in found.etag or etag == found.etag)


def _same_bytes(found: Described, body: StreamingBody) -> bool:
    """Hash the parts that the index knows."""
    md5s = []
    left = found.size
    while left:
        piece = body.read(min(left, found.part_size or left))
        if not piece:
            break
        left -= len(piece)
        md5s.append(hashlib.md5(piece, usedforsecurity=False).hexdigest())
    return tuple(md5s) == found.md5s


@contextlib.contextmanager
def real(store: str, data: Path, names: list[str]) -> Iterator[RealServer]:
    """Run *store* with the sets until the block ends. Raises `ServerMissingError`."""
    with (
        tempfile.TemporaryDirectory(prefix="s3flow-bench-") as folder,
        SERVERS[store]() as server,
        tls_front(server.url) as front,
    ):
        made = RealServer(server, front, data, Path(folder))
        made.fill(names)
        yield made
