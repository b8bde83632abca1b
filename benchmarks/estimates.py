"""How good the estimates are that limits hold: what is held against what it really costs.

`python -m benchmarks.estimates` goes through the made-up history as it happened; nothing is sent. Bodies are
given 3.2 to 4.4 bytes for each token of input, by client, with a tenth of noise; requests ask for at most
32,000 tokens.
"""

from __future__ import annotations

import random
import statistics
from datetime import UTC, datetime

from aibridge_flask import config
from aibridge_flask.cli.demo.history import History
from aibridge_flask.cli.demo.people import crowd
from aibridge_flask.limits.forecast import Forecaster
from aibridge_flask.pricing import PriceList
from aibridge_flask.records.costs import Costs
from aibridge_flask.records.events import Ended, Started

_COUNT, _DAYS, _PEOPLE, _MAX_OUTPUT = 20_000, 14, 20, 32_000


def main() -> None:
    chance, bytes_per_token = random.Random(1), dict[str, float]()
    prices = PriceList(config.load({}))
    prices.load()
    forecaster = Forecaster(lambda: prices)
    ratios: list[float] = []  # held to real
    held_sum = real_sum = 0
    for day in History(7, crowd(_PEOPLE)).days(datetime(2026, 1, 5, tzinfo=UTC), _DAYS, _COUNT):
        for exchange in day:
            started = next(each for each in exchange.events if isinstance(each, Started))
            ended = next(each for each in exchange.events if isinstance(each, Ended))
            usage = ended.usage
            total = usage.input_tokens + usage.cache_read_input_tokens + usage.cache_write_input_tokens
            real = Costs(prices).of_interception(ended)["new_cost_micros"]
            if not total or not real:
                continue
            ratio = bytes_per_token.setdefault(started.client, chance.uniform(3.2, 4.4))
            size = int(total * ratio * chance.gauss(1.0, 0.1))
            forecast = forecaster.forecast(started, size, _MAX_OUTPUT)
            held = forecast.expected.micros
            ratios.append(held / real)
            held_sum, real_sum = held_sum + held, real_sum + real
            forecaster.learn(forecast, usage)
    values = sorted(ratios)
    few = sum(value < 1 for value in values) / len(values)
    print(f"{len(values)} requests: held against real, median {statistics.median(values):.2f},")
    print(f"5 % below {values[len(values) // 20]:.2f}, 5 % above {values[-(len(values) // 20)]:.2f};")
    print(f"too little was held by {few:.0%}; in all {held_sum / real_sum:.2f} of what was spent.")


if __name__ == "__main__":
    main()
