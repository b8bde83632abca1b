"""Token counts as an upstream tells them, in parts and more than once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import body


def merge_counts(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is known after a later event: counts are cumulative, so the later one counts.

    A 0 or null tells nothing: some upstreams send it for what they have told before.

    >>> merge_counts({"n": 3, "of": {"x": 1}, "l": [1]}, {"n": 0, "of": {"x": None, "y": 2}, "l": []})
    {'n': 3, 'of': {'x': 1, 'y': 2}, 'l': [1]}
    """
    merged = dict(earlier)
    for key, value in later.items():
        if isinstance(value, body.OBJECT):
            merged[key] = merge_counts(body.get_object(earlier, key), value)
        elif value or not earlier.get(key):
            merged[key] = value
    return merged
