"""Anthropic: https://docs.anthropic.com/en/api"""

from __future__ import annotations

from typing import Any

from ..config import ProviderSettings
from ..formats import MESSAGES
from .table import Provider, common


def Anthropic(settings: ProviderSettings) -> Provider:  # noqa: N802 - it makes a Provider
    """An Anthropic provider. Users' own keys come as `X-Api-Key` or, from the JavaScript SDK and
    from subscriptions, as Bearer."""
    fields: dict[str, Any] = common(settings, "https://api.anthropic.com")
    return Provider(
        **fields,
        route_prefix="",
        auth_header="X-Api-Key",
        user_headers=("x-api-key", "authorization"),
        bridged_routes={"/v1/messages": MESSAGES},
        passthrough_routes=(
            "/v1/models",
            "/v1/models/*",
            "/v1/messages/count_tokens",
            "/api/event_logging/*",
        ),
        default_format=MESSAGES,
        failures=frozenset((503, 504, 529)),
    )
