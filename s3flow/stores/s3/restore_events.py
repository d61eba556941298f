"""What an SQS queue tells of completed restores. aiobotocore is imported where a flow names a queue."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes, urlsplit

from s3flow.errors import BadAnswer, ConnectionLost, S3flowError
from s3flow.model import RestoreEvent, RestoreNews
from s3flow.ports import Clock
from s3flow.stores.s3.credentials import Keyring, new_session
from s3flow.stores.s3.settings import S3Settings

if TYPE_CHECKING:
    from aiobotocore.session import AioSession

WAIT = 20  # seconds that SQS lets a question wait for messages, at most
BATCH = 10  # messages, likewise
_REGION = re.compile(
    r"sqs[.-]([a-z0-9-]+)\.amazonaws\.com(?:\.cn)?|([a-z0-9-]+)\.queue\.amazonaws\.com"
)


class RestoreEvents:
    """Asks one queue, with the credentials of the source."""

    def __init__(
        self,
        settings: S3Settings,
        url: str,
        environ: Mapping[str, str] = os.environ,
        clock: Clock = time.time,
    ) -> None:
        self._settings = settings
        self._url = url
        self._keyring = Keyring(settings, environ, clock)
        self._stack = AsyncExitStack()
        self._client: Any = None

    async def receive(self) -> list[RestoreNews]:
        """Wait for messages; those that are no word of S3 stay in the queue, and are not given."""
        found = await self._call(
            "receive_message",
            WaitTimeSeconds=WAIT,
            MaxNumberOfMessages=BATCH,
        )
        news = []
        for message in found.get("Messages", ()):
            events = parse(message.get("Body", ""))
            if events is not None:
                news.append(RestoreNews(tuple(events), message["ReceiptHandle"]))
        return news

    async def remove(self, news: Sequence[RestoreNews]) -> None:
        """Take messages out of the queue."""
        entries = [{"Id": str(n), "ReceiptHandle": each.receipt} for n, each in enumerate(news)]
        if entries:
            await self._call("delete_message_batch", Entries=entries)

    async def close(self) -> None:
        """Close the connection."""
        self._client = None
        await self._stack.aclose()

    async def _call(self, operation: str, **arguments: object) -> Mapping[str, Any]:
        try:
            async with asyncio.timeout(WAIT + self._settings.answer_timeout):
                if self._client is None:
                    self._client = await self._open()
                answer: Mapping[str, Any] = await getattr(self._client, operation)(
                    QueueUrl=self._url, **arguments
                )
        except S3flowError:
            raise
        except Exception as error:
            await self.close()  # the next call comes with fresh credentials
            said = self._keyring.redact(f"{type(error).__name__}: {error}")
            raise ConnectionLost(f"restore_queue {self._url}: {operation}: {said}") from error
        return answer

    async def _open(self) -> object:
        credentials = await self._keyring.get()
        parts, settings = urlsplit(self._url), self._settings
        region = _REGION.fullmatch(parts.hostname or "")
        session = await asyncio.to_thread(_prepared, settings)
        client = session.create_client(
            "sqs",
            region_name=(region[1] or region[2]) if region else settings.region,
            endpoint_url=f"{parts.scheme}://{parts.netloc}",
            aws_access_key_id=credentials.access_key,
            aws_secret_access_key=credentials.secret_key,
            aws_session_token=credentials.token or None,
            verify=str(settings.ca_file) if settings.ca_file else settings.verify_tls,
        )
        return await self._stack.enter_async_context(client)


def _prepared(settings: S3Settings) -> AioSession:
    """Make a session that has read what it needs of SQS: that takes longer than the loop may be held."""
    session = new_session(settings)
    loader = session.get_component("data_loader")
    for kind in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model("sqs", kind)
    return session


# --- messages --------------------------------------------------------------------------------


def parse(body: str) -> list[RestoreEvent] | None:
    """Read a message: S3's own, one that SNS passed on, or EventBridge's; None for any other."""
    try:
        message = json.loads(body)
        if isinstance(message, dict) and isinstance(message.get("Message"), str):  # SNS
            message = json.loads(message["Message"])
        return _events(message)
    except (ValueError, BadAnswer):
        return None


def _events(message: object) -> list[RestoreEvent] | None:
    if not isinstance(message, dict):
        return None
    if message.get("Event") == "s3:TestEvent":  # what S3 sends when notifications are set up
        return []
    if message.get("source") == "aws.s3" and "detail-type" in message:
        is_complete = message["detail-type"] == "Object Restore Completed"
        return [_event(message.get("detail"), is_complete=is_complete, quoted=False)]
    if not isinstance(message.get("Records"), list):
        return None
    return list(_records(message["Records"]))


def _records(records: Sequence[object]) -> Iterator[RestoreEvent]:
    for record in records:
        if not isinstance(record, dict):
            raise BadAnswer("a record is no object")
        name = str(record.get("eventName", "")).removeprefix("s3:")
        is_complete = name == "ObjectRestore:Completed"
        yield _event(record.get("s3"), is_complete=is_complete, quoted=True)


def _event(about: object, *, is_complete: bool, quoted: bool) -> RestoreEvent:
    try:
        bucket, key = about["bucket"]["name"], about["object"]["key"]  # type: ignore[index]
        # Notifications quote keys as forms do; EventBridge gives them as they are.
        name = unquote_to_bytes(key.replace("+", " ")) if quoted else key.encode()
        return RestoreEvent(str(bucket), name, is_complete)
    except (TypeError, KeyError, AttributeError) as error:
        raise BadAnswer(f"a message names no object: {error}") from error
