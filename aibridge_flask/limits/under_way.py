"""The interceptions of this process that hold something of a limit."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct

from ..records.events import InterceptionEnded, Started
from .claims import Claim
from .forecast import Forecast, Forecaster

_GROWTH = 1.5  # of a forecast that an answer has passed
Growth = tuple[int, str, int]
"""What is held now, by which interception, of which account."""


class _Held(Struct):
    started: Started
    claim: Claim
    forecast: Forecast
    output: Callable[[], int]


class UnderWay:
    """Requests add and end them; the desk's thread asks how they have grown."""

    def __init__(self, forecaster: Forecaster) -> None:
        self._forecaster = forecaster
        self._held: dict[str, _Held] = {}

    def add(self, started: Started, claim: Claim, forecast: Forecast) -> None:
        self._held[started.id] = _Held(started, claim, forecast, lambda: 0)

    def watch(self, id: str, output: Callable[[], int]) -> None:
        """From now on `output` tells how many tokens the interception has answered."""
        if id in self._held:
            self._held[id].output = output

    def end(self, event: InterceptionEnded) -> None:
        held = self._held.pop(event.ended.id, None)
        if held and not event.ended.is_estimated:
            self._forecaster.learn(held.forecast, event.ended.usage)

    def clear(self) -> None:
        self._held.clear()

    def growth(self) -> list[Growth]:
        """Returns what is held by those whose answers are longer than the forecast; it is the new one."""
        return [row for held in list(self._held.values()) for row in self._grown(held)]

    def _grown(self, held: _Held) -> Iterator[Growth]:
        output = held.output()
        if output <= held.forecast.usage.output_tokens:
            return
        forecast = self._forecaster.with_output(held.forecast, held.started, int(output * _GROWTH))
        held.forecast, expected = forecast, forecast.expected
        for charge in held.claim.charges:
            amount = charge.limit.amount(1, expected.tokens, expected.micros)
            if amount > charge.held:
                yield amount, held.started.id, charge.account
