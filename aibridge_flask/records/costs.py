"""What token usages and interceptions cost, as it stands in their rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from ..model import Asked, Usage
from ..pricing import Billed, Cost, PriceList
from .events import Ended, TokenUsage

PRICED, PARTLY, UNPRICED, ESTIMATED = "priced", "partly", "unpriced", "estimated"
UNPRICED_STATUSES = (PARTLY, UNPRICED)


class Total(Struct, frozen=True):
    """The cost of an interception, by its columns. `cost_micros` is None if no price is known."""

    cost_micros: int | None = None
    cost_status: str = ""
    price_source: str = ""
    price_version: str = ""

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of an update of the row."""
        return {f"new_{name}": getattr(self, name) for name in self.__struct_fields__}


class Costs:
    """Prices the token usages of one slice. Never raises: an absurd usage has no price."""

    def __init__(self, prices: PriceList) -> None:
        self._prices = prices
        # an end repeats the usages, mostly the same objects; the event is kept, so that its id stays its own
        self._by_event: dict[int, tuple[TokenUsage, Cost]] = {}

    def of_usage(self, event: TokenUsage) -> dict[str, int | None]:
        """Returns the members of the usage's row that hold money; `cost_micros` is None if no price is
        known."""
        cost = self._price(event)
        return {
            "cost_micros": cost.micros if cost.is_priced else None,
            "output_micros": cost.output_micros,
            "cache_read_micros": cost.cache_read_micros,
            "cache_write_micros": cost.cache_write_micros,
            "fees_micros": cost.fees_micros,
            "cache_saved_micros": cost.saved_micros,
        }

    def of_interception(self, event: Ended) -> dict[str, Any]:
        """Returns the members of the interception's row that its end sets."""
        return self.total(_usages(event), event.is_estimated).parameters

    def total(self, usages: Sequence[TokenUsage], is_estimated: bool) -> Total:
        """Sums the costs of an interception's usages. Where nothing was used there is nothing to price."""
        return _sum([self._price(usage) for usage in usages if usage.usage != Usage()], is_estimated)

    def _price(self, event: TokenUsage) -> Cost:
        if id(event) not in self._by_event:
            self._by_event[id(event)] = event, self._compute(event)
        return self._by_event[id(event)][1]

    def _compute(self, event: TokenUsage) -> Cost:
        asked, served = event.asked, event.served
        return self._prices.cost(
            Billed(
                usage=event.usage,
                model=event.model,
                asked=asked.model,
                provider=asked.provider,
                provider_name=asked.provider_name,
                at=event.created_at,
                profile=asked.profile,
                service_tier=served.service_tier,
                speed=served.speed,
                inference_geo=served.inference_geo,
            )
        )


def _sum(costs: Sequence[Cost], is_estimated: bool) -> Total:
    priced = [cost for cost in costs if cost.is_priced]
    if not priced:
        return Total(cost_status=UNPRICED if costs else "")
    status = PRICED if len(priced) == len(costs) else PARTLY
    if is_estimated and status == PRICED:
        status = ESTIMATED
    return Total(sum(cost.micros for cost in priced), status, priced[0].source, priced[0].version)


def _usages(event: Ended) -> tuple[TokenUsage, ...]:
    """Returns the usages of an interception; those that the versions before wrote name no provider."""
    return event.usages or tuple(
        TokenUsage(event.id, row, "", "".join(models[:1]), usage, event.ended_at, asked=Asked(*models[-1:]))
        for row, (usage, models) in enumerate(event.parts)
    )
