"""The tool calls of one turn, side by side."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from ..errors import ClientDisconnected
from ..model import ToolCall, ToolResult
from ..waiting import Client, TaskGroup
from .toolbox import ToolBox

_log = logging.getLogger("aibridge.tools")
_FAILED = ToolResult(is_error=True, error="the tool could not be called")
_LEFT = ToolResult(is_error=True, error=f"broken off: {ClientDisconnected.default_message}")


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """`began` and `ended` are nanoseconds since 1970."""

    call: ToolCall
    result: ToolResult
    began: int
    ended: int


class ToolRun(TaskGroup[None]):
    """They run from the beginning on; each has a result in the end."""

    def __init__(self, toolbox: ToolBox, calls: Sequence[ToolCall]) -> None:
        self._toolbox = toolbox
        self._begun: dict[int, ToolOutcome] = {}
        super().__init__(*(partial(self._call, place, call) for place, call in enumerate(calls)))

    @property
    def outcomes(self) -> list[ToolOutcome]:
        """Those that have begun, in the calls' order."""
        return [self._begun[place] for place in sorted(self._begun)]

    def _call(self, place: int, call: ToolCall, client: Client) -> None:
        began = time.time_ns()
        self._begun[place] = ToolOutcome(call, _LEFT, began, began)
        result = self._result(call, client)
        self._begun[place] = ToolOutcome(call, result, began, time.time_ns())

    def _result(self, call: ToolCall, client: Client) -> ToolResult:
        try:
            return self._toolbox.call(call.name, call.input, client)
        except ClientDisconnected:
            return _LEFT
        except Exception:  # noqa: BLE001 - one result per call, always
            _log.exception("the tool %s could not be called", call.name)
            return _FAILED
