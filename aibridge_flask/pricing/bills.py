"""What providers bill by their own account, day by day and model by model.

https://platform.claude.com/docs/en/api/admin/cost_report
https://developers.openai.com/api/reference/resources/organization
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any

import requests

from ..config.settings import ProviderSettings
from ..errors import ConfigError
from .comparison import BillItem

_TIMEOUT = (10.0, 60.0)  # seconds
_MAX_PAGES = 100
_MICROS_PER_DOLLAR, _MICROS_PER_CENT = 1_000_000, 10_000
_ANTHROPIC_VERSION = "2023-06-01"
Json = Mapping[str, Any]


class BillUnavailable(Exception):
    """The provider gives no bill; the message says why, without the key."""


def fetch(provider: ProviderSettings, base_url: str, month: date) -> list[BillItem]:
    """Returns the bill of a month, by its days in UTC.

    Raises ConfigError if the provider has no `admin_key`, or no such bills; BillUnavailable.
    """
    if provider.type not in _READERS:
        raise ConfigError(f"providers: {provider.type} has no bill to ask for")
    if not provider.admin_key:
        raise ConfigError(f"providers: admin_key of {provider.name} is needed to ask for its bill")
    read = _READERS[provider.type]
    try:
        return [amount for amount in read(provider, base_url.rstrip("/"), month) if amount.micros]
    except requests.RequestException as error:
        raise BillUnavailable(f"the bill cannot be asked for: {type(error).__name__}") from None
    except (KeyError, TypeError, ValueError, AttributeError, InvalidOperation):
        raise BillUnavailable("the bill is not in the documented shape") from None


def _read_anthropic(provider: ProviderSettings, base_url: str, month: date) -> Iterator[BillItem]:
    """Amounts are in cents, as decimal texts."""
    headers = {"X-Api-Key": provider.admin_key.value, "Anthropic-Version": _ANTHROPIC_VERSION}
    start, end = (f"{day.isoformat()}T00:00:00Z" for day in (month, _next_month(month)))
    query = {
        "starting_at": start,
        "ending_at": end,
        "group_by[]": "description",
        "bucket_width": "1d",
        "limit": 31,
    }
    for bucket in _buckets(provider, f"{base_url}/v1/organizations/cost_report", headers, query):
        day = datetime.fromisoformat(bucket["starting_at"]).astimezone(UTC).date()
        for result in bucket["results"]:
            item = result.get("model") or result.get("description") or result.get("cost_type") or ""
            yield BillItem(day, item, _micros(result["amount"], _MICROS_PER_CENT))


def _read_openai(provider: ProviderSettings, base_url: str, month: date) -> Iterator[BillItem]:
    """Amounts are in US$. A line item begins with its model: `gpt-5-2025-08-07, input`."""
    headers = {"Authorization": f"Bearer {provider.admin_key.value}"}
    start, end = (_timestamp(day) for day in (month, _next_month(month)))
    query = {"start_time": start, "end_time": end, "group_by": "line_item", "bucket_width": "1d", "limit": 31}
    for bucket in _buckets(provider, f"{base_url}/organization/costs", headers, query):
        day = datetime.fromtimestamp(bucket["start_time"], UTC).date()
        for result in bucket["results"]:
            item = (result.get("line_item") or "").partition(",")[0].strip()
            yield BillItem(day, item, _micros(result["amount"]["value"], _MICROS_PER_DOLLAR))


_READERS: Mapping[str, Callable[[ProviderSettings, str, date], Iterator[BillItem]]] = {
    "anthropic": _read_anthropic,
    "openai": _read_openai,
}


def _buckets(
    provider: ProviderSettings, url: str, headers: Mapping[str, str], query: Mapping[str, Any]
) -> Iterator[Json]:
    proxies = {"http": provider.proxy, "https": provider.proxy} if provider.proxy else None
    options: dict[str, Any] = {"headers": headers, "proxies": proxies, "verify": provider.ca_file or True}
    page: Json = {"has_more": True}
    for _ in range(_MAX_PAGES):
        if not page["has_more"]:
            return
        more = {"page": page["next_page"]} if page.get("next_page") else {}
        parameters = {**query, **more}
        response = requests.get(url, parameters, timeout=_TIMEOUT, allow_redirects=False, **options)
        if response.status_code != 200:
            raise BillUnavailable(f"the provider refuses the bill with status {response.status_code}")
        page = json.loads(response.content, parse_float=Decimal)
        yield from page["data"]
    raise BillUnavailable("the bill has no end")


def _micros(amount: Any, factor: int) -> int:
    return round(Decimal(str(amount)) * factor)


def _timestamp(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())


def _next_month(month: date) -> date:
    return (month.replace(day=1) + timedelta(days=32)).replace(day=1)
