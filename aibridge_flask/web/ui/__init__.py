"""The dashboard: pages made on the server, one file a page."""

from __future__ import annotations

from collections.abc import Sequence

from ...config import Settings
from ...in_flight import InFlight
from ...limits.limiter import Limiter
from ...outbound import Outbound
from ...tools import ToolBox
from ..api.live import Live
from ..api.reader import Reader
from .blueprint import UiBlueprint
from .csv import add_csv
from .limits import add_limits
from .live import add_live
from .login import add_login, add_static
from .overview import add_overview
from .providers import add_providers
from .session import add_session
from .sessions import add_sessions
from .signing import Signer
from .spend import add_spend
from .tokens import add_tokens
from .visitors import Visitors

__all__ = ["Signer", "Visitors", "ui_blueprint"]


def ui_blueprint(
    settings: Settings,
    visitors: Visitors,
    reader: Reader,
    outbounds: Sequence[Outbound],
    toolbox: ToolBox,
    limiter: Limiter,
    in_flight: InFlight,
) -> UiBlueprint:
    """Returns the blueprint of all pages. Register it after that of the records API, whose rules it uses."""
    blueprint = UiBlueprint(settings.url_prefix, visitors, reader)
    add_overview(blueprint, settings, outbounds)
    for add in (add_spend, add_sessions, add_session, add_csv, add_login, add_static):
        add(blueprint)
    add_live(blueprint, Live(reader, in_flight))
    add_limits(blueprint, limiter)
    add_providers(blueprint, outbounds, toolbox)
    add_tokens(blueprint, settings)
    return blueprint
