"""The way to aiobotocore: loaded on first need, with this endpoint's keys and error names."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from s3flow import errors
from s3flow.stores.s3.answers import readable
from s3flow.stores.s3.credentials import Keyring, new_session
from s3flow.stores.s3.rest import Rest
from s3flow.stores.s3.settings import S3Settings
from s3flow.stores.s3.translate import Failure

if TYPE_CHECKING:
    from aiobotocore.client import AioBaseClient
    from aiobotocore.session import AioSession

Answer = Mapping[str, Any]  # botocore's shapes are not typed

ANSWER_SECONDS = 60.0
COMPLETE_SECONDS = 600.0  # Complete may work for minutes, and sends blanks meanwhile
POOL_SIZE = 32


class Client:
    """Calls S3 through aiobotocore; a client per region, opened when it is first called."""

    def __init__(self, settings: S3Settings, keyring: Keyring, rest: Rest) -> None:
        self._settings = settings
        self._keyring = keyring
        self._rest = rest
        self._clients: dict[str, AioBaseClient] = {}
        self._opening = asyncio.Lock()
        self._stack = AsyncExitStack()

    async def close(self) -> None:
        """Close all connections."""
        self._clients.clear()
        await self._stack.aclose()

    async def call(self, verb: str, bucket: str, key: bytes | None, **params: object) -> Answer:
        """Call S3's *verb*; raises s3flow's errors. Expired credentials are renewed once."""
        if bucket:
            params["Bucket"] = bucket
            if self._settings.expected_bucket_owner:
                params["ExpectedBucketOwner"] = self._settings.expected_bucket_owner
        if key is not None:
            params["Key"] = self.text(bucket, key)
        held = self._keyring.ready() or await self._keyring.get()
        try:
            return await self._call_once(verb, bucket, key, params)
        except errors.ExpiredCredentials:
            if not self._keyring.drop(held):
                raise
        return await self._call_once(verb, bucket, key, params)

    def text(self, bucket: str, key: bytes) -> str:
        """Give *key* as botocore wants it."""
        try:
            return key.decode()
        except UnicodeDecodeError:
            raise errors.NameRefused(
                f"{self._rest.where(bucket, key)}: S3 keys are UTF-8, and this one is not"
            ) from None

    async def _call_once(
        self, verb: str, bucket: str, key: bytes | None, params: Mapping[str, object]
    ) -> Answer:
        seconds = COMPLETE_SECONDS if verb == "CompleteMultipartUpload" else ANSWER_SECONDS
        try:
            client = await self._client(self._rest.region(bucket))
            async with asyncio.timeout(seconds):
                answer: Answer = await getattr(client, _METHODS[verb])(**params)
        except Exception as error:
            raise self._translated(error, verb, bucket, key) from error
        return answer

    # --- errors --------------------------------------------------------------------------------

    def _translated(
        self, error: Exception, verb: str, bucket: str, key: bytes | None
    ) -> errors.S3flowError:
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
        from botocore.exceptions import ConnectionError as Unreachable
        from botocore.parsers import ResponseParserError

        if isinstance(error, errors.S3flowError):
            return error
        where = f"{verb} {self._rest.where(bucket, key)}"
        if isinstance(error, ClientError):
            return self._rest.error(bucket, self._failure(error.response, verb, bucket, key))
        cause = self._keyring.redact(f"{type(error).__name__}: {error}")
        if isinstance(error, ResponseParserError):
            return errors.BadAnswer(f"{where}: {cause}")
        if any(isinstance(each, ssl.SSLCertVerificationError) for each in _causes(error)):
            return errors.Refused(
                f"{where}: the server's certificate is not trusted; check "
                f"endpoints.{self._settings.name}.ca_file ({cause})"
            )
        if isinstance(error, BotoCoreError) and not isinstance(
            error, HTTPClientError | Unreachable
        ):
            return errors.Refused(f"{where}: {cause}")
        return errors.ConnectionLost(f"{where}: {cause}")

    def _failure(self, answer: Answer, verb: str, bucket: str, key: bytes | None) -> Failure:
        said, meta = answer.get("Error", {}), answer.get("ResponseMetadata", {})
        code = str(said.get("Code", ""))
        return Failure(
            verb,
            self._rest.where(bucket, key),
            meta.get("HTTPStatusCode", 0),
            "" if code.isdigit() else code,  # botocore puts the status where no code came
            self._keyring.redact(str(said.get("Message", ""))),
            meta.get("HTTPHeaders", {}),
            said,
        )

    # --- clients -------------------------------------------------------------------------------

    async def _client(self, region: str) -> AioBaseClient:
        client = self._clients.get(region)
        if client is None:
            async with self._opening:
                client = self._clients.get(region)
                if client is None:
                    client = self._clients[region] = await self._open(region)
        return client

    async def _open(self, region: str) -> AioBaseClient:
        settings = self._settings
        # Importing it takes 0.2 s: in a thread, so that transfers go on meanwhile.
        session = await asyncio.to_thread(new_session, settings)
        _use_keyring(session, self._keyring)
        trusted = str(settings.ca_file) if settings.ca_file else None
        client = await self._stack.enter_async_context(
            session.create_client(
                "s3",
                region_name=region,
                endpoint_url=settings.url,
                verify=trusted if settings.verify_tls else False,
                config=_config(settings),
            )
        )
        for verb in ("CompleteMultipartUpload", "ListParts"):
            # The asterisk makes it run before botocore's own for s3, which take the unreadable for
            # an error of the server.
            client.meta.events.register_first(f"before-parse.*.{verb}", _make_readable)
        return client


_METHODS = {
    "AbortMultipartUpload": "abort_multipart_upload",
    "CompleteMultipartUpload": "complete_multipart_upload",
    "GetObjectTagging": "get_object_tagging",
    "ListBuckets": "list_buckets",
    "ListMultipartUploads": "list_multipart_uploads",
    "ListParts": "list_parts",
}


def _config(settings: S3Settings) -> object:
    from aiobotocore.config import AioConfig

    return AioConfig(
        connect_timeout=settings.connect_timeout,
        read_timeout=COMPLETE_SECONDS,  # shorter ones are kept by `call`
        max_pool_connections=POOL_SIZE,
        retries={"total_max_attempts": 1},  # the engine retries, and counts
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        ignore_configured_endpoint_urls=True,  # the wire would not follow AWS_ENDPOINT_URL
        s3={"addressing_style": "path" if _is_path_style(settings) else settings.addressing},
    )


def _is_path_style(settings: S3Settings) -> bool:
    return settings.addressing == "path" or (
        settings.addressing == "auto" and settings.url is not None
    )


def _use_keyring(session: AioSession, keyring: Keyring) -> None:
    """Let *session* sign with what the wire signs with, so that a renewal serves both."""
    from aiobotocore.credentials import AioCredentials
    from botocore.credentials import ReadOnlyCredentials

    class KeyringCredentials(AioCredentials):  # type: ignore[misc]  # botocore is untyped
        async def get_frozen_credentials(self) -> ReadOnlyCredentials:
            held = keyring.ready() or await keyring.get()
            return ReadOnlyCredentials(held.access_key, held.secret_key, held.token or None)

    session.set_credentials("unused", "unused")
    session._credentials = KeyringCredentials("unused", "unused")  # noqa: SLF001 - no other way in


def _make_readable(response_dict: dict[str, Any], **_: object) -> None:
    body = response_dict.get("body")
    if body:
        response_dict["body"] = readable(body)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Go from an error to what it wraps: botocore keeps the original in its own way."""
    while error is not None:
        yield error
        inner = getattr(error, "kwargs", {}).get("error")
        wrapped = inner if isinstance(inner, BaseException) else None
        error = wrapped or error.__cause__ or error.__context__
