"""`GET providers`, `GET providers/mcp`: what this worker knows of them. For administrators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from flask import Response
from marshmallow import fields

from ...model import Actor
from ...outbound import Outbound
from ...reading import search
from ...reading.search import BadSearch
from ...reading.values import encode, json_value
from ...records.events import now
from ...tools import ToolBox
from ...tools.loader import ToolLoader
from ...upstream.breaker import BreakerState
from ...upstream.keys import PASSTHROUGH, Cooldown
from ...upstream.refusals import UNAUTHORIZED
from .blueprint import RecordsBlueprint
from .documents import Document, listing, text, texts, time
from .questions import ListQuestion
from .reader import json_response

Result = dict[str, Any]


class BreakerDocument(Document):
    endpoint = text("The path after the provider's name.")
    model = text("The model.")
    state = text("`open`, `half-open` or `closed`.")
    until = time("When an open one lets a trial through.", allow_none=True)


class KeyDocument(Document):
    hint = text("The masked key.")
    until = time("When it is used again; null for a valid one.", allow_none=True)
    models = texts("The models that it rests for; empty: all. `passthrough` stands for passed requests.")


class KeysDocument(Document):
    valid = fields.List(fields.Nested(KeyDocument), required=True)
    temporary = fields.List(fields.Nested(KeyDocument), required=True)
    unauthorized = fields.List(fields.Nested(KeyDocument), required=True)


class ProviderDocument(Document):
    name = text("The provider's name.")
    type = text("The provider's type.")
    status = text("`enabled` or `disabled`.")
    breakers = fields.List(fields.Nested(BreakerDocument), required=True)
    keys = fields.Nested(KeysDocument, required=True)


class McpToolDocument(Document):
    id = text("The name that models see.")
    name = text("The server's own name.")
    description = text("What it does, as the server says.")


class McpServerDocument(Document):
    name = text("The server's name.")
    url = text("Where it is.")
    status = text("`up`, `down`, or `loading` at the start.")
    tools = fields.List(fields.Nested(McpToolDocument), required=True)


def add_providers(blueprint: RecordsBlueprint, outbounds: Sequence[Outbound], toolbox: ToolBox) -> None:
    @blueprint.answers(
        "/providers", listing("ProviderListDocument", ProviderDocument), ListQuestion, admins=True
    )
    def providers(actor: Actor, values: dict[str, Any]) -> Response:
        """Providers with their breakers and keys, as this worker knows them."""
        return _list(map(provider_state, outbounds), values, {"provider": "type", "provider_name": "name"})

    @blueprint.answers(
        "/providers/mcp", listing("McpServerListDocument", McpServerDocument), ListQuestion, admins=True
    )
    def mcp_servers(actor: Actor, values: dict[str, Any]) -> Response:
        """MCP servers with their tools."""
        return _list(map(server_state, toolbox.servers), values, {})


def _list(results: Iterable[Result], values: Mapping[str, Any], members: Mapping[str, str]) -> Response:
    """Returns the response with what matches. `members` are those that keys of the search stand for."""
    terms = search.parse(values["q"]).terms
    for key, _ in terms:
        if key not in members:
            raise BadSearch(f"{key!r} is no key of these: one of {', '.join(members)} is expected")
    found = [each for each in results if all(each[members[key]] == value for key, value in terms)]
    page = found[values["offset"] :][: values["limit"]]
    return json_response(encode({"count": len(found), "results": page, "next_after_id": None}))


def provider_state(outbound: Outbound) -> Result:
    """Returns a provider with its breakers and keys, as this worker knows them."""
    provider = outbound.provider
    keys: dict[str, list[Result]] = {"valid": [], "temporary": [], "unauthorized": []}
    for hint, cooldowns in outbound.pool.cooldowns():
        reasons = {cooldown.flag.value for cooldown in cooldowns}
        state = "unauthorized" if UNAUTHORIZED in reasons else "temporary" if reasons else "valid"
        keys[state].append(_key(hint, cooldowns))
    return {
        "name": provider.name,
        "type": provider.type,
        "status": "enabled" if provider.enabled else "disabled",
        "breakers": list(map(_breaker, outbound.breakers.states())),
        "keys": keys,
    }


def _breaker(breaker: BreakerState) -> Result:
    until = _until(breaker.seconds_left)
    return {"endpoint": breaker.endpoint, "model": breaker.model, "state": breaker.state, "until": until}


def _key(hint: str, cooldowns: Sequence[Cooldown]) -> Result:
    scopes = {"passthrough" if each.scope == PASSTHROUGH else each.scope for each in cooldowns}
    seconds = max((each.flag.seconds_left for each in cooldowns), default=0.0)
    models = [] if "" in scopes else sorted(scopes)
    return {"hint": hint, "until": _until(seconds), "models": models}


def _until(seconds: float) -> Any:
    return json_value(now() + timedelta(seconds=seconds)) if seconds > 0 else None


def server_state(loader: ToolLoader) -> Result:
    """Returns an MCP server with the tools that it has now."""
    status = "up" if loader.is_up else "down" if loader.first_load_done else "loading"
    tools = [{"id": tool.id, "name": tool.name, "description": tool.description} for tool in loader.tools]
    return {"name": loader.server.name, "url": loader.server.url, "status": status, "tools": tools}
