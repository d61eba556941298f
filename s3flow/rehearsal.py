"""What `plan` and `doctor` do: ask the stores what would happen, and whether it could. Only reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from s3flow.app import pace, wired
from s3flow.config import Settings
from s3flow.engine.preview import NothingKnown, preview
from s3flow.engine.probe import Finding, examine
from s3flow.engine.retry import Backoff
from s3flow.engine.survey import Survey
from s3flow.engine.wiring import RouteMaker
from s3flow.errors import S3flowError
from s3flow.events import Event
from s3flow.model import Flow
from s3flow.observe.plans import Counted
from s3flow.operations import known_state
from s3flow.stores.crc64 import Crc64Nvme


def _ignore(event: Event) -> None:
    """Nobody watches a command that is over in a moment."""


async def plan_flows(settings: Settings, flows: Sequence[Flow]) -> dict[str, Counted]:
    """Say what the next scan of each flow would do; reads sources, state and targets."""
    state = await known_state(settings)
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
