"""A real MCP server in a process of its own: `python -m tests.support.tool_server KIND PORT NOTES`.

Kinds are made with the official package (`mcp`, which streams, `json`, `stateless`) and with
`fastmcp`. What its tools live through is written to the file NOTES.
"""

from __future__ import annotations

import asyncio
import sys
from functools import partial
from pathlib import Path
from typing import Any

kind, port, notes = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
options: dict[str, Any] = {"host": "127.0.0.1", "port": port}

if kind == "fastmcp":
    from fastmcp import Context, FastMCP
    from fastmcp.exceptions import ToolError

    server: Any = FastMCP("real")
    run = partial(server.run, "http", show_banner=False, **options)
else:
    from mcp.server.mcpserver import Context, MCPServer
    from mcp.server.mcpserver.exceptions import ToolError

    server = MCPServer("real")
    more = {"json": {"json_response": True}, "stateless": {"stateless_http": True}}.get(kind, {})
    run = partial(server.run, "streamable-http", **options, **more)


def note(word: str) -> None:
    with notes.open("a") as file:
        file.write(f"{word}\n")


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def fail() -> str:
    """Never goes well."""
    raise ToolError("it went wrong")


@server.tool()
async def meet(ctx: Context) -> str:
    """Returns once four of its calls run at once, telling of its progress meanwhile."""
    meet.waiting += 1
    while meet.waiting < 4:
        await ctx.report_progress(meet.waiting, 4)
        await asyncio.sleep(0.01)
    return "met"


meet.waiting = 0


@server.tool()
async def wait() -> str:
    """Waits until it is cancelled."""
    note("waiting")
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        note("cancelled")
        raise
    return "never"


@server.tool()
async def grow(ctx: Context) -> str:
    """There is one tool more afterwards."""
    name = f"grown{len(await server.list_tools())}"

    def grown() -> str:
        return name

    if kind == "fastmcp":
        from mcp.types import ToolListChangedNotification

        server.tool(grown, name=name)
        await ctx.send_notification(ToolListChangedNotification())
    else:
        server.add_tool(grown, name=name)
        await ctx.session.send_tool_list_changed()
    return name


run()
