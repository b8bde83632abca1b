"""Anthropic: https://docs.anthropic.com/en/api, and its models on Amazon Bedrock."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..config import ProviderSettings
from ..config.settings import AwsSettings
from ..formats import MESSAGES
from . import bedrock
from .provider import Provider, common_fields

_MODELS = "/v1/models"
_FAILURE_STATUSES = frozenset((503, 504, 529))


def Anthropic(settings: ProviderSettings) -> Provider:  # noqa: N802 - it makes a Provider
    """Builds an Anthropic provider; with AWS settings, one whose models run on Bedrock.

    A user's own key arrives in `X-Api-Key`, or as a Bearer token from the JavaScript SDK and subscriptions.
    """
    if settings.aws:
        return _bedrock_provider(settings, settings.aws[0])
    fields: dict[str, Any] = common_fields(settings, "https://api.anthropic.com")
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
        admin_routes=(_MODELS, f"{_MODELS}/*"),
        default_format=MESSAGES,
        failure_statuses=_FAILURE_STATUSES,
    )


def _bedrock_provider(settings: ProviderSettings, aws: AwsSettings) -> Provider:
    """A client's credential is dropped, since requests are signed. A disabled provider does not load
    botocore."""
    fields: dict[str, Any] = common_fields(settings, bedrock.default_base_url(aws))
    if settings.enabled:
        adapter = bedrock.Bedrock(settings, aws, fields["base_url"])
        fields |= {"prepare": adapter.prepare, "decode": adapter.decode}
    return Provider(
        **fields,
        route_prefix="",
        auth_header="Authorization",
        user_headers=(),
        bridged_routes={"/v1/messages": MESSAGES},
        passthrough_routes=(_MODELS, "/v1/messages/count_tokens"),
        default_format=MESSAGES,
        failure_statuses=_FAILURE_STATUSES,
        translates=True,
        signing_hint=bedrock.credential_hint(aws),
        local_responses={_MODELS: bedrock.models_body(aws)},
        profile_for=partial(bedrock.configured_id, aws=aws),
    )
