"""S3 requests over the wire: addressed, signed, sent to the right region, failures named."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from s3flow import errors
from s3flow.model import MIB
from s3flow.ports import Body, Clock
from s3flow.secrecy import Secrets
from s3flow.stores.s3.address import AddressBook, checked_region, region_of_endpoint
from s3flow.stores.s3.credentials import Keyring
from s3flow.stores.s3.settings import S3Settings
from s3flow.stores.s3.translate import CODES, EXPIRED, REQUEST_ID, UNKNOWN_KEYS, Failure, translate
from s3flow.wire import Origin, Pool, Response, Timeouts, proxy_for
from s3flow.wire.sigv4 import Credentials, Signer, quote_key
from s3flow.wire.xml import parse_error

ERROR_LIMIT = MIB
MESSAGE_LIMIT = 1000  # characters of a server's words that are looked at
_MISPLACED = frozenset(
    ("AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "PermanentRedirect")
)
_LOCATION = re.compile(rb"<LocationConstraint[^<>]*>([^<]*)</")
_OLD_NAMES = {"": "us-east-1", "EU": "eu-west-1"}  # what GetBucketLocation says of old buckets


class Call(NamedTuple):
    """One request before it is addressed and signed. *query* is canonical, *headers* lower-case.

    *key* is None for requests about the bucket, and *bucket* "" for those about the account.
    """

    operation: str
    method: str
    bucket: str
    key: bytes | None
    query: str
    headers: Mapping[str, str]


class _Spot(NamedTuple):
    """Where a bucket's requests go, ready to be used. *path* ends in "/", *bare* is the bucket's."""

    pool: Pool
    streaming: Pool
    signer: Signer
    host: str
    path: str
    bare: str
    region: str


class Rest:
    """Sends requests to one endpoint and gives answers that are successes, or raises."""

    def __init__(
        self, settings: S3Settings, keyring: Keyring, environ: Mapping[str, str], clock: Clock
    ) -> None:
        self._settings = settings
        self._keyring = keyring
        self._environ = environ
        self._clock = clock
        self._book = AddressBook(settings)
        self._regions: dict[str, str] = {}  # of buckets that are not where the settings say
        self._spots: dict[str, _Spot] = {}
        # Two for each origin: streamed bodies have their own. Whoever streams holds a connection
        # to the source already, and if that is the same host, all could wait for each other.
        self._pools: dict[tuple[Origin, bool], Pool] = {}
        self._signers: dict[str, Signer] = {}
        owner = settings.expected_bucket_owner
        self._extra = {"x-amz-expected-bucket-owner": owner} if owner else {}
        if settings.requester_pays:
            self._extra["x-amz-request-payer"] = "requester"

    async def close(self) -> None:
        """Close all connections."""
        pools, self._pools = self._pools, {}
        self._spots.clear()
        for pool in pools.values():
            await pool.close()

    async def send(
        self, call: Call, body: bytes | Body = b"", *, patience: float | None = None
    ) -> Response:
        """Send *call*; the answer is 2xx and its body is unread.

        *patience* (seconds) is for answers that take long on purpose.

        A redirect to another region and expired credentials are each repaired and the request is
        sent again, if its body can be.
        """
        attempts_left = 3  # as asked, after a redirect, after a renewal of the credentials
        while True:
            credentials = self._keyring.ready() or await self._keyring.get()
            spot = self._spots.get(call.bucket) or self._find_spot(call.bucket)
            target, headers = self._signed(call, spot, credentials)
            pool = spot.pool if isinstance(body, bytes) else spot.streaming
            response = await pool.request(
                call.method, target, headers, body, timeout_answer=patience
            )
            if response.status < 300:
                return response
            attempts_left -= 1
            failure = await self._failure(call, response)
            if not attempts_left or not await self._repair(call, failure, credentials, spot.region):
                raise self.error(call.bucket, failure)
            if not isinstance(body, bytes):
                raise errors.Transient(
                    f"{failure.operation} {failure.where}: {failure.status} {failure.code}; "
                    "the next try goes to the right region with fresh credentials"
                )

    def _signed(
        self, call: Call, spot: _Spot, credentials: Credentials
    ) -> tuple[str, dict[str, str]]:
        path = spot.bare if call.key is None else spot.path + quote_key(call.key)
        headers = {"host": spot.host, **call.headers, **self._extra}
        spot.signer.sign(credentials, call.method, path, call.query, headers, now=self._clock())
        return (f"{path}?{call.query}" if call.query else path), headers

    def where(self, bucket: str, key: bytes | None) -> str:
        """Name a key for people."""
        name = "" if key is None else "/" + key.decode(errors="backslashreplace")
        if not name.isprintable():  # one message stays one line of a log
            name = name.encode("unicode_escape").decode()
        return f"{self._settings.name}:{bucket}{name}"

    # --- failures ------------------------------------------------------------------------------

    def error(self, bucket: str, failure: Failure) -> errors.S3flowError:
        """Name *failure*, and forget where the bucket was if that was the trouble."""
        if failure.code == "NoSuchBucket" or _is_misplaced(failure):
            self._move(bucket, None)
        error = translate(failure, self._clock())
        if isinstance(error, errors.ExpiredCredentials) and not self._keyring.is_renewable:
            # Every object would fail now, and none of them is at fault.
            return errors.CredentialsMissing(
                f"{error}; endpoints.{self._settings.name} has temporary keys that nothing renews: "
                "start again with fresh ones, or use a profile or role_arn"
            )
        if isinstance(error, errors.Throttled):
            error.endpoint = self._settings.name
        return error

    def describe(self, call: Call, response: Response, body: bytes) -> Failure:
        """Put in words what *response* said with *body*, without secrets."""
        try:
            found = parse_error(body) if body else None
        except errors.BadAnswer:  # a proxy's page, for instance: the status has to do
            found = None
        # Of either end: a copy names its source's key as well.
        seals = [value for name, value in call.headers.items() if name.endswith("-customer-key")]

        def hide(text: str) -> str:
            text = self.hidden(text)
            return Secrets(seals).without(text) if seals else text

        headers = response.headers
        if REQUEST_ID in headers:
            headers = {**headers, REQUEST_ID: hide(headers[REQUEST_ID])}
        where = self.where(call.bucket, call.key)
        code, message, fields = found or ("", "", {})
        if code not in CODES:  # else it means something, whatever letters a key has
            code = hide(code)
        return Failure(call.operation, where, response.status, code, hide(message), headers, fields)

    def hidden(self, text: str) -> str:
        """Give the first of a server's words without the secrets that they may repeat."""
        return self._keyring.redact(text[:MESSAGE_LIMIT])

    async def _failure(self, call: Call, response: Response) -> Failure:
        if call.method != "HEAD":
            body = await response.read_all(ERROR_LIMIT)
            return self.describe(call, response, body)
        response.close()
        failure = self.describe(call, response, b"")
        # Answers to HEAD have no body: a GET about the bucket says what the matter is (B-46).
        if call.bucket and failure.status in (301, 307, 400, 403):
            return await self._explain(call, failure)
        return failure

    async def _explain(self, call: Call, bare: Failure) -> Failure:
        """Ask for the bucket's location: the answer, good or bad, says what *bare* could not."""
        question = Call("GetBucketLocation", "GET", call.bucket, None, "location=", {})
        credentials = self._keyring.ready() or await self._keyring.get()
        spot = self._spots.get(question.bucket) or self._find_spot(question.bucket)
        target, headers = self._signed(question, spot, credentials)
        response = await spot.pool.request(question.method, target, headers)
        body = await response.read_all(ERROR_LIMIT)
        if response.status < 300:
            found = _LOCATION.search(body)
            name = found[1].decode("latin-1").strip() if found else ""
            fields = {"Region": _OLD_NAMES.get(name, name)}
            return bare if bare.status == 403 else bare._replace(fields=fields)
        reason = self.describe(question, response, body)
        # Whoever may read an object need not be allowed to ask where its bucket is.
        if reason.code == "AccessDenied" or (bare.status == 403) != (reason.status == 403):
            return bare._replace(headers={**reason.headers, **bare.headers})
        return reason._replace(operation=call.operation, where=bare.where)

    async def _repair(
        self, call: Call, failure: Failure, credentials: Credentials, asked: str
    ) -> bool:
        """Do what makes the same request, *asked* in a region, worth sending again; False if nothing does."""
        if failure.code in EXPIRED or failure.code in UNKNOWN_KEYS:
            return self._keyring.drop(credentials)
        if not _is_misplaced(failure):
            return False
        region = _named_region(failure)
        if region is None and failure.fields.get("Region") is None and call.method != "HEAD":
            region = _named_region(await self._explain(call, failure))
        # Others that were under way at the same time may have found the region already.
        if region is None or region == asked:
            return False
        self._move(call.bucket, region)
        return True

    # --- places --------------------------------------------------------------------------------

    def region(self, bucket: str) -> str:
        """Say where requests for *bucket* go."""
        return self._regions.get(bucket, self._settings.region)

    def place(self, bucket: str, region: str) -> None:
        """Note where a bucket is, unless its own answers have told: that saves a redirect."""
        if bucket not in self._regions and region != self._settings.region:
            self._move(bucket, checked_region(region))

    def _move(self, bucket: str, region: str | None) -> None:
        self._spots.pop(bucket, None)
        if region is None:
            self._regions.pop(bucket, None)
        else:
            self._regions[bucket] = region

    def _find_spot(self, bucket: str) -> _Spot:
        region = self.region(bucket)
        address = self._book.find(bucket, region)
        signer = self._signers.get(region)
        if signer is None:
            signer = self._signers[region] = Signer(region)
        spot = _Spot(
            self._pool(address.origin, is_streaming=False),
            self._pool(address.origin, is_streaming=True),
            signer,
            address.origin.authority,
            address.path,
            address.bare,
            region,
        )
        self._spots[bucket] = spot
        return spot

    def _pool(self, origin: Origin, *, is_streaming: bool) -> Pool:
        pool = self._pools.get((origin, is_streaming))
        if pool is None:
            settings = self._settings
            pool = self._pools[origin, is_streaming] = Pool(
                origin,
                ssl_context=self._tls() if origin.scheme == "https" else None,
                proxy=proxy_for(origin, self._environ),
                limit=settings.concurrency,
                timeouts=Timeouts(
                    settings.connect_timeout, settings.progress_timeout, settings.answer_timeout
                ),
            )
        return pool

    def _tls(self) -> ssl.SSLContext:
        settings = self._settings
        try:
            return _context(settings.ca_file, settings.verify_tls)
        except OSError as error:
            raise errors.ConfigError(
                f"endpoints.{settings.name}.ca_file {settings.ca_file} cannot be used: {error}"
            ) from error


def _is_misplaced(failure: Failure) -> bool:
    """Say whether the request went to the wrong region, by what the answer lets one know."""
    if failure.status in (301, 307):
        return True
    return failure.status == 400 and (
        failure.code in _MISPLACED or (failure.operation == "HeadObject" and not failure.code)
    )


def _named_region(failure: Failure) -> str | None:
    # A Location header is not followed: signed requests go to hosts that are built here only.
    text = failure.headers.get("x-amz-bucket-region") or failure.fields.get("Region")
    if text:
        return checked_region(text)
    return region_of_endpoint(failure.fields.get("Endpoint", ""))


@cache
def _context(ca_file: Path | None, verify: bool) -> ssl.SSLContext:
    """Say whom to trust; once for all endpoints, for reading the system's authorities takes 18 ms."""
    context = ssl.create_default_context(cafile=ca_file)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
