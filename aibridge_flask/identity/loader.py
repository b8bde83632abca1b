"""The type of actor loaders."""

from __future__ import annotations

from collections.abc import Callable

from flask import Request

from ..model import Actor

ActorLoader = Callable[[Request], Actor | None]
"""Returns the actor of a request, or None for 401. May raise a ClientError with a more specific message."""
