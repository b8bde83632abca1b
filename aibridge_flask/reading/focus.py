"""Usage as rows of FOCUS 1.2, the FinOps Open Cost and Usage Specification.

There is one row for each kind of tokens of a day, actor, provider, model and kind of credential.
https://focus.finops.org/focus-specification/v1-2/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import lru_cache

from .usage import Result

KEYS = ("day", "initiator", "provider", "provider_name", "model", "client", "credential_kind")
_MANDATORY = (
    *("BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd"),
    *("BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd"),
    *("ChargePeriodStart", "ContractedCost", "EffectiveCost", "InvoiceIssuerName", "ListCost"),
    *("PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName"),
)
COLUMNS = (
    *_MANDATORY,
    *("ConsumedQuantity", "ConsumedUnit", "SubAccountId", "SkuMeter", "x_Model", "x_Client"),
    *("x_CredentialKind", "x_UnpricedRequests"),
)
_KINDS: Mapping[str, tuple[str, str]] = {
    "input": ("input_tokens", ""),
    "output": ("output_tokens", "output_micros"),
    "cache read": ("cache_read_input_tokens", "cache_read_micros"),
    "cache write": ("cache_write_input_tokens", "cache_write_micros"),
}
_FEES = "fees_micros"
_COMPANIES = {
    "anthropic": "Anthropic",
    "bedrock": "AWS",
    "copilot": "GitHub",
    "openai": "OpenAI",
}
_SERVICES = {
    "anthropic": "Claude API",
    "bedrock": "Amazon Bedrock",
    "copilot": "GitHub Copilot",
    "openai": "OpenAI API",
}
_PUBLISHERS = {"claude": "Anthropic", "gpt": "OpenAI", "anthropic.": "Anthropic"}


def focus_rows(results: Iterator[Result]) -> Iterator[Result]:
    """Yields the rows of sums that are grouped by `KEYS`."""
    for result in results:
        common = _common(result)
        for kind, quantity, micros in _charges(result):
            yield {**common, **_charge(result, kind, quantity, micros)}


def _charges(result: Result) -> Iterator[tuple[str, int, int]]:
    """Yields each kind with its quantity and cost. Input that was not cached has the rest of the cost."""
    parts = {name: result[name] for _, name in _KINDS.values() if name}
    rest = result["cost_micros"] - sum(parts.values()) - result[_FEES]
    for kind, (tokens, name) in _KINDS.items():
        micros = parts[name] if name else rest
        if result[tokens] or micros:
            yield kind, result[tokens], micros
    if result[_FEES]:
        yield "fees", result["requests"], result[_FEES]


def _charge(result: Result, kind: str, quantity: int, micros: int) -> Result:
    cost = _dollars(micros)
    billed = _dollars(0) if result["credential_kind"] == "byok" else cost  # the user pays it
    unit = "Requests" if kind == "fees" else "Tokens"
    return {
        "BilledCost": billed,
        "EffectiveCost": billed,
        "ListCost": cost,
        "ContractedCost": cost,
        "ChargeDescription": f"{result['model']}: {kind}",
        "PricingQuantity": quantity,
        "PricingUnit": unit,
        "ConsumedQuantity": quantity,
        "ConsumedUnit": unit,
        "SkuMeter": kind,
    }


def _common(result: Result) -> Result:
    company = _COMPANIES.get(result["provider"]) or str(result["provider"])
    return {
        **_period(result["day"]),
        "BillingAccountId": result["provider_name"],
        "BillingAccountName": result["provider_name"],
        "BillingCurrency": "USD",
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "InvoiceIssuerName": company,
        "ProviderName": company,
        "PublisherName": _publisher(result["model"], company),
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": _SERVICES.get(result["provider"], result["provider"]),
        "SubAccountId": result["initiator"],
        "x_Model": result["model"],
        "x_Client": result["client"],
        "x_CredentialKind": result["credential_kind"],
        "x_UnpricedRequests": result["unpriced_requests"],
    }


@lru_cache(maxsize=32)
def _period(text: str) -> Mapping[str, str]:
    day = datetime.fromisoformat(text).replace(tzinfo=UTC)
    month = day.replace(day=1)
    return {
        "BillingPeriodStart": _time(month),
        "BillingPeriodEnd": _time((month + timedelta(days=32)).replace(day=1)),
        "ChargePeriodStart": _time(day),
        "ChargePeriodEnd": _time(day + timedelta(days=1)),
    }


def _publisher(model: str, company: str) -> str:
    """Returns the maker of a model, else who serves it."""
    return next((maker for part, maker in _PUBLISHERS.items() if part in model.lower()), company)


def _dollars(micros: int) -> Decimal:
    """
    >>> str(_dollars(1_500_000)), str(_dollars(0))
    ('1.500000', '0.000000')
    """
    return Decimal(micros).scaleb(-6)


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
