"""Selects the tools of a server that are offered, and names them. Pure functions."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ..config.settings import McpServerSettings
from ..model import Tool

_MAX_ID_LENGTH = 64
_DIGEST_LENGTH = 10
_INVALID = re.compile(r"[^a-zA-Z0-9_-]")
_ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


def select_tools(server: McpServerSettings, listed: Iterable[Mapping[str, Any]]) -> tuple[Tool, ...]:
    """Returns the server's tools that its settings allow, with their ids. Malformed entries are skipped."""
    tools = {tool["name"]: tool for tool in reversed([*listed]) if _is_tool(tool)}
    names = sorted(name for name in tools if _is_allowed(server, name))
    counts = Counter(_plain_id(server.name, name) for name in names)
    ids = {name: _id(server.name, name, counts) for name in names}
    return tuple(_tool(server, ids[name], tools[name]) for name in names)


def left_out(server: McpServerSettings, listed: Iterable[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    """Returns the tools that the settings do not allow: (name, why)."""
    names = sorted({tool["name"] for tool in listed if _is_tool(tool)})
    return tuple((name, _reason(server, name)) for name in names if not _is_allowed(server, name))


def _reason(server: McpServerSettings, name: str) -> str:
    is_denied = server.deny and re.search(server.deny, name)
    return f"the settings deny {server.deny}" if is_denied else f"the settings allow {server.allow} alone"


def _is_tool(listed: object) -> bool:
    return isinstance(listed, Mapping) and isinstance(listed.get("name"), str) and bool(listed["name"])


def _is_allowed(server: McpServerSettings, name: str) -> bool:
    if server.deny and re.search(server.deny, name):
        return False
    return not server.allow or bool(re.search(server.allow, name))


def _id(server: str, name: str, counts: Mapping[str, int]) -> str:
    """Returns the plain id, or one with a digest if that is too long or ambiguous.

    No server's name has an underscore, so plain ids of two servers never clash.
    """
    plain_id = _plain_id(server, name)
    if len(plain_id) <= _MAX_ID_LENGTH and counts[plain_id] == 1:
        return plain_id
    digest = hashlib.sha256(f"{server}\n{name}".encode(errors="surrogatepass")).hexdigest()[:_DIGEST_LENGTH]
    return f"{plain_id[: _MAX_ID_LENGTH - _DIGEST_LENGTH - 1]}_{digest}"


def _plain_id(server: str, name: str) -> str:
    """
    >>> _plain_id("docs", "pages.search/v2")
    'bmcp_docs_pages_search_v2'
    """
    return _INVALID.sub("_", f"bmcp_{server}_{name}")


def _tool(server: McpServerSettings, id: str, listed: Mapping[str, Any]) -> Tool:
    description, schema = listed.get("description"), listed.get("inputSchema")
    return Tool(
        id=id,
        server=server.name,
        server_url=server.url,
        name=listed["name"],
        description=description if isinstance(description, str) else "",
        input_schema=schema if isinstance(schema, dict) else _ANY_OBJECT,
    )
