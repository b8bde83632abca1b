"""`healthz` and `readyz`, without authentication."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response

from ..formats.body import dumps
from ..limits.limiter import Limiter
from ..records.recorder import Recorder
from ..tools import ToolBox
from ..waiting import FILES

_FILES_SECONDS = 10.0


def add_health(
    blueprint: Blueprint,
    prefix: str,
    recorder: Recorder,
    limiter: Limiter,
    toolbox: ToolBox,
    draining: Callable[[], bool],
) -> None:
    def healthz() -> Response:
        """The process serves."""
        return _status("ok", 200)

    def readyz() -> Response:
        """Records are accepted, and each MCP server has been asked for its tools."""
        if draining():
            return _status("draining", 503)
        if not recorder.healthy:
            return _ready("records are not taken", 503)
        return _ready("ok", 200) if toolbox.ready else _ready("tools are being loaded", 503)

    def _ready(status: str, code: int) -> Response:
        behind = FILES.run(recorder.backlog, _FILES_SECONDS)
        facts = {"records_behind_seconds": round(behind.seconds, 3), "records_behind_bytes": behind.bytes}
        return _status(status, code, **facts, limits="ok" if limiter.is_up else "cannot be checked")

    blueprint.add_url_rule(f"{prefix}/healthz", view_func=healthz)
    blueprint.add_url_rule(f"{prefix}/readyz", view_func=readyz)


def _status(status: str, code: int, **facts: float | str) -> Response:
    """Does not use Flask's JSON provider, which a host may have replaced."""
    return Response(dumps({"status": status, **facts}), code, mimetype="application/json")
