"""An independent comparison: reads everything again on both sides and trusts nobody's records."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from botocore.client import BaseClient

# A multipart upload names its source version in the target's metadata: ours, not the owner's.
OWN_METADATA = "s3flow-transfer"
HEADERS = (
    *("ContentType", "CacheControl", "ContentDisposition", "ContentEncoding"),
    *("ContentLanguage", "Expires", "WebsiteRedirectLocation"),
)


class Finding(NamedTuple):
    """What was compared, and every difference in words."""

    objects: int
    bytes: int
    differences: list[str]


def keys_of(client: BaseClient, bucket: str) -> Iterator[str]:
    """List the keys of *bucket*."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            yield entry["Key"]


def with_bucket(
    source: BaseClient, source_bucket: str, target: BaseClient, target_bucket: str
) -> Finding:
    """Compare two buckets: keys, every byte, headers, metadata and tags."""
    there = set(keys_of(source, source_bucket))
    here = set(keys_of(target, target_bucket))
    differences = _only_on_one_side(there, here)
    total = 0
    for key in sorted(there & here):
        size, wrong = _compare_objects(
            (source, {"Bucket": source_bucket, "Key": key}),
            (target, {"Bucket": target_bucket, "Key": key}),
        )
        total += size
        differences += [f"{key!r}: {what}" for what in wrong]
    return Finding(len(there & here), total, differences)


def _only_on_one_side(there: Iterable[str], here: Iterable[str]) -> list[str]:
    missing = [f"{key!r}: is missing at the target" for key in sorted(set(there) - set(here))]
    return missing + [f"{key!r}: nobody put it there" for key in sorted(set(here) - set(there))]


def _compare_objects(
    left: tuple[BaseClient, dict[str, str]], right: tuple[BaseClient, dict[str, str]]
) -> tuple[int, list[str]]:
    answers, bodies, tags = [], [], []
    for client, place in (left, right):
        answer = client.get_object(**place)
        with answer["Body"] as body:
            bodies.append(body.read())
        answer["Metadata"].pop(OWN_METADATA, None)
        answers.append(answer)
        found = client.get_object_tagging(**place).get("TagSet", [])  # Ceph leaves an empty one out
        tags.append(sorted(map(str, found)))
    wrong = [
        f"{name} is {answers[1].get(name)!r}, not {answers[0].get(name)!r}"
        for name in (*HEADERS, "Metadata")
        if answers[0].get(name) != answers[1].get(name)
    ]
    if bodies[0] != bodies[1]:
        wrong.append(f"the bytes differ ({len(bodies[0])} against {len(bodies[1])} of them)")
    if tags[0] != tags[1]:
        wrong.append(f"the tags are {tags[1]}, not {tags[0]}")
    return len(bodies[0]), wrong


def with_folder(source: BaseClient, bucket: str, folder: Path, *, without: str) -> Finding:
    """Compare a bucket, less the prefix *without*, with the files of *folder*: names and bytes."""
    there = {key for key in keys_of(source, bucket) if not key.startswith(without)}
    here = set(_files(folder))
    # An empty object whose key ends in "/" marks a folder, and is one on disk.
    markers = {key for key in there if key.endswith("/")}
    differences = _only_on_one_side(there - markers, here)
    differences += [f"{key!r}: is no folder" for key in markers if not (folder / key).is_dir()]
    total = 0
    for key in sorted(there & here):
        with source.get_object(Bucket=bucket, Key=key)["Body"] as body:
            expected = body.read()
        total += len(expected)
        if (folder / key).read_bytes() != expected:
            differences.append(f"{key!r}: the bytes differ")
    return Finding(len(there & here) + len(markers), total, differences)


def _files(folder: Path) -> Iterator[str]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield (Path(parent) / name).relative_to(folder).as_posix()
