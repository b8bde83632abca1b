"""Converts an Anthropic request to a request to Bedrock, without its signature."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from ... import content_coding
from ...config.settings import AwsSettings
from ...errors import UnknownRoute
from ...formats import body
from ...headers import find
from ...model import HeaderList, UpstreamRequest
from . import members as fitting
from . import models
from .models import Model, parse_model_id

COUNT_TOKENS_SUFFIX = "/count-tokens"
COUNT_ROUTE = "/v1/messages/count_tokens"
_INVOKE, _STREAM = "/invoke", "/invoke-with-response-stream"
_VERSION = b'"bedrock-2023-05-31"'
_JSON, _EVENT_STREAM = "application/json", "application/vnd.amazon.eventstream"
_IDENTITY = ("Accept-Encoding", "identity")
_BODY_LIMIT = 32 << 20
_DROPPED_HEADERS = frozenset((
    "accept", "accept-encoding", "content-type", "content-length", "content-encoding", "host", "date",
    "authorization",
))  # fmt: skip
_DROPPED_PREFIXES = ("anthropic-", "x-amz")  # clients must not set what the bridge asks of AWS
_DEFAULT_MAX_TOKENS = 1024  # for a request to count tokens that has no `max_tokens`

Members = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class _ModelRequest:
    """What a request asks for. `id` is the configured model's, `model` what is known about it."""

    id: str
    model: Model
    betas: tuple[str, ...]


def bedrock_request(request: UpstreamRequest, aws: AwsSettings, base_url: str) -> UpstreamRequest:
    """Returns the request to Bedrock.

    Raises InvalidBody, UnknownRoute, and what decoding a content coding raises.
    """
    path = urlsplit(request.url.removeprefix(base_url)).path
    if request.method != "POST":
        raise UnknownRoute(request.method, path)
    coding = find(request.headers, "content-encoding")
    text = content_coding.decode(request.body, coding, _BODY_LIMIT) if coding else request.body
    members = body.split_members(text)
    wanted = _model_request(members, find(request.headers, "anthropic-beta"), aws)
    if path == COUNT_ROUTE:
        return _count_request(request, base_url, members, wanted)
    streaming = body.loads(members.get("stream", b"")) is True
    url = f"{base_url}/model/{quote(wanted.id, safe='')}{_STREAM if streaming else _INVOKE}"
    accept = _EVENT_STREAM if streaming else _JSON
    return _with_body(request, url, body.join_members(_rewrite(members, wanted)), accept)


def _count_request(
    request: UpstreamRequest, base_url: str, members: Members, wanted: _ModelRequest
) -> UpstreamRequest:
    """https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CountTokens.html"""
    budget = body.get_count(body.loads(members.get("thinking", b"")), "budget_tokens")
    with_limit = {"max_tokens": str(_DEFAULT_MAX_TOKENS + budget).encode(), **members}
    inner = base64.b64encode(body.join_members(_rewrite(with_limit, wanted))).decode()
    url = f"{base_url}/model/{quote(models.base_model_id(wanted.id), safe='')}{COUNT_TOKENS_SUFFIX}"
    return _with_body(request, url, body.dumps({"input": {"invokeModel": {"body": inner}}}), _JSON)


def _with_body(request: UpstreamRequest, url: str, data: bytes, accept: str) -> UpstreamRequest:
    headers = [*_forwarded_headers(request.headers), ("Content-Type", _JSON), ("Accept", accept), _IDENTITY]
    headers += [("X-Amzn-Bedrock-Accept", _JSON)] if accept == _EVENT_STREAM else []
    headers.append(("Content-Length", str(len(data))))
    return UpstreamRequest("POST", url, tuple(headers), data, request.id, request.model)


def _forwarded_headers(headers: HeaderList) -> Iterator[tuple[str, str]]:
    for name, value in headers:
        lower = name.lower()
        if lower not in _DROPPED_HEADERS and not lower.startswith(_DROPPED_PREFIXES):
            yield name, value


def _model_request(members: Members, beta_header: str, aws: AwsSettings) -> _ModelRequest:
    name = body.loads(members.get("model", b""))
    id = configured_id(name if isinstance(name, str) else "", aws)
    model = parse_model_id(id)
    if not model.name and isinstance(name, str):  # an application profile: its model is the one clients name
        model = parse_model_id(name)
    in_body = body.loads(members.get("anthropic_beta", b""))
    flags = [*beta_header.split(","), *(in_body if isinstance(in_body, list) else [])]
    return _ModelRequest(
        id, model, tuple(_betas([flag.strip() for flag in flags if isinstance(flag, str)], model))
    )


def configured_id(name: str, aws: AwsSettings) -> str:
    """Returns the id of the configured model for the client's model name.

    Clients that take a name from the list of models get that model.
    """
    if name in (aws.model, aws.small_fast_model):
        return name
    return aws.small_fast_model if models.is_small_model(name) else aws.model


def _betas(flags: list[str], model: Model) -> dict[str, None]:
    """Returns the betas that the model supports, in order, without duplicates."""
    names = [name for flag in flags for name in models.BEDROCK_NAMES.get(flag, (flag,))]
    return dict.fromkeys(name for name in names if model.supports_beta(name))


def _rewrite(members: Members, wanted: _ModelRequest) -> Members:
    known = {name: value for name, value in members.items() if name in models.FIELDS}
    rewritten = {**known, "anthropic_version": _VERSION}
    rewritten.pop("anthropic_beta", None)
    if wanted.betas:
        rewritten["anthropic_beta"] = body.dumps(list(wanted.betas))
    if "thinking" in rewritten:
        rewritten["thinking"] = _thinking(rewritten, wanted.model)
    for name in _fields_without_beta(wanted):
        rewritten.pop(name, None)
    if "output_config" in rewritten and not wanted.model.supports_format:
        rewritten["output_config"] = _without_format(rewritten["output_config"])
    return _with_fitted_members(rewritten, wanted)


def _with_fitted_members(members: Members, wanted: _ModelRequest) -> Members:
    fitted = dict(members)
    if "system" in fitted:
        fitted["system"] = fitting.fit_system(fitted["system"], wanted.model)
    if "messages" in fitted:
        fitted["messages"] = fitting.fit_messages(fitted["messages"], wanted.model)
    if "tools" in fitted:
        fitted["tools"] = fitting.fit_tools(fitted["tools"], wanted.model, wanted.betas)
    return fitted


def _fields_without_beta(wanted: _ModelRequest) -> Iterator[str]:
    """Yields the fields that Bedrock refuses because the request does not have their beta."""
    for name, betas in models.BETA_FIELDS.items():
        needs_no_beta = name == "output_config" and wanted.model.supports_effort
        if not needs_no_beta and not set(betas) & set(wanted.betas):
            yield name


def _thinking(members: Members, model: Model) -> bytes:
    """Returns `thinking` in the form that the model supports; unchanged bytes if it already has that form."""
    thinking = body.loads(members["thinking"])
    kind = body.get_string(thinking, "type")
    if kind == "enabled" and model.is_adaptive_only:
        return b'{"type":"adaptive"}'
    if kind != "adaptive" or not model.needs_budget:
        return members["thinking"]
    max_tokens = body.get_count({"max_tokens": body.loads(members.get("max_tokens", b""))}, "max_tokens")
    budget = max_tokens * _percent(body.loads(members.get("output_config", b""))) // 100
    if budget < models.MIN_BUDGET_TOKENS:
        return b'{"type":"disabled"}'
    return body.dumps({"type": "enabled", "budget_tokens": budget})


def _percent(output_config: Any) -> int:
    effort = body.get_string(output_config, "effort")
    return models.BUDGET_PERCENT.get(effort, models.BUDGET_PERCENT[models.DEFAULT_EFFORT])


def _without_format(output_config: bytes) -> bytes:
    config = body.loads(output_config)
    if not isinstance(config, dict) or "format" not in config:
        return output_config
    return body.dumps({name: value for name, value in config.items() if name != "format"})
