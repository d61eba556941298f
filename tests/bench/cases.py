"""The cases: what is moved where, and what a contender needs to know to do it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tests.bench.objects import SETS, ObjectSet


class Kind(StrEnum):
    """What a case does with its objects."""

    TO_S3 = "to another endpoint"
    TO_DISK = "to disk"
    SERVER_COPY = "copied by the server"
    SCAN = "listed and recorded"
    RESCAN = "listed again, nothing changed"
    RESTART = "first byte after a start"


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the table. *quick* names the smaller set that --quick takes."""

    name: str
    title: str
    kind: Kind
    full: str
    quick: str
    ours_only: bool = False  # it is measured to compare s3flow with itself

    def title_of(self, *, quick: bool) -> str:
        """Give the title, which says when the set is the smaller one."""
        return f"{self.title} (quick: {self.quick})" if quick else self.title

    def objects(self, *, quick: bool) -> ObjectSet:
        """Give the set of objects."""
        return SETS[self.quick if quick else self.full]


CASES = {
    case.name: case
    for case in (
        Case("small-s3", "20,000 x 4 KiB -> S3", Kind.TO_S3, "small", "small2k"),
        Case("small-disk", "20,000 x 4 KiB -> disk", Kind.TO_DISK, "small", "small2k"),
        Case("medium-s3", "5,000 x 256 KiB -> S3", Kind.TO_S3, "medium", "medium500"),
        Case("medium-disk", "5,000 x 256 KiB -> disk", Kind.TO_DISK, "medium", "medium500"),
        Case("large-s3", "4 x 512 MiB -> S3", Kind.TO_S3, "large", "large1"),
        Case("large-disk", "4 x 512 MiB -> disk", Kind.TO_DISK, "large", "large1"),
        Case("mix-s3", "document bucket -> S3", Kind.TO_S3, "documents", "documents400"),
        Case("mix-disk", "document bucket -> disk", Kind.TO_DISK, "documents", "documents400"),
        Case("copies", "20,000 server-side copies", Kind.SERVER_COPY, "small", "small2k"),
        Case("copies-676", "676 server-side copies", Kind.SERVER_COPY, "676", "676"),
        Case("scan", "list and record 1,000,000 keys", Kind.SCAN, "million", "hundredk"),
        Case("scan-100k", "list and record 100,000 keys", Kind.SCAN, "hundredk", "hundredk", True),
        Case("rescan", "second run, 1,000,000 keys", Kind.RESCAN, "million", "hundredk"),
        Case("rescan-100k", "second run, 100,000 keys", Kind.RESCAN, "hundredk", "hundredk", True),
        Case("restart", "restart, 10,000,000 rows", Kind.RESTART, "small", "small2k"),
    )
}


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything a contender needs for one run of a case."""

    case: Case
    objects: ObjectSet
    url: str  # of both endpoints
    usual_url: str  # the same on port 80 or 443; empty where these are not to be had
    ca_file: Path | None  # None: plain HTTP
    access_key: str
    secret_key: str
    source: str  # bucket
    target: str  # bucket
    folder: Path  # of this contender, kept between rounds
    disk: Path  # where files go; empty before each round

    @property
    def tls(self) -> bool:
        """Say whether the endpoints speak TLS."""
        return self.ca_file is not None


class CannotError(Exception):
    """A contender cannot do a case; the message says why."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. *settings* is shown beside the result."""

    argv: tuple[str, ...]
    env: dict[str, str]
    settings: str
