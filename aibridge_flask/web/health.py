"""`healthz` and `readyz`, which need no identity."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, jsonify

from ..records.recorder import Recorder


def add_health(blueprint: Blueprint, prefix: str, recorder: Recorder, draining: Callable[[], bool]) -> None:
    def healthz() -> Response:
        """The process serves."""
        return jsonify(status="ok")

    def readyz() -> tuple[Response, int]:
        """The record store takes records."""
        if draining():
            return jsonify(status="draining"), 503
        ready = recorder.healthy
        return jsonify(status="ok" if ready else "records are not taken"), 200 if ready else 503

    blueprint.add_url_rule(f"{prefix}/healthz", view_func=healthz)
    blueprint.add_url_rule(f"{prefix}/readyz", view_func=readyz)
