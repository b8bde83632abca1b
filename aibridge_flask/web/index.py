"""`GET /` of the standalone server: a plain page that says what to set in each client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from flask import Response, request

from ..client_config.guides import guides, token_note
from ..config import Settings
from ..headers import is_host
from ..version import VERSION

_ANTHROPIC_CLIENTS = (
    ("Claude Code", "ANTHROPIC_BASE_URL={url}"),
    ("Anthropic SDK", 'Anthropic(base_url="{url}")'),
)
_CLIENTS = {
    "anthropic": _ANTHROPIC_CLIENTS,
    "bedrock": _ANTHROPIC_CLIENTS,
    "openai": (
        ("Codex", 'openai_base_url = "{url}/v1" in ~/.codex/config.toml'),
        ("OpenAI SDK", 'OpenAI(base_url="{url}/v1")'),
    ),
    "copilot": (("Copilot", "base URL {url}"),),
}


def base_urls(settings: Settings, root: str) -> list[tuple[str, str]]:
    """Returns (client, setting) for each enabled provider. `root` is an URL without a / at its end."""
    return [
        (client, setting.format(url=f"{root}{settings.url_prefix}/{provider.name}"))
        for provider in settings.providers
        if provider.enabled
        for client, setting in _CLIENTS.get(provider.type, ())
    ]


def page(settings: Settings) -> Response:
    """Plain text, so that nothing in it needs escaping."""
    root = root_url(request.environ)
    prefix = settings.url_prefix
    rows = [f"{client:14}{setting}" for client, setting in base_urls(settings, root)]
    links = [f"{root}{prefix}/{name}" for name in ("ui/", "healthz", "readyz", "interceptions")]
    lines = [f"AI Bridge {VERSION}", "", *rows, "", *links, "", token_note(settings)]
    told = [each.told() for each in guides(settings, root)]
    return Response("\n\n\n".join(["\n".join(lines).rstrip(), *told, ""]), mimetype="text/plain")


def root_url(environ: Mapping[str, Any]) -> str:
    """Returns the URL by which the client reached the application, without a / at its end.

    Werkzeug's `root_url` has no host if that is spelled with `_`, as those of containers may be.
    """
    host = environ.get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}"
    script = quote(environ.get("SCRIPT_NAME", "").encode("latin-1")).rstrip("/")
    return f"{environ['wsgi.url_scheme']}://{host if is_host(host) else 'localhost'}{script}"
