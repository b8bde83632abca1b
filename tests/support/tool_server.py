"""A real MCP server in a process of its own: `python -m tests.support.tool_server KIND PORT NOTES`.

Kinds are made with the official package (`mcp`, which streams, `json`, `stateless`) and with
`fastmcp`. What its tools live through is written to the file NOTES.
"""

# No postponed annotations: the packages look at those of functions that stand in a function.
import asyncio
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any


def made(kind: str, port: int) -> tuple[Any, Any, type[Exception], Callable[[], None]]:
    """The server, its packages' context and error, and what runs it."""
    options: dict[str, Any] = {"host": "127.0.0.1", "port": port}
    if kind == "fastmcp":
        from fastmcp import Context, FastMCP
        from fastmcp.exceptions import ToolError

        server: Any = FastMCP("real")
        return server, Context, ToolError, partial(server.run, "http", show_banner=False, **options)
    from mcp.server.mcpserver import Context, MCPServer
    from mcp.server.mcpserver.exceptions import ToolError

    server = MCPServer("real")
    more = {"json": {"json_response": True}, "stateless": {"stateless_http": True}}.get(kind, {})
    return server, Context, ToolError, partial(server.run, "streamable-http", **options, **more)


def main(kind: str, port: int, notes: Path) -> None:
    server, Context, ToolError, run = made(kind, port)
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
        """Never goes well."""
        raise ToolError("it went wrong")

    @server.tool()
    async def meet(ctx: Context) -> str:
        """Returns once four of its calls run at once, telling of its progress meanwhile."""
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


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
