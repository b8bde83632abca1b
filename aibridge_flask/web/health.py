"""`healthz` and `readyz`, which need no identity."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response

from ..formats.body import dumps
from ..records.recorder import Recorder
from ..tools import ToolBox


def add_health(
    blueprint: Blueprint, prefix: str, recorder: Recorder, toolbox: ToolBox, draining: Callable[[], bool]
) -> None:
    def healthz() -> Response:
        """The process serves."""
        return _told("ok", 200)

    def readyz() -> Response:
        """The record store takes records, and each MCP server has been asked for its tools."""
        if draining():
            return _told("draining", 503)
        if not recorder.healthy:
            return _told("records are not taken", 503)
        return _told("ok", 200) if toolbox.ready else _told("tools are being loaded", 503)

    blueprint.add_url_rule(f"{prefix}/healthz", view_func=healthz)
    blueprint.add_url_rule(f"{prefix}/readyz", view_func=readyz)


def _told(status: str, code: int) -> Response:
    """Without the JSON provider, which may be a host's own."""
    return Response(dumps({"status": status}), code, mimetype="application/json")
