"""Rules that tie settings together: what cannot work or would loop is refused before it runs."""

from __future__ import annotations

import base64
import glob
import os
from collections.abc import Iterator
from itertools import combinations
from urllib.parse import urlsplit

from s3flow.config.dsn import parse_state
from s3flow.config.places import EACH_BUCKET, Ground, endpoint_of, is_pattern, parse_source
from s3flow.config.settings import (
    FlowSettings,
    LocalEndpoint,
    S3Endpoint,
    Settings,
    is_aws,
    is_loopback,
)
from s3flow.model import GIB, MIB, Flow
from s3flow.policies import MethodPolicy, Mode

SHORTEST_PASSWORD = 12  # characters; who guesses has all the time there is


def combination_problems(settings: Settings) -> list[str]:
    """Give what is wrong between settings that are right by themselves, one line each."""
    problems = [*_listener(settings), *_workers(settings)]
    for name, endpoint in settings.endpoints.items():
        if isinstance(endpoint, S3Endpoint):
            problems += (f"endpoints.{name}.{line}" for line in _credentials(endpoint))
            problems += (f"endpoints.{name}.{line}" for line in _encryption(endpoint))
    problems += _names(settings)
    specs: list[tuple[int, Flow]] = []
    for index, flow in enumerate(settings.flows):
        found = list(_endpoints_of(settings, flow)) or list(_flow(settings, flow))
        problems += (f"flows[{index}].{line}" for line in found)
        if not found:
            specs.append((index, settings.flow_spec(flow)))
    problems += _grounds(settings, specs)
    return problems


def combination_warnings(settings: Settings) -> Iterator[str]:
    """Give what works but deserves a look."""
    ignored = ", ".join(parse_state(settings.daemon.state).ignored)
    if ignored:
        yield f"daemon.state: parameters that s3flow does not know are ignored: {ignored}"
    for name, endpoint in settings.endpoints.items():
        if isinstance(endpoint, S3Endpoint) and not endpoint.verify_tls:
            yield (
                f"endpoints.{name}.verify_tls: false accepts any server: "
                "name its authority with ca_file instead"
            )
    for index, flow in enumerate(settings.flow_specs()):
        source, target = (
            settings.endpoints[flow.source.endpoint],
            settings.endpoints[flow.target.endpoint],
        )
        if _same_url_other_account(source, target) and _grounds_meet(flow):
            yield (
                f"flows[{index}]: source and target are the same place unless "
                f"{flow.source.endpoint} and {flow.target.endpoint} see different buckets"
            )


def _listener(settings: Settings) -> Iterator[str]:
    daemon = settings.daemon
    password = daemon.listen_password.get_secret_value()
    if daemon.listen and not is_loopback(daemon.listen) and not password:
        yield (
            f"daemon.listen: {daemon.listen!r} can be reached from other machines and asks for no "
            'password: use "127.0.0.1:9440", or set daemon.listen_password'
        )
    if 0 < len(password) < SHORTEST_PASSWORD:
        yield (
            f"daemon.listen_password: has fewer than {SHORTEST_PASSWORD} characters: "
            "make one with `openssl rand -hex 16`"
        )
    if ":" in daemon.listen_user:
        yield "daemon.listen_user: has a colon, which HTTP's logins cannot"


def _workers(settings: Settings) -> Iterator[str]:
    daemon = settings.daemon
    if daemon.workers > min(daemon.concurrency, daemon.memory // MIB):
        yield (
            f"daemon.workers: {daemon.workers} processes share concurrency ({daemon.concurrency})"
            f" and memory ({daemon.memory // MIB} MiB): give each of them at least one and a MiB"
        )


def _credentials(endpoint: S3Endpoint) -> Iterator[str]:
    secret = bool(endpoint.secret_access_key.get_secret_value())
    if secret and not endpoint.access_key_id:
        yield "access_key_id: is missing beside secret_access_key"
    if endpoint.access_key_id and not secret:
        yield "secret_access_key: is missing beside access_key_id"
    if endpoint.session_token.get_secret_value() and not secret:
        yield "session_token: needs access_key_id and secret_access_key"
    if endpoint.profile and (endpoint.access_key_id or secret):
        yield "profile: cannot stand beside access_key_id: keep one of the two"
    if endpoint.external_id and not endpoint.role_arn:
        yield "external_id: needs role_arn"
    if endpoint.web_identity_token_file:
        if not endpoint.role_arn:
            yield "web_identity_token_file: needs role_arn, the role that the token is for"
        if secret or endpoint.profile or endpoint.external_id:
            yield (
                "web_identity_token_file: is who we are: take out access_key_id, profile and "
                "external_id"
            )


def _encryption(endpoint: S3Endpoint) -> Iterator[str]:
    with_kms = endpoint.encryption.startswith("aws:kms")
    if endpoint.kms_key_id and not with_kms:
        yield 'kms_key_id: needs encryption = "aws:kms" or "aws:kms:dsse"'
    if endpoint.bucket_key and endpoint.encryption != "aws:kms":
        yield 'bucket_key: needs encryption = "aws:kms"'
    key = endpoint.customer_key.get_secret_value()
    if not key:
        return
    if endpoint.encryption:
        yield "customer_key: cannot stand beside encryption: keep one of the two"
    try:
        size = len(base64.b64decode(key, validate=True))
    except ValueError:
        size = 0
    if size != 32:
        yield "customer_key: is not 32 bytes in base64: make one with `openssl rand -base64 32`"
    url = urlsplit(endpoint.url)
    if url.scheme == "http" and not is_loopback(f"{url.hostname}:{url.port or 80}"):
        yield "customer_key: would cross the network in the clear, and S3 refuses it so: use https"


def _names(settings: Settings) -> Iterator[str]:
    first: dict[str, int] = {}
    for index, flow in enumerate(settings.flows):
        if flow.name in first:
            yield f"flows[{index}].name: {flow.name!r} is flows[{first[flow.name]}]'s name already"
        first.setdefault(flow.name, index)


def _endpoints_of(settings: Settings, flow: FlowSettings) -> Iterator[str]:
    for end, text in (("source", flow.source), ("target", flow.target)):
        try:
            name = endpoint_of(text)
        except ValueError as error:
            yield f"{end}: {text!r} {error}"
            continue
        if name not in settings.endpoints:
            known = ", ".join(settings.endpoints) or "none"
            yield f"{end}: there is no endpoint {name!r} (endpoints: {known})"
        elif end == "source" and isinstance(settings.endpoints[name], LocalEndpoint):
            yield f"source: endpoint {name!r} is local, which is not supported as a source"


def _flow(settings: Settings, flow: FlowSettings) -> Iterator[str]:
    end = "source"
    try:
        parse_source(flow.source)
        end = "target"
        spec = settings.flow_spec(flow)
    except ValueError as error:
        yield f"{end}: {getattr(flow, end)!r} {error}"
        return
    yield from _of_moves(flow)
    if flow.exclude_buckets and not is_pattern(spec.source.bucket):
        yield f"exclude_buckets: needs a source with a pattern, not {flow.source!r}"
    for low, high in (("min_size", "max_size"), ("min_age", "max_age")):
        least, most = getattr(flow, low), getattr(flow, high)
        if least is not None and most is not None and least > most:
            yield f"{low}: is more than {high}: no object can pass"
    yield from _server_only(settings, flow, spec)
    if isinstance(settings.endpoints[spec.target.endpoint], S3Endpoint):
        if flow.part_size < 5 * MIB:
            yield f"part_size: {flow.part_size} bytes is less than S3 takes: at least 5MiB"
        if flow.multipart_threshold > 5 * GIB:
            yield "multipart_threshold: is more than one PUT to S3 can carry: at most 5GiB"


def _of_moves(flow: FlowSettings) -> Iterator[str]:
    for name in ("delete", "delete_after", "unguarded_delete"):
        default = FlowSettings.model_fields[name].default
        if flow.mode is not Mode.MOVE and getattr(flow, name) != default:
            yield f'{name}: needs mode = "move": a copy deletes nothing'


def _server_only(settings: Settings, flow: FlowSettings, spec: Flow) -> Iterator[str]:
    ends = (spec.source.endpoint, spec.target.endpoint)
    source, target = (settings.endpoints[name] for name in ends)
    if flow.method is MethodPolicy.SERVER_ONLY and service_of(source) != service_of(target):
        yield (
            f'method: "server-only" needs one service at both ends, and {ends[0]} and {ends[1]} are '
            'two: use "server-first", which streams where nothing else works'
        )


def _grounds(settings: Settings, specs: list[tuple[int, Flow]]) -> Iterator[str]:
    targets = [(index, flow, _written(settings, flow)) for index, flow in specs]
    for index, flow, ground in targets:
        if _read_from(settings, flow).overlaps(ground):
            yield (
                f"flows[{index}].target: {flow.target} and the source {flow.source} overlap: "
                "the flow would copy its own copies; choose another prefix, or exclude_buckets"
            )
    yield from _moves(settings, targets)
    for (first, one, ground), (second, other, written) in combinations(targets, 2):
        if ground.overlaps(written) or _nested(ground.store, written.store):
            yield (
                f"flows[{second}].target: {other.target} and flows[{first}].target {one.target} "
                "overlap: two flows would write the same keys; give each its own prefix"
            )


def _moves(settings: Settings, targets: list[tuple[int, Flow, Ground]]) -> Iterator[str]:
    """Refuse moves that would take away what another flow reads, or counts on."""
    for index, flow, _ in targets:
        if flow.mode is not Mode.MOVE:
            continue
        ground = _read_from(settings, flow)
        for other_index, other, written in targets:
            if other is flow:
                continue
            if ground.overlaps(_read_from(settings, other)):
                yield (
                    f"flows[{index}].mode: it would delete what flows[{other_index}] ({other.name}) "
                    "reads from as well, copied by that one or not: give each its own prefix"
                )
            elif other.mode is Mode.MOVE and ground.overlaps(written):
                yield (
                    f"flows[{index}].mode: it would move on what flows[{other_index}] "
                    f"({other.name}) looks for before it deletes: let that one copy, or move once"
                )


def _read_from(settings: Settings, flow: Flow) -> Ground:
    store = _store(settings.endpoints[flow.source.endpoint])
    return Ground(store, flow.source.bucket, flow.source.prefix, flow.exclude_buckets)


def _written(settings: Settings, flow: Flow) -> Ground:
    endpoint = settings.endpoints[flow.target.endpoint]
    bucket, prefix = flow.target.bucket, flow.target.prefix
    if bucket == EACH_BUCKET:
        return Ground(_store(endpoint), flow.source.bucket, prefix, flow.exclude_buckets)
    if isinstance(endpoint, LocalEndpoint):
        # A folder and a bucket of that name are one place on disk.
        folder, slash, rest = prefix.decode(errors="surrogateescape").partition("/")
        bucket = folder if slash else glob.escape(folder) + "*"
        prefix = rest.encode(errors="surrogateescape")
    return Ground(_store(endpoint), bucket, prefix)


def service_of(endpoint: S3Endpoint | LocalEndpoint) -> str:
    """Name what answers at an endpoint, to whomever."""
    if isinstance(endpoint, LocalEndpoint):
        return f"file:{os.path.realpath(endpoint.root)}/"
    host = urlsplit(endpoint.url).hostname or ""
    if not endpoint.url or is_aws(host):
        # Bucket names are unique within a partition: China and GovCloud have their own.
        where = f"{host}.{endpoint.region}"
        return "aws-cn" if ".cn-" in where else "aws-us-gov" if ".us-gov-" in where else "aws"
    return endpoint.url.lower()


def _store(endpoint: S3Endpoint | LocalEndpoint) -> str:
    """Name what an endpoint reaches: two endpoints with one name share their buckets."""
    service = service_of(endpoint)
    if isinstance(endpoint, LocalEndpoint) or service.startswith("aws"):
        return service
    # Elsewhere the same bucket name may mean another bucket to another account.
    return f"{service} {endpoint.access_key_id} {endpoint.profile} {endpoint.role_arn}"


def _nested(store: str, other: str) -> bool:
    if store == other or not store.startswith("file:") or not other.startswith("file:"):
        return False
    return store.startswith(other) or other.startswith(store)


def _same_url_other_account(
    source: S3Endpoint | LocalEndpoint, target: S3Endpoint | LocalEndpoint
) -> bool:
    if isinstance(source, LocalEndpoint) or isinstance(target, LocalEndpoint):
        return False
    return bool(source.url) and source.url == target.url and _store(source) != _store(target)


def _grounds_meet(flow: Flow) -> bool:
    bucket = flow.source.bucket if flow.target.bucket == EACH_BUCKET else flow.target.bucket
    read = Ground("", flow.source.bucket, flow.source.prefix, flow.exclude_buckets)
    return read.overlaps(Ground("", bucket, flow.target.prefix, flow.exclude_buckets))
