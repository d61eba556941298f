"""What stores charge: AWS's list prices, dated, and what stands over them or in their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

if TYPE_CHECKING:
    from s3flow.engine.costs import Prices

Money = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Tier = Annotated[
    Literal["Standard", "Bulk", "Expedited"], BeforeValidator(lambda tier: str(tier).capitalize())
]
Egress = Literal["auto", "none", "region", "internet"]

# https://aws.amazon.com/s3/pricing/, US East (N. Virginia), first tier of each, without taxes.
AWS_GET = {"STANDARD": 0.0004, "STANDARD_IA": 0.001, "ONEZONE_IA": 0.001, "GLACIER_IR": 0.01}
AWS_PUT = {
    "STANDARD": 0.005,
    "STANDARD_IA": 0.01,
    "ONEZONE_IA": 0.01,
    "GLACIER_IR": 0.02,
    "GLACIER": 0.03,
    "DEEP_ARCHIVE": 0.05,
}
AWS_RETRIEVAL = {"STANDARD_IA": 0.01, "ONEZONE_IA": 0.01, "GLACIER_IR": 0.03}
AWS_STORAGE = {
    "STANDARD": 0.023,
    "STANDARD_IA": 0.0125,
    "ONEZONE_IA": 0.01,
    "GLACIER_IR": 0.004,
    "GLACIER": 0.0036,
    "DEEP_ARCHIVE": 0.00099,
}
AWS_RESTORE: dict[str, dict[Tier, Money]] = {
    "GLACIER": {"Standard": 0.01, "Bulk": 0.0, "Expedited": 0.03},
    "DEEP_ARCHIVE": {"Standard": 0.02, "Bulk": 0.0025},
}
AWS_RESTORE_REQUESTS: dict[str, dict[Tier, Money]] = {
    "GLACIER": {"Standard": 0.05, "Bulk": 0.0, "Expedited": 10.0},
    "DEEP_ARCHIVE": {"Standard": 0.1, "Bulk": 0.025},
}

ByClass = dict[str, Money]
ByTier = dict[str, dict[Tier, Money]]


def _upper(table: ByClass) -> ByClass:
    # Variables of the environment have no case by the time they arrive here.
    return {name.upper(): price for name, price in table.items()}


def _upper_tiers(table: ByTier) -> ByTier:
    return {name.upper(): tiers for name, tiers in table.items()}


def _over(prices: ByClass) -> Callable[[ByClass], ByClass]:
    """Let what is written change some prices, and keep the others."""
    return lambda table: prices | _upper(table)


def _over_tiers(prices: ByTier) -> Callable[[ByTier], ByTier]:
    return lambda table: _merged(prices, _upper_tiers(table))


def _merged(under: ByTier, over: ByTier) -> ByTier:
    return under | {name: under.get(name, {}) | tiers for name, tiers in over.items()}


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class PriceSettings(_Table):
    """What AWS charges: requests by the thousand, bytes by the GB, storage by the GB and month."""

    currency: Annotated[str, Field(min_length=1, max_length=8)] = "USD"
    dated: Annotated[str, Field(min_length=1, max_length=40)] = "2026-06, us-east-1"
    egress: Egress = "auto"
    egress_internet: Money = 0.09
    egress_region: Money = 0.02
    list_requests: Money = 0.005
    get_requests: Annotated[ByClass, AfterValidator(_over(AWS_GET))] = AWS_GET
    put_requests: Annotated[ByClass, AfterValidator(_over(AWS_PUT))] = AWS_PUT
    restore_requests: Annotated[ByTier, AfterValidator(_over_tiers(AWS_RESTORE_REQUESTS))] = (
        AWS_RESTORE_REQUESTS
    )
    restore: Annotated[ByTier, AfterValidator(_over_tiers(AWS_RESTORE))] = AWS_RESTORE
    retrieval: Annotated[ByClass, AfterValidator(_over(AWS_RETRIEVAL))] = AWS_RETRIEVAL
    storage: Annotated[ByClass, AfterValidator(_over(AWS_STORAGE))] = AWS_STORAGE


class EndpointPrices(_Table):
    """What an endpoint charges in place of the common prices, which are AWS's, or of nothing."""

    egress: Egress | None = None
    egress_internet: Money | None = None
    egress_region: Money | None = None
    list_requests: Money | None = None
    get_requests: Annotated[ByClass, AfterValidator(_upper)] = {}
    put_requests: Annotated[ByClass, AfterValidator(_upper)] = {}
    restore_requests: Annotated[ByTier, AfterValidator(_upper_tiers)] = {}
    restore: Annotated[ByTier, AfterValidator(_upper_tiers)] = {}
    retrieval: Annotated[ByClass, AfterValidator(_upper)] = {}
    storage: Annotated[ByClass, AfterValidator(_upper)] = {}


NOTHING = PriceSettings.model_construct(
    egress_internet=0.0,
    egress_region=0.0,
    list_requests=0.0,
    get_requests={},
    put_requests={},
    restore_requests={},
    restore={},
    retrieval={},
    storage={},
)


def prices_of(common: PriceSettings, own: EndpointPrices, *, is_aws: bool) -> Prices:
    """Give what an endpoint charges: the *common* prices if it *is_aws*, else nothing, but for its *own*."""
    from s3flow.engine.costs import Egress as Border
    from s3flow.engine.costs import Prices

    base = common if is_aws else NOTHING

    def one(mine: float | None, theirs: float) -> float:
        return theirs if mine is None else mine

    return Prices(
        listing=one(own.list_requests, base.list_requests),
        get=base.get_requests | own.get_requests,
        put=base.put_requests | own.put_requests,
        retrieval=base.retrieval | own.retrieval,
        storage=base.storage | own.storage,
        restore=_plain(_merged(base.restore, own.restore)),
        restore_requests=_plain(_merged(base.restore_requests, own.restore_requests)),
        egress={
            Border.INTERNET: one(own.egress_internet, base.egress_internet),
            Border.REGION: one(own.egress_region, base.egress_region),
        },
    )


def _plain(table: ByTier) -> Mapping[str, Mapping[str, float]]:
    return {
        name: {str(tier): price for tier, price in tiers.items()} for name, tiers in table.items()
    }
