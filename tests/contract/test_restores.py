"""Restores from archive tiers against servers that somebody else wrote, and the queue that tells of them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from s3flow import errors
from s3flow.model import Attributes, Original, RestoreAnswer, RestoreEvent
from s3flow.stores.s3 import S3Settings, S3Store
from s3flow.stores.s3.restore_events import RestoreEvents
from tests import servers
from tests.contract.s3_bench import opened_store
from tests.contract.s3_scripted import BUCKET, Answer, error, scripted
from tests.contract.test_s3_store import Bytes

KEY = "a b+c/ü".encode()
COLD = b"cold bytes"
THAW = 0.7  # seconds


@pytest.fixture(scope="module")
def slow_server() -> Iterator[servers.Server]:
    """Give a ministack whose restores take long enough to be seen under way."""
    with servers.ministack(restore_seconds=THAW) as server:
        yield server


async def frozen(store: S3Store, bucket: str, storage_class: str) -> str:
    attributes = Attributes({}, {}, storage_class, 0)
    return (await store.put_object(bucket, KEY, Bytes(COLD), attributes, md5=None)).etag


async def ask(store: S3Store, bucket: str, tier: str = "Standard") -> RestoreAnswer:
    return await store.restore_object(bucket, KEY, version_id=None, days=1, tier=tier)


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE"])
async def test_a_restore_is_asked_for_goes_on_and_ends(
    slow_server: servers.Server, storage_class: str
) -> None:
    bucket = servers.make_bucket(slow_server)
    async with opened_store(slow_server) as store:
        etag = await frozen(store, bucket, storage_class)
        cold = await store.head_object(bucket, KEY)
        assert cold is not None
        assert (cold.is_frozen, cold.restored, cold.storage_class) == (True, None, storage_class)
        assert await ask(store, bucket) is RestoreAnswer.ACCEPTED
        assert await ask(store, bucket, "Bulk") is RestoreAnswer.IN_PROGRESS
        thawing = await store.head_object(bucket, KEY)
        assert thawing is not None
        assert thawing.restored == (True, 0)
        assert thawing.is_frozen
        with pytest.raises(errors.Archived):
            await store.get_object(bucket, KEY, etag=etag)
        while (info := await store.head_object(bucket, KEY)) is None or info.is_frozen:
            await asyncio.sleep(0.05)
        assert info.restored is not None
        assert info.restored.expiry > time.time() * 1000
        body = await store.get_object(bucket, KEY, etag=etag)
        assert bytes(await body.read()) == COLD
        body.close()
        assert await ask(store, bucket) is RestoreAnswer.RESTORED


async def test_what_is_not_archived_needs_no_restore(slow_server: servers.Server) -> None:
    bucket = servers.make_bucket(slow_server)
    async with opened_store(slow_server) as store:
        await frozen(store, bucket, "STANDARD")
        info = await store.head_object(bucket, KEY)
        assert info is not None
        assert not info.is_frozen
        assert await ask(store, bucket) is RestoreAnswer.RESTORED
        with pytest.raises(errors.SourceGone):
            await store.restore_object(bucket, b"none", version_id=None, days=1, tier="Standard")


async def test_moto_restores_as_well(moto_server: servers.Server) -> None:
    bucket = servers.make_bucket(moto_server)
    async with opened_store(moto_server) as store:
        etag = await frozen(store, bucket, "GLACIER")
        assert await ask(store, bucket) is RestoreAnswer.ACCEPTED
        info = await store.head_object(bucket, KEY)
        assert info is not None
        assert info.restored is not None
        assert not info.is_frozen
        body = await store.get_object(bucket, KEY, etag=etag)
        assert bytes(await body.read()) == COLD
        body.close()


async def test_a_copy_of_what_is_archived_says_so(moto_server: servers.Server) -> None:
    bucket = servers.make_bucket(moto_server)
    async with opened_store(moto_server) as store:
        etag = await frozen(store, bucket, "GLACIER")
        original = Original(bucket, KEY, etag, len(COLD))
        with pytest.raises(errors.Archived):
            await store.copy_object(original, bucket, b"to", storage_class="", with_tags=False)


SPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


@pytest.mark.parametrize(
    ("days", "version_id", "query", "body"),
    [
        (7, None, {"restore": ""}, "<Days>7</Days>"),
        (None, None, {"restore": ""}, ""),  # of Intelligent-Tiering, which refuses days
        (1, "a+b", {"restore": "", "versionId": "a+b"}, "<Days>1</Days>"),
    ],
)
async def test_what_is_asked_for(
    days: int | None, version_id: str | None, query: dict[str, str], body: str
) -> None:
    async with scripted(lambda request: Answer(202)) as server:
        answer = await server.store().restore_object(
            BUCKET, KEY, version_id=version_id, days=days, tier="Bulk"
        )
        assert answer is RestoreAnswer.ACCEPTED
        [request] = server.requests
        assert (request.method, request.key, request.query) == ("POST", KEY, query)
        tier = "<GlacierJobParameters><Tier>Bulk</Tier></GlacierJobParameters>"
        assert request.body.decode() == f"<RestoreRequest {SPACE}>{body}{tier}</RestoreRequest>"


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (error(503, "GlacierExpeditedRetrievalNotAvailable"), errors.ExpeditedUnavailable),
        (error(503, "SlowDown"), errors.Throttled),
        (error(403, "AccessDenied"), errors.AccessDenied),
        (error(404, "NoSuchKey"), errors.SourceGone),
        (error(400, "MalformedXML"), errors.Refused),
    ],
)
async def test_what_is_refused_is_refused_by_name(answer: Answer, kind: type[Exception]) -> None:
    async with scripted(lambda request: answer) as server:
        with pytest.raises(kind, match="RestoreObject"):
            await ask(server.store(), BUCKET)


async def test_the_permission_that_is_missing_is_named() -> None:
    async with scripted(lambda request: error(403, "AccessDenied")) as server:
        with pytest.raises(errors.AccessDenied, match="s3:RestoreObject"):
            await ask(server.store(), BUCKET)


async def test_a_queue_tells_of_a_restore_and_what_is_taken_out_is_gone(
    slow_server: servers.Server,
) -> None:
    server = slow_server
    bucket = servers.make_bucket(server)
    with closing(server.client(service="sqs")) as sqs, closing(server.client()) as s3:
        url = sqs.create_queue(QueueName=f"q-{bucket}")["QueueUrl"]
        described = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        rule = {
            "QueueArn": described["Attributes"]["QueueArn"],
            "Events": ["s3:ObjectRestore:Completed"],
        }
        s3.put_bucket_notification_configuration(
            Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [rule]}
        )
        sqs.send_message(QueueUrl=url, MessageBody=json.dumps({"another": "program's"}))
        settings = S3Settings(
            name="src",
            url=server.url,
            region=server.region,
            access_key_id=server.access_key,
            secret_access_key=server.secret_key,
        )
        where = f"{server.url}/{url.split('/', 3)[3]}"
        told = RestoreEvents(settings, where)
        async with opened_store(server) as store:
            await frozen(store, bucket, "GLACIER")
            await ask(store, bucket)
            news = []
            while not any(each.events and each.events[0].is_complete for each in news):
                news += await told.receive()
            expected = RestoreEvent(bucket, KEY, is_complete=True)
            assert expected in [event for each in news for event in each.events]
            await told.remove(news)
            await told.close()
        left = sqs.get_queue_attributes(
            QueueUrl=url,
            AttributeNames=["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"],
        )["Attributes"]
        assert sum(int(number) for number in left.values()) == 1  # the one that is not for us


async def test_a_queue_that_is_not_there_is_an_error_with_its_name(
    slow_server: servers.Server,
) -> None:
    settings = S3Settings(
        name="src",
        url=slow_server.url,
        access_key_id=slow_server.access_key,
        secret_access_key="a-secret-of-ours",
    )
    url = f"{slow_server.url}/111111111111/no-such-queue"
    told = RestoreEvents(settings, url)
    with pytest.raises(errors.ConnectionLost, match="no-such-queue") as caught:
        await told.receive()
    assert "a-secret-of-ours" not in str(caught.value)
    await told.close()
