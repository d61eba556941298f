"""The HTTP listener: /metrics, /healthz, /readyz, /api/status. Read only, no keys."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog
from aiohttp import http_parser, web

from s3flow.errors import ConfigError
from s3flow.observe.metrics import CONTENT_TYPE
from s3flow.web.door import HEADERS, Connection, Door, Gate

_LARGEST_BODY = 1024  # bytes; no request here has one

Health = Callable[[], str]
"""Gives "" when all is well, else what is not: words for a person, without secrets."""
Reasons = Callable[[], list[str]]
"""As `Health`, for what is waited for, and may be several things."""


def build(
    *,
    metrics: Callable[[], bytes],
    status: Callable[[], Awaitable[dict[str, Any]]],
    degraded: Reasons,
    ready: Health,
    gate: Gate,
) -> web.Application:
    """Make the application. *metrics* gives exposition text, *status* the JSON of all flows."""

    async def get_metrics(_request: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": CONTENT_TYPE})

    async def get_status(_request: web.Request) -> web.Response:
        return web.json_response(await status(), dumps=_dumps)

    async def get_health(request: web.Request) -> web.Response:
        # That it answers shows that it lives: what is wrong elsewhere no restart would mend.
        reasons = degraded()
        found: dict[str, object] = {"status": "degraded" if reasons else "ok"}
        if not gate.is_guarded or gate.knows(request):
            found["reasons"] = reasons
        return web.json_response(found, dumps=_dumps)

    async def get_ready(_request: web.Request) -> web.Response:
        trouble = ready()
        return web.Response(status=503 if trouble else 200, text=(trouble or "ok") + "\n")

    app = web.Application(client_max_size=_LARGEST_BODY, middlewares=[gate.admit])
    app.router.add_get("/metrics", get_metrics)
    app.router.add_get("/api/status", get_status)
    app.router.add_get("/healthz", get_health)
    app.router.add_get("/readyz", get_ready)
    app.on_response_prepare.append(_secure)
    return app


def _dumps(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


async def _secure(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    if isinstance(request.protocol, Connection):
        request.protocol.answer(response)


def parser_in_c() -> bool:
    """Say whether aiohttp parses with its C extension: its Python parser had the smuggling bugs."""
    return http_parser.HttpRequestParser is not http_parser.HttpRequestParserPy


@asynccontextmanager
async def serve(
    listen: str,
    *,
    metrics: Callable[[], bytes],
    status: Callable[[], Awaitable[dict[str, Any]]],
    degraded: Reasons = list,
    ready: Health = str,
    user: str = "",
    password: str = "",
) -> AsyncIterator[tuple[str, int] | None]:
    """Listen on "host:port" while the context lasts; gives the bound address (port 0 is allowed).

    With a *password*, who asks for more than whether it lives must bring it and *user*. An empty
    *listen* opens nothing and gives None. Raises `ConfigError` if it cannot be bound.
    """
    if not listen:
        yield None
        return
    log = structlog.get_logger("s3flow.web")
    if not parser_in_c():
        log.warning("aiohttp parses HTTP in Python: install its compiled wheel")
    gate = Gate(user, password)
    app = build(metrics=metrics, status=status, degraded=degraded, ready=ready, gate=gate)
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    if runner.server is None:
        raise RuntimeError("aiohttp made no server")
    try:
        listener = await _bind(Door(runner.server), listen)
        try:
            address = listener.sockets[0].getsockname()
            bound = str(address[0]), int(address[1])
            log.info("listening", address=f"{bound[0]}:{bound[1]}")
            yield bound
        finally:
            listener.close()
    finally:
        await runner.cleanup()


async def _bind(door: Door, listen: str) -> asyncio.Server:
    host, _, port = listen.rpartition(":")
    loop = asyncio.get_running_loop()
    try:
        return await loop.create_server(door, host.strip("[]"), int(port), reuse_address=True)
    except OSError as error:
        raise ConfigError(
            f"daemon.listen: cannot listen on {listen}: {error.strerror or error}; "
            "choose another address, or end what uses it"
        ) from error
