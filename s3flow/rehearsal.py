"""What `plan` and `doctor` do: ask the stores what would happen, and whether it could. Only reads."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from s3flow import pricing, upkeep
from s3flow.app import pace, wired
from s3flow.config import S3Endpoint, Settings
from s3flow.engine import plan
from s3flow.engine.costs import Egress, assumptions, estimate
from s3flow.engine.preview import NothingKnown, Preview, preview
from s3flow.engine.probe import Finding, examine
from s3flow.engine.retry import Backoff
from s3flow.engine.route import Route
from s3flow.engine.survey import Survey
from s3flow.engine.wayfinding import buckets_of, probe_name
from s3flow.engine.wiring import RouteMaker, Wiring
from s3flow.errors import FlowChanged, S3flowError
from s3flow.events import Event
from s3flow.model import Flow
from s3flow.observe.plans import FlowPlan
from s3flow.operations import known_state
from s3flow.records import MONEY
from s3flow.stores.crc64 import Crc64Nvme


def _ignore(event: Event) -> None:
    """Nobody watches a command that is over in a moment."""


async def plan_flows(settings: Settings, flows: Sequence[Flow]) -> dict[str, FlowPlan]:
    """Say what the next scan of each flow would do, and its cost; reads sources, state and targets."""
    state = await known_state(settings)
    try:
        plans: dict[str, FlowPlan] = {}
        async with wired(settings, flows) as wirings:
            for wiring in wirings:
                if state is not None:
                    await state.check_flow(wiring.flow)
                route = _routes(settings).route(wiring)
                if state is not None and route.verdicts is not None:
                    for verdict in await state.verdicts(wiring.flow.name):
                        route.verdicts.take(verdict)
                survey = Survey(route, Backoff(), may_write=False)
                scanned = await state.last_scan(wiring.flow.name) if state else None
                is_new = scanned is None or scanned.finished is None
                seen = await preview(survey, state or NothingKnown(), is_new=is_new)
                each = await priced(settings, wiring, seen)
                spent = await state.spending(wiring.flow.name) if state else None
                if spent is not None:
                    each = replace(each, spent=spent.bound / MONEY)
                plans[wiring.flow.name] = each
        return plans
    finally:
        if state is not None:
            await state.close()


async def priced(settings: Settings, wiring: Wiring, seen: Preview) -> FlowPlan:
    """Price what a preview has seen, by the settings and by where the buckets are."""
    flow, limits, common = wiring.flow, wiring.target.limits, settings.prices
    source, target = pricing.prices_at_both_ends(settings, wiring)
    border, said = pricing.border_of(settings, flow), []
    if not source.is_free or not target.is_free:
        said.append(f"prices are those of {common.dated}; see [prices]")
    buckets = {kind.bucket for kind in seen.work.amounts}
    if border == "auto":
        egress, unsure = await pricing.borders(wiring, sorted(buckets))
        said += unsure
    else:
        egress = dict.fromkeys(buckets, Egress(border))
    terms = pricing.terms_of(settings, wiring, egress)
    for name, prices in ((flow.source.endpoint, source), (flow.target.endpoint, target)):
        if prices.is_free and isinstance(settings.endpoints[name], S3Endpoint):
            said.append(f"{name} charges nothing; else set endpoints.{name}.prices")
    said += assumptions(flow, limits, seen.work, terms)
    counted = {verdict: (count, seen.bytes[verdict]) for verdict, count in seen.objects.items()}
    cost = estimate(flow, limits, seen.work, terms)
    return FlowPlan(counted, cost, common.currency, said, flow.max_cost)


async def examine_flows(settings: Settings, flows: Sequence[Flow]) -> AsyncIterator[Finding]:
    """Try everything that the flows will need, the state first, with real requests."""
    async for finding in _try_state(settings, flows):
        yield finding
    mark = f"doctor/{await _who(settings)}"
    for flow in flows:
        try:
            async with wired(settings, [flow]) as (wiring,):
                route = _routes(settings).route(wiring, mark=mark)
                for finding in await _sweep(wiring, route):
                    yield finding
                async for finding in examine(route):
                    yield finding
        except S3flowError as error:
            remedy = "mend what the message names, in the configuration or on this machine"
            yield Finding(
                flow.name, "open its endpoints", ok=False, answer=str(error), remedy=remedy
            )


async def _try_state(settings: Settings, flows: Sequence[Flow]) -> AsyncIterator[Finding]:
    """Open the state as it is, and compare flows with it; what is not there yet is not made."""
    tried = f"open {settings.daemon.state_address}"
    try:
        state = await known_state(settings)
    except S3flowError as error:
        remedy = "mend what the message names: nothing runs without a state"
        yield Finding("daemon.state", tried, ok=False, answer=str(error), remedy=remedy)
        return
    if state is None:
        yield Finding("daemon.state", tried, ok=True, answer="nothing yet: the first run makes it")
        return
    try:
        yield Finding("daemon.state", tried, ok=True, answer="answered")
        for flow in flows:
            try:
                await state.check_flow(flow)
            except FlowChanged as error:
                tried, remedy = "compare it with the state", "choose one of these three"
                yield Finding(flow.name, tried, ok=False, answer=str(error), remedy=remedy)
    finally:
        await state.close()


async def _who(settings: Settings) -> str:
    """Say whose doctor this is: the state's, or this machine's where there is none yet, or it is away."""
    with contextlib.suppress(S3flowError):
        state = await known_state(settings)
        if state is not None:
            try:
                return await state.identity() or socket.gethostname()
            finally:
                await state.close()
    return socket.gethostname()


async def _sweep(wiring: Wiring, route: Route) -> list[Finding]:
    """Remove what killed doctors left at the target; tell of it, where there was something."""
    flow, found = wiring.flow, 0
    own = plan.target_key(flow, flow.source.prefix) + probe_name(route)
    try:
        for bucket in (await buckets_of(route))[0]:
            found += await upkeep.sweep_probes(wiring, plan.target_bucket(flow, bucket), own)
    except S3flowError:
        return []  # what is not allowed, or is away, is told by what is tried for the flow's sake
    tried = f"look at {flow.target} for what killed doctors left"
    return [Finding(flow.name, tried, ok=True, answer=f"{found} removed")] if found else []


def _routes(settings: Settings) -> RouteMaker:
    return RouteMaker(pace(settings.daemon), Crc64Nvme(), _ignore, asyncio.Event())
