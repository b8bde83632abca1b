"""The headers that repeat parts of a request for gateways, from protocol revision 2026-07-28 on.

https://modelcontextprotocol.io/specification/2026-07-28/basic/transports/streamable-http#request-metadata
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..model import HeaderList

_MARK = "x-mcp-header"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_PLAIN = re.compile(r"(?! )[ -~]*(?<! )")
_ENCODED = re.compile(r"=\?base64\?.*\?=", re.DOTALL)
_TYPES = ("string", "integer", "boolean")
_MAX_DEPTH = 50
Path = tuple[str, ...]


def routing_headers(method: str, params: Mapping[str, Any], parameters: Mapping[str, Path]) -> HeaderList:
    """Returns the headers of a request; `parameters` are the tool's parameters that have one."""
    name = params.get("name")
    headers = [("Mcp-Method", method)]
    headers += [("Mcp-Name", _encode(name))] if isinstance(name, str) else []
    for header, path in parameters.items():
        text = _to_text(_find(params.get("arguments"), path))
        headers += [] if text is None else [(f"Mcp-Param-{header}", _encode(text))]
    return tuple(headers)


def marked_parameters(schema: object) -> dict[str, Path]:
    """Returns the parameters of a tool that are repeated in headers, by header.

    Raises ValueError if a mark is not one that the protocol allows: then the tool must not be used.

    >>> marked_parameters({"properties": {"a": {"type": "string", "x-mcp-header": "Region"}}})
    {'Region': ('a',)}
    """
    marked: dict[str, Path] = {}
    for header, path, kind in _marks(schema, ()):
        known = {name.lower() for name in marked}
        if not isinstance(header, str) or not _TOKEN.fullmatch(header) or header.lower() in known:
            raise ValueError(f"{_MARK} is {header!r}")
        if kind not in _TYPES:
            raise ValueError(f"{_MARK} is on a parameter of type {kind!r}")
        marked[header] = path
    return marked


def _marks(schema: object, path: Path) -> Iterator[tuple[object, Path, object]]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or len(path) >= _MAX_DEPTH:
        return
    for name, parameter in properties.items():
        if isinstance(parameter, dict) and _MARK in parameter:
            yield parameter[_MARK], (*path, name), parameter.get("type")
        yield from _marks(parameter, (*path, name))


def _find(value: Any, path: Path) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _to_text(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None


def _encode(text: str) -> str:
    """
    >>> [_encode(text) for text in ("us-west1", "é", " padded", "=?base64?x?=")]
    ['us-west1', '=?base64?w6k=?=', '=?base64?IHBhZGRlZA==?=', '=?base64?PT9iYXNlNjQ/eD89?=']
    """
    if _PLAIN.fullmatch(text) and not _ENCODED.fullmatch(text):
        return text
    return f"=?base64?{base64.b64encode(text.encode(errors='replace')).decode()}?="
