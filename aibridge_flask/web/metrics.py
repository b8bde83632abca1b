"""`GET /metrics` for Prometheus, without authentication."""

from __future__ import annotations

from flask import Blueprint, Response, request

from ..observe.metrics import Metrics


def add_metrics(blueprint: Blueprint, prefix: str, metrics: Metrics) -> None:
    def page() -> Response:
        body, media_type = metrics.page(request.headers.get("Accept", ""))
        return Response(body, content_type=media_type)

    blueprint.add_url_rule(f"{prefix}/metrics", endpoint="metrics", view_func=page)
