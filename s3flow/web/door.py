"""Who may ask the listener, and how many at once: clients are not trusted to mean well."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
from collections.abc import Awaitable, Callable

from aiohttp import web

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Server": "s3flow",  # aiohttp would tell its version and Python's
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
MOST = 100  # connections; a scraper needs one
IDLE = 75.0  # seconds that one may be silent before and between its requests
LINGERING = 1.0  # seconds for the rest of a body that nobody wants
FAILURE_PAUSE = 0.5  # seconds before a wrong password is answered
# For supervisors and containers, which know no password: they learn that it lives, and no more.
OPEN_TO_ALL = frozenset(("/healthz", "/readyz"))

_Ask = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Door:
    """Makes the connections of a listener, and holds `MOST` of them open.

    Who comes when it is full is let in, and who was silent for longest goes: idle connections and
    half requests keep nobody out, and a scraper that loses one comes again.
    """

    def __init__(self, server: web.Server) -> None:
        self._server = server
        self._open: dict[Connection, None] = {}  # who was answered last stands last

    def __call__(self) -> Connection:
        """Make a connection; this is what the event loop calls for each client."""
        return Connection(self, self._server)

    @property
    def open(self) -> int:
        """How many connections there are."""
        return len(self._open)

    def enter(self, one: Connection) -> None:
        """Count *one*, or let it count as the one that was answered last."""
        self._open.pop(one, None)
        self._open[one] = None
        if len(self._open) > MOST:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.drop()

    def leave(self, one: Connection) -> None:
        """Count *one* no more."""
        self._open.pop(one, None)


class Connection(web.RequestHandler):
    """One client's connection. What is no HTTP is answered in two words, and logged nowhere."""

    def __init__(self, door: Door, server: web.Server) -> None:
        self._door = door
        self._answered = 0
        self._ended = False
        loop = asyncio.get_running_loop()
        super().__init__(
            server,
            loop=loop,
            access_log=None,  # type: ignore[arg-type]  # paths could hold anything
            keepalive_timeout=IDLE,
            lingering_time=LINGERING,
            auto_decompress=False,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        super().connection_made(transport)
        self._door.enter(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """End."""
        self._door.leave(self)
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]  # aiohttp: always close
        """Answer first what a client asked before it ended its half."""
        self._ended = True
        return self._request_count > self._answered

    def answer(self, response: web.StreamResponse) -> None:
        """Note that *response* begins; it is the last one to who asks no more."""
        self._answered += 1
        if self._ended and self._answered >= self._request_count:
            response.force_close()
        if self.transport is not None:
            self._door.enter(self)

    def drop(self) -> None:
        """Close it now, whatever the client has not read."""
        if self.transport is not None:
            self.transport.abort()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - it repeats what came
    ) -> web.StreamResponse:
        """Answer what went wrong, where aiohttp would log and repeat what came, passwords included."""
        if status == 500:
            answer = super().handle_error(request, status, exc)
        elif request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already")
        else:
            answer = web.Response(status=status, text="not understood\n")
            answer.force_close()
        answer.headers.update(HEADERS)
        return answer


class Gate:
    """Lets in who has the password; without one, whoever reaches a listener that is this machine's."""

    def __init__(self, user: str, password: str) -> None:
        self._wanted = _digest(f"{user}:{password}".encode()) if password else b""

    @property
    def is_guarded(self) -> bool:
        """Say whether there is a password."""
        return bool(self._wanted)

    def knows(self, request: web.BaseRequest) -> bool:
        """Say whether *request* brought the password, in a time that tells nothing of it."""
        scheme, _, login = request.headers.get("Authorization", "").partition(" ")
        try:
            given = base64.b64decode(login.strip(), validate=True)
        except ValueError:  # neither base64 nor even ASCII
            given = b""
        # Digests have one length, whatever was given, and are compared whether that was sense or not.
        return hmac.compare_digest(_digest(given), self._wanted) and scheme.lower() == "basic"

    @web.middleware
    async def admit(self, request: web.Request, handler: _Ask) -> web.StreamResponse:
        """Ask *handler* for those who may."""
        if not self.is_guarded:
            host = request.headers.get("Host", "")
            is_check = not host and request.path in OPEN_TO_ALL  # by a load balancer, in HTTP/1.0
            if not is_check and not is_address(host):
                # A page in somebody's browser may give its own name our address, and read us.
                return _refused(421, "ask by an address or localhost, or set listen_password\n")
            return await handler(request)
        if request.path in OPEN_TO_ALL or self.knows(request):
            return await handler(request)
        if "Authorization" in request.headers:
            await asyncio.sleep(FAILURE_PAUSE)
        refused = _refused(401, "a user and a password are needed\n")
        refused.headers["WWW-Authenticate"] = 'Basic realm="s3flow", charset="UTF-8"'
        return refused


def is_address(host: str) -> bool:
    """Say whether a Host header names this machine by what no name server decides."""
    name, colon, port = host.rpartition(":")
    if not colon or not port.isdigit():
        name = host
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name.lower() == "localhost"
    return True


def _refused(status: int, words: str) -> web.Response:
    return web.Response(status=status, text=words)


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).digest()
