"""Bodies on their way out of S3 and into it, counted."""

from __future__ import annotations

from collections.abc import Callable

from s3flow.errors import BadAnswer, Truncated
from s3flow.model import ObjectInfo
from s3flow.ports import Body
from s3flow.wire import Response

# Up to here a body is copied: its source's connection is free before the target's is needed, and
# the request can be sent again (redirects, expired credentials, a stale connection).
WHOLE_SIZE = 64 * 1024


class S3Body:
    """An object's bytes as they arrive. A clean end proves nothing: they are counted."""

    __slots__ = ("_left", "_response", "_where", "info", "size")

    def __init__(
        self, response: Response, info: ObjectInfo, size: int, where: Callable[[], str]
    ) -> None:
        self.info = info
        self.size = size
        self._response = response
        self._left = size
        self._where = where

    async def read(self) -> memoryview:
        """Give the next chunk, valid until the next call; an empty one at the end."""
        chunk = await self._response.read()
        self._left -= len(chunk)
        if self._left < 0:
            self.close()
            raise BadAnswer(f"{self._where()}: more than the announced {self.size} bytes arrived")
        if not chunk and self._left:
            self.close()
            raise Truncated(
                f"{self._where()}: {self.size - self._left} of {self.size} bytes arrived"
            )
        return chunk

    def close(self) -> None:
        """Drop the connection, unless all was read and it is at work elsewhere already."""
        self._response.close()


async def gather(body: Body) -> bytes | Body:
    """Give a small body as bytes, and a large one as it is, to be streamed.

    Either way nothing is asked of the target before the source delivers (the wire reads a stream's
    first chunk before it takes a connection): S3 drops an upload that idles for 20 s (B-25).
    """
    if body.size > WHOLE_SIZE:
        return body
    pieces = []
    left = body.size
    # To its end, or the source's connection could not be used again.
    while chunk := await body.read():
        left -= len(chunk)
        if left < 0:
            raise BadAnswer(f"the source delivered more than the announced {body.size} bytes")
        pieces.append(bytes(chunk))
    if left:
        raise Truncated(f"the source delivered {body.size - left} of {body.size} bytes")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
