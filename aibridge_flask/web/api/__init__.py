"""The records API: one file a resource."""

from __future__ import annotations

from collections.abc import Sequence

from ...identity import ActorLoader
from ...in_flight import InFlight
from ...limits.limiter import Limiter
from ...outbound import Outbound
from ...tools import ToolBox
from .audit import add_audit
from .blueprint import RecordsBlueprint
from .export import add_export
from .interceptions import add_interceptions
from .limits import add_limits
from .live import add_live
from .me import add_me
from .names import add_names
from .openapi import add_document
from .providers import add_providers
from .reader import Reader
from .sessions import add_sessions
from .tokens import add_tokens
from .usage import add_usage

__all__ = ["records_blueprint"]


def records_blueprint(
    prefix: str,
    load_actor: ActorLoader,
    reader: Reader,
    outbounds: Sequence[Outbound],
    toolbox: ToolBox,
    limiter: Limiter,
    in_flight: InFlight,
) -> RecordsBlueprint:
    """Returns the blueprint of all paths."""
    blueprint = RecordsBlueprint(prefix, load_actor)
    for add in (add_interceptions, add_sessions, add_usage, add_names, add_tokens, add_audit, add_export):
        add(blueprint, reader)
    add_providers(blueprint, outbounds, toolbox)
    add_limits(blueprint, reader, limiter)
    add_live(blueprint, reader, in_flight)
    add_me(blueprint, reader)
    add_document(blueprint)
    return blueprint
