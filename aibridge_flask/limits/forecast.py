"""What a request will probably use, in tokens and money."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct
from msgspec.structs import replace

from ..model import Usage
from ..pricing import Billed, PriceList
from ..records.events import Started
from .claims import Expected
from .estimates import Estimator, Request


class Forecast(Struct, frozen=True):
    """`usage` by kinds, and what it costs. `is_priced` is false for a model without a price."""

    request: Request
    usage: Usage
    expected: Expected
    is_priced: bool


class Forecaster:
    """Learns from what has ended. `prices` are looked up at each use: they come with the worker's start."""

    def __init__(self, prices: Callable[[], PriceList]) -> None:
        self._prices, self._estimator = prices, Estimator()

    def forecast(self, started: Started, size: int, max_output: int) -> Forecast:
        request = _request(started, size, max_output)
        return self._priced(request, started, self._estimator.expected(request))

    def with_output(self, known: Forecast, started: Started, tokens: int) -> Forecast:
        """Returns the forecast for an answer of so many tokens."""
        return self._priced(known.request, started, replace(known.usage, output_tokens=tokens))

    def learn(self, known: Forecast, usage: Usage) -> None:
        self._estimator.learn(known.request, usage)

    def _priced(self, request: Request, started: Started, usage: Usage) -> Forecast:
        billed = Billed(
            usage=usage,
            model=started.model,
            asked=started.model,
            provider=started.provider,
            provider_name=started.provider_name,
            at=started.started_at,
            profile=started.profile,
        )
        cost = self._prices().cost(billed)
        tokens = usage.input_tokens + usage.output_tokens
        tokens += usage.cache_read_input_tokens + usage.cache_write_input_tokens
        micros = cost.micros if cost.is_priced else 0
        return Forecast(request, usage, Expected(tokens, micros), cost.is_priced)


def _request(started: Started, size: int, max_output: int) -> Request:
    session = started.client_session_id
    return Request(
        actor=started.initiator_id,
        client=started.client,
        model=started.model,
        conversation=f"{session}\0{started.agent_id}" if session else "",
        size=size,
        max_output=max_output,
        at=started.started_at.timestamp(),
    )
