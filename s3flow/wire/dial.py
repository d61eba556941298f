"""Opens connections: TCP, through a proxy by CONNECT if there is one, then TLS."""

from __future__ import annotations

import asyncio
import ssl
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

from s3flow.errors import BadAnswer, ConfigError, ConnectionLost, Refused, S3flowError
from s3flow.wire.connection import Connection

# What OpenSSL finds with ssl.VERIFY_X509_STRICT alone: from X509_V_ERR_PATHLEN_INVALID_FOR_NON_CA to
# X509_V_ERR_EXTENSIONS_REQUIRE_VERSION_3, which the `ssl` module does not name.
_STRICT = range(80, 94)
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(NamedTuple):
    """Where requests go: "http" or "https", a host name or address, and a port."""

    scheme: str
    host: str
    port: int

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if _DEFAULT_PORTS.get(self.scheme) == self.port else f"{host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


class Proxy(NamedTuple):
    """An HTTP proxy. *authorization* is the header's value, "" for none, and never shown."""

    host: str
    port: int
    authorization: str

    def __repr__(self) -> str:
        return f"Proxy({self.host}:{self.port})"

    def __str__(self) -> str:
        return f"proxy {self.host}:{self.port}"


def parse_proxy(url: str) -> Proxy:
    """Read "http://user:password@host:port". Raises `ConfigError`, which shows no credentials."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        port = parts.port or 80
    except ValueError:
        port = -1
    if parts.scheme != "http" or not parts.hostname or port < 0:
        raise ConfigError(
            f"the proxy with scheme {parts.scheme!r} and host {parts.hostname!r} cannot be used; "
            "HTTP_PROXY and HTTPS_PROXY must look like http://host:port"
        )
    authorization = ""
    if parts.username is not None:
        user = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
        authorization = f"Basic {b64encode(user).decode()}"
    return Proxy(parts.hostname, port, authorization)


def proxy_for(origin: Origin, environ: Mapping[str, str]) -> str | None:
    """Say which proxy the environment wants for *origin*: HTTP(S)_PROXY, unless NO_PROXY has it."""

    def setting(name: str) -> str:
        return environ.get(name) or environ.get(name.upper()) or ""

    url = setting(f"{origin.scheme}_proxy")
    if not url:
        return None
    excluded = {"no": setting("no_proxy")}
    if urllib.request.proxy_bypass(f"{origin.host}:{origin.port}", excluded):
        return None
    return url


async def dial(
    connection: Connection,
    origin: Origin,
    *,
    context: ssl.SSLContext | None,
    proxy: Proxy | None,
    timeout: float,
) -> None:
    """Connect *connection* to *origin* within *timeout* seconds.

    Raises `ConnectionLost` when that fails and `Refused` when the certificate is not trusted, or the
    host cannot have such a name.
    """
    try:
        async with asyncio.timeout(timeout):
            await _open(connection, origin, context, proxy)
    except BaseException as error:
        connection.abort()
        # TimeoutError is an OSError: it must be told apart first.
        if isinstance(error, TimeoutError):
            message = f"{origin}: no connection within {timeout:g} s{_by(proxy)}"
            raise ConnectionLost(message) from error
        if isinstance(error, OSError):
            raise _translate(error, origin, proxy) from error
        if isinstance(error, ValueError):  # of the codec "idna", or of TLS
            raise _nameless(error, origin, proxy) from error
        raise


async def _open(
    connection: Connection, origin: Origin, context: ssl.SSLContext | None, proxy: Proxy | None
) -> None:
    loop = asyncio.get_running_loop()
    host, port = (origin.host, origin.port) if proxy is None else (proxy.host, proxy.port)
    transport, _ = await loop.create_connection(lambda: connection, host, port)
    if proxy is not None:
        await _tunnel(connection, origin, proxy)
    if context is None:
        return
    # TLS is put on afterwards, and never by create_connection: the raw transport must stay in
    # reach, see Connection._pause.
    secured = await loop.start_tls(transport, connection, context, server_hostname=origin.host)
    if secured is None:
        raise ConnectionResetError("the connection was closed during the TLS handshake")
    connection.secure(secured)


async def _tunnel(connection: Connection, origin: Origin, proxy: Proxy) -> None:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    target = f"{host}:{origin.port}"
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.authorization:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    connection.begin("CONNECT", float("inf"))
    connection.write("\r\n".join([*lines, "", ""]).encode("latin-1"))
    status = (await connection.answer(f"by {proxy} before it answered CONNECT")).status
    if status == 407:
        raise Refused(f"{origin}: {proxy} wants (other) credentials; put them into its URL")
    if not 200 <= status < 300:
        raise ConnectionLost(f"{origin}: {proxy} answered CONNECT with {status}")
    if connection.start != connection.stop:
        raise BadAnswer(f"{origin}: {proxy} sent bytes after its answer to CONNECT")


def _translate(error: OSError, origin: Origin, proxy: Proxy | None) -> S3flowError:
    """Name an operating system's or TLS error for what it means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        remedy = "if it is your own authority's, name that in ca_file"
        if error.verify_code in _STRICT:
            remedy = "Python from 3.13 on holds it to RFC 5280: have one made that keeps to it"
        return Refused(
            f"{origin}: the server's certificate is not trusted ({error.verify_message}); {remedy}"
        )
    return ConnectionLost(f"{origin}: cannot connect{_by(proxy)}: {error}")


def _nameless(error: ValueError, origin: Origin, proxy: Proxy | None) -> Refused:
    host = repr(origin.host) if proxy is None else f"{origin.host!r} or {proxy.host!r}"
    return Refused(
        f"{origin}: cannot connect{_by(proxy)}: {host} is no name of a host ({error}); if a bucket's"
        ' name makes it so, set addressing = "path"'
    )


def _by(proxy: Proxy | None) -> str:
    return "" if proxy is None else f" through {proxy}"
