"""The tool calls of one turn, run in parallel."""

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
_CANCELLED = ToolResult(is_error=True, error=f"broken off: {ClientDisconnected.default_message}")


@dataclass(frozen=True, slots=True)
class ToolOutcome:
    """A tool call with its result. `began` and `ended` are nanoseconds since 1970."""

    call: ToolCall
    result: ToolResult
    began: int
    ended: int

    @property
    def milliseconds(self) -> int:
        return (self.ended - self.began + 500_000) // 1_000_000


class ToolRun(TaskGroup[None]):
    """Starts the calls at once; each gets a result."""

    def __init__(self, toolbox: ToolBox, calls: Sequence[ToolCall]) -> None:
        self._toolbox = toolbox
        self._outcomes: dict[int, ToolOutcome] = {}
        super().__init__(*(partial(self._run_call, index, call) for index, call in enumerate(calls)))

    @property
    def outcomes(self) -> list[ToolOutcome]:
        """The outcomes of the calls that were started, in the order of the calls."""
        return [self._outcomes[index] for index in sorted(self._outcomes)]

    def _run_call(self, index: int, call: ToolCall, client: Client) -> None:
        began, began_at = time.time_ns(), time.monotonic_ns()
        self._outcomes[index] = ToolOutcome(call, _CANCELLED, began, began)
        result = self._result(call, client)
        self._outcomes[index] = ToolOutcome(call, result, began, began + time.monotonic_ns() - began_at)

    def _result(self, call: ToolCall, client: Client) -> ToolResult:
        try:
            return self._toolbox.call(call.name, call.input, client)
        except ClientDisconnected:
            return _CANCELLED
        except Exception:  # noqa: BLE001 - each call must have a result
            _log.exception("the tool %s could not be called", call.name)
            return _FAILED
