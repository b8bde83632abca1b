"""Percentiles of histograms: estimates, since of each time only its bucket is known."""

from __future__ import annotations

from collections.abc import Sequence


def percentile(counts: Sequence[int], limits: Sequence[int], share: float) -> float | None:
    """Returns the value below which `share` of the counted ones are, None if none is counted.

    `counts` are those of the buckets up to each of `limits`, and of one above. Within its bucket a value is
    taken as even; the last bucket as twice as wide as its lower limit.

    >>> percentile([0, 4, 0], [100, 200], 0.5), percentile([0, 0, 2], [100, 200], 0.5)
    (150.0, 300.0)
    """
    total = sum(counts)
    if total <= 0:
        return None
    wanted, passed = share * total, 0
    lowest = 0.0
    for count, highest in zip(counts, (*limits, 2 * limits[-1]), strict=True):
        if count and passed + count >= wanted:
            return round(lowest + (highest - lowest) * (wanted - passed) / count, 1)
        passed, lowest = passed + count, highest
    return lowest
