"""What the demo moves: objects of every kind that a store holds, the same ones on every run."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

from botocore.client import BaseClient

KIB = 1024
MIB = 1024 * KIB
PART = 8 * MIB

# Keys that a store holds and a file system cannot, or not without changing them.
ONLY_IN_STORES = "store-only/"

ODD_KEYS = (
    "odd/with spaces and + plus",
    "odd/100%25 and 100% and %2F",
    "odd/a=1&b=2?versionId=null#fragment",
    "odd/back\\slash and 'quotes\" and `ticks`",
    "odd/emoji 🚚 and 漢字",
    "odd/" + unicodedata.normalize("NFC", "café"),
    "odd/" + unicodedata.normalize("NFD", "café"),
    "odd/UPPER",
    "odd/upper",
    "odd/-rf and ~ and $HOME and {bucket} and *.[ch]",
    "odd/...three dots and a trailing one.",
    "odd/" + "/".join(["deep"] * 60) + "/file",
    "odd/" + "x" * 250,
    "odd/folder/",
    ONLY_IN_STORES + "a//b",
    ONLY_IN_STORES + "./dot",
    ONLY_IN_STORES + "../dots",
    ONLY_IN_STORES + "z" * 1000,
)


@dataclass(frozen=True, slots=True)
class Sample:
    """One object to be put: its size in bytes, and what goes with it."""

    key: str
    size: int
    headers: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    tags: str = ""

    @property
    def body(self) -> bytes:
        """Bytes that follow from the key alone, and do not compress or repeat."""
        return random.Random(self.key).randbytes(self.size)


def samples() -> Iterator[Sample]:
    """Give every object of the demo: some 400, about 110 MiB."""
    for number in range(300):
        yield Sample(f"small/{number % 10}/{number:04}.bin", (number * 37 % 64) * KIB + number)
    for number in range(12):
        yield Sample(f"empty/{number}", 0)
    for number in range(10):
        yield Sample(f"medium/{number}.bin", 4 * MIB + number)
    for number in range(40):
        yield Sample(
            f"documents/{number}.txt",
            2 * KIB + number,
            headers={
                "ContentType": "text/plain; charset=utf-8",
                "CacheControl": f"max-age={number}",
                "ContentDisposition": f'attachment; filename="{number}.txt"',
                "ContentLanguage": "en",
            },
            metadata={"owner": f"team-{number % 3}", "note": "a b  c; d=e"},
            tags=f"class=invoice&year={2000 + number}" if number % 2 else "",
        )
    for key in ODD_KEYS:
        yield Sample(key, 0 if key.endswith("/") else 3 * KIB)
    yield Sample("large/one.bin", 40 * MIB, metadata={"parts": "five"}, tags="size=large")
    yield Sample("large/two.bin", 2 * PART + 1, {"ContentType": "application/x-demo"})


def put(client: BaseClient, bucket: str, sample: Sample) -> None:
    """Put *sample* as its owner would: in parts when it is large."""
    about = {**sample.headers, "Metadata": sample.metadata}
    if sample.tags:
        about["Tagging"] = sample.tags
    place = {"Bucket": bucket, "Key": sample.key}
    if sample.size <= PART:
        client.put_object(**place, Body=sample.body, **about)
        return
    upload = client.create_multipart_upload(**place, **about)["UploadId"]
    body = sample.body
    parts = []
    for number, start in enumerate(range(0, len(body), PART), 1):
        part = body[start : start + PART]
        done = client.upload_part(**place, UploadId=upload, PartNumber=number, Body=part)
        parts.append({"PartNumber": number, "ETag": done["ETag"]})
    client.complete_multipart_upload(**place, UploadId=upload, MultipartUpload={"Parts": parts})
