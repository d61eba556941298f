"""The two ends of a storm's flows on a real server: filled, changed by people meanwhile, and looked at."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from botocore.client import BaseClient
from botocore.exceptions import ClientError

from tests.e2e import content
from tests.servers import Server, make_bucket
from tests.torture.promises import Seen, Version

KIB = 1024
THRESHOLD = 96 * KIB  # what is larger goes in parts
MIB = 1024 * KIB
PEOPLE = 25  # requests of s3flow between two things that people do
HANDS = 4  # requests of ours at a time
# None of the flow's objects: what a death leaves of them, the next life removes.
TEMPORARY, PROBE = ".s3flow-", "s3flow-probe-"


@dataclass(frozen=True, slots=True)
class Errand:
    """One flow of the storm: what is below *name* in the source goes below it in the target."""

    name: str
    mode: str
    method: str
    to_disk: bool = False


ERRANDS = (
    Errand("copy-stream", "copy", "stream-only"),
    Errand("copy-server", "copy", "server-first"),
    Errand("copy-disk", "copy", "stream-only", to_disk=True),
    Errand("move-stream", "move", "stream-only"),
    Errand("move-server", "move", "server-first"),
    Errand("move-disk", "move", "stream-only", to_disk=True),
)


def size_of(rng: random.Random, number: int, errand: Errand) -> int:
    """Choose a size: most are small; each errand has some that go in parts, and one in several."""
    if number == 0:
        return 0
    if number == 1:  # a store takes no part below 5 MiB, but the last
        return 2 * MIB + 1234 if errand.to_disk else 5 * MIB + 1234
    return rng.choice([1, 700, 3000, 3000, 3000, 60 * KIB, 80 * KIB, THRESHOLD + 1, 2 * THRESHOLD])


@dataclass(slots=True)
class Ends:
    """A source bucket, a target bucket and a folder; *written* is what people ever wrote, by key."""

    server: Server
    client: BaseClient
    source: str
    target: str
    nas: Path
    seed: int
    written: dict[str, list[Version]] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    _by_etag: dict[str, str] = field(default_factory=dict)
    _read: dict[tuple[str, str, str], str] = field(default_factory=dict)

    # --- what people do --------------------------------------------------------------------------

    def fill(self, objects: int) -> None:
        """Put so many *objects* for each errand, some of them in parts."""
        rng = random.Random(self.seed)
        jobs = [
            (
                f"{errand.name}/{number % 7}/{number:05}",
                size_of(rng, number, errand),
                number % 6 == 5,
            )
            for errand in ERRANDS
            for number in range(objects)
        ]
        with ThreadPoolExecutor(HANDS) as pool:
            list(pool.map(lambda job: self.write(*job), jobs))

    def write(self, key: str, size: int, in_parts: bool) -> None:
        """Put another version of an object, whole or in parts: one, with the ETag of such."""
        versions = self.written.setdefault(key, [])
        body = random.Random(f"{self.seed}:{key}:{len(versions)}").randbytes(size)
        digest = hashlib.sha256(body).hexdigest()
        # What is being written may be seen before its writer hears of it.
        md5 = hashlib.md5(body, usedforsecurity=False)
        whole = hashlib.md5(md5.digest(), usedforsecurity=False).hexdigest() + "-1"
        etag = whole if in_parts and size else md5.hexdigest()
        self._by_etag[etag] = digest
        versions.append(Version(digest, etag))
        place = {"Bucket": self.source, "Key": key}
        if not (in_parts and size):
            said = self.client.put_object(**place, Body=body)
        else:
            upload = self.client.create_multipart_upload(**place)["UploadId"]
            parts = {**place, "UploadId": upload}
            part = self.client.upload_part(**parts, PartNumber=1, Body=body)["ETag"]
            named = {"Parts": [{"PartNumber": 1, "ETag": part}]}
            said = self.client.complete_multipart_upload(**parts, MultipartUpload=named)
        assert said["ETag"].strip('"') == etag, "the server's ETags are none of S3's"
        self.removed.discard(key)

    def take_away(self, key: str) -> None:
        """Delete an object, as its owner."""
        self.removed.add(key)
        self.client.delete_object(Bucket=self.source, Key=key)

    @contextlib.contextmanager
    def people(
        self, rng: random.Random, requests: Sequence[object], *, moves: bool
    ) -> Iterator[list[str]]:
        """Let people write and delete at the source until the block ends, as *requests* come in.

        Gives what they did. Without *moves* they leave alone what may be deleted under them.
        """
        done: list[str] = []
        over = threading.Event()
        keys = sorted(self.written)
        keys = [key for key in keys if moves or not key.startswith("move-")]

        def live() -> None:
            seen = len(requests)
            while not over.wait(0.01):
                if len(requests) < seen + PEOPLE:
                    continue
                seen += PEOPLE
                key = rng.choice(keys)
                if key in self.removed or rng.random() < 0.9:
                    self.write(key, rng.choice([0, 10, 3000, 2 * THRESHOLD]), rng.random() < 0.2)
                else:
                    self.take_away(key)
                done.append(key)

        with ThreadPoolExecutor(1) as pool:
            living = pool.submit(live)
            try:
                yield done
            finally:
                over.set()
                living.result()

    # --- what there is ---------------------------------------------------------------------------

    def keeps_conditions(self) -> bool:
        """Say whether the server deletes nothing under an If-Match that does not hold."""
        place = {"Bucket": self.target, "Key": "probe"}
        self.client.put_object(**place, Body=b"probe")
        try:
            self.client.delete_object(**place, IfMatch='"00000000000000000000000000000000"')
        except ClientError:
            pass
        else:
            return False
        finally:
            self.client.delete_object(**place)
        return True

    def seen(self, errand: Errand) -> Seen:
        """Look at both ends of an errand."""
        prefix = f"{errand.name}/"
        here, strays = self._listed(self.source, prefix)
        source = {key.encode(): self._by_etag.get(etag, f"ETag {etag}") for key, etag in here}
        target, unfinished = self._on_disk(prefix) if errand.to_disk else self._copies(prefix)
        return Seen(
            source,
            target,
            {key.encode(): all_ for key, all_ in self.written.items() if key.startswith(prefix)},
            {key.encode() for key in self.removed},
            uploads=[] if errand.to_disk else self._uploads(prefix),
            strays=[*strays, *unfinished],
        )

    def _listed(self, bucket: str, prefix: str) -> tuple[list[tuple[str, str]], list[str]]:
        """List what lies there, with its ETags, and the probes that lie beside it."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        every = [
            (entry["Key"], entry["ETag"].strip('"'))
            for page in pages
            for entry in page.get("Contents", ())
        ]
        probes = [key for key, _ in every if PROBE in key]
        return [it for it in every if PROBE not in it[0]], probes

    def _copies(self, prefix: str) -> tuple[dict[bytes, str], list[str]]:
        """Read what was not read yet, in the version that there is."""
        there, probes = self._listed(self.target, prefix)

        def digest(entry: tuple[str, str]) -> str:
            return content.digest_of(self.client, self.target, entry[0])

        new = [it for it in there if (self.target, *it) not in self._read]
        with ThreadPoolExecutor(HANDS) as pool:
            for entry, found in zip(new, pool.map(digest, new), strict=True):
                self._read[self.target, *entry] = found
        copies = {key.encode(): self._read[self.target, key, etag] for key, etag in there}
        return copies, probes

    def _on_disk(self, prefix: str) -> tuple[dict[bytes, str], list[str]]:
        folder = self.nas / prefix
        found = content.digests_of_folder(folder) if folder.is_dir() else {}
        bases = {name: name.rpartition("/")[2] for name in found}
        names = {name: TEMPORARY in base or PROBE in base for name, base in bases.items()}
        files = {
            (prefix + name).encode(): digest for name, digest in found.items() if not names[name]
        }
        return files, [name for name, is_temporary in names.items() if is_temporary]

    def _uploads(self, prefix: str) -> list[str]:
        return [
            key for key in content.uploads_left(self.client, self.target) if key.startswith(prefix)
        ]


@contextlib.contextmanager
def ends(server: Server, folder: Path, seed: int) -> Iterator[Ends]:
    """Give two buckets and a folder of their own, and remove the buckets in the end."""
    with contextlib.closing(server.client()) as client:
        source, target = names = f"storm-{seed}-source", f"storm-{seed}-target"
        for name in names:
            make_bucket(server, name=name)
        nas = folder / "nas"
        nas.mkdir()
        try:
            yield Ends(server, client, source, target, nas, seed)
        finally:
            for name in names:
                for key in content.uploads_left(client, name):
                    _abort(client, name, key)
                content.empty(client, name)
                client.delete_bucket(Bucket=name)
                server.buckets.remove((0, name))


def _abort(client: BaseClient, bucket: str, key: str) -> None:
    for upload in client.list_multipart_uploads(Bucket=bucket, Prefix=key).get("Uploads", []):
        client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
