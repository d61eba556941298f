"""What one transfer costs, or one restore: the prices of an estimate, object by object."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from s3flow.engine import plan
from s3flow.engine.costs import Egress, Rate, Terms, priced, rate
from s3flow.engine.workload import Amount, Kind, Workload
from s3flow.errors import TooLarge
from s3flow.model import Flow, Limits, Listed, Method, Transfer
from s3flow.policies import MethodPolicy, Overwrite
from s3flow.records import MONEY

Borders = Callable[[str], Awaitable[Egress]]


class Quote(NamedTuple):
    """What a transfer may cost, in `MONEY`: *streamed*, *copied* by the store, or only *looked* at."""

    streamed: int
    copied: int
    looked: int

    @property
    def most(self) -> int:
        """What it costs at the most."""
        return max(self.streamed, self.copied)


def units(money: float) -> int:
    """Give a sum of money in `MONEY`, rounded up."""
    return math.ceil(money * MONEY)


class Tariff:
    """The prices of one flow. *borders* says which border the bytes of a source bucket cross.

    *inside*: the store may copy by itself.
    """

    def __init__(
        self, flow: Flow, limits: Limits, terms: Terms, borders: Borders, *, inside: bool
    ) -> None:
        self._flow = flow
        self._limits = limits
        self._egress = dict(terms.egress)
        self._terms = Terms(terms.source, terms.target, self._egress, terms.tier, terms.days)
        self._borders = borders
        self._inside = inside
        self._rates: dict[tuple[Kind, bool], Rate] = {}
        self.page = units(terms.source.listing / 1000)
        # The first walk looks at the target for what may be adopted.
        looks = not limits.paths and flow.overwrite is not Overwrite.ALWAYS
        self.look = units(terms.target.listing / 1000) if looks else 0

    @property
    def is_free(self) -> bool:
        """Say whether nothing has a price."""
        return self._terms.source.is_free and self._terms.target.is_free

    async def learn(self, bucket: str) -> None:
        """Find out which border the bytes of *bucket* cross."""
        if bucket not in self._egress:
            self._egress[bucket] = await self._borders(bucket)

    def knows(self, bucket: str) -> bool:
        """Say whether *bucket* is learnt: only then are its objects priced."""
        return bucket in self._egress

    def quote(self, transfer: Transfer) -> Quote:
        """Price a transfer that can be read. Its bucket is learnt."""
        streamed = copied = 0
        if self._flow.method is not MethodPolicy.SERVER_ONLY:
            streamed = self._transfer(transfer, inside=False)
        if self._inside:
            copied = self._transfer(transfer, inside=True)
        return Quote(streamed, copied, self._looked(transfer))

    def restore(self, transfer: Transfer) -> int:
        """Price the restore of an archived object, without what follows."""
        work = self._work(transfer, Method.PUT, asked=False)
        cost = 0.0
        for kind, amount in work.amounts.items():
            if kind.frozen:
                cost += self._rate(kind, amount).of(amount)
                thawed = kind._replace(frozen=False)
                cost -= self._rate(thawed, amount).of(amount)
        return units(max(0.0, cost))

    def _transfer(self, transfer: Transfer, *, inside: bool) -> int:
        try:
            method = plan.choose_method(
                self._flow, self._limits, transfer.size, transfer.etag, inside=inside
            )
        except TooLarge:
            return 0  # it fails when its turn comes, and costs next to nothing
        work = self._work(transfer, method, asked=True)
        return units(
            sum(self._rate(kind, amount).of(amount) for kind, amount in work.amounts.items())
        )

    def _work(self, transfer: Transfer, method: Method, *, asked: bool) -> Workload:
        entry = Listed(
            transfer.key, transfer.size, transfer.etag, transfer.modified, transfer.storage_class
        )
        work = Workload()
        work.add(
            self._flow,
            self._limits,
            transfer.bucket,
            entry,
            method,
            now=time.time(),
            asked=asked,
        )
        return work

    def _rate(self, kind: Kind, amount: Amount) -> Rate:
        known = self._rates.get((kind, bool(amount.parts)))
        if known is None:
            in_parts = bool(amount.parts)
            known = rate(self._flow, self._limits, kind, self._terms, in_parts=in_parts)
            self._rates[kind, in_parts] = known
        return known

    def _looked(self, transfer: Transfer) -> int:
        """Price an attempt that ended with the looks at source and target."""
        source = 2 * priced(self._terms.source.get, transfer.storage_class or "STANDARD")
        return units((source + priced(self._terms.target.get, "")) / 1000)
