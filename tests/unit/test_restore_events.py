"""What queues tell of restores, in the three forms that it comes in; and who takes it out of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from s3flow.errors import ConnectionLost
from s3flow.events import Warned
from s3flow.model import Outcome, RestoreEvent, RestoreNews
from s3flow.stores.s3.restore_events import parse
from tests.unit.lab import Lab


def record(
    key: str, event: str = "ObjectRestore:Completed", bucket: str = "from"
) -> dict[str, object]:
    return {
        "eventSource": "aws:s3",
        "eventName": event,
        "s3": {"bucket": {"name": bucket}, "object": {"key": key, "size": 1}},
    }


def test_s3s_own_messages_quote_keys_as_forms_do() -> None:
    body = json.dumps({"Records": [record("a+b%2Fc%C3%BC"), record("d", "ObjectRestore:Post")]})
    assert parse(body) == [
        RestoreEvent("from", "a b/cü".encode(), is_complete=True),
        RestoreEvent("from", b"d", is_complete=False),
    ]


def test_what_sns_passes_on_is_the_same() -> None:
    inner = json.dumps({"Records": [record("k", "s3:ObjectRestore:Completed")]})
    body = json.dumps({"Type": "Notification", "Message": inner})
    assert parse(body) == [RestoreEvent("from", b"k", is_complete=True)]


@pytest.mark.parametrize(
    ("kind", "is_complete"),
    [("Object Restore Completed", True), ("Object Restore Initiated", False)],
)
def test_eventbridge_gives_keys_as_they_are(kind: str, is_complete: bool) -> None:
    detail = {"bucket": {"name": "from"}, "object": {"key": "a+b%2F"}}
    body = json.dumps({"source": "aws.s3", "detail-type": kind, "detail": detail})
    assert parse(body) == [RestoreEvent("from", b"a+b%2F", is_complete)]


def test_a_test_message_is_about_nothing() -> None:
    assert parse(json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"})) == []


@pytest.mark.parametrize(
    "body",
    [
        *("", "no json", "[]", "3", "{}", '{"Records": 1}', '{"Records": [1]}', '{"Message": "x"}'),
        '{"Records": [{"s3": {"bucket": {"name": "b"}}}]}',
        '{"source":"aws.s3","detail-type":"x"}',
    ],
)
def test_what_is_no_word_of_s3_is_none(body: str) -> None:
    assert parse(body) is None


class Queue:
    """A queue that has *news* whenever its *ready* says so."""

    def __init__(self) -> None:
        self.news: list[RestoreNews] = []
        self.removed: list[str] = []
        self.failures = 0
        self.closed = False

    async def receive(self) -> list[RestoreNews]:
        await asyncio.sleep(0.01)
        if self.failures:
            self.failures -= 1
            raise ConnectionLost("no queue there")
        return self.news

    async def remove(self, news: Sequence[RestoreNews]) -> None:
        self.removed += [each.receipt for each in news]
        self.news = [each for each in self.news if each not in news]

    async def close(self) -> None:
        self.closed = True


def news(receipt: str, *events: tuple[str, bytes]) -> RestoreNews:
    return RestoreNews(tuple(RestoreEvent(*each, is_complete=True) for each in events), receipt)


async def test_a_restore_that_is_told_of_is_looked_at_at_once(tmp_path: Path) -> None:
    lab, queue = Lab(tmp_path), Queue()
    lab.queue = queue
    lab.src.restore_seconds = 0.05  # and the first look by time would come after hours
    lab.put(b"key", 10, storage_class="GLACIER")
    queue.news = [news("ours", ("from", b"key")), news("theirs", ("elsewhere", b"key"))]
    queue.news += [news("mixed", ("from", b"key"), ("elsewhere", b"key")), news("test")]

    async def tell() -> None:
        while lab.copy_of(b"key") is None:
            await asyncio.sleep(0.02)
            if lab.src.asked:  # told again and again: the first time it is not ready
                queue.news.append(news("again", ("from", b"key")))

    async with asyncio.TaskGroup() as group:
        group.create_task(tell())
        assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert {"ours", "test", "again"} == set(queue.removed)
    assert queue.closed


async def test_a_queue_that_cannot_be_asked_is_no_more_than_a_warning(tmp_path: Path) -> None:
    lab, queue = Lab(tmp_path), Queue()
    lab.queue = queue
    queue.failures = 1
    lab.change(restore_poll=0.05)
    lab.put(b"key", 10, storage_class="GLACIER")
    assert await lab.sync() == {Outcome.VERIFIED: 1}
    assert [it.message for it in lab.of(Warned) if "queue" in it.message] == [
        "the queue of restores is asked again later: no queue there"
    ]
