"""The tools of the configured MCP servers: which ones there are, and how they are called."""

from .tool_run import ToolOutcome, ToolRun
from .toolbox import ToolBox

__all__ = ["ToolBox", "ToolOutcome", "ToolRun"]
