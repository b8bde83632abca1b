"""The actor of a request, by the configured mode. A host may replace the mode with its own loader."""

from __future__ import annotations

from ..config import Settings
from ..records.recorder import Recorder
from .header import HeaderLoader
from .loader import ActorLoader, require_actor
from .local import local
from .token import TokenLoader, token_of

__all__ = ["ActorLoader", "TokenLoader", "loader_for", "require_actor", "token_of"]


def loader_for(settings: Settings, recorder: Recorder) -> ActorLoader:
    """Returns the loader of `auth.mode`."""
    if settings.auth.mode == "token":
        return TokenLoader(recorder)
    if settings.auth.mode == "header":
        return HeaderLoader(settings.auth)
    return local
