"""Providers: breakers, keys, MCP servers with their tools. Who is no administrator sees names alone."""

from __future__ import annotations

from collections.abc import Sequence

from flask import Response

from ...outbound import Outbound
from ...reading.connection import QUERY_SECONDS
from ...tools import ToolBox
from ...waiting import READERS
from ..api.providers import provider_state
from . import health
from .blueprint import Question, UiBlueprint, Visit, html
from .pages import render


def add_providers(blueprint: UiBlueprint, outbounds: Sequence[Outbound], toolbox: ToolBox) -> None:
    @blueprint.page("/providers")
    def providers(visit: Visit) -> Question | Response:
        rows = [provider_state(outbound) for outbound in outbounds]
        loaders = toolbox.servers

        def page() -> str:
            servers = [health.server(loader) for loader in loaders]
            return render("providers.html", visit, title="Providers", rows=rows, servers=servers)

        return html(READERS.run(page, QUERY_SECONDS))  # not of the database, which may be away
