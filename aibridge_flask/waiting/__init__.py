"""Waiting: for an upstream's bytes or a client that leaves, for another thread, for a slow call.

The only part that names gevent. Each thing stands here twice, for gevent and for threads; which of
the two holds is told by whether the sockets of this process are gevent's.
"""

from .client import NOBODY, Client, news_of, watch
from .runtime import under_gevent
from .task_group import Beside, Lent
from .threads import Gate, after_fork, aside, from_thread, gate, no_fork, open_gates, soon, start_thread

__all__ = [
    "NOBODY",
    "Beside",
    "Client",
    "Gate",
    "Lent",
    "after_fork",
    "aside",
    "from_thread",
    "gate",
    "news_of",
    "no_fork",
    "open_gates",
    "soon",
    "start_thread",
    "under_gevent",
    "watch",
]
