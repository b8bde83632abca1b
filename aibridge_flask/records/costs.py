"""What token usages and interceptions cost, as it stands in their rows."""

from __future__ import annotations

from typing import Any

from ..model import Asked, Usage
from ..pricing import Billed, Cost, PriceList
from .events import Ended, TokenUsage

_PRICED, _PARTLY, _UNPRICED, _ESTIMATED = "priced", "partly", "unpriced", "estimated"
UNPRICED_STATUSES = (_PARTLY, _UNPRICED)


class Costs:
    """Prices events. Never raises: an absurd usage has no price."""

    def __init__(self, prices: PriceList) -> None:
        self._prices = prices

    def of_usage(self, event: TokenUsage) -> int | None:
        """Returns the cost in micro-dollars, None if no price is known."""
        cost = self._cost(event)
        return cost.micros if cost.is_priced else None

    def of_interception(self, event: Ended) -> dict[str, Any]:
        """Returns the members of the interception's row: the sum of its usages' costs, and what it is worth.

        Without any usage there is nothing to price, and the status is empty.
        """
        costs = [self._cost(usage) for usage in _usages(event) if usage.usage != Usage()]
        priced = [cost for cost in costs if cost.is_priced]
        status = _PRICED if len(priced) == len(costs) else _PARTLY if priced else _UNPRICED
        if event.is_estimated and status == _PRICED:
            status = _ESTIMATED
        first = priced[0] if priced else Cost(0)
        return {
            "new_cost_micros": sum(cost.micros for cost in priced) if priced else None,
            "new_cost_status": status if costs else "",
            "new_price_source": first.source,
            "new_price_version": first.version,
        }

    def _cost(self, event: TokenUsage) -> Cost:
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


def _usages(event: Ended) -> tuple[TokenUsage, ...]:
    """Returns the usages of an interception; those that the versions before wrote name no provider."""
    return event.usages or tuple(
        TokenUsage(event.id, row, "", "".join(models[:1]), usage, event.ended_at, asked=Asked(*models[-1:]))
        for row, (usage, models) in enumerate(event.parts)
    )
