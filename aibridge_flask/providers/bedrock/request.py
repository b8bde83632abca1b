"""An Anthropic request -> a request to Bedrock, still without its signature."""

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
from . import models
from .models import Model, model_named

COUNTED = "/count-tokens"
COUNT_ROUTE = "/v1/messages/count_tokens"
_INVOKE, _STREAM = "/invoke", "/invoke-with-response-stream"
_VERSION = b'"bedrock-2023-05-31"'
_JSON, _EVENT_STREAM = "application/json", "application/vnd.amazon.eventstream"
_IDENTITY = ("Accept-Encoding", "identity")
_BODY_LIMIT = 32 << 20
_NOT_UP = frozenset((
    "accept", "accept-encoding", "content-type", "content-length", "content-encoding", "host", "date",
    "authorization",
))  # fmt: skip
_NOT_UP_PREFIXES = ("anthropic-", "x-amz")  # what AWS is asked for is not for clients to say
_OUTPUT = 1024  # tokens, for a request to count them that names no most

Members = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class _ModelRequest:
    """What a request asks for. `id` is the configured model's, `model` what is known of it."""

    id: str
    model: Model
    betas: tuple[str, ...]


def invocation(outgoing: UpstreamRequest, aws: AwsSettings, base_url: str) -> UpstreamRequest:
    """Raises BadBody, UnknownRoute and what undoing a content coding raises."""
    path = urlsplit(outgoing.url.removeprefix(base_url)).path
    if outgoing.method != "POST":
        raise UnknownRoute(outgoing.method, path)
    coded = find(outgoing.headers, "content-encoding")
    text = content_coding.decode(outgoing.body, coded, _BODY_LIMIT) if coded else outgoing.body
    found = body.split_members(text)
    shape = _shape(found, find(outgoing.headers, "anthropic-beta"), aws)
    if path == COUNT_ROUTE:
        return _counting(outgoing, base_url, found, shape)
    streaming = body.loads(found.get("stream", b"")) is True
    url = f"{base_url}/model/{quote(shape.id, safe='')}{_STREAM if streaming else _INVOKE}"
    kind = _EVENT_STREAM if streaming else _JSON
    return _request(outgoing, url, body.join_members(_rewritten(found, shape)), kind)


def _counting(
    outgoing: UpstreamRequest, base_url: str, found: Members, shape: _ModelRequest
) -> UpstreamRequest:
    """https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_CountTokens.html"""
    budget = body.get_count(body.loads(found.get("thinking", b"")), "budget_tokens")
    whole = {"max_tokens": str(_OUTPUT + budget).encode(), **found}
    inner = base64.b64encode(body.join_members(_rewritten(whole, shape))).decode()
    url = f"{base_url}/model/{quote(models.plain_id(shape.id), safe='')}{COUNTED}"
    return _request(outgoing, url, body.dumps({"input": {"invokeModel": {"body": inner}}}), _JSON)


def _request(outgoing: UpstreamRequest, url: str, data: bytes, kind: str) -> UpstreamRequest:
    sent = [*_passing(outgoing.headers), ("Content-Type", _JSON), ("Accept", kind), _IDENTITY]
    sent += [("X-Amzn-Bedrock-Accept", _JSON)] if kind == _EVENT_STREAM else []
    sent.append(("Content-Length", str(len(data))))
    return UpstreamRequest("POST", url, tuple(sent), data, outgoing.id, outgoing.model)


def _passing(sent: HeaderList) -> Iterator[tuple[str, str]]:
    for name, value in sent:
        lower = name.lower()
        if lower not in _NOT_UP and not lower.startswith(_NOT_UP_PREFIXES):
            yield name, value


def _shape(found: Members, header: str, aws: AwsSettings) -> _ModelRequest:
    asked = body.loads(found.get("model", b""))
    id = _configured(asked if isinstance(asked, str) else "", aws)
    model = model_named(id)
    if not model.name and isinstance(asked, str):  # a profile of one's own: it is what clients take it for
        model = model_named(asked)
    told = body.loads(found.get("anthropic_beta", b""))
    flags = [*header.split(","), *(told if isinstance(told, list) else [])]
    return _ModelRequest(
        id, model, tuple(_betas([flag.strip() for flag in flags if isinstance(flag, str)], model))
    )


def _configured(asked: str, aws: AwsSettings) -> str:
    """Clients that took a name from the list of models get just that one."""
    if asked in (aws.model, aws.small_fast_model):
        return asked
    return aws.small_fast_model if models.is_small(asked) else aws.model


def _betas(flags: list[str], model: Model) -> dict[str, None]:
    """Each once, in their order."""
    named = [name for flag in flags for name in models.OTHER_NAMES.get(flag, (flag,))]
    return dict.fromkeys(name for name in named if model.takes(name))


def _rewritten(found: Members, shape: _ModelRequest) -> Members:
    made = {**found, "anthropic_version": _VERSION}
    for name in ("model", "stream", "anthropic_beta", *models.REFUSED_FIELDS):
        made.pop(name, None)
    if shape.betas:
        made["anthropic_beta"] = body.dumps(list(shape.betas))
    if "thinking" in made:
        made["thinking"] = _thinking(made, shape.model)
    for name in _unwanted(shape):
        made.pop(name, None)
    if "output_config" in made and not shape.model.takes_format:
        made["output_config"] = _without_format(made["output_config"])
    return made


def _unwanted(shape: _ModelRequest) -> Iterator[str]:
    for name, betas in models.BETA_FIELDS.items():
        natively = name == "output_config" and shape.model.takes_effort
        if not natively and not set(betas) & set(shape.betas):
            yield name


def _thinking(found: Members, model: Model) -> bytes:
    """As the model knows it; the very same bytes where that is so already."""
    told = body.loads(found["thinking"])
    kind = body.get_string(told, "type")
    if kind == "enabled" and model.adaptive_only:
        return b'{"type":"adaptive"}'
    if kind != "adaptive" or not model.budgeted:
        return found["thinking"]
    most = body.get_count({"most": body.loads(found.get("max_tokens", b""))}, "most")
    budget = most * _percent(body.loads(found.get("output_config", b""))) // 100
    if budget < models.LEAST_BUDGET:
        return b'{"type":"disabled"}'
    return body.dumps({"type": "enabled", "budget_tokens": budget})


def _percent(output_config: Any) -> int:
    effort = body.get_string(output_config, "effort")
    return models.BUDGETS.get(effort, models.BUDGETS[models.DEFAULT_EFFORT])


def _without_format(output_config: bytes) -> bytes:
    told = body.loads(output_config)
    if not isinstance(told, dict) or "format" not in told:
        return output_config
    return body.dumps({name: value for name, value in told.items() if name != "format"})
