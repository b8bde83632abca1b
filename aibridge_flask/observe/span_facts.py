"""The attributes of spans. Only spans of upstream requests have `gen_ai.*`, so that tokens count once:
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from ..hooks import PassthroughServed, ToolCalled
from ..model import UpstreamRequest
from ..records.events import InterceptionEnded, Started, TokenUsage
from ..records.rows import clean_text

Attributes = Mapping[str, str | int | float | bool]
MAX_LENGTH = 8192
_PROVIDERS = {"bedrock": "aws.bedrock", "copilot": "github.copilot"}
_PORTS = {"http": 80, "https": 443}


def non_empty(attributes: Attributes) -> dict[str, str | int | float | bool]:
    """Returns the attributes without empty ones, with text that every collector accepts.

    >>> non_empty({"a": "", "b": 0, "c": "x\\ud800"})
    {'b': 0, 'c': 'x?'}
    """
    cleaned = {
        key: clean_text(value) if isinstance(value, str) else value for key, value in attributes.items()
    }
    return {key: value for key, value in cleaned.items() if value != ""}


def interception(started: Started) -> Attributes:
    return {
        "aibridge.interception.id": started.id,
        "aibridge.actor": started.initiator_id,
        "aibridge.provider": started.provider,
        "aibridge.provider.name": started.provider_name,
        "aibridge.model": started.model,
        "aibridge.client": started.client,
        "aibridge.session.id": started.client_session_id,
        "aibridge.streaming": started.streaming,
        "aibridge.credential.kind": started.credential_kind,
        "aibridge.credential.hint": started.credential_hint,
        "http.request.method": "POST",
        "http.route": started.route,
        "user_agent.original": started.user_agent,
    }


def outcome(event: InterceptionEnded) -> Attributes:
    usage = event.ended.usage
    return {
        "http.response.status_code": event.ended.status_code,
        "aibridge.wire_exact": event.ended.wire_exact,
        "aibridge.time_to_first_byte": event.first_byte,
        "aibridge.tokens.input": usage.input_tokens,
        "aibridge.tokens.output": usage.output_tokens,
        "aibridge.tokens.cache_read": usage.cache_read_input_tokens,
        "aibridge.tokens.cache_write": usage.cache_write_input_tokens,
    }


def upstream(started: Started, request: UpstreamRequest) -> Attributes:
    url = urlsplit(request.url)
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": _PROVIDERS.get(started.provider, started.provider),
        "gen_ai.request.model": started.model,
        "gen_ai.request.stream": started.streaming,
        "gen_ai.conversation.id": started.client_session_id,
        "http.request.method": request.method,
        "server.address": url.hostname or "",
        "server.port": url.port or _PORTS[url.scheme],
    }


def prompt(text: str) -> Attributes:
    parts = [{"type": "text", "content": clean_text(text[:MAX_LENGTH])}]
    return {"gen_ai.input.messages": json.dumps([{"role": "user", "parts": parts}], ensure_ascii=False)}


def token_usage(event: TokenUsage) -> Attributes:
    """The convention counts cached tokens as input too."""
    usage = event.usage
    cached = usage.cache_read_input_tokens + usage.cache_write_input_tokens
    return {
        "gen_ai.response.id": event.provider_response_id,
        "gen_ai.response.model": event.model,
        "gen_ai.usage.input_tokens": usage.input_tokens + cached,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cache_read_input_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_input_tokens,
    }


def tool_call(event: ToolCalled) -> Attributes:
    return {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": event.tool,
        "gen_ai.tool.call.id": event.call_id,
        "aibridge.tool.server": event.server,
    }


def passthrough(event: PassthroughServed) -> Attributes:
    return {
        "aibridge.interception.id": event.id,
        "aibridge.actor": event.actor,
        "aibridge.provider.name": event.provider,
        "http.request.method": event.method,
        "http.route": event.route,
        "http.response.status_code": event.status,
    }
