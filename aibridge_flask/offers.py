"""What the bridge adds to a request's body: tools, and the wish for a stream's usage. Some models refuse
them.
"""

from __future__ import annotations

import logging
from functools import partial
from time import monotonic

from msgspec import Struct
from msgspec.structs import replace

from .model import Offer, RequestFacts, Tool
from .protocols import Format
from .providers import Provider
from .tools import ToolBox
from .waiting import run_if_large

_log = logging.getLogger("aibridge.tools")
_TOOLS, _USAGE = "tools", "stream_options"
_REMEMBERED_SECONDS = 300.0
_MAX_REMEMBERED = 1000


class Offered(Struct, frozen=True):
    """The body to send, which is the client's own object if nothing was added, and the facts by which its
    response is read."""

    offer: Offer
    facts: RequestFacts


class _Accepted(Struct, frozen=True):
    """Those of `all` tools that an API takes."""

    all: tuple[Tool, ...]
    tools: tuple[Tool, ...]


class Offers:
    """Makes offers, and remembers for some minutes which model accepted a request only without them."""

    def __init__(self, toolbox: ToolBox) -> None:
        self._toolbox = toolbox
        self._refused: dict[tuple[str, str, str], float] = {}
        self._accepted: dict[str, _Accepted] = {}

    def make(self, provider: Provider, wire_format: Format, facts: RequestFacts, body: bytes) -> Offered:
        """Returns the client's body with what is added to it."""
        if not provider.force_usage or self._is_refused(provider, facts, _USAGE):
            facts = _unasked(facts)
        ask_usage = partial(wire_format.upstream_body, body, facts)
        with_usage = body if facts.includes_usage else run_if_large(len(body), ask_usage)
        if with_usage is body:  # it cannot be added to every body
            facts = _unasked(facts)
        has_tools = provider.inject_tools and not self._is_refused(provider, facts, _TOOLS)
        tools = self._tools_for(wire_format) if has_tools else ()
        if not tools:
            return Offered(Offer(with_usage), facts)
        offer = partial(wire_format.offer, with_usage, facts, tools)
        return Offered(run_if_large(len(body), offer), facts)

    def remember(self, provider: Provider, offered: Offered, error: bytes) -> None:
        """The model refused an offer with the body `error`, and accepted the request without it."""
        about_usage = not offered.facts.includes_usage and (
            _USAGE.encode() in error or not offered.offer.tools
        )
        reason = _USAGE if about_usage else _TOOLS
        if len(self._refused) >= _MAX_REMEMBERED:
            self._refused.clear()
        self._refused[_key(provider, offered.facts, reason)] = monotonic() + _REMEMBERED_SECONDS
        names = (offered.facts.model, provider.name, reason)
        _log.warning("model %r of %s refuses %s: not added for some minutes", *names)

    def _tools_for(self, wire_format: Format) -> tuple[Tool, ...]:
        """Returns the tools that the API takes. The others are left out, with a warning."""
        tools = self._toolbox.tools
        accepted = self._accepted.get(wire_format.NAME)
        if accepted is None or accepted.all is not tools:
            accepted = self._accepted[wire_format.NAME] = _accept(wire_format, tools)
        return accepted.tools

    def _is_refused(self, provider: Provider, facts: RequestFacts, reason: str) -> bool:
        if not self._refused:
            return False
        return monotonic() < self._refused.get(_key(provider, facts, reason), 0.0)


def own_body(facts: RequestFacts, body: bytes) -> Offered:
    """Returns the client's body with nothing added."""
    return Offered(Offer(body), _unasked(facts))


def _accept(wire_format: Format, tools: tuple[Tool, ...]) -> _Accepted:
    reasons = {tool.id: wire_format.refusal(tool) for tool in tools}
    for tool in tools:
        if reason := reasons[tool.id]:
            names = (tool.name, tool.server, wire_format.NAME, reason)
            _log.warning("tool %s of MCP server %s is left out of requests for %s: %s", *names)
    return _Accepted(tools, tuple(tool for tool in tools if not reasons[tool.id]))


def _key(provider: Provider, facts: RequestFacts, reason: str) -> tuple[str, str, str]:
    return provider.name, facts.model, reason


def _unasked(facts: RequestFacts) -> RequestFacts:
    """Usage is not asked for, so there is none to hide from the client."""
    return facts if facts.includes_usage else replace(facts, includes_usage=True)
