"""What the end-to-end tests move, and how it is compared: by botocore and files, never by s3flow."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from botocore.client import BaseClient

from tests.demo.compare import keys_of
from tests.demo.objects import KIB, MIB, Sample
from tests.servers import Server, make_bucket

PART = 8 * MIB
SMALL = 4 * KIB
ROOT_MARK = ".s3flow-root"  # says in a target folder that s3flow wrote there
UNFINISHED = ".s3flow-"  # begins the names of files that have no final one yet
SPARE = 6  # uploads of test objects at a time

KINDS = (
    Sample("kinds/empty", 0),
    Sample("kinds/one-byte", 1),
    Sample("kinds/small", 3 * KIB + 1),
    Sample("kinds/exactly-a-part", PART),
    Sample("kinds/one-over-a-part", PART + 1),
    Sample("kinds/two-parts", 2 * PART),
    Sample("kinds/last-part-short", 2 * PART + 12_345),
    Sample(
        "kinds/headers",
        2 * KIB,
        headers={
            "ContentType": "text/csv; charset=utf-8; header=present",
            "CacheControl": "private, max-age=3600",
            "ContentDisposition": "attachment; filename=\"r.csv\"; filename*=UTF-8''r%C3%A9.csv",
            "ContentEncoding": "gzip",
            "ContentLanguage": "de, en-GB",
            "Expires": "Wed, 21 Oct 2037 07:28:00 GMT",
        },
    ),
    Sample("kinds/metadata", KIB, metadata={"owner": "a b  c; d=e", "x": "", "long": "m" * 1000}),
    Sample("kinds/tags", KIB, tags="class=invoice&owner=a%20b%2Bc&empty="),
    Sample(
        "kinds/multipart-with-everything",
        PART + 3 * KIB,
        headers={"ContentType": "application/x-tar", "CacheControl": "no-cache"},
        metadata={"batch": "7"},
        tags="kind=large",
    ),
)


@dataclass(slots=True)
class Crowd:
    """Many small objects and some large ones, in one bucket that no test changes."""

    bucket: str
    digests: dict[str, str] = field(default_factory=dict)  # SHA-256 by key

    def below(self, *prefixes: str) -> dict[str, str]:
        """Give the digests of the keys that begin with one of *prefixes*."""
        return {key: digest for key, digest in self.digests.items() if key.startswith(prefixes)}


def body_of(key: str, size: int) -> Iterator[bytes]:
    """Give the bytes of an object in pieces of a part; they follow from its key."""
    for number, start in enumerate(range(0, size, PART)):
        yield random.Random(f"{key}:{number}").randbytes(min(PART, size - start))


def put_large(client: BaseClient, bucket: str, key: str, size: int) -> str:
    """Put an object in parts, as its owner would; gives its SHA-256."""
    digest = hashlib.sha256()
    place = {"Bucket": bucket, "Key": key}
    upload = client.create_multipart_upload(**place)["UploadId"]
    parts = []
    for number, piece in enumerate(body_of(key, size), 1):
        digest.update(piece)
        done = client.upload_part(**place, UploadId=upload, PartNumber=number, Body=piece)
        parts.append({"PartNumber": number, "ETag": done["ETag"]})
    client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": parts})
    return digest.hexdigest()


def fill(server: Server, account: int, bucket: str, small: int, large: Mapping[str, int]) -> Crowd:
    """Put *small* objects of 4 KiB and those of *large*, keys and their sizes, into *bucket*."""
    crowd = Crowd(bucket)
    with contextlib.closing(server.client(account)) as client, ThreadPoolExecutor(SPARE) as pool:

        def put(number: int) -> tuple[str, str]:
            key = f"small/{number % 7}/{number:05}"
            body = random.Random(key).randbytes(SMALL)
            client.put_object(Bucket=bucket, Key=key, Body=body)
            return key, hashlib.sha256(body).hexdigest()

        crowd.digests.update(pool.map(put, range(small)))
        for key, size in large.items():
            crowd.digests[key] = put_large(client, bucket, key, size)
    return crowd


def digest_of(client: BaseClient, bucket: str, key: str) -> str:
    """Read an object; gives the SHA-256 of its bytes."""
    digest = hashlib.sha256()
    with contextlib.closing(client.get_object(Bucket=bucket, Key=key)["Body"]) as body:
        for chunk in body.iter_chunks(MIB):
            digest.update(chunk)
    return digest.hexdigest()


def digests_of_bucket(client: BaseClient, bucket: str, prefix: str = "") -> dict[str, str]:
    """Read every object of *bucket*; gives SHA-256 by key without *prefix*, which all must have."""
    keys = list(keys_of(client, bucket))
    assert all(key.startswith(prefix) for key in keys), f"not below {prefix}: {keys}"
    with ThreadPoolExecutor(SPARE) as pool:
        digests = pool.map(lambda key: digest_of(client, bucket, key), keys)
        return {key.removeprefix(prefix): each for key, each in zip(keys, digests, strict=True)}


def digests_of_folder(folder: Path) -> dict[str, str]:
    """Read every file below *folder* but s3flow's mark; gives SHA-256 by relative path.

    Unfinished ones may go while they are looked for; what has its final name stays.
    """
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent) / name
            if path == folder / ROOT_MARK:
                continue
            try:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except FileNotFoundError:
                if not name.startswith(UNFINISHED):
                    raise
                continue  # a daemon at work has just named it, or given it up
            found[path.relative_to(folder).as_posix()] = digest
    return found


def uploads_left(client: BaseClient, bucket: str) -> list[str]:
    """Give the keys of unfinished multipart uploads."""
    return [
        upload["Key"] for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])
    ]


def empty(client: BaseClient, bucket: str) -> None:
    """Delete all objects of *bucket*: servers of tests keep them in memory."""
    keys = list(keys_of(client, bucket))
    for start in range(0, len(keys), 1000):
        some = [{"Key": key} for key in keys[start : start + 1000]]
        client.delete_objects(Bucket=bucket, Delete={"Objects": some, "Quiet": True})


def make_crowd(server: Server, small: int, large: Mapping[str, int]) -> Crowd:
    """Make a bucket of the first account and fill it."""
    return fill(server, 0, make_bucket(server, 0), small, large)
