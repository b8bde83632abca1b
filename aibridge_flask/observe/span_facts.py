"""What spans tell. `gen_ai.*` stand on the spans of the upstream's calls alone, so that tokens count once:
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

Facts = Mapping[str, str | int | float | bool]
CLIP = 8192
_PROVIDERS = {"bedrock": "aws.bedrock", "copilot": "github.copilot"}
_PORTS = {"http": 80, "https": 443}


def known(facts: Facts) -> dict[str, str | int | float | bool]:
    """Without what is empty, and as every collector takes it.

    >>> known({"a": "", "b": 0, "c": "x\\ud800"})
    {'b': 0, 'c': 'x?'}
    """
    told = {key: clean_text(fact) if isinstance(fact, str) else fact for key, fact in facts.items()}
    return {key: fact for key, fact in told.items() if fact != ""}


def interception(started: Started) -> Facts:
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


def outcome(told: InterceptionEnded) -> Facts:
    usage = told.ended.usage
    return {
        "http.response.status_code": told.ended.status_code,
        "aibridge.wire_exact": told.ended.wire_exact,
        "aibridge.time_to_first_byte": told.first_byte,
        "aibridge.tokens.input": usage.input_tokens,
        "aibridge.tokens.output": usage.output_tokens,
        "aibridge.tokens.cache_read": usage.cache_read_input_tokens,
        "aibridge.tokens.cache_write": usage.cache_write_input_tokens,
    }


def upstream(started: Started, request: UpstreamRequest) -> Facts:
    place = urlsplit(request.url)
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": _PROVIDERS.get(started.provider, started.provider),
        "gen_ai.request.model": started.model,
        "gen_ai.request.stream": started.streaming,
        "gen_ai.conversation.id": started.client_session_id,
        "http.request.method": request.method,
        "server.address": place.hostname or "",
        "server.port": place.port or _PORTS[place.scheme],
    }


def prompt(text: str) -> Facts:
    parts = [{"type": "text", "content": clean_text(text[:CLIP])}]
    return {"gen_ai.input.messages": json.dumps([{"role": "user", "parts": parts}], ensure_ascii=False)}


def usage(event: TokenUsage) -> Facts:
    """The convention counts cached tokens as input too."""
    one = event.usage
    cached = one.cache_read_input_tokens + one.cache_write_input_tokens
    return {
        "gen_ai.response.id": event.provider_response_id,
        "gen_ai.response.model": event.model,
        "gen_ai.usage.input_tokens": one.input_tokens + cached,
        "gen_ai.usage.output_tokens": one.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": one.cache_read_input_tokens,
        "gen_ai.usage.cache_creation.input_tokens": one.cache_write_input_tokens,
    }


def tool(told: ToolCalled) -> Facts:
    return {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": told.tool,
        "gen_ai.tool.call.id": told.call_id,
        "aibridge.tool.server": told.server,
    }


def passage(told: PassthroughServed) -> Facts:
    return {
        "aibridge.interception.id": told.id,
        "aibridge.actor": told.actor,
        "aibridge.provider.name": told.provider,
        "http.request.method": told.method,
        "http.route": told.route,
        "http.response.status_code": told.status,
    }
