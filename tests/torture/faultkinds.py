"""The kinds of faults that the proxy of the storm knows, by name."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable

from tests.e2e.relaying import Head, Request, send
from tests.torture.faultproxy import Act, Answer, Fault, Spoiled, refusal

WRITES = ("put", "upload_part")
COPIES = ("put_copy", "upload_part_copy")
DELETES = ("delete", "delete_many")
DOCUMENTS = ("list", "list_parts", "list_uploads")
PATIENCE = 60.0  # seconds that a stalled answer lasts at most: the client gives up long before
STORM = (3, 12)  # requests that are refused in a row
AT_ONCE = 4_000  # bytes that no loopback takes apart, nor any buffer: twice as many arrive together
GUST = (1, 3)
UNKNOWN = "http://s3.invalid/elsewhere"  # a name that nobody has
LONG_AGO = "Mon, 02 Nov 2020 10:00:00 GMT"

KINDS: dict[str, Fault] = {}
Applies = Callable[[Request, Head], bool]


def fault(
    name: str,
    applies: Applies,
    *,
    at_most: int | None = None,
    storm: tuple[int, int] | None = None,
) -> Callable[[Act], Act]:
    """Name a fault, and say what requests it may happen to, and how often if it takes long."""

    def put(act: Act) -> Act:
        KINDS[name] = Fault(act, applies, at_most, storm)
        return act

    return put


def of_kind(*kinds: str) -> Applies:
    """Say whether a request is of one of *kinds*."""
    return lambda request, head: request.kind in kinds


def anything(request: Request, head: Head) -> bool:
    """Say yes."""
    return True


def of_objects(request: Request, head: Head) -> bool:
    """Say whether a request is about one object."""
    return bool(request.key)


def but_complete(request: Request, head: Head) -> bool:
    """Say whether it is not what may rightly take ten minutes."""
    return request.kind != "complete"


def with_body(request: Request, head: Head) -> bool:
    """Say whether a request brings enough to be cut."""
    return request.kind in WRITES and (head.length or 0) > 1


def ranged(request: Request, head: Head) -> bool:
    """Say whether it asks for a part of an object."""
    return request.kind == "get" and "range" in head.headers


# --- connections and lengths ---------------------------------------------------------------------


@fault("reset-before", anything)
async def reset_before(it: Spoiled, request: Request, head: Head) -> bool:
    """Break off before the server has heard of it."""
    return it.reset()


@fault("reset-midway", with_body)
async def reset_midway(it: Spoiled, request: Request, head: Head) -> bool:
    """Break off when the server has half of the body."""
    body = await it.take(head)
    send(it.server[1], head.raw + body[: len(body) // 2])
    await it.server[1].drain()
    return it.reset()


async def lose(it: Spoiled, request: Request, head: Head) -> bool:
    """Let the server do it, and lose the answer."""
    await it.ask(request, head)
    return it.reset()


fault("lost-answer", anything)(lose)
fault("lost-complete", of_kind("complete"))(lose)
fault("lost-delete", of_kind(*DELETES))(lose)
fault("lost-create", of_kind("create_upload"))(lose)
fault("lost-write", of_kind(*WRITES, *COPIES))(lose)


@fault("cut", of_kind("get", *DOCUMENTS))
async def cut(it: Spoiled, request: Request, head: Head) -> bool:
    """Promise all of the body and send half of it."""
    answer = await it.ask(request, head)
    half = answer.body[: len(answer.body) // 2]
    return await it.close_after(answer.raw(half))


@fault("cut-without-length", of_kind("get", *DOCUMENTS))
async def cut_without_length(it: Spoiled, request: Request, head: Head) -> bool:
    """Send half of the body as if it were all, ended by the connection's end."""
    answer = await it.ask(request, head)
    half = answer.body[: len(answer.body) // 2]
    raw = answer.raw(half, content_length=None, connection="close")
    return await it.close_after(raw)


@fault("cut-to-length", of_kind("get", *DOCUMENTS))
async def cut_to_length(it: Spoiled, request: Request, head: Head) -> bool:
    """Send half of the body under a length that says so."""
    answer = await it.ask(request, head)
    half = answer.body[: len(answer.body) // 2]
    return it.say(answer.raw(half, content_length=str(len(half))))


@fault("one-byte-a-second", of_kind("get", *DOCUMENTS), at_most=8)
async def one_byte_a_second(it: Spoiled, request: Request, head: Head) -> bool:
    """Send the head, and then the body as slowly as can be."""
    answer = await it.ask(request, head)
    send(it.client[1], answer.raw(b""))
    for offset in range(int(PATIENCE)):
        send(it.client[1], answer.body[offset : offset + 1])
        await asyncio.sleep(1)
    return it.reset()


@fault("silence", but_complete, at_most=4)
async def silence(it: Spoiled, request: Request, head: Head) -> bool:
    """Let the server do it, and say nothing until the client goes."""
    await it.ask(request, head)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE):
            await it.client[0].read(1)
    return it.reset()


@fault("garbage", anything)
async def garbage(it: Spoiled, request: Request, head: Head) -> bool:
    """Answer with what is no HTTP."""
    await it.take(head)
    return await it.close_after(b"\x16\x03\x01\x00\x05 220 ready\r\n\r\n")


@fault("bad-gateway", anything)
async def bad_gateway(it: Spoiled, request: Request, head: Head) -> bool:
    """Answer as a gateway does whose server is gone."""
    await it.take(head)
    page = b"" if request.method == "HEAD" else b"<html><h1>502 Bad Gateway</h1></html>"
    headers = {"content-type": "text/html"}
    return it.say(Answer(502, "Bad Gateway", headers, page).raw())


# --- answers of others ---------------------------------------------------------------------------


@fault("duplicate", anything)
async def duplicate(it: Spoiled, request: Request, head: Head) -> bool:
    """Answer twice."""
    answer = (await it.ask(request, head)).raw()
    it.dirty = len(answer) <= AT_ONCE
    return it.say(answer + answer)


@fault("reordered", anything)
async def reordered(it: Spoiled, request: Request, head: Head) -> bool:
    """Give the answer that the last such request should have had, and keep this one's for the next."""
    answer = (await it.ask(request, head)).raw()
    earlier = it.proxy.last.get(request.kind, answer)
    it.proxy.last[request.kind] = answer
    return it.say(earlier)


# --- S3's own ways to fail -----------------------------------------------------------------------


@fault("error-in-200", of_kind("complete", *COPIES))
async def error_in_200(it: Spoiled, request: Request, head: Head) -> bool:
    """Fail under a 200, and do nothing."""
    await it.take(head)
    return it.say(refusal(request.method, 200, "InternalError"))


@fault("error-in-200-though-done", of_kind("complete", *COPIES))
async def error_in_200_though_done(it: Spoiled, request: Request, head: Head) -> bool:
    """Fail under a 200, and yet do it."""
    await it.ask(request, head)
    return it.say(refusal(request.method, 200, "InternalError"))


def refused(status: int, code: str, **headers: str) -> Act:
    """Answer with an error, and do nothing."""

    async def refuse(it: Spoiled, request: Request, head: Head) -> bool:
        await it.take(head)
        return it.say(refusal(request.method, status, code, **headers))

    return refuse


fault("slow-down", anything, storm=STORM)(refused(503, "SlowDown"))
# These two block a flow, which looks again 10 s later, with one request; a listing that they meet ends.
fault("expired-token", of_objects, storm=GUST, at_most=2)(refused(400, "ExpiredToken"))
fault("wrong-clock", of_objects, storm=GUST, at_most=2)(
    refused(403, "RequestTimeTooSkewed", date=LONG_AGO)
)


@fault("redirect", anything)
async def redirect(it: Spoiled, request: Request, head: Head) -> bool:
    """Send the client elsewhere: to itself, or to a host that is none of ours."""
    await it.take(head)
    status, code = it.rng.choice([(301, "PermanentRedirect"), (307, "TemporaryRedirect")])
    where = it.rng.choice([UNKNOWN, f"{it.proxy.url}/{request.bucket}/{request.key}"])
    where = where.encode("ascii", "replace").decode()
    return it.say(refusal(request.method, status, code, location=where))


# --- other bytes ---------------------------------------------------------------------------------


def flipped(it: Spoiled, body: bytes) -> bytes:
    """Give *body* with one bit of it turned."""
    spoiled = bytearray(body)
    if spoiled:
        spoiled[it.rng.randrange(len(spoiled))] ^= 1 << it.rng.randrange(8)
    return bytes(spoiled)


@fault("bit-read", of_kind("get"))
async def bit_read(it: Spoiled, request: Request, head: Head) -> bool:
    """Turn a bit of what comes from the source."""
    answer = await it.ask(request, head)
    if answer.status >= 300 or not answer.body:
        return it.say(answer.raw())
    return it.say(answer.raw(flipped(it, answer.body)))


@fault("bit-written", with_body)
async def bit_written(it: Spoiled, request: Request, head: Head) -> bool:
    """Turn a bit of what goes to the target."""
    answer = await it.ask(request, head, flipped(it, await it.take(head)))
    return it.say(answer.raw())


# What is asked for is signed, so the answers are made of those to the ranges that were asked for.
@fault("range-ignored", ranged)
async def range_ignored(it: Spoiled, request: Request, head: Head) -> bool:
    """Answer as if with the whole object."""
    answer = await it.ask(request, head)
    total = int(answer.headers.get("content-range", "/0").rpartition("/")[2])
    body = (answer.body * (total // max(1, len(answer.body)) + 1))[:total]
    return it.say(
        Answer(200, "OK", answer.headers, body).raw(content_range=None, content_length=str(total))
    )


@fault("range-off", ranged)
async def range_off(it: Spoiled, request: Request, head: Head) -> bool:
    """Say that the bytes are others than were asked for."""
    answer = await it.ask(request, head)
    said = re.sub(
        r"bytes (\d+)-(\d+)",
        lambda found: f"bytes {int(found[1]) + 1}-{int(found[2]) + 1}",
        answer.headers.get("content-range", ""),
    )
    return it.say(answer.raw(content_range=said))


@fault("range-elsewhere", ranged)
async def range_elsewhere(it: Spoiled, request: Request, head: Head) -> bool:
    """Send the bytes from one further on, and say that they are those that were asked for."""
    answer = await it.ask(request, head)
    return it.say(answer.raw(answer.body[1:] + answer.body[:1]))
