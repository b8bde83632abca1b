"""What client and server agreed on, and what each request says because of it.

Up to revision 2025-11-25 a handshake begins a session. From 2026-07-28 on there is none: each request says
what the handshake said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..model import HeaderList
from ..version import VERSION
from .jsonrpc import Message

VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05")  # those with a handshake
STATELESS_VERSION = "2026-07-28"
_META = "io.modelcontextprotocol/"


@dataclass(frozen=True, slots=True)
class Session:
    """`id` is empty if the server keeps no sessions. `has_tools`: the server has announced tools."""

    version: str = ""
    id: str = field(default="", repr=False)
    has_tools: bool = False

    @property
    def is_stateless(self) -> bool:
        """Whether the server speaks a revision without a handshake."""
        return self.version == STATELESS_VERSION

    @property
    def headers(self) -> HeaderList:
        headers = (("MCP-Protocol-Version", self.version), ("Mcp-Session-Id", self.id))
        return tuple(header for header in headers if header[1])

    def params(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the parameters of a request, with what takes the place of the handshake."""
        if not self.is_stateless:
            return params
        meta = {"protocolVersion": self.version, "clientInfo": client_info(), "clientCapabilities": {}}
        return {**params, "_meta": {f"{_META}{name}": value for name, value in meta.items()}}


NO_SESSION = Session()


def client_info() -> Message:
    return {"name": "aibridge", "version": VERSION}
