"""Prices and tariffs of which a test can tell the sum."""

from __future__ import annotations

from pathlib import Path

from s3flow.engine.costs import Egress, Prices, Terms
from s3flow.engine.tariff import Tariff
from s3flow.model import GIB, Flow
from tests.unit.lab import Lab

EGRESS = Prices(egress={Egress.INTERNET: float(GIB)})  # 1 for each byte
FREE = Prices()


def tariff(flow: Flow, prices: Prices = EGRESS, lab: Lab | None = None) -> Tariff:
    """Give the tariff of a flow over the internet, on which its own side is for nothing."""

    async def internet(bucket: str) -> Egress:
        return Egress.INTERNET

    limits = (lab or Lab(Path())).dst.limits
    return Tariff(flow, limits, Terms(prices, FREE, days=1), internet, inside=False)
