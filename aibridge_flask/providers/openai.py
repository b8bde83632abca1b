"""OpenAI: https://platform.openai.com/docs/api-reference"""

from __future__ import annotations

from typing import Any

from ..config import ProviderSettings
from ..formats import CHAT, COMPACTION, RESPONSES
from .provider import Provider, StoredRoute, common_fields


def OpenAI(settings: ProviderSettings) -> Provider:  # noqa: N802 - it makes a Provider
    """Builds an OpenAI provider. Its base URL ends in the version, as in OpenAI's SDKs."""
    fields: dict[str, Any] = common_fields(settings, "https://api.openai.com/v1")
    return Provider(
        **fields,
        route_prefix="/v1",
        auth_header="Authorization",
        bridged_routes={
            "/v1/chat/completions": CHAT,
            "/v1/responses": RESPONSES,
            "/v1/responses/compact": COMPACTION,
        },
        passthrough_routes=(
            "/v1/conversations",
            "/v1/conversations/*",
            "/v1/models",
            "/v1/models/*",
            "/v1/responses/*",
        ),
        stored_routes=(
            StoredRoute("/v1/responses", "Response", frozenset(("compact", "input_tokens"))),
            StoredRoute("/v1/conversations", "Conversation"),
        ),
        admin_routes=("/v1/models", "/v1/models/*"),
        default_format=CHAT,
    )
