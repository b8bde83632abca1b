"""`GET /` of the standalone server: a plain page with the base URLs for each client."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from flask import Response, request

from ..config import Settings

_ANTHROPICS = (
    ("Claude Code", "ANTHROPIC_BASE_URL={url}"),
    ("Anthropic SDK", 'Anthropic(base_url="{url}")'),
)
_CLIENTS = {
    "anthropic": _ANTHROPICS,
    "bedrock": _ANTHROPICS,
    "openai": (
        ("Codex", 'openai_base_url = "{url}/v1" in ~/.codex/config.toml'),
        ("OpenAI SDK", 'OpenAI(base_url="{url}/v1")'),
    ),
    "copilot": (("Copilot", "base URL {url}"),),
}


def version_name() -> str:
    try:
        return version("aibridge-flask")
    except PackageNotFoundError:  # run from a checkout
        return "development"


def base_urls(settings: Settings, root: str) -> list[tuple[str, str]]:
    """What to set for which client, for every enabled provider; `root` has no / at its end."""
    return [
        (client, how.format(url=f"{root}{settings.url_prefix}/{provider.name}"))
        for provider in settings.providers
        if provider.enabled
        for client, how in _CLIENTS.get(provider.type, ())
    ]


def page(settings: Settings) -> Response:
    """Plain text, so that nothing in it needs escaping."""
    root = request.root_url.rstrip("/")
    prefix = settings.url_prefix
    rows = [f"{client:14}{how}" for client, how in base_urls(settings, root)]
    links = [f"{root}{prefix}/{name}" for name in ("healthz", "readyz", "interceptions")]
    lines = [f"AI Bridge {version_name()}", "", *rows, "", *links, ""]
    return Response("\n".join(lines), mimetype="text/plain")
