"""What a flow's ends charge, by the settings and by where its buckets are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from s3flow.config import S3Endpoint, Settings
from s3flow.config.prices import prices_of
from s3flow.engine import plan
from s3flow.engine.costs import Egress, End, Prices, Terms, egress_between
from s3flow.engine.tariff import Tariff
from s3flow.engine.wiring import Wiring
from s3flow.errors import S3flowError
from s3flow.model import Flow
from s3flow.policies import MethodPolicy
from s3flow.stores.s3 import S3Store


def terms_of(settings: Settings, wiring: Wiring, egress: Mapping[str, Egress]) -> Terms:
    """Give under which terms a flow's work is priced; *egress* by source bucket."""
    flow = wiring.flow
    source, target = prices_at_both_ends(settings, wiring)
    return Terms(source, target, egress, flow.restore_tier.value, flow.restore_days)


def tariffs(settings: Settings, wirings: Sequence[Wiring]) -> dict[str, Tariff]:
    """Give the prices of those flows that have a `max_cost`."""
    return {
        wiring.flow.name: _tariff(settings, wiring) for wiring in wirings if wiring.flow.max_cost
    }


def _tariff(settings: Settings, wiring: Wiring) -> Tariff:
    flow = wiring.flow
    border = border_of(settings, flow)

    async def found(bucket: str) -> Egress:
        if border != "auto":
            return Egress(border)
        egress, _ = await borders(wiring, [bucket])
        return egress[bucket]

    one_service = bool(wiring.target.service) and wiring.target.service == wiring.source.service
    inside = one_service and flow.method is not MethodPolicy.STREAM_ONLY
    terms = terms_of(settings, wiring, {})
    return Tariff(flow, wiring.target.limits, terms, found, inside=inside)


def prices_at_both_ends(settings: Settings, wiring: Wiring) -> tuple[Prices, Prices]:
    """Give what source and target charge."""
    flow = wiring.flow
    return (
        _prices(settings, flow.source.endpoint, wiring.source.service),
        _prices(settings, flow.target.endpoint, wiring.target.service),
    )


def _prices(settings: Settings, name: str, service: str) -> Prices:
    endpoint = settings.endpoints[name]
    if not isinstance(endpoint, S3Endpoint):
        return Prices()
    return prices_of(settings.prices, endpoint.prices, is_aws=service.startswith("aws:"))


def border_of(settings: Settings, flow: Flow) -> str:
    """Say which border bytes cross by the settings: "auto", or one of `Egress`."""
    end = settings.endpoints[flow.source.endpoint]
    own = end.prices.egress if isinstance(end, S3Endpoint) else None
    return own or settings.prices.egress


async def borders(
    wiring: Wiring, buckets: Sequence[str]
) -> tuple[dict[str, Egress], Sequence[str]]:
    """Say by source bucket which border its bytes cross, and where that could not be found out."""
    flow, source, target = wiring.flow, wiring.source, wiring.target
    if not isinstance(source, S3Store) or not isinstance(target, S3Store):
        return dict.fromkeys(buckets, Egress.INTERNET), []
    found, unsure = {}, []
    for bucket in buckets:
        there = plan.target_bucket(flow, bucket)
        if source.service == target.service and source.service.startswith("aws:"):
            try:  # the first answer tells
                await target.find(there, [b"s3flow"])
            except S3flowError as error:
                region = target.region(there)
                unsure.append(f"{there} is in {region}, though it does not say so ({error.reason})")
        found[bucket] = egress_between(
            End(source.service, source.region(bucket)), End(target.service, target.region(there))
        )
    return found, unsure
