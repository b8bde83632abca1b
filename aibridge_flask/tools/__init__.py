"""The tools of the configured MCP servers: which there are, and how one is called."""

from .tool import Tool, ToolResult
from .toolbox import ToolBox

__all__ = ["Tool", "ToolBox", "ToolResult"]
