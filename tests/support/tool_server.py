"""A real MCP server in its own process: `python -m tests.support.tool_server KIND PORT NOTES`.

KIND is `mcp` (the official package, streaming), `json` or `stateless` (the same, with that option), or
`fastmcp`. Tools write what happens to them to the file NOTES.
"""

# No postponed annotations: the packages evaluate those of functions inside a function.
import asyncio
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any


def make_server(kind: str, port: int) -> tuple[Any, Any, type[Exception], Callable[[], None]]:
    """Returns the server, its package's context and error classes, and the function that runs it."""
    options: dict[str, Any] = {"host": "127.0.0.1", "port": port}
    if kind == "fastmcp":
        from fastmcp import Context, FastMCP
        from fastmcp.exceptions import ToolError

        server: Any = FastMCP("real")
        return server, Context, ToolError, partial(server.run, "http", show_banner=False, **options)
    from mcp.server.mcpserver import Context, MCPServer
    from mcp.server.mcpserver.exceptions import ToolError

    server = MCPServer("real")
    kind_options = {"json": {"json_response": True}, "stateless": {"stateless_http": True}}.get(kind, {})
    return server, Context, ToolError, partial(server.run, "streamable-http", **options, **kind_options)


def main(kind: str, port: int, notes: Path) -> None:
    server, Context, ToolError, run = make_server(kind, port)
    waiting: list[bool] = []

    def note(word: str) -> None:
        with notes.open("a") as file:
            file.write(f"{word}\n")

    @server.tool()
    def add(a: int, b: int) -> int:
        """Adds two numbers."""
        return a + b

    @server.tool()
    def fail() -> str:
        """Always fails."""
        raise ToolError("it went wrong")

    @server.tool()
    async def meet(ctx: Context) -> str:
        """Returns once four calls of it run in parallel; reports progress meanwhile."""
        waiting.append(True)
        together = -(-len(waiting) // 4) * 4
        while len(waiting) < together:
            await ctx.report_progress(len(waiting), together)
            await asyncio.sleep(0.01)
        return "met"

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
        """Adds a tool."""
        name = f"grown{len(await server.list_tools())}"

        def added() -> str:
            return name

        if kind == "fastmcp":
            from mcp.types import ToolListChangedNotification

            server.tool(added, name=name)
            await ctx.send_notification(ToolListChangedNotification())
        else:
            server.add_tool(added, name=name)
            await ctx.session.send_tool_list_changed()
        return name

    run()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
