"""Pages of tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ...reading.errors import BadQuestion
from ...reading.pages import MAX_OFFSET, Listing

Row = dict[str, Any]


def position(arguments: Mapping[str, str]) -> int:
    """Returns how many rows are to be skipped. Raises BadQuestion."""
    text = arguments.get("offset", "0") or "0"
    if not (text.isascii() and text.isdigit()) or len(text) > 6 or int(text) > MAX_OFFSET:
        raise BadQuestion("offset", f"a number up to {MAX_OFFSET} is expected")
    return int(text)


decode = msgspec.json.Decoder(Row).decode
"""Returns the value of a JSON object."""


def rows_of(listing: Listing) -> list[Row]:
    return [decode(row) for row in listing.rows]


def paging(listing: Listing, offset: int) -> dict[str, Any]:
    """Returns what the links to the pages before and after need."""
    return {
        "count": listing.count,
        "count_capped": listing.is_capped,
        "offset": offset,
        "shown": len(listing.rows),
        "has_more": bool(listing.next_after_id),
    }
