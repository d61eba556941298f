"""The objects that are moved: made once from a seed, kept in the cache, described for the server."""

from __future__ import annotations

import hashlib
import math
import os
import random
import shutil
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from awscrt import checksums

MIB = 1024 * 1024
PART_SIZE = 16 * MIB  # of large source objects, and what each peer is told to use
MODIFIED = 1_767_225_600  # 2026-01-01T00:00:00Z, as the listings say
_FORMAT = "4"  # of the cached folder; another number makes it anew
_FOLDER = 1000  # objects that share a "directory" of their keys


@dataclass(frozen=True, slots=True)
class ObjectSet:
    """A source bucket. *listed_only*: its keys exist in listings, without bytes."""

    name: str
    sizes: Callable[[], Iterator[int]]
    listed_only: bool = False

    @property
    def count(self) -> int:
        """The number of objects."""
        return sum(1 for _ in self.sizes())

    @property
    def size(self) -> int:
        """Bytes of all objects."""
        return sum(self.sizes())


@dataclass(frozen=True, slots=True)
class Described:
    """One object as the server's index has it."""

    key: str
    size: int
    etag: str
    crc64nvme: str
    part_size: int
    md5s: tuple[str, ...]

    def line(self) -> str:
        """Write it for the index."""
        fields = (self.key, self.size, self.etag, self.crc64nvme, self.part_size)
        return "\t".join(map(str, (*fields, ",".join(self.md5s))))


def _same(count: int, size: int) -> Callable[[], Iterator[int]]:
    return lambda: iter([size] * count)


def _documents(count: int) -> Callable[[], Iterator[int]]:
    """Give the sizes of a document bucket: log-normal, half below 60 KiB, a few of many MiB."""

    def sizes() -> Iterator[int]:
        draw = random.Random(7)
        for _ in range(count):
            yield max(200, min(40 * MIB, int(draw.lognormvariate(math.log(60 * 1024), 1.6))))

    return sizes


SETS = {
    found.name: found
    for found in (
        ObjectSet("small", _same(20_000, 4096)),
        ObjectSet("small2k", _same(2_000, 4096)),
        ObjectSet("676", _same(676, 64 * 1024)),
        ObjectSet("medium", _same(5_000, 256 * 1024)),
        ObjectSet("medium500", _same(500, 256 * 1024)),
        ObjectSet("large", _same(4, 512 * MIB)),
        ObjectSet("large1", _same(1, 256 * MIB)),
        ObjectSet("documents", _documents(4_000)),
        ObjectSet("documents400", _documents(400)),
        ObjectSet("million", _same(1_000_000, 4096), listed_only=True),
        ObjectSet("hundredk", _same(100_000, 4096), listed_only=True),
    )
}


def key_of(index: int) -> str:
    """Give the key of the object number *index*; keys ascend with the numbers."""
    return f"d{index // _FOLDER:04d}/{index:08d}"


def prepare(folder: Path, names: list[str]) -> Path:
    """Make what is missing of the sets *names* below *folder*; gives the server's data folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        where = folder / name
        marker = where / "format"
        if not marker.exists() or marker.read_text() != _FORMAT:
            shutil.rmtree(where, ignore_errors=True)
            where.mkdir()
            print(f"making the objects of {name!r} in {where}", flush=True)
            _make(SETS[name], where)
            marker.write_text(_FORMAT)
    (folder / "sets").write_text("".join(f"{name}\n" for name in names))
    return folder


def describe(folder: Path, name: str) -> list[Described]:
    """Read the index of a set."""
    found = []
    for line in (folder / name / "index.tsv").read_text().splitlines():
        key, size, etag, crc, part_size, md5s = line.split("\t")
        parts = tuple(md5s.split(","))
        found.append(Described(key, int(size), etag, crc, int(part_size), parts))
    return found


def _make(objects: ObjectSet, where: Path) -> None:
    if objects.listed_only:
        (where / "index.tsv").touch()
        _make_pages(objects.count, where / "pages")
        return
    draw = random.Random(objects.name)
    lines = []
    for index, size in enumerate(objects.sizes()):
        path = where / "objects" / key_of(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        lines.append(_make_object(path, key_of(index), size, draw).line())
    (where / "index.tsv").write_text("".join(f"{line}\n" for line in lines))


def _make_object(path: Path, key: str, size: int, draw: random.Random) -> Described:
    """Write one object of random bytes; over `PART_SIZE` it counts as uploaded in parts."""
    crc = 0
    md5s = []
    with path.open("wb") as file:
        for start in range(0, size, PART_SIZE):
            piece = draw.randbytes(min(PART_SIZE, size - start))
            file.write(piece)
            crc = checksums.crc64nvme(piece, crc)
            md5s.append(hashlib.md5(piece, usedforsecurity=False).hexdigest())
    os.utime(path, (MODIFIED, MODIFIED))
    raw = b"".join(map(bytes.fromhex, md5s))
    joined = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    is_multipart = size > PART_SIZE
    return Described(
        key,
        size,
        f"{joined}-{len(md5s)}" if is_multipart else md5s[0],
        b64encode(crc.to_bytes(8, "big")).decode(),
        PART_SIZE if is_multipart else 0,
        tuple(md5s),
    )


# --- listings of more keys than the server keeps in memory --------------------------------------

_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name><Prefix></Prefix>'
    "<KeyCount>{count}</KeyCount><MaxKeys>1000</MaxKeys><EncodingType>url</EncodingType>"
    "<IsTruncated>{truncated}</IsTruncated>{more}"
)
_ENTRY = (
    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
    "<ETag>&quot;{etag}&quot;</ETag><Size>4096</Size><StorageClass>STANDARD</StorageClass></Contents>"
)
_MORE = "<NextContinuationToken>{last}</NextContinuationToken><NextMarker>{last}</NextMarker>"


def etag_of(index: int) -> str:
    """Give the ETag that listings show for an object that has no bytes."""
    return hashlib.md5(str(index).encode(), usedforsecurity=False).hexdigest()


def _make_pages(count: int, where: Path) -> None:
    where.mkdir()
    empty = _HEAD.format(count=0, truncated="false", more="")
    (where / "empty.xml").write_text(empty + "</ListBucketResult>")
    for start in range(0, count, 1000):
        stop = min(start + 1000, count)
        more = _MORE.format(last=key_of(stop - 1)) if stop < count else ""
        truncated = "true" if more else "false"
        text = [_HEAD.format(count=stop - start, truncated=truncated, more=more)]
        text += [_ENTRY.format(key=key_of(i), etag=etag_of(i)) for i in range(start, stop)]
        page = where / f"{start // 1000:06d}.xml"
        page.write_text("".join((*text, "</ListBucketResult>")))
    (where / "total").write_text(str(count))
