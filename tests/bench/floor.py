"""The floor: a bare program that GETs and PUTs the same objects with s3flow.wire, and does no more."""

from __future__ import annotations

import argparse
import asyncio
import os
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import uvloop

from s3flow.ports import Body
from s3flow.wire import Origin, Pool, Response
from s3flow.wire.sigv4 import Credentials, Signer, quote_key

AT_ONCE = 64
PARTS_AT_ONCE = 8
PART_SIZE = 16 * 1024 * 1024
LARGE = 64 * 1024 * 1024  # bytes; above, an object goes in parts


class Piece(NamedTuple):
    """An object, or a part of one. *upload* is empty for whole objects."""

    key: str
    start: int
    size: int
    number: int
    upload: str


class Store:
    """Signed requests to the one server of the benchmark."""

    def __init__(self, url: str, ca_file: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname
        assert parts.port
        context = ssl.create_default_context(cafile=ca_file) if ca_file else None
        origin = Origin(parts.scheme, parts.hostname, parts.port)
        self._host = origin.authority
        self._reading = Pool(origin, ssl_context=context)
        self._writing = Pool(origin, ssl_context=context)
        self._credentials = Credentials(os.environ["BENCH_KEY"], os.environ["BENCH_SECRET"])
        self._signer = Signer("us-east-1")

    async def send(
        self,
        method: str,
        path: str,
        query: str = "",
        *,
        body: bytes | Body = b"",
        extra: dict[str, str] | None = None,
    ) -> Response:
        """Send a request; the answer is 2xx."""
        headers = {"host": self._host, **(extra or {})}
        self._signer.sign(self._credentials, method, path, query, headers, now=time.time())
        pool = self._writing if method == "PUT" else self._reading
        target = f"{path}?{query}" if query else path
        response = await pool.request(method, target, headers, body)
        if response.status >= 300:
            raise RuntimeError(f"{method} {target}: {response.status}")
        return response

    async def close(self) -> None:
        """Close all connections."""
        await self._reading.close()
        await self._writing.close()


class _Whole:
    """A `Body` over a response."""

    def __init__(self, response: Response, size: int) -> None:
        self.read = response.read
        self.close = response.close
        self.size = size


def objects_of(index: Path) -> list[tuple[str, int]]:
    """Read keys and sizes."""
    rows = (line.split("\t", 2) for line in index.read_text().splitlines())
    return [(key, int(size)) for key, size, _ in rows]


async def copy(
    store: Store, source: str, target: str, pieces: Iterator[Piece], etags: dict[Piece, str]
) -> None:
    """GET and PUT what is left of *pieces*, one at a time."""
    for piece in pieces:
        key = quote_key(piece.key.encode())
        extra = {}
        query = ""
        if piece.upload:
            extra["range"] = f"bytes={piece.start}-{piece.start + piece.size - 1}"
            query = f"partNumber={piece.number}&uploadId={piece.upload}"
        response = await store.send("GET", f"/{source}/{key}", extra=extra)
        body: Body = _Whole(response, piece.size)  # type: ignore[assignment]  # no info needed
        answer = await store.send("PUT", f"/{target}/{key}", query, body=body)
        await answer.read()
        if piece.upload:
            etags[piece] = answer.headers["etag"]


async def fetch(store: Store, source: str, disk: Path, pieces: Iterator[Piece]) -> None:
    """GET what is left of *pieces* into files; the blocking writes only fill the page cache."""
    for piece in pieces:
        extra = {}
        if piece.number:
            extra["range"] = f"bytes={piece.start}-{piece.start + piece.size - 1}"
        response = await store.send("GET", f"/{source}/{piece.key}", extra=extra)
        file = os.open(disk / piece.key, os.O_WRONLY | os.O_CREAT)
        offset = piece.start
        while chunk := await response.read():
            offset += os.pwrite(file, chunk, offset)
        os.close(file)


def cut(key: str, size: int, upload: str) -> list[Piece]:
    """Cut a large object into parts."""
    starts = range(0, size, PART_SIZE)
    return [
        Piece(key, start, min(PART_SIZE, size - start), number, upload)
        for number, start in enumerate(starts, 1)
    ]


async def _begin(store: Store, bucket: str, key: str) -> str:
    answer = await store.send("POST", f"/{bucket}/{key}", "uploads=")
    text = (await answer.read_all()).decode()
    return text.partition("<UploadId>")[2].partition("</UploadId>")[0]


async def _complete(store: Store, bucket: str, key: str, etags: dict[Piece, str]) -> None:
    pieces = sorted(etags, key=lambda piece: piece.number)
    parts = "".join(
        f"<Part><PartNumber>{p.number}</PartNumber><ETag>{etags[p]}</ETag></Part>" for p in pieces
    )
    body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
    query = f"uploadId={pieces[0].upload}"
    await (await store.send("POST", f"/{bucket}/{key}", query, body=body)).read_all()


async def main(options: argparse.Namespace) -> None:
    """Move everything the index names."""
    store = Store(options.url, options.ca)
    disk = Path(options.disk) if options.disk else None
    pieces: list[Piece] = []
    uploads: dict[str, list[Piece]] = {}
    for key, size in objects_of(Path(options.index)):
        if disk:
            (disk / key).parent.mkdir(exist_ok=True)
        if size <= LARGE:
            pieces.append(Piece(key, 0, size, 0, ""))
            continue
        upload = "" if disk else await _begin(store, options.target, key)
        uploads[key] = cut(key, size, upload)
        pieces += uploads[key]
    waiting = iter(pieces)
    etags: dict[Piece, str] = {}
    async with asyncio.TaskGroup() as group:
        for _ in range(PARTS_AT_ONCE if uploads else AT_ONCE):
            lane = (
                fetch(store, options.source, disk, waiting)
                if disk
                else copy(store, options.source, options.target, waiting, etags)
            )
            group.create_task(lane)
    if not disk:
        for key, parts in uploads.items():
            await _complete(store, options.target, key, {part: etags[part] for part in parts})
    await store.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for option in ("url", "ca", "index", "source", "target", "disk"):
        parser.add_argument(f"--{option}", default="")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(parser.parse_args()))
