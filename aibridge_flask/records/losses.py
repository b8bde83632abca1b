"""How many events were taken and could then be written nowhere. It should stay 0."""

from __future__ import annotations

from ..hooks import Hooks, RecordsLost
from ..waiting import call_from_thread


class LossCounter:
    """Counted by the writer's thread; told where requests are served."""

    def __init__(self, hooks: Hooks) -> None:
        self._hooks = hooks
        self._count = self._known = 0
        self._soon = call_from_thread(self.tell)

    def add(self, count: int) -> None:
        if count:
            self._count += count
            self._soon()

    def tell(self) -> None:
        news = self._count - self._known
        if news:
            self._known += news
            self._hooks.emit(RecordsLost(news))
