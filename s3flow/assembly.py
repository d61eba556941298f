"""Puts stores and routes together from plain specifications, in the supervisor and in worker processes.

It knows no settings: a worker process that reads none imports no pydantic, which saves it 0.1 s and 15 MiB.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from s3flow.engine.wiring import Pace, Wiring
from s3flow.errors import ConfigError
from s3flow.model import Flow
from s3flow.stores.local import LocalStore
from s3flow.stores.s3 import S3Settings, S3Store
from s3flow.stores.s3.restore_events import RestoreEvents
from s3flow.stores.s3.settings import IDENTITY, TOLD_APART

Store = S3Store | LocalStore


@dataclass(frozen=True, slots=True)
class LocalSettings:
    """A folder. *shared*: other processes of ours write to it as well."""

    name: str
    root: Path
    shared: bool = False


StoreSettings = S3Settings | LocalSettings


@dataclass(frozen=True, slots=True)
class Orders:
    """All that a worker process needs to know."""

    number: int
    stores: Mapping[str, StoreSettings]  # by endpoint
    flows: Sequence[Flow]
    pace: Pace
    log_level: int


def open_store(settings: StoreSettings) -> Store:
    """Make a store. Nothing is sent yet; a local root is looked at."""
    if isinstance(settings, LocalSettings):
        return LocalStore(settings.name, settings.root, shared=settings.shared)
    return S3Store(settings)


@asynccontextmanager
async def opened(
    settings: Mapping[str, StoreSettings], flows: Sequence[Flow]
) -> AsyncIterator[list[Wiring]]:
    """Open the stores that *flows* use, one for each endpoint, and close them at the end."""
    async with AsyncExitStack() as stack:
        stores: dict[str, Store] = {}
        for flow in flows:
            for name in (flow.source.endpoint, flow.target.endpoint):
                if name not in stores:
                    stores[name] = open_store(settings[name])
                    stack.push_async_callback(stores[name].close)
        copiers: dict[tuple[str, str], S3Store] = {}
        for flow in flows:
            ends = (flow.source.endpoint, flow.target.endpoint)
            other = _as_source(*(settings[name] for name in ends))
            if other is not None and ends not in copiers and _one_service(stores, *ends):
                copiers[ends] = S3Store(other)
                stack.push_async_callback(copiers[ends].close)
        yield [_wiring(flow, stores, copiers, settings) for flow in flows]


def _wiring(
    flow: Flow,
    stores: Mapping[str, Store],
    copiers: Mapping[tuple[str, str], S3Store],
    settings: Mapping[str, StoreSettings],
) -> Wiring:
    ends = (flow.source.endpoint, flow.target.endpoint)
    source, target = (stores[name] for name in ends)
    if isinstance(source, LocalStore):
        raise ConfigError(f"flow {flow.name}: {flow.source.endpoint} is a folder, not a source")
    return Wiring(
        flow,
        source,
        target,
        reader=target if isinstance(target, S3Store) else None,
        copier=copiers.get(ends),
        endpoints=_fingerprint([settings[name] for name in ends], flow.method),
        restore_queue=_queue(flow, settings[flow.source.endpoint]),
    )


def _queue(flow: Flow, source: StoreSettings) -> RestoreEvents | None:
    if not flow.restore_queue or not isinstance(source, S3Settings):
        return None
    return RestoreEvents(source, flow.restore_queue)


def _one_service(stores: Mapping[str, Store], source: str, target: str) -> bool:
    here, there = stores[source], stores[target]
    return (
        isinstance(here, S3Store) and isinstance(there, S3Store) and here.service == there.service
    )


def _as_source(source: StoreSettings, target: StoreSettings) -> S3Settings | None:
    """Describe the target as the source's principal sees it; None where both are one.

    What that one writes would stay its own and out of the reach of the bucket's owner, wherever
    buckets take ACLs, unless it says so.
    """
    if isinstance(source, LocalSettings) or isinstance(target, LocalSettings):
        return None
    theirs = {name: getattr(source, name) for name in IDENTITY}
    if all(getattr(target, name) == value for name, value in theirs.items()):
        return None
    return replace(target, **theirs, acl="bucket-owner-full-control", acl_is_wish=True)


def _fingerprint(ends: Sequence[StoreSettings], method: str) -> str:
    """Tell configurations apart by whatever may change where copies work, without showing any of it."""
    told = [
        [str(getattr(end, name, None)) for name in ("name", "url", "region", *TOLD_APART)]
        for end in ends
    ]
    return hashlib.sha256(repr([method, told]).encode()).hexdigest()[:32]


def marks_of(wirings: Sequence[Wiring]) -> dict[str, bytes]:
    """Give what the names of this process's unfinished files begin with, by endpoint."""
    return {
        wiring.flow.target.endpoint: wiring.target.mark
        for wiring in wirings
        if isinstance(wiring.target, LocalStore)
    }
