"""Actor loaders."""

from __future__ import annotations

from collections.abc import Callable

from flask import Request

from ..errors import Unauthorized
from ..model import Actor

ActorLoader = Callable[[Request], Actor | None]
"""Returns the actor of a request, or None for 401. May raise a ClientError with a more specific message."""


def require_actor(load_actor: ActorLoader, request: Request) -> Actor:
    """Returns the actor of a request. Raises Unauthorized, and what the loader raises.

    What a host's own loader raises is for the host's error handlers: call this outside of handlers of yours.
    """
    actor = load_actor(request)
    if actor is None:
        raise Unauthorized
    return actor
