"""Which of a server's tools are offered, and by which names. Pure functions."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from ..config.settings import McpServerSettings
from ..model import Tool

_ID_LIMIT = 64
_DIGEST = 10
_FOREIGN = re.compile(r"[^a-zA-Z0-9_-]")
_ANYTHING: Mapping[str, Any] = {"type": "object"}


def select_tools(server: McpServerSettings, listed: Iterable[Mapping[str, Any]]) -> tuple[Tool, ...]:
    """Those of a server's tools that its settings let pass, with their ids; what is not a tool by
    its shape is left out."""
    known = {one["name"]: one for one in reversed([*listed]) if _is_tool(one)}
    names = sorted(name for name in known if _passes(server, name))
    plain = Counter(_plain_id(server.name, name) for name in names)
    ids = {name: _id(server.name, name, plain) for name in names}
    return tuple(_tool(server, ids[name], known[name]) for name in names)


def _is_tool(listed: object) -> bool:
    return isinstance(listed, Mapping) and isinstance(listed.get("name"), str) and bool(listed["name"])


def _passes(server: McpServerSettings, name: str) -> bool:
    if server.deny and re.search(server.deny, name):
        return False
    return not server.allow or bool(re.search(server.allow, name))


def _id(server: str, name: str, plain: Mapping[str, int]) -> str:
    """Its plain id, unless that is too long or stands for another tool too. No server's name has an
    underscore, so plain ids of two servers are never the same."""
    whole = _plain_id(server, name)
    if len(whole) <= _ID_LIMIT and plain[whole] == 1:
        return whole
    digest = hashlib.sha256(f"{server}\n{name}".encode(errors="surrogatepass")).hexdigest()[:_DIGEST]
    return f"{whole[: _ID_LIMIT - _DIGEST - 1]}_{digest}"


def _plain_id(server: str, name: str) -> str:
    """
    >>> _plain_id("docs", "pages.search/v2")
    'bmcp_docs_pages_search_v2'
    """
    return _FOREIGN.sub("_", f"bmcp_{server}_{name}")


def _tool(server: McpServerSettings, id: str, listed: Mapping[str, Any]) -> Tool:
    description, schema = listed.get("description"), listed.get("inputSchema")
    return Tool(
        id=id,
        server=server.name,
        server_url=server.url,
        name=listed["name"],
        description=description if isinstance(description, str) else "",
        input_schema=schema if isinstance(schema, dict) else _ANYTHING,
    )
