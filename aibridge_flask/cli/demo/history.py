"""Made-up interceptions of days past: sessions of agents, as their clients make them.

The same seed gives the same history.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from .exchange import Exchange, Exchanges, Request
from .people import CLIENTS, Model, Person
from .texts import PROMPTS, TITLE_PROMPT

_FIRST_INPUT, _AGENTS_INPUT, _MAX_CONTEXT = 14_000, 6_000, 180_000  # tokens
_HOURS = (1, 1, 1, 1, 1, 1, 2, 8, 20, 28, 30, 28, 20, 26, 30, 30, 26, 18, 10, 6, 5, 4, 3, 2)
_SATURDAY, _WEEKEND = 5, 0.15  # of a working day
_AGENT_RATE = 0.06  # of answers that call a tool


class History:
    """What `people` have asked."""

    def __init__(self, seed: int, people: Sequence[Person]) -> None:
        self._random = random.Random(seed)  # noqa: S311 - nothing secret
        self._people, self._exchanges = people, Exchanges(self._random)

    def days(self, start: datetime, days: int, count: int) -> Iterator[list[Exchange]]:
        """Yields about `count` exchanges, those of each day from `start` on in the order of their starts."""
        dates = [start + timedelta(days=day) for day in range(days)]
        shares = [_WEEKEND if date.weekday() >= _SATURDAY else 1.0 for date in dates]
        for date, share in zip(dates, shares, strict=True):
            made: list[Exchange] = []
            while len(made) < count * share / sum(shares):
                made += self._session(date)
            yield sorted(made, key=lambda exchange: exchange.started_at)

    def _session(self, date: datetime) -> Iterator[Exchange]:
        request = self._first_request(date)
        if request.client.title_model:
            yield self._exchanges.make(_title_of(request))
        for _ in range(1 + int(self._random.expovariate(0.5))):
            thread = list(self._thread(request))
            yield from (exchange for exchange, _ in thread)
            pause = timedelta(seconds=60 + self._random.expovariate(1 / 120))
            request = replace(
                thread[-1][1],
                at=thread[-1][0].ended_at + pause,
                prompt=self._random.choice(PROMPTS),
                answers="",
                agent="",
                is_first=False,
            )

    def _first_request(self, date: datetime) -> Request:
        chance = self._random
        (person,) = chance.choices(self._people, [each.weight for each in self._people])
        (client,) = chance.choices(CLIENTS, [each.weight for each in CLIENTS])
        (model,) = chance.choices(client.models, [each.weight for each in client.models])
        (hour,) = chance.choices(range(24), _HOURS)
        at = date + timedelta(hours=hour, seconds=chance.uniform(0, 3600))
        facts = (person, client, model, _FIRST_INPUT, self._exchanges.hex(32), chance.choice(PROMPTS))
        return Request(at, *facts, is_first=True)

    def _thread(self, request: Request) -> Iterator[tuple[Exchange, Request]]:
        """Yields the exchanges that answer one prompt, each with its request."""
        rounds = 1 + int(self._random.expovariate(0.25))
        for left in reversed(range(rounds)):
            request = replace(request, calls_tools=left > 0)
            exchange = self._exchanges.make(request)
            yield exchange, request
            if not exchange.calls:
                return
            if request.client.has_subagents and not request.agent and self._random.random() < _AGENT_RATE:
                for of_agent, _ in self._thread(self._agents_request(request, exchange)):
                    yield of_agent, request
            request = self._next_request(request, exchange)

    def _next_request(self, request: Request, exchange: Exchange) -> Request:
        """Returns the request that carries the result of the last tool call."""
        grown = request.context + exchange.output + self._random.randint(200, 4000)
        return replace(
            request,
            at=exchange.ended_at + timedelta(seconds=self._random.uniform(0.1, 6)),
            context=min(grown, _MAX_CONTEXT),
            prompt="",
            answers=exchange.calls[-1],
            is_first=False,
        )

    def _agents_request(self, request: Request, exchange: Exchange) -> Request:
        return replace(
            request,
            at=exchange.ended_at,
            context=_AGENTS_INPUT,
            prompt=self._random.choice(PROMPTS),
            answers="",
            agent=self._exchanges.hex(12),
            is_first=True,
        )


def _title_of(request: Request) -> Request:
    """Returns the request for a title, which clients make beside the first one."""
    model = Model(request.client.title_model, request.model.provider, 0)
    return replace(
        request, model=model, context=600, prompt=TITLE_PROMPT.format(request.prompt), kind="title"
    )
