"""Puts stores and routes together from plain specifications, in the supervisor and in worker processes.

It knows no settings: a worker process that reads none imports no pydantic, which saves it 0.1 s and 15 MiB.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from s3flow.engine.wiring import Pace, Wiring
from s3flow.errors import ConfigError
from s3flow.model import Flow
from s3flow.stores.local import LocalStore
from s3flow.stores.s3 import S3Settings, S3Store

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
        yield [_wiring(flow, stores) for flow in flows]


def _wiring(flow: Flow, stores: Mapping[str, Store]) -> Wiring:
    source, target = stores[flow.source.endpoint], stores[flow.target.endpoint]
    if isinstance(source, LocalStore):
        raise ConfigError(f"flow {flow.name}: {flow.source.endpoint} is a folder, not a source")
    return Wiring(flow, source, target, reader=target if isinstance(target, S3Store) else None)


def marks_of(wirings: Sequence[Wiring]) -> dict[str, bytes]:
    """Give what the names of this process's unfinished files begin with, by endpoint."""
    return {
        wiring.flow.target.endpoint: wiring.target.mark
        for wiring in wirings
        if isinstance(wiring.target, LocalStore)
    }
