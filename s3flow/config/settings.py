"""Every setting with its type, its default and the limits that hold whatever the others say."""

from __future__ import annotations

import base64
import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, SecretStr
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from s3flow.config.dsn import parse_state
from s3flow.config.places import endpoint_of, is_pattern, parse_source, parse_target
from s3flow.config.prices import EndpointPrices, Money, PriceSettings
from s3flow.config.units import (
    DailyShare,
    Duration,
    OptionalDuration,
    OptionalInterval,
    OptionalSize,
    Share,
    Size,
    Whole,
    Workers,
)
from s3flow.errors import ConfigError
from s3flow.model import GIB, MIB, Filters, Flow
from s3flow.policies import (
    DeletePolicy,
    MethodPolicy,
    Mode,
    Overwrite,
    RestorePolicy,
    RestoreTier,
    TagPolicy,
)
from s3flow.state.address import StateAddress

LISTEN_OFF = ("", "off")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


def _name(value: str) -> str:
    # Names become metric labels, parts of environment variables and the state's keys.
    if _NAME.fullmatch(value) is None:
        raise ValueError("is not a name: use up to 63 letters, digits, dots, hyphens, underscores")
    return value


def _state(value: str) -> str:
    parse_state(value)
    return value


def _queue(value: str) -> str:
    if value != "local":
        raise ValueError('is not supported by this version: the queue is "local"')
    return value


def _listen(value: str) -> str:
    if value in LISTEN_OFF:
        return ""
    host, _, port = value.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65_535:
        raise ValueError('is not an address: write "127.0.0.1:9440", or "off"')
    return value


def is_loopback(listen: str) -> bool:
    """Say whether only this machine can reach *listen* ("host:port")."""
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_aws(host: str) -> bool:
    """Say whether *host* is Amazon's, where bucket names are global."""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def _url(value: str) -> str:
    if not value:
        return value
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is none, a broken IPv6 address
        usable = False
    else:
        if parts.username is not None or parts.password is not None:
            raise ValueError("has credentials in it: use access_key_id and secret_access_key")
        usable = usable and parts.path in {"", "/"} and not parts.query and not parts.fragment
        if parts.scheme == "http" and is_aws(parts.hostname or ""):
            raise ValueError("is AWS without TLS: write https://")
    if not usable:
        raise ValueError('is not an endpoint: write "https://host" or "http://host:port"')
    return value.rstrip("/")


def _queue_url(value: str) -> str:
    parts = urlsplit(value)
    if value and (parts.scheme not in {"http", "https"} or parts.path.count("/") < 2):
        raise ValueError('is not a queue: write "https://sqs.REGION.amazonaws.com/ACCOUNT/NAME"')
    return value


def _owner(value: str) -> str:
    if value and re.fullmatch(r"[0-9]{12}", value) is None:
        raise ValueError("is not an account id of 12 digits")
    return value


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


Positive = Annotated[Duration, Field(gt=0)]
Name = Annotated[str, AfterValidator(_name)]
Acl = Literal[
    "",
    "private",
    "bucket-owner-full-control",
    "bucket-owner-read",
    "authenticated-read",
    "aws-exec-read",
    "public-read",
    "public-read-write",
]


class DaemonSettings(_Table):
    """The process: its state, its limits and what it shows."""

    state: Annotated[str, AfterValidator(_state), Field(repr=False)] = (
        "sqlite:////var/lib/s3flow/state.db"
    )
    queue: Annotated[str, AfterValidator(_queue)] = "local"
    listen: Annotated[str, AfterValidator(_listen)] = "127.0.0.1:9440"  # "": no listener
    listen_user: str = "s3flow"
    listen_password: SecretStr = SecretStr("")
    concurrency: Annotated[Whole, Field(ge=1, le=10_000)] = 64
    workers: Annotated[Workers, Field(ge=0, le=256)] = 1  # processes that move bytes; 0: "auto"
    memory: Annotated[Size, Field(ge=MIB)] = 32 * MIB
    max_bytes_per_s: Size = 0
    max_requests_per_s: Annotated[Whole, Field(ge=0)] = 0
    drain_timeout: Duration = 20.0
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_interval: Positive = 10.0
    audit: bool = True  # keep a chained row of each fact, for good
    reports: str = "logs"  # a folder, from the configuration's; "": none

    @property
    def state_address(self) -> StateAddress:
        """Where the state is; a file's path is absolute once `load` has read the settings."""
        return parse_state(self.state).address


class S3Endpoint(_Table):
    """An S3 service, and who we are to it. Empty strings mean: not set."""

    type: Literal["s3"]
    url: Annotated[str, AfterValidator(_url)] = ""
    region: Annotated[str, Field(min_length=1)] = "us-east-1"
    addressing: Literal["auto", "virtual", "path"] = "auto"
    access_key_id: Annotated[str, Field(repr=False)] = ""
    secret_access_key: SecretStr = SecretStr("")
    session_token: SecretStr = SecretStr("")
    profile: str = ""
    role_arn: str = ""
    external_id: Annotated[str, Field(repr=False)] = ""
    web_identity_token_file: str = ""
    ca_file: str = ""
    verify_tls: bool = True
    expected_bucket_owner: Annotated[str, AfterValidator(_owner)] = ""
    requester_pays: bool = False
    encryption: Literal["", "AES256", "aws:kms", "aws:kms:dsse"] = ""
    kms_key_id: str = ""
    bucket_key: bool = False
    customer_key: SecretStr = SecretStr("")
    acl: Acl = ""
    checksums: Literal["auto", "when_required"] = "auto"
    connect_timeout: Positive = 10.0
    progress_timeout: Positive = 30.0
    answer_timeout: Positive = 60.0
    prices: EndpointPrices = EndpointPrices()


class LocalEndpoint(_Table):
    """A folder of this machine."""

    type: Literal["local"]
    path: Annotated[str, Field(min_length=1)]

    @property
    def root(self) -> Path:
        """The folder; absolute once `load` has read the settings."""
        return Path(self.path)


Endpoint = Annotated[S3Endpoint | LocalEndpoint, Field(discriminator="type")]


class Rewrite(_Table):
    """A prefix of the key, below the source's, and what stands there at the target."""

    from_: Annotated[str, Field(alias="from")]
    to: str


class FlowSettings(_Table):
    """One movement, as it is written; `Settings.flow_specs` makes a `Flow` of it."""

    name: Name
    source: str
    target: str
    mode: Mode = Mode.COPY
    delete: DeletePolicy = DeletePolicy.MARKER
    delete_after: Duration = 0.0
    unguarded_delete: bool = False
    max_corrupted: Share = 0.05
    max_missing: Share = 0.5
    every: OptionalInterval = None
    scrub: DailyShare = 0.0
    overwrite: Overwrite = Overwrite.CHANGED
    tags: TagPolicy = TagPolicy.REQUIRE
    method: MethodPolicy = MethodPolicy.SERVER_FIRST
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    min_size: OptionalSize = None
    max_size: OptionalSize = None
    min_age: OptionalDuration = None
    max_age: OptionalDuration = None
    storage_classes: tuple[str, ...] = ()
    exclude_buckets: tuple[str, ...] = ()
    storage_class: str = ""
    storage_class_map: dict[str, str] = {}
    rewrite: tuple[Rewrite, ...] = ()
    multipart_threshold: Annotated[Size, Field(ge=1)] = 256 * MIB
    part_size: Annotated[Size, Field(ge=MIB, le=5 * GIB)] = 32 * MIB
    lanes: Annotated[Whole, Field(ge=1, le=1_000)] = 8
    list_concurrency: Annotated[Whole, Field(ge=1, le=1_000)] = 8
    max_attempts: Annotated[Whole, Field(ge=1, le=1_000)] = 8
    concurrency: Annotated[Whole, Field(ge=0, le=10_000)] = 0
    max_bytes_per_s: Size = 0
    max_requests_per_s: Annotated[Whole, Field(ge=0)] = 0
    restore: RestorePolicy = RestorePolicy.AUTO
    restore_tier: RestoreTier = RestoreTier.STANDARD
    restore_days: Annotated[Whole, Field(ge=1, le=3_650)] = 7
    restore_fallback: bool = True
    restore_poll: OptionalInterval = None
    restore_queue: Annotated[str, AfterValidator(_queue_url)] = ""
    max_restores: Annotated[Whole, Field(ge=1, le=100_000)] = 100
    restore_objects_per_day: Annotated[Whole, Field(ge=0)] = 0
    restore_bytes_per_day: Size = 0
    max_cost: Money = 0.0


class Settings(BaseSettings):
    """The whole configuration. Made by `load`, which alone knows the file and the environment."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    daemon: DaemonSettings = DaemonSettings()
    prices: PriceSettings = PriceSettings()
    endpoints: dict[Name, Endpoint] = {}
    flows: tuple[FlowSettings, ...] = ()

    _warnings: tuple[str, ...] = PrivateAttr(default=())
    _folder: Path = PrivateAttr(default_factory=Path)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 -- the names are the library's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from `load` alone: a stray variable must not reach settings made in tests."""
        return (init_settings,)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should read once, without secrets."""
        return self._warnings

    @property
    def reports_folder(self) -> Path | None:
        """Where reports of runs are written; absolute once `load` has read the settings."""
        return self._folder / self.daemon.reports if self.daemon.reports else None

    def secrets(self) -> list[str]:
        """Give the values that must never be shown, for the log's redaction."""
        daemon = self.daemon
        found = [*parse_state(daemon.state).secrets]
        password = daemon.listen_password.get_secret_value()
        if password:  # as it is, and as it comes over the wire
            login = f"{daemon.listen_user}:{password}".encode()
            found += (password, base64.b64encode(login).decode())
        for endpoint in self.endpoints.values():
            if isinstance(endpoint, S3Endpoint):
                found += (
                    endpoint.secret_access_key.get_secret_value(),
                    endpoint.session_token.get_secret_value(),
                    endpoint.customer_key.get_secret_value(),
                )
        return [value for value in found if value]

    def flow_spec(self, flow: FlowSettings) -> Flow:
        """Make the engine's `Flow`. Raises `ValueError` when a place cannot be read."""
        source = parse_source(flow.source)
        target = self.endpoints.get(endpoint_of(flow.target))
        return Flow(
            name=flow.name,
            source=source,
            target=parse_target(
                flow.target,
                local=isinstance(target, LocalEndpoint),
                many=is_pattern(source.bucket),
            ),
            filters=Filters(
                include=flow.include,
                exclude=flow.exclude,
                min_size=flow.min_size,
                max_size=flow.max_size,
                min_age=flow.min_age,
                max_age=flow.max_age,
                storage_classes=flow.storage_classes,
            ),
            overwrite=flow.overwrite,
            mode=flow.mode,
            delete=flow.delete,
            delete_after=flow.delete_after,
            unguarded_delete=flow.unguarded_delete,
            max_corrupted=flow.max_corrupted,
            max_missing=flow.max_missing,
            every=flow.every,
            scrub=flow.scrub,
            tags=flow.tags,
            method=flow.method,
            storage_class=flow.storage_class,
            storage_class_map=flow.storage_class_map,
            rewrite=tuple((rule.from_, rule.to) for rule in flow.rewrite),
            exclude_buckets=flow.exclude_buckets,
            multipart_threshold=flow.multipart_threshold,
            part_size=flow.part_size,
            lanes=flow.lanes,
            list_concurrency=flow.list_concurrency,
            max_attempts=flow.max_attempts,
            concurrency=flow.concurrency,
            max_bytes_per_s=flow.max_bytes_per_s,
            max_requests_per_s=flow.max_requests_per_s,
            restore=flow.restore,
            restore_tier=flow.restore_tier,
            restore_days=flow.restore_days,
            restore_fallback=flow.restore_fallback,
            restore_poll=flow.restore_poll or 0.0,
            restore_queue=flow.restore_queue,
            max_restores=flow.max_restores,
            restore_objects_per_day=flow.restore_objects_per_day,
            restore_bytes_per_day=flow.restore_bytes_per_day,
            max_cost=flow.max_cost,
            currency=self.prices.currency,
        )

    def flow_specs(self) -> list[Flow]:
        """Give the flows as the engine knows them, in the order of the file."""
        return [self.flow_spec(flow) for flow in self.flows]

    def chosen_flows(self, names: Sequence[str]) -> list[Flow]:
        """Give all flows, or those of *names*. Raises `ConfigError` for an unknown one."""
        flows = {flow.name: flow for flow in self.flow_specs()}
        for name in names:
            if name not in flows:
                known = ", ".join(flows) or "none"
                raise ConfigError(f"no flow is named {name!r}; the configuration has: {known}")
        if not flows:
            raise ConfigError("the configuration has no [[flows]]: nothing to do")
        return [flow for name, flow in flows.items() if not names or name in names]
