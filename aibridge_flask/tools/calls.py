"""The tool calls of one turn, side by side."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ClientGone
from ..model import ToolCall, ToolResult
from ..waiting import Client, gate
from .deadline import Listener
from .toolbox import ToolBox

_log = logging.getLogger("aibridge.tools")
_AT_ONCE = 16
_LOOK = 0.5
_FAILED = ToolResult(is_error=True, error="the tool could not be called")
_LEFT = ToolResult(is_error=True, error=f"broken off: {ClientGone.text}")


@dataclass(frozen=True, slots=True)
class Called:
    """`began` and `ended` are nanoseconds since 1970."""

    call: ToolCall
    result: ToolResult
    began: int
    ended: int


class Calls:
    """They run from the beginning on; each has a result in the end."""

    def __init__(self, toolbox: ToolBox, calls: Sequence[ToolCall]) -> None:
        self._toolbox, self._count = toolbox, len(calls)
        self._left = deque(enumerate(calls))
        self._begun: dict[int, Called] = {}
        self._ended: list[int] = []
        self._stopped, self._all = False, gate()
        for _ in range(min(self._count, _AT_ONCE)):
            threading.Thread(target=self._work, daemon=True).start()

    def wait(self, client: Client, seconds: float) -> bool:
        """Whether all have ended, after `seconds` at most. Raises ClientGone."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            client.check()
            if client.during(lambda left=left: self._all.wait(min(left, _LOOK))):  # type: ignore[misc]
                return True
        return False

    @property
    def results(self) -> list[Called]:
        """Of those that have begun, in the calls' order."""
        return [self._begun[place] for place in sorted(self._begun)]

    def stop(self) -> None:
        """Nobody waits for the rest."""
        self._stopped = True

    def _work(self) -> None:
        while not self._stopped:
            try:
                place, call = self._left.popleft()
            except IndexError:
                return
            began = time.time_ns()
            self._begun[place] = Called(call, _LEFT, began, began)
            self._begun[place] = Called(call, self._run(call), began, time.time_ns())
            self._ended.append(place)
            if len(self._ended) == self._count:
                self._all.open()

    def _run(self, call: ToolCall) -> ToolResult:
        try:
            return self._toolbox.call(call.name, call.input, Listener(lambda: self._stopped))
        except ClientGone:
            return _LEFT
        except Exception:  # noqa: BLE001 - one result per call, always
            _log.exception("the tool %s could not be called", call.name)
            return _FAILED
