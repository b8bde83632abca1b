"""The records API: one file a resource."""

from __future__ import annotations

from ...identity import ActorLoader
from ...records.recorder import Recorder
from ...waiting import StalledClients
from .blueprint import RecordsBlueprint
from .interceptions import add_interceptions
from .names import add_names
from .openapi import add_document
from .reader import Reader
from .sessions import add_sessions
from .usage import add_usage

__all__ = ["records_blueprint"]


def records_blueprint(
    prefix: str, load_actor: ActorLoader, recorder: Recorder, stalled: StalledClients
) -> RecordsBlueprint:
    """Returns the blueprint of all paths."""
    blueprint, reader = RecordsBlueprint(prefix, load_actor), Reader(recorder, stalled)
    add_interceptions(blueprint, reader)
    add_sessions(blueprint, reader)
    add_usage(blueprint, reader)
    add_names(blueprint, reader)
    add_document(blueprint)
    return blueprint
