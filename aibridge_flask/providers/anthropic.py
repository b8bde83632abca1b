"""Anthropic: https://docs.anthropic.com/en/api, and its models on Amazon Bedrock."""

from __future__ import annotations

from typing import Any

from ..config import ProviderSettings
from ..config.settings import AwsSettings
from ..formats import MESSAGES
from . import bedrock
from .provider import Provider, common

_MODELS = "/v1/models"
_FAILURES = frozenset((503, 504, 529))


def Anthropic(settings: ProviderSettings) -> Provider:  # noqa: N802 - it makes a Provider
    """An Anthropic provider. Users' own keys come as `X-Api-Key` or, from the JavaScript SDK and
    from subscriptions, as Bearer. With AWS settings it is one whose models run on Bedrock."""
    if settings.aws:
        return _on_bedrock(settings, settings.aws[0])
    fields: dict[str, Any] = common(settings, "https://api.anthropic.com")
    return Provider(
        **fields,
        route_prefix="",
        auth_header="X-Api-Key",
        user_headers=("x-api-key", "authorization"),
        bridged_routes={"/v1/messages": MESSAGES},
        passthrough_routes=(
            _MODELS,
            "/v1/models/*",
            "/v1/messages/count_tokens",
            "/api/event_logging/*",
        ),
        default_format=MESSAGES,
        failures=_FAILURES,
    )


def _on_bedrock(settings: ProviderSettings, aws: AwsSettings) -> Provider:
    """What a client sends as a credential is dropped, since requests are signed. One that is switched off
    loads nothing."""
    fields: dict[str, Any] = common(settings, bedrock.default_base_url(aws))
    if settings.enabled:
        on = bedrock.Bedrock(settings, aws, fields["base_url"])
        fields |= {"prepare": on.prepare, "decode": on.decode}
    return Provider(
        **fields,
        route_prefix="",
        auth_header="Authorization",
        user_headers=(),
        bridged_routes={"/v1/messages": MESSAGES},
        passthrough_routes=(_MODELS, "/v1/messages/count_tokens"),
        default_format=MESSAGES,
        failures=_FAILURES,
        translates=True,
        signs=bedrock.hint(aws),
        own_answers={_MODELS: bedrock.models(aws)},
    )
