"""What `s3flow plan` shows: what would become of the objects, and what that would cost."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from s3flow.engine.costs import Estimate, Line, Restoring, Unit
from s3flow.observe.text import duration, money, size

# Objects and bytes by (verdict, by what or why).
Counted = Mapping[tuple[str, str], tuple[int, int]]
_ORDER = ("transfer", "pending", "adopt", "unchanged", "skip", "refuse")
_PER = {Unit.REQUESTS: "1,000", Unit.GB: "GB", Unit.GB_MONTHS: "GB-month"}


@dataclass(frozen=True, slots=True)
class FlowPlan:
    """What one flow would do, and what it would cost in *currency*."""

    counted: Counted
    cost: Estimate
    currency: str
    assumptions: Sequence[str]
    max_cost: float = 0.0  # 0: no limit
    spent: float = 0.0  # of that

    @property
    def fits(self) -> bool:
        """Say whether the flow may spend what is estimated."""
        return not self.max_cost or self.spent + self.cost.total <= self.max_cost


def plan_view(plans: Mapping[str, FlowPlan]) -> Group:
    """Show what each flow would do, the transfers first, and then what it would cost."""
    parts: list[RenderableType] = [_verdicts(plans)]
    for flow, each in plans.items():
        if each.cost.objects:
            parts += [Text(), _costs(flow, each)]
            parts += [Text(f"  {line}") for line in _notes(each)]
    if len(plans) > 1:
        parts += [Text(), Text(f"all together: {money(_total(plans))} {_currency(plans)}")]
    return Group(*parts)


def plan_json(plans: Mapping[str, FlowPlan]) -> dict[str, object]:
    """Give the same as plain values."""
    flows = [{"name": flow, **_flow_json(each)} for flow, each in plans.items()]
    return {"flows": flows, "total": _total(plans), "currency": _currency(plans)}


def _total(plans: Mapping[str, FlowPlan]) -> float:
    return math.fsum(each.cost.total for each in plans.values())


def _currency(plans: Mapping[str, FlowPlan]) -> str:
    return next((each.currency for each in plans.values()), "")


def quantity(line: Line) -> str:
    """Give what a line counts: "12 requests", "1.50 GB"."""
    if line.unit is Unit.REQUESTS:
        return _requests(int(line.quantity))
    return f"{line.quantity:,.2f} {line.unit}" if line.quantity >= 0.01 else f"<0.01 {line.unit}"


def _requests(count: int) -> str:
    return f"{count:,} request" if count == 1 else f"{count:,} requests"


def _verdicts(plans: Mapping[str, FlowPlan]) -> Table:
    table = Table(title="what the next scan would do", title_justify="left")
    for name in ("flow", "verdict", "method, proof or reason"):
        table.add_column(name, overflow="fold")
    for name in ("objects", "bytes"):
        table.add_column(name, justify="right", no_wrap=True)
    for flow, each in plans.items():
        for verdict, why, objects, volume in _sorted(each.counted):
            table.add_row(flow, verdict, why, f"{objects:,}", size(volume))
        if not each.counted:
            table.add_row(flow, "nothing", "the source lists no objects", "0", size(0))
        table.add_section()
    return table


def _sorted(counted: Counted) -> Iterator[tuple[str, str, int, int]]:
    for verdict, why in sorted(counted, key=lambda each: (_ORDER.index(each[0]), each[1])):
        yield verdict, why, *counted[verdict, why]


def _costs(flow: str, each: FlowPlan) -> Table:
    cost, table = each.cost, Table(title_justify="left")
    table.title = Text(
        f"what {flow} would cost: {cost.objects:,} objects, {size(cost.bytes)}, in {each.currency}",
        style="italic",
    )
    for name in ("for", "of"):
        table.add_column(name, overflow="fold")
    for name in ("how much", "price", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in cost.lines:
        price = f"{line.price:g} per {_PER[line.unit]}"
        table.add_row(line.what, line.of, quantity(line), price, money(line.cost))
    table.add_section()
    table.add_row("total", "", _requests(cost.requests), "", money(cost.total))
    return table


def _limit(each: FlowPlan) -> Iterator[str]:
    """Say whether the estimate fits what the flow may spend."""
    if each.max_cost:
        spent = f", {money(each.spent)} of it is spent" if each.spent else ""
        estimated = f"estimate {money(each.cost.total)}"
        end = "fits" if each.fits else "would stop before it is done"
        yield f"max_cost {money(each.max_cost)} {each.currency}{spent}: {estimated}, {end}"


def _notes(each: FlowPlan) -> Iterator[str]:
    yield from _limit(each)
    for tier in each.cost.restoring:
        mark = " (counted above)" if tier.tier == each.cost.tier else ""
        yield (
            f"restored by {tier.tier}: {money(tier.cost)} {each.currency}, "
            f"{_hours(tier)} until it can be read{mark}"
        )
    yield from (f"assumed: {line}" for line in each.assumptions)


def _hours(tier: Restoring) -> str:
    return f"{duration(tier.p50 * 3600)} (90%: {duration(tier.p90 * 3600)})"


def _flow_json(each: FlowPlan) -> dict[str, object]:
    cost = each.cost
    return {
        "objects": cost.objects,
        "bytes": cost.bytes,
        "requests": cost.requests,
        "verdicts": [
            {"verdict": verdict, "why": why, "objects": objects, "bytes": volume}
            for verdict, why, objects, volume in _sorted(each.counted)
        ],
        "cost": {
            "currency": each.currency,
            "total": cost.total,
            "max_cost": each.max_cost or None,
            "spent": each.spent if each.max_cost else None,
            "fits": each.fits,
            "lines": [line._asdict() for line in cost.lines],
            "restoring": {
                tier.tier: {
                    "cost": tier.cost,
                    "hours": {"p50": tier.p50, "p90": tier.p90},
                    "counted": tier.tier == cost.tier,
                }
                for tier in cost.restoring
            },
            "assumptions": list(each.assumptions),
        },
    }
