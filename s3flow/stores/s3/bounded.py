"""What botocore asks, within bounds: so long, so many bytes, and of nobody but whom it was told to ask.

Left alone, its HTTP client reads an answer for as long as bytes come, keeps all of them, and follows
redirects with the request's body: a web identity's token would go to whoever is named. Imported only
where something is asked: aiobotocore takes 0.2 s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from aiobotocore.session import AioSession
from aiobotocore.utils import AioContainerMetadataFetcher, AioIMDSFetcher, _RefCountedSessionMixin

from s3flow.errors import BadAnswer

if TYPE_CHECKING:
    import aiohttp

LIMIT = (
    4 * 1024 * 1024
)  # bytes of an answer: of SQS at most 1 MiB and its wrapping, of others some KiB


class _Answer:
    """An answer as `AioAWSResponse` looks at it, whose body has been read."""

    def __init__(self, response: aiohttp.ClientResponse, body: bytes) -> None:
        self.url, self.status, self.raw_headers = (
            response.url,
            response.status,
            response.raw_headers,
        )
        self._body = body

    async def read(self) -> bytes:
        return self._body


class _Client:
    """A session of aiohttp that follows nobody, and reads no more of an answer than is bearable."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def request(self, method: str, url: Any, **options: Any) -> _Answer:
        async with self._session.request(method, url, allow_redirects=False, **options) as response:
            body = bytearray()
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > LIMIT:
                    response.close()
                    raise BadAnswer(f"an answer of more than {LIMIT:,} bytes")
            return _Answer(response, bytes(body))


class _Http(AIOHTTPSession):  # type: ignore[misc]
    """What clients of services ask with."""

    async def _get_session(self, proxy_url: str | None) -> _Client:
        return _Client(await super()._get_session(proxy_url))


class _SharedHttp(_RefCountedSessionMixin, _Http):  # type: ignore[misc]
    """What metadata is asked for with."""


# The chain makes these by itself, somewhere inside, and asks with what they name.
AioIMDSFetcher._ref_counted_session_cls = _SharedHttp  # noqa: SLF001
AioContainerMetadataFetcher._ref_counted_session_cls = _SharedHttp  # noqa: SLF001


def session(profile: str | None, region: str) -> AioSession:
    """Make a session of botocore whose clients, and whose chain of credentials, ask within bounds."""
    made = AioSession(profile=profile)
    made.set_config_variable("region", region)
    made.set_default_client_config(AioConfig(http_session_cls=_Http))
    return made
