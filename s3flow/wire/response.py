"""An answer: its head is here, its body is read from the connection as it arrives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from s3flow.errors import BadAnswer, S3flowError, Truncated
from s3flow.model import MIB
from s3flow.wire.connection import Connection
from s3flow.wire.framing import Chunks, Framing, Head
from s3flow.wire.progress import Waiting

_EMPTY: Final = memoryview(b"")
_UNKNOWN: Final = 1 << 62  # bytes left of a body that ends with the connection
_DATA: Final = Waiting.DATA


class Response:
    """The answer to one request. Read it to its end, or close it: it holds a connection.

    *headers* have lower-case names, and those that came twice are joined by ", ". *length* is
    the announced length of the body, None when the server announced none.
    """

    __slots__ = (
        "_chunks",
        "_connection",
        "_done",
        "_keep",
        "_left",
        "_preloaded",
        "headers",
        "length",
        "status",
    )

    def __init__(
        self,
        head: Head,
        connection: Connection,
        done: Callable[[Connection, bool], None],
        *,
        keep: bool = True,
    ) -> None:
        self.status = head.status
        self.headers = head.headers
        self.length = head.length if head.framing is Framing.LENGTH else None
        self._connection: Connection | None = connection
        self._done = done
        self._keep = keep and head.keep
        self._left = _UNKNOWN if head.framing is Framing.UNTIL_CLOSE else head.length
        self._chunks = Chunks() if head.framing is Framing.CHUNKED else None
        self._preloaded: bytes | None = None
        if self.length == 0:
            self._finish(connection)

    async def read(self) -> memoryview:
        """Give the next chunk, valid until the next call; an empty one at the end.

        Raises `Truncated`, `Stalled`, `ConnectionLost` or `BadAnswer`; the connection is then
        dropped.
        """
        connection = self._connection
        if connection is None:
            return self._rest()
        while True:
            left = self._left
            if left:
                arrived = connection.stop - connection.start
                if arrived:
                    size = arrived if arrived < left else left
                    self._left = left - size
                    return connection.take(size)
            elif self._at_end(connection):
                self._finish(connection)
                return _EMPTY
            elif self._left:
                continue
            connection.make_room()
            if connection.ended:
                return self._end_of_stream(connection)
            try:
                await connection.wait(_DATA)
            except BaseException:
                self.close()
                raise

    async def read_all(self, limit: int = 16 * MIB) -> bytes:
        """Give the whole body. Raises `BadAnswer` when it is longer than *limit* bytes."""
        pieces: list[bytes] = []
        size = 0
        while chunk := await self.read():
            size += len(chunk)
            if size > limit:
                self.close()
                raise BadAnswer(f"the answer's body exceeds {limit} bytes")
            pieces.append(bytes(chunk))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Be done with it; the connection is dropped unless all of the body was handed out."""
        connection = self._connection
        if connection is None:
            return
        try:
            complete = self._left == 0 and self._at_end(connection)
        except BadAnswer:
            complete = False
        if complete:
            self._finish(connection)
        elif self._connection is not None:
            self._drop(connection)

    async def preload(self, limit: int) -> None:
        """Take the body in while the request's memory is still safe, then drop the connection.

        A body that breaks off is given up: the status says more than its loss would.
        """
        try:
            body = await self.read_all(limit)
        except S3flowError:
            body = b""
        self.close()
        self._preloaded = body
        self.length = len(body)

    def _rest(self) -> memoryview:
        rest = self._preloaded
        self._preloaded = None
        return memoryview(rest) if rest else _EMPTY

    def _at_end(self, connection: Connection) -> bool:
        """With nothing left of this chunk: say whether the body is complete, or find the next."""
        chunks = self._chunks
        if chunks is None:
            return True
        if not chunks.done:
            try:
                connection.find_framing(chunks.advance)
            except BadAnswer as error:
                self._drop(connection)
                raise BadAnswer(f"{connection.name}: {error}") from None
            self._left = chunks.left
            chunks.left = 0
        return chunks.done

    def _end_of_stream(self, connection: Connection) -> memoryview:
        error = connection.error
        if error is None and self._chunks is None and self._left > _UNKNOWN // 2:
            if not connection.cut:
                self._drop(connection)  # the end of the connection is the end of the body
                return _EMPTY
            why = "TLS was not closed, so anybody may have cut an answer that tells no length"
            error = Truncated(f"{connection.name}: {why}")
        if error is None:
            missing = f"{self._left} bytes" if self.length else "the rest"
            error = Truncated(f"{connection.name}: the answer broke off, {missing} did not arrive")
        self._drop(connection)
        raise error

    def _finish(self, connection: Connection) -> None:
        self._connection = None
        # More than the announced bytes: whatever they are, they are no answer of ours. And where the
        # buffer was full to its last byte, more of them would still be in the socket.
        clean = self._keep and connection.usable and connection.start == connection.stop
        clean = clean and not connection.filled
        self._done(connection, clean)

    def _drop(self, connection: Connection) -> None:
        self._connection = None
        self._done(connection, False)
