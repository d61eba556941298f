"""What the short commands do: look at flows, send failures back to work, forget, examine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from s3flow.app import pace, read_snapshots, wired
from s3flow.config import Settings
from s3flow.engine.preview import NothingKnown, preview
from s3flow.engine.probe import Finding, examine
from s3flow.engine.retry import Backoff
from s3flow.engine.survey import Survey
from s3flow.engine.wiring import RouteMaker
from s3flow.errors import ConfigError, S3flowError, StateEmpty
from s3flow.events import Event
from s3flow.model import Flow
from s3flow.observe.plans import Counted
from s3flow.observe.progress import FlowSnapshot, snapshot
from s3flow.state import SqliteState, open_sqlite
from s3flow.stores.crc64 import Crc64Nvme

Failure = tuple[str, bytes, str, str]  # bucket, key, reason, message


def _ignore(event: Event) -> None:
    """Nobody watches a command that is over in a moment."""


async def _known(settings: Settings) -> SqliteState | None:
    """Open the state for reading; None when nothing has run yet."""
    try:
        return await open_sqlite(settings.daemon.state_path, read_only=True)
    except StateEmpty:
        return None


async def read_status(settings: Settings, flows: Sequence[Flow]) -> list[FlowSnapshot]:
    """Read where the flows stand, also while a daemon runs; all zero before the first run."""
    state = await _known(settings)
    if state is None:
        return [snapshot(flow, [], [], {}, None, 0.0) for flow in flows]
    try:
        return await read_snapshots(state, flows)
    finally:
        await state.close()


async def read_failures(
    settings: Settings, flows: Sequence[Flow], limit: int
) -> dict[str, list[Failure]]:
    """Give failed objects by flow."""
    state = await _known(settings)
    if state is None:
        return {flow.name: [] for flow in flows}
    try:
        return {flow.name: await state.failures(flow.name, limit) for flow in flows}
    finally:
        await state.close()


async def retry_failed(
    settings: Settings, flows: Sequence[Flow], reason: str | None
) -> dict[str, int]:
    """Send failed objects (of one reason) back to work; says how many of each flow."""
    state = await open_sqlite(settings.daemon.state_path)
    try:
        return {flow.name: await state.retry(flow.name, reason) for flow in flows}
    finally:
        await state.close()


async def forget_flow(settings: Settings, name: str) -> None:
    """Drop all that is known of a flow. Raises `ConfigError` if the state has never heard of it."""
    state = await open_sqlite(settings.daemon.state_path)
    try:
        if not await state.forget(name):
            known = ", ".join(await state.flow_names()) or "none"
            raise ConfigError(f"the state knows no flow {name!r}; it has: {known}")
    finally:
        await state.close()


async def plan_flows(settings: Settings, flows: Sequence[Flow]) -> dict[str, Counted]:
    """Say what the next scan of each flow would do; reads sources, state and targets."""
    state = await _known(settings)
    try:
        plans: dict[str, Counted] = {}
        async with wired(settings, flows) as wirings:
            for wiring in wirings:
                survey = Survey(_routes(settings).route(wiring), Backoff())
                scanned = await state.last_scan(wiring.flow.name) if state else None
                is_new = scanned is None or scanned.finished is None
                seen = await preview(survey, state or NothingKnown(), is_new=is_new)
                plans[wiring.flow.name] = {
                    verdict: (objects, seen.bytes[verdict])
                    for verdict, objects in seen.objects.items()
                }
        return plans
    finally:
        if state is not None:
            await state.close()


async def examine_flows(settings: Settings, flows: Sequence[Flow]) -> AsyncIterator[Finding]:
    """Try everything that the flows will need, with real requests."""
    for flow in flows:
        try:
            async with wired(settings, [flow]) as (wiring,):
                async for finding in examine(_routes(settings).route(wiring)):
                    yield finding
        except S3flowError as error:
            remedy = "mend what the message names, in the configuration or on this machine"
            yield Finding(
                flow.name, "open its endpoints", ok=False, answer=str(error), remedy=remedy
            )


def _routes(settings: Settings) -> RouteMaker:
    return RouteMaker(pace(settings.daemon), Crc64Nvme(), _ignore, asyncio.Event())
