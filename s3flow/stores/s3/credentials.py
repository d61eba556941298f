"""Where an endpoint's keys come from: the settings, the environment, or botocore's chain."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from s3flow.errors import BadAnswer, ConnectionLost, CredentialsMissing, S3flowError
from s3flow.ports import Clock
from s3flow.secrecy import Secrets
from s3flow.stores.s3.settings import S3Settings
from s3flow.wire.sigv4 import Credentials

if TYPE_CHECKING:
    from aiobotocore.session import AioSession

# botocore refreshes 15 minutes before expiry; asking more often would only cost time.
RECHECK_SECONDS = 30.0
WORN = 4  # of the credentials that were given out, so many are hidden in what servers say


class Frozen(Protocol):
    """A consistent set of keys, as botocore gives them."""

    access_key: str
    secret_key: str
    token: str | None


class Chain(Protocol):
    """Credentials that botocore found, and refreshes when asked."""

    async def get_frozen_credentials(self) -> Frozen: ...


class Keyring:
    """Holds the credentials of one endpoint and renews them; concurrent renewals share one.

    Keys that the settings or the environment name need no botocore.
    """

    def __init__(self, settings: S3Settings, environ: Mapping[str, str], clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._plain = _plain(settings, environ)
        self._credentials = None if settings.role_arn else self._plain
        self._fresh_until = float("inf") if self._credentials else 0.0
        self._chain: Chain | None = None
        self._given: deque[Credentials] = deque(maxlen=WORN)
        self._hidden: Secrets | None = None
        self._lock = asyncio.Lock()
        self._failures = 0
        self._failure: S3flowError | None = None  # the last one

    @property
    def is_renewable(self) -> bool:
        """Say whether other credentials may be had when these are refused."""
        return self._plain is None or self._settings.role_arn is not None

    def ready(self) -> Credentials | None:
        """Give credentials that need no look-up now, without an await: once per request."""
        return self._credentials if self._clock() < self._fresh_until else None

    async def get(self) -> Credentials:
        """Give credentials, resolving or refreshing them first. Raises `CredentialsMissing`."""
        failures = self._failures
        async with self._lock:
            held = self.ready()
            if held is not None:
                return held
            # Where nobody answers, asking takes its time: a thousand that wait would do so in turn.
            if self._failure is not None and self._failures != failures:
                raise type(self._failure)(str(self._failure)) from self._failure
            try:
                frozen = await self._ask()
            except S3flowError as error:
                self._failures, self._failure = self._failures + 1, error
                raise
            self._credentials = Credentials(
                frozen.access_key, frozen.secret_key, frozen.token or ""
            )
            self._fresh_until = self._clock() + RECHECK_SECONDS
            if self._credentials not in self._given:
                self._given.append(self._credentials)
                self._hidden = None
            return self._credentials

    def drop(self, refused: Credentials) -> bool:
        """Forget *refused* because the server did; False when there are no others to be had.

        Only the first of many requests that failed with the same credentials drops them.
        """
        if not self.is_renewable:
            return False
        if self._credentials is refused:
            self._credentials = self._chain = None
            self._fresh_until = 0.0
        return True

    def redact(self, text: str) -> str:
        """Take out of a server's words what should not be shown: it may repeat what it was told.

        That may be credentials which were dropped since: others' requests were under way with them.
        """
        if self._hidden is None:
            settings = self._settings
            given = [value for each in self._given for value in each]
            own = (*(self._plain or ()), settings.external_id or "", settings.customer_key or "")
            self._hidden = Secrets((*given, *own))
        return self._hidden.without(text)

    async def _ask(self) -> Frozen:
        patience = self._settings.answer_timeout
        limit = asyncio.timeout(patience)
        try:
            async with limit:
                if self._chain is None:
                    self._chain = await self._find_chain()
                return await self._chain.get_frozen_credentials()
        except S3flowError:
            self._chain = None
            raise
        except Exception as error:
            self._chain = None
            if limit.expired():
                why = f"was not done after {patience:g} s (answer_timeout)"
                raise ConnectionLost(self._unheard(why)) from error
            raise self._translated(error) from error

    async def _find_chain(self) -> Chain:
        # Importing it takes 0.2 s: in a thread, so that other flows' transfers go on meanwhile.
        session = await asyncio.to_thread(new_session, self._settings)
        if self._settings.web_identity_token_file:
            return self._assume_by_token(session, self._settings.web_identity_token_file)
        chain: Chain | None
        if self._plain is None:
            chain = await session.get_credentials()
        else:
            session.set_credentials(*self._plain)
            chain = await session.get_credentials()
        if chain is None:
            raise CredentialsMissing(self._missing("none were found"))
        return self._assume(session, chain) if self._settings.role_arn else chain

    def _assume(self, session: AioSession, source: Chain) -> Chain:
        from aiobotocore.credentials import (
            AioAssumeRoleCredentialFetcher,
            AioDeferredRefreshableCredentials,
        )

        extra = {"RoleSessionName": "s3flow"}
        if self._settings.external_id:
            extra["ExternalId"] = self._settings.external_id
        fetcher = AioAssumeRoleCredentialFetcher(
            session.create_client, source, self._settings.role_arn, extra_args=extra
        )
        chain: Chain = AioDeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")
        return chain

    def _assume_by_token(self, session: AioSession, file: str) -> Chain:
        from aiobotocore.credentials import (
            AioAssumeRoleWithWebIdentityCredentialFetcher,
            AioDeferredRefreshableCredentials,
        )

        fetcher = AioAssumeRoleWithWebIdentityCredentialFetcher(
            session.create_client,
            lambda: Path(file).read_text().strip(),  # each time: it is replaced before it expires
            self._settings.role_arn,
            extra_args={"RoleSessionName": "s3flow"},
        )
        chain: Chain = AioDeferredRefreshableCredentials(
            fetcher.fetch_credentials, "assume-role-with-web-identity"
        )
        return chain

    def _translated(self, error: Exception) -> S3flowError:
        from botocore.exceptions import ConnectionError as Unreachable
        from botocore.exceptions import HTTPClientError

        if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
            return CredentialsMissing(self._missing(f"{error.strerror}: {error.filename}"))
        if isinstance(error, (HTTPClientError, Unreachable, OSError)):
            cause = getattr(error, "kwargs", {}).get("error")
            why = str(cause) if isinstance(cause, BadAnswer) else type(error).__name__
            return ConnectionLost(self._unheard(f"cannot be reached ({why})"))
        return CredentialsMissing(self._missing(self._told(error)))

    def _told(self, error: Exception) -> str:
        """Say what botocore says, where that is not what a service answered: keys may be in there."""
        from botocore import exceptions

        name = type(error).__name__
        if isinstance(error, exceptions.ClientError):
            said = error.response.get("Error", {})
            words = self.redact(f"{said.get('Code')}: {said.get('Message')}"[:500])
            file = self._settings.web_identity_token_file
            try:
                token = Path(file).read_text().strip() if file else ""
            except OSError:  # what could repeat a token that is not known is not shown
                return name
            return f"{name}: {Secrets([token]).without(words)}"
        own = (
            *(exceptions.ProfileNotFound, exceptions.PartialCredentialsError),
            *(exceptions.ConfigNotFound, exceptions.ConfigParseError, exceptions.NoRegionError),
        )
        return f"{name}: {error}" if isinstance(error, own) else name

    def _unheard(self, why: str) -> str:
        return (
            f"endpoints.{self._settings.name}: the service that gives credentials {why}; "
            f"check {self._remedy()}"
        )

    def _missing(self, why: str) -> str:
        return f"endpoints.{self._settings.name} has no usable credentials ({why}); check {self._remedy()}"

    def _remedy(self) -> str:
        settings = self._settings
        if settings.web_identity_token_file:
            return (
                f"web_identity_token_file {settings.web_identity_token_file}, role_arn "
                f"{settings.role_arn} and whom that role trusts"
            )
        if settings.role_arn:
            return f"role_arn {settings.role_arn} and the keys that may assume it"
        if settings.profile:
            return f"profile {settings.profile!r} in the AWS configuration files"
        return "access_key_id and secret_access_key, profile or role_arn"


def new_session(settings: S3Settings) -> AioSession:
    """Make a botocore session for *settings*, importing botocore if nobody did yet."""
    from s3flow.stores.s3 import bounded

    return bounded.session(settings.profile, settings.region)


def _plain(settings: S3Settings, environ: Mapping[str, str]) -> Credentials | None:
    if settings.access_key_id and settings.secret_access_key:
        return Credentials(
            settings.access_key_id, settings.secret_access_key, settings.session_token or ""
        )
    # As in botocore, a profile that was asked for by name comes before the environment.
    key, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if settings.profile or not key or not secret:
        return None
    return Credentials(key, secret, environ.get("AWS_SESSION_TOKEN", ""))
