"""The records API: one file a resource."""

from __future__ import annotations

from ...identity import ActorLoader
from ...records.recorder import Recorder
from .blueprint import RecordsBlueprint
from .interceptions import add_interceptions
from .openapi import add_document
from .reader import Reader

__all__ = ["records_blueprint"]


def records_blueprint(prefix: str, load_actor: ActorLoader, recorder: Recorder) -> RecordsBlueprint:
    """Returns the blueprint of all paths."""
    blueprint, reader = RecordsBlueprint(prefix, load_actor), Reader(recorder)
    add_interceptions(blueprint, reader)
    add_document(blueprint)
    return blueprint
