"""A server that answers S3 requests as a test tells it to, and remembers them as they came."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote_to_bytes

from s3flow.model import Attributes, ObjectInfo
from s3flow.ports import Body
from s3flow.stores.s3 import S3Settings, S3Store

BUCKET = "source-bucket"
ETAG = "900150983cd24fb0d6963f7d28e17f72"
KEY = b"a key"
PLAIN = Attributes({}, {}, "STANDARD", 0, "our-token")
ACCESS, SECRET, TOKEN = "AKIASCRIPTED", "scripted-secret", "scripted-token"


@dataclass(slots=True)
class Request:
    """A request as it came over the wire. *headers* have lower-case names."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> bytes:
        """The key, for a path-style request."""
        return unquote_to_bytes(self.target.partition("?")[0]).partition(BUCKET.encode() + b"/")[2]

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters."""
        pairs = parse_qs(self.target.partition("?")[2], keep_blank_values=True)
        return {name: values[0] for name, values in pairs.items()}


@dataclass(slots=True)
class Answer:
    """What to say; a *status* of 0 says nothing and hangs up.

    *length* replaces the Content-Length, None leaves it out; *cut* hangs up afterwards.
    """

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    length: int | None = -1
    cut: bool = False

    def encode(self, method: str) -> bytes:
        """Give the bytes of the answer to *method*."""
        lines = [f"HTTP/1.1 {self.status} Scripted"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        length = len(self.body) if self.length == -1 else self.length
        if length is not None:
            lines.append(f"Content-Length: {length}")
        body = b"" if method == "HEAD" else self.body
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


Script = Callable[[Request], Answer]


def error(status: int, code: str, message: str = "as scripted", more: str = "") -> Answer:
    """Give an answer with S3's error document."""
    body = f"<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>{message}</Message>{more}</Error>"
    return Answer(status, body.encode(), {"x-amz-request-id": "REQ1"})


class Scripted:
    """A running server. Requests are kept in *requests*; `store` makes stores that talk to it."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Request] = []
        self.heads = 0  # request heads that arrived, whether their bodies did or not
        self.port = 0
        self._stores: list[S3Store] = []
        self._serving: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    def settings(self, **changes: object) -> S3Settings:
        """Give settings for this server with static keys."""
        defaults: dict[str, object] = {
            "name": "scripted",
            "url": f"http://127.0.0.1:{self.port}",
            "access_key_id": ACCESS,
            "secret_access_key": SECRET,
        }
        return S3Settings(**{**defaults, **changes})  # type: ignore[arg-type]

    def store(self, settings: S3Settings | None = None, **options: object) -> S3Store:
        """Make a store; it is closed with the server."""
        options.setdefault("environ", {})
        store = S3Store(settings or self.settings(), **options)  # type: ignore[arg-type]
        self._stores.append(store)
        return store

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests."""
        self._serving[writer] = asyncio.current_task()
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                request = await self._read(reader)
                self.requests.append(request)
                answer = self.script(request)
                if not answer.status:
                    break
                writer.write(answer.encode(request.method))
                await writer.drain()
                if answer.cut or answer.length is None:
                    break
        del self._serving[writer]
        writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> Request:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        self.heads += 1
        first, *lines = head.rstrip("\r\n").split("\r\n")
        method, target, _ = first.split(" ")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(":")
            assert name.lower() not in headers, f"{name} was sent twice"
            headers[name.lower()] = value.strip(" ")
        size = int(headers.get("content-length", "0"))
        return Request(method, target, headers, await reader.readexactly(size))

    async def close(self) -> None:
        """Close the stores, then the connections that are left."""
        for store in self._stores:
            await store.close()
        serving = dict(self._serving)
        for writer in serving:
            writer.close()
        await asyncio.gather(*(task for task in serving.values() if task is not None))


@contextlib.asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[Scripted]:
    """Run a server that answers as *script* says."""
    server = Scripted(script)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        await server.close()
        listener.close()
        await listener.wait_closed()


# --- what is read and written --------------------------------------------------------------------


def found(body: bytes = b"abc", **changes: object) -> Answer:
    """Answer with an object."""
    headers = {"ETag": f'"{ETAG}"'}
    return Answer(**{"body": body, "headers": headers, **changes})  # type: ignore[arg-type]


class Chunks:
    """A body of chunks; *gate* must be set before the first one comes."""

    def __init__(self, *chunks: bytes, size: int | None = None) -> None:
        self.info = ObjectInfo(0, "")
        self.size = sum(map(len, chunks)) if size is None else size
        self.gate = asyncio.Event()
        self.gate.set()
        self._chunks = list(chunks)

    async def read(self) -> memoryview:
        await self.gate.wait()
        return memoryview(self._chunks.pop(0) if self._chunks else b"")

    def close(self) -> None:
        self._chunks.clear()


async def drain(body: Body) -> bytes:
    """Read a body to its end."""
    data = b""
    while chunk := await body.read():
        data += chunk
    body.close()
    return data
