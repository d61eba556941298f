"""HTTP as it comes through a proxy: requests by what they do, heads, and bodies passed on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

CHUNK = 256 * 1024


@dataclass(slots=True)
class Request:
    """One request, and when it began, was answered and ended, on one clock of whole numbers."""

    kind: str
    method: str
    bucket: str
    key: str
    query: dict[str, str]
    host: str
    began: int
    status: int = 0  # 0: not answered
    answered: int = 0
    ended: int = 0
    if_match: str = ""
    body: bytes = b""  # of deletes of many: which, and of what versions

    @property
    def part(self) -> tuple[str, str, str, str]:
        """What a part is known by: bucket, key, upload and number."""
        return (self.bucket, self.key, self.query["uploadId"], self.query["partNumber"])


def kind_of(method: str, key: str, query: dict[str, str], headers: dict[str, str]) -> str:
    """Name a request of S3's REST dialect by what it does."""
    copy = "_copy" if "x-amz-copy-source" in headers else ""
    if not key:
        if method == "GET":
            return (
                "list"
                if "list-type" in query
                else "list_uploads"
                if "uploads" in query
                else "about"
            )
        return "delete_many" if "delete" in query else "bucket"
    if "uploadId" in query:
        kinds = {"PUT": "upload_part" + copy, "GET": "list_parts", "POST": "complete"}
        return kinds.get(method, "abort")
    if "uploads" in query:
        return "create_upload"
    if "tagging" in query:
        return f"{method.lower()}_tags"
    return method.lower() + (copy if method == "PUT" else "")


@dataclass(frozen=True, slots=True)
class Head:
    start: str
    headers: dict[str, str]
    raw: bytes

    @property
    def length(self) -> int | None:
        """The size of the body; None when it is chunked or ends with the connection."""
        if "chunked" in self.headers.get("transfer-encoding", ""):
            return None
        text = self.headers.get("content-length")
        return None if text is None else int(text)


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    start, *lines = raw.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return Head(start, {name.lower(): value.strip() for name, _, value in pairs}, raw)


def send(writer: asyncio.StreamWriter | None, data: bytes) -> None:
    if writer is None:
        return
    if writer.is_closing():  # uvloop raises a RuntimeError for it
        raise ConnectionResetError("the other side is gone")
    writer.write(data)


async def relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None, size: int
) -> bool:
    """Pass *size* bytes on (None: nowhere); False when they end too early."""
    while size:
        chunk = await reader.read(min(size, CHUNK))
        if not chunk:
            return False
        size -= len(chunk)
        send(writer, chunk)
        if writer is not None:
            await writer.drain()
    return True


async def relay_chunked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter | None) -> bool:
    """Pass a chunked body on, trailers included."""
    while True:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        send(writer, line)
        if size:
            if not await relay(reader, writer, size + 2):
                return False
            continue
        while True:
            line = await reader.readuntil(b"\r\n")
            send(writer, line)
            if line == b"\r\n":
                return True


def parts_sent_twice(requests: Sequence[Request]) -> list[Request]:
    """Give uploads of parts that the server had taken when the sender last asked what it holds."""
    taken: dict[tuple[str, str, str, str], int] = {}
    asked: dict[str, int] = {}
    twice = []
    for request in requests:
        if request.kind == "list_parts":
            asked[request.query["uploadId"]] = request.began
        if request.kind != "upload_part":
            continue
        known_at = asked.get(request.query["uploadId"], request.began)
        first = taken.get(request.part)
        if first is not None and first < known_at:
            twice.append(request)
        if request.status == 200 and request.part not in taken:
            taken[request.part] = request.answered
    return twice
