"""A proxy that spoils a share of what passes between s3flow and a server, in every way of HTTP and S3.

Whether a request is spoiled follows from the seed, from what is asked and how often it was; how, from
what was done least so far, so that no kind of fault is left out.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.e2e.proxy import Exchange, Proxy, Streams
from tests.e2e.relaying import Head, Request, read_head, relay, send


class Answer(NamedTuple):
    """A whole answer of the server. *headers* have lower-case names."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    def raw(self, body: bytes | None = None, **changed: str | None) -> bytes:
        """Give it as it goes over the wire, with some headers *changed*, or without those of None.

        The length that it tells is the server's own, also with another *body*.
        """
        headers = {"content-length": str(len(self.body)), **self.headers}
        headers.pop("transfer-encoding", None)
        for name, value in changed.items():
            headers.pop(name.replace("_", "-"), None)
            if value is not None:
                headers[name.replace("_", "-")] = value
        lines = [f"{name}: {value}\r\n" for name, value in headers.items()]
        head = f"HTTP/1.1 {self.status} {self.reason}\r\n{''.join(lines)}\r\n"
        return head.encode("latin-1") + (self.body if body is None else body)


def refusal(method: str, status: int, code: str, **headers: str) -> bytes:
    """Give an error as S3 tells it, without a body to HEAD."""
    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>so</Message></Error>"
    body = b"" if method == "HEAD" else text.encode()
    return Answer(status, code, {"content-type": "application/xml", **headers}, body).raw()


@dataclass(slots=True)
class Spoiled(Exchange):
    """One client's connection: a request at a time, so that what is done to it is done to it alone."""

    proxy: FaultProxy
    rng: random.Random = field(default_factory=random.Random)
    dirty: bool = False  # the client has bytes on it that nobody asked for

    async def run(self) -> None:
        """Relay until either side is done, or a fault ends the connection."""
        try:
            while (head := await read_head(self.client[0])) is not None:
                request = self.proxy.note(head)
                if self.dirty:
                    self.proxy.reused.append(f"{request.kind} {request.bucket}/{request.key}")
                name, self.rng = self.proxy.choose(request, head)
                act = self.proxy.kinds[name].act if name else Spoiled.plain
                go_on = await act(self, request, head)
                request.ended = self.proxy.tick()
                if not go_on:
                    return
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # either side is gone, as the fault wants it or by itself
        finally:
            for _, writer in (self.client, self.server):
                writer.close()

    # --- what faults are made of ---------------------------------------------------------------

    async def plain(self, request: Request, head: Head) -> bool:
        """Pass a request and its answer on as they are."""
        send(self.server[1], head.raw)
        if not await relay(self.client[0], self.server[1], head.length or 0):
            return False
        found = await self._answer_head(request)
        if found is None:
            return False
        send(self.client[1], found.raw)
        if not _has_body(request, request.status):
            return True
        if found.length is None:
            body = await self._body(found)
            send(
                self.client[1], Answer(request.status, "", {}, body).raw().partition(b"\r\n\r\n")[2]
            )
            return False
        return await relay(self.server[0], self.client[1], found.length)

    async def take(self, head: Head) -> bytes:
        """Take the request's body in."""
        return await self.client[0].readexactly(head.length or 0)

    async def ask(self, request: Request, head: Head, body: bytes | None = None) -> Answer:
        """Pass the request on, with another *body* of the same size, and take the answer in."""
        send(self.server[1], head.raw)
        send(self.server[1], await self.take(head) if body is None else body)
        found = await self._answer_head(request)
        if found is None:
            raise ConnectionResetError("the server did not answer")
        body = await self._body(found) if _has_body(request, request.status) else b""
        reason = found.start.split(" ", 2)[2] if found.start.count(" ") > 1 else ""
        return Answer(request.status, reason, dict(found.headers), body)

    async def _answer_head(self, request: Request) -> Head | None:
        while (found := await read_head(self.server[0])) is not None:
            request.status = int(found.start.split(" ", 2)[1])
            if request.status >= 200:
                request.answered = self.proxy.tick()
                return found
        return None

    async def _body(self, head: Head) -> bytes:
        if head.length is not None:
            return await self.server[0].readexactly(head.length)
        if "chunked" not in head.headers.get("transfer-encoding", ""):
            return await self.server[0].read(-1)
        pieces = []
        while size := int((await self.server[0].readuntil(b"\r\n")).split(b";")[0], 16):
            pieces.append((await self.server[0].readexactly(size + 2))[:-2])
        while await self.server[0].readuntil(b"\r\n") != b"\r\n":
            pass
        return b"".join(pieces)

    def say(self, data: bytes) -> bool:
        """Send an answer and go on."""
        send(self.client[1], data)
        return True

    def reset(self) -> bool:
        """Break both connections off."""
        for _, writer in (self.client, self.server):
            writer.transport.abort()
        return False

    async def close_after(self, data: bytes) -> bool:
        """Send *data* and end the connection in good order."""
        send(self.client[1], data)
        await self.client[1].drain()
        return False


Act = Callable[[Spoiled, Request, Head], Awaitable[bool]]


class Fault(NamedTuple):
    """What can be done to some requests; *at_most* so often, where it takes long.

    *storm* says, from and to, how many requests that follow have the same fate.
    """

    act: Act
    applies: Callable[[Request, Head], bool]
    at_most: int | None = None
    storm: tuple[int, int] | None = None


class FaultProxy(Proxy):
    """Spoils the share *rate* of the requests by *kinds*, while it is *wild*; *faults* counts it."""

    def __init__(
        self, upstream: str, kinds: Mapping[str, Fault], *, seed: int, rate: float
    ) -> None:
        super().__init__(upstream)
        self.kinds = kinds
        self.seed = seed
        self.rate = rate
        self.wild = True
        self.faults: Counter[str] = Counter()
        self.journal: list[str] = []  # what was done to what
        self.done: Counter[str] = Counter()  # requests by kind: they are not kept
        self.last: dict[str, bytes] = {}  # answers that were kept back, by kind
        self.unpinned: list[str] = []  # reads and copies of whatever version there was
        self.reused: list[str] = []  # what was asked where more had come than was asked for
        self._storms: Counter[str] = Counter()  # requests that are refused still, by the storm
        self._asked: Counter[tuple[str, ...]] = Counter()

    def exchange(self, client: Streams, server: Streams) -> Exchange:
        """Begin to relay between a client and the server."""
        return Spoiled(self, client, server)

    def note(self, head: Head) -> Request:
        """Record a request, and whether it names the version that it reads."""
        request = super().note(head)
        names = "if-match" if request.kind == "get" else "x-amz-copy-source-if-match"
        if (request.kind == "get" or request.kind.endswith("_copy")) and names not in head.headers:
            self.unpinned.append(f"{request.kind} {request.bucket}/{request.key}")
        return request

    def calm(self) -> None:
        """Do nothing any more to what comes."""
        self.wild = False
        self._storms.clear()

    def choose(self, request: Request, head: Head) -> tuple[str, random.Random]:
        """Say what is done to a request, "" for nothing; with what decides the rest."""
        self.done[request.kind] += 1
        what = (request.kind, request.bucket, request.key, request.query.get("partNumber", ""))
        self._asked[what] += 1
        rng = random.Random(f"{self.seed}:{what}:{self._asked[what]}")
        chosen = self._storming(request, head) if self.wild else ""
        if not chosen and self.wild and rng.random() < self.rate:
            chosen = self._least(request, head, rng)
            if chosen and (storm := self.kinds[chosen].storm):
                self._storms[chosen] = rng.randint(*storm)
        if chosen:
            self.faults[chosen] += 1
            place = f"{request.bucket}/{request.key} {request.query.get('uploadId', '')}"
            self.journal.append(f"{len(self.requests)} {chosen}: {request.kind} {place}")
        return chosen, rng

    def _storming(self, request: Request, head: Head) -> str:
        for name, left in self._storms.items():
            if left and self.kinds[name].applies(request, head):
                self._storms[name] -= 1
                return name
        return ""

    def _least(self, request: Request, head: Head, rng: random.Random) -> str:
        names = [
            name
            for name, it in self.kinds.items()
            if it.applies(request, head) and (it.at_most is None or self.faults[name] < it.at_most)
        ]
        return min(names, key=lambda name: (self.faults[name], rng.random()), default="")


def _has_body(request: Request, status: int) -> bool:
    return status not in {204, 304} and request.method != "HEAD"
