"""Two tables: which client sent a request, and which header of that client holds its session id.

The values are those that the clients were observed to send. The first matching row wins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache

UNKNOWN = "Unknown"
CLAUDE_CODE = "Claude Code"
MAKES_SIDE_REQUESTS = (CLAUDE_CODE, "OpenCode")  # titles and compactions, as `formats/side_requests.py` says
_MAX_PREFIX = 32  # more than any row has

# Lower-case prefix of the User-Agent -> client. A row may name a header that identifies the client as well.
_AGENTS: tuple[tuple[str, str, str, str], ...] = (
    # prefix, header, its value ("" for any), client
    ("xum/", "", "", "Mux"),
    ("mux/", "", "", "Mux"),
    ("claude", "", "", CLAUDE_CODE),
    ("codex", "", "", "Codex"),
    ("zed/", "", "", "Zed"),
    ("githubcopilotchat/", "", "", "GitHub Copilot (VS Code)"),
    ("copilot/", "", "", "GitHub Copilot (CLI)"),
    ("kilo-code/", "originator", "kilo-code", "Kilo Code"),
    ("roo-code/", "originator", "roo-code", "Roo Code"),
    ("coder-agents/", "", "", "Coder Agents"),
    ("charm crush/", "", "", "Charm Crush"),
    ("charm-crush/", "", "", "Charm Crush"),
    ("\0", "x-cursor-client-version", "", "Cursor"),
    ("opencode/", "", "", "OpenCode"),
    ("junie:", "", "", "Junie"),
)

_SESSION_HEADERS: Mapping[str, tuple[str, ...]] = {
    CLAUDE_CODE: ("x-claude-code-session-id",),
    "Codex": ("session-id", "session_id"),
    "Mux": ("x-mux-workspace-id",),
    "GitHub Copilot (VS Code)": ("x-interaction-id",),
    "GitHub Copilot (CLI)": ("x-client-session-id",),
    "Kilo Code": ("x-kilocode-taskid",),
    "Coder Agents": ("x-coder-chat-id",),
    "OpenCode": ("x-opencode-session", "x-session-id", "x-session-affinity"),
}


def client_name(headers: Mapping[str, str]) -> str:
    """Returns the client's name. `headers` has lower-case names."""
    return _client_name(
        headers.get("user-agent", "")[:_MAX_PREFIX].lower(),
        headers.get("originator", "")[:_MAX_PREFIX].lower(),
        "x-cursor-client-version" in headers,
    )


@lru_cache(maxsize=512)
def _client_name(agent: str, originator: str, cursor: bool) -> str:
    for prefix, header, value, name in _AGENTS:
        if agent.startswith(prefix):
            return name
        if header == "originator" and originator == value:
            return name
        if header == "x-cursor-client-version" and cursor:
            return name
    return UNKNOWN


def session_id(client: str, headers: Mapping[str, str], user_id: str) -> str:
    """Returns the client's session id, trimmed, or "".

    `user_id` is the body's `metadata.user_id`, in which Claude Code repeats its session id.
    """
    for name in _SESSION_HEADERS.get(client, ()):
        value = headers.get(name, "").strip()
        if value:
            return value
    return _session_in_user_id(user_id) if client == CLAUDE_CODE else ""


def _session_in_user_id(user_id: str) -> str:
    """
    >>> [_session_in_user_id(text) for text in ('{"session_id": "abc"}', "user_1_session_abc", "x")]
    ['abc', 'abc', '']
    """
    if user_id.startswith("{"):
        try:
            value = json.loads(user_id).get("session_id", "")
        except (ValueError, RecursionError):
            return ""
        return value.strip() if isinstance(value, str) else ""
    return user_id.partition("_session_")[2].strip()


def agent_ids(headers: Mapping[str, str]) -> tuple[str, str]:
    """Returns the ids of Claude Code's subagent and of its parent; "" for the main agent."""
    agent_id = headers.get("x-claude-code-agent-id", "").strip()
    return agent_id, headers.get("x-claude-code-parent-agent-id", "").strip()
