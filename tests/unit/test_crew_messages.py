"""What goes over the line between processes comes out as it went in."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hypothesis import given
from hypothesis import strategies as st

from s3flow import events
from s3flow.crew import messages as say
from s3flow.crew.chorus import Chorus
from s3flow.crew.link import Link, Message, frame
from s3flow.model import Change, Listed, Method, Proof, State, Transfer

NUMBERS = st.integers(-(2**63), 2**63 - 1)
TEXTS = st.text(max_size=20)
TRANSFERS = st.builds(
    Transfer,
    id=NUMBERS,
    flow=TEXTS,
    bucket=TEXTS,
    key=st.binary(max_size=30),
    size=NUMBERS,
    etag=TEXTS,
    modified=NUMBERS,
    storage_class=TEXTS,
    state=st.sampled_from(State),
    generation=NUMBERS,
    attempts=NUMBERS,
    upload_id=st.none() | TEXTS,
    part_size=st.none() | NUMBERS,
)
CHANGES = st.builds(
    Change,
    transfer=TRANSFERS,
    state=st.sampled_from(State),
    reason=TEXTS,
    message=TEXTS,
    method=st.just("") | st.sampled_from(Method),
    proof=st.just("") | st.sampled_from(Proof),
    target_etag=TEXTS,
    attempts=NUMBERS,
    retry_at=NUMBERS,
    upload_id=st.none() | TEXTS,
    part_size=st.none() | NUMBERS,
    dropped=st.lists(TEXTS, max_size=3).map(tuple),
    version_id=TEXTS,
    worker=st.none() | NUMBERS,
    version=st.none()
    | st.builds(
        Listed, key=st.binary(), size=NUMBERS, etag=TEXTS, modified=NUMBERS, storage_class=TEXTS
    ),
)
TOLD = st.one_of(
    st.builds(events.ThrottleChanged, TEXTS, NUMBERS, st.booleans()),
    st.builds(events.FlowBlocked, TEXTS, TEXTS, TEXTS, st.floats(allow_nan=False)),
    st.builds(events.FlowUnblocked, TEXTS, TEXTS),
    st.builds(events.UploadAborted, TEXTS, TEXTS),
    st.builds(events.Warned, TEXTS, TEXTS),
)


def heard(*pieces: bytes) -> list[Message]:
    """Give what an end makes of the bytes."""
    found: list[Message] = []

    async def listen() -> None:
        link = Link(found.extend, lambda: None)
        for piece in pieces:
            link.data_received(piece)

    asyncio.run(listen())
    return found


@given(TRANSFERS)
def test_a_transfer_arrives_whole(transfer: Transfer) -> None:
    (message,) = heard(frame([say.pack_transfer(transfer)]))
    there = say.unpack_transfer(message)
    assert there == transfer
    assert type(there.state) is State


@given(CHANGES)
def test_a_change_arrives_whole(change: Change) -> None:
    packed = say.pack_change(change)
    # A field that Change gets some day must not be forgotten on the way.
    assert len(packed) == len(dataclasses.fields(Change))
    ((arrived,),) = heard(frame([(packed,)]))
    assert arrived[0] == change.transfer.id
    there = say.unpack_change(arrived, change.transfer)
    assert there == change
    assert type(there.version) is type(change.version)


@given(TOLD)
def test_an_event_arrives_whole(event: events.Event) -> None:
    packed = say.pack_event(event)
    assert packed is not None
    (message,) = heard(frame([packed]))
    assert say.unpack_event(message) == event
    assert type(say.unpack_event(message)) is type(event)


@given(st.lists(st.lists(st.binary(max_size=40), max_size=3), max_size=5), st.data())
def test_batches_arrive_however_they_are_cut(
    batches: list[list[bytes]], data: st.DataObject
) -> None:
    sent = [[(1, text) for text in batch] for batch in batches]
    stream = b"".join(frame(batch) for batch in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    edges = [0, *cuts, len(stream)]
    pieces = [stream[a:b] for a, b in itertools.pairwise(edges)]
    assert heard(*pieces) == [message for batch in sent for message in batch]


@asynccontextmanager
async def line(linger: float = 0.0) -> AsyncIterator[tuple[Link, list[list[Message]], Link]]:
    """Give an end, the batches that arrive at the other, and the other."""
    batches: list[list[Message]] = []
    ends = socket.socketpair()
    first = Link(lambda _: None, lambda: None, linger=linger)
    second = Link(batches.append, lambda: batches.append([(0, "lost")]))
    loop = asyncio.get_running_loop()
    transports = [
        (await loop.create_unix_connection(lambda link=link: link, sock=end))[0]
        for link, end in zip((first, second), ends, strict=True)
    ]
    try:
        yield first, batches, second
    finally:
        for transport in transports:
            transport.close()
        await asyncio.sleep(0.01)


async def until(happened: object, batches: list[list[Message]]) -> None:
    while happened not in [message for batch in batches for message in batch]:
        await asyncio.sleep(0.001)


async def test_what_is_sent_together_goes_together() -> None:
    async with line() as (first, batches, _):
        for number in range(5):
            first.send((1, number))
        await until((1, 4), batches)
        assert batches == [[(1, number) for number in range(5)]]


async def test_what_lingers_is_hurried() -> None:
    async with line(linger=3600) as (first, batches, _):
        first.send((1, "slow"))
        await asyncio.sleep(0.01)
        assert batches == []
        first.hurry()
        await until((1, "slow"), batches)


async def test_last_words_arrive_before_the_end() -> None:
    async with line(linger=3600) as (first, batches, _):
        first.gather = lambda: [(2, "gathered")]
        first.send((1, "last"))
        first.close()
        await until((0, "lost"), batches)
        assert batches == [[(1, "last"), (2, "gathered")], [(0, "lost")]]


def test_many_processes_speak_with_one_voice() -> None:
    told: list[events.Event] = []
    chorus = Chorus(3, 10, told.append)
    blocked = events.FlowBlocked("docs", "target_full", "no room", 10.0)
    opened = events.FlowUnblocked("docs", "target_full")
    for seat in (0, 1):
        chorus.say(seat, blocked)
    chorus.say(0, opened)
    assert told == [blocked]
    chorus.silence(1)
    assert told == [blocked, opened]
    told.clear()
    chorus.say(2, events.ThrottleChanged("new", 5, throttled=True))
    chorus.say(1, events.ThrottleChanged("new", 2, throttled=True))
    chorus.silence(2)
    chorus.say(0, events.Warned("docs", "look"))
    assert told == [
        events.ThrottleChanged("new", 25, throttled=True),
        events.ThrottleChanged("new", 17, throttled=True),
        events.ThrottleChanged("new", 22, throttled=False),
        events.Warned("docs", "look"),
    ]
