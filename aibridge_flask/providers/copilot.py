"""GitHub Copilot: https://docs.github.com/en/copilot"""

from __future__ import annotations

from typing import Any

from ..config import ProviderSettings
from ..formats import CHAT, MESSAGES, RESPONSES
from .provider import Provider, common_fields


def Copilot(settings: ProviderSettings) -> Provider:  # noqa: N802 - it makes a Provider
    """Builds a Copilot provider. It has no central keys: each user sends their own token."""
    fields: dict[str, Any] = common_fields(settings, "https://api.individual.githubcopilot.com")
    return Provider(
        **fields,
        route_prefix="",
        auth_header="Authorization",
        byok_only=True,
        bridged_routes={
            "/chat/completions": CHAT,
            "/responses": RESPONSES,
            "/v1/messages": MESSAGES,
        },
        passthrough_routes=("/models", "/models/*", "/agents/*", "/mcp/*", "/.well-known/*"),
        default_format=CHAT,
        follow_up_headers={"x-initiator": "agent"},  # else each counts as a request of the user
    )
