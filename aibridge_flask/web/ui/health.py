"""How providers and tools do, as this worker knows them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...formats import CHAT, MESSAGES, RESPONSES
from ...outbound import Outbound
from ...tools.loader import ToolLoader
from ..api.providers import provider_state, server_state

Result = dict[str, Any]
_APIS = {"Messages": MESSAGES, "Chat Completions": CHAT, "Responses": RESPONSES}


def problems(outbounds: Sequence[Outbound]) -> list[Result]:
    """Returns what does not work now: breakers that are not closed, keys that cool down."""
    return [problem for outbound in outbounds for problem in _problems(provider_state(outbound))]


def _problems(state: Result) -> Iterator[Result]:
    name = state["name"]
    for breaker in state["breakers"]:
        if breaker["state"] != "closed":
            what = f"circuit breaker of {breaker['model']} at {breaker['endpoint']}"
            yield {"provider": name, "what": what, "state": breaker["state"], "until": breaker["until"]}
    for kind, words in (("temporary", "cools down"), ("unauthorized", "is not accepted")):
        for key in state["keys"][kind]:
            of = f" for {', '.join(key['models'])}" if key["models"] else ""
            yield {"provider": name, "what": f"key {key['hint']}{of}", "state": words, "until": key["until"]}


def server(loader: ToolLoader) -> Result:
    """Returns an MCP server with its tools, and what is left out and why."""
    refusals = [
        (tool.name, f"not for {api}: {reason}")
        for tool in loader.tools
        for api, wire_format in _APIS.items()
        if (reason := wire_format.refusal(tool))
    ]
    return {**server_state(loader), "fault": loader.fault, "left_out": [*loader.left_out, *refusals]}
