"""Checks of what the bridge talks to: Redis, providers, MCP servers, a proxy in front. Nothing is billed."""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic, sleep

import requests

from ...config import ProviderSettings, Settings
from ...errors import BridgeError
from ...formats import CHAT, MESSAGES, RESPONSES
from ...headers import mask_secret
from ...model import Secret, UpstreamRequest
from ...providers import Provider, build
from ...tools import ToolBox
from ...tools.loader import ToolLoader
from ...upstream.transport import Transport
from ...waiting import UNWATCHED
from .finding import FAIL, OK, WARN, Finding

_SECONDS = 15.0
_REFUSED = (401, 403)
_FORMATS = (MESSAGES, CHAT, RESPONSES)
_PROBE_BYTES = 16 << 20  # of a prompt with pictures
_STREAMS = "Time-outs of a proxy must be longer than keepalive_interval for streams, and read_timeout else."


def check_redis(settings: Settings) -> Iterator[Finding]:
    """Whether it answers, if it is configured."""
    if not settings.redis_url:
        yield Finding("redis", OK, "not configured: each worker knows its own keys and breakers")
        return
    from redis import Redis, RedisError  # an extra

    try:
        Redis.from_url(settings.redis_url, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS).ping()
    except (RedisError, OSError) as error:
        detail = f"it does not answer ({type(error).__name__}): workers do not share keys and breakers"
        yield Finding("redis", FAIL, detail, "Look at redis_url, and at Redis itself.")
    else:
        yield Finding("redis", OK, "it answers")


def check_providers(settings: Settings) -> Iterator[Finding]:
    """Whether each one can be reached, and accepts each key: asked for its models, which costs nothing."""
    for configured in settings.providers:
        if configured.enabled:
            yield from _check_provider(configured, settings)


def _check_provider(configured: ProviderSettings, settings: Settings) -> Iterator[Finding]:
    provider, name = build(configured), f"provider {configured.name}"
    transport = Transport(configured, provider.base_url, settings.connect_timeout, _SECONDS)
    for key in provider.keys or (Secret(""),):
        try:
            status = _ask(transport, provider, key)
        except BridgeError as error:
            advice = "Look at base_url, at the network, and at proxy and ca_file."
            yield Finding(name, FAIL, f"{error.message}: every request to it fails", advice)
            break
        yield _key_finding(name, provider, key, status) if key else _reached(name, provider)
    transport.close()


def _ask(transport: Transport, provider: Provider, key: Secret) -> int:
    """Returns the status. Raises UpstreamError."""
    paths = (path for path in provider.passthrough_routes if path.endswith("/models"))
    path = next(paths, "/").removeprefix(provider.route_prefix)
    value = f"Bearer {key.value}" if provider.auth_header == "Authorization" else key.value
    credential = ((provider.auth_header, value),) if key else ()
    fields = (("Host", provider.host), ("User-Agent", "aibridge"), ("anthropic-version", "2023-06-01"))
    response = transport.send(
        UpstreamRequest("GET", provider.base_url + path, (*fields, *credential)), UNWATCHED
    )
    response.close()
    return response.status


def _reached(name: str, provider: Provider) -> Finding:
    if provider.signing_hint or provider.byok_only:
        return Finding(name, OK, "it can be reached; its credentials are not looked at")
    detail = "it can be reached, and has no central key: users must send their own"
    return Finding(name, WARN, detail, "Give it `keys`, unless that is what you want.")


def _key_finding(name: str, provider: Provider, key: Secret, status: int) -> Finding:
    hint = mask_secret(key.value)
    if status in _REFUSED:
        detail = f"it refuses the key {hint} (status {status}): requests with it fail"
        return Finding(name, FAIL, detail, "Replace the key, or take it out of `keys`.")
    if 200 <= status < 300:
        return Finding(name, OK, f"it accepts the key {hint}")
    detail = f"it answers with status {status}: nothing is known of the key {hint}"
    return Finding(name, WARN, detail, "Try again later; if it stays so, look at base_url.")


def check_tools(settings: Settings) -> Iterator[Finding]:
    """Whether each MCP server has tools, and which of them an API would refuse."""
    toolbox = ToolBox(settings)
    end = monotonic() + _SECONDS
    try:
        while not toolbox.ready and monotonic() < end:
            sleep(0.05)
        for loader in toolbox.servers:
            yield from _check_server(loader)
    finally:
        toolbox.close()


def _check_server(loader: ToolLoader) -> Iterator[Finding]:
    name = f"MCP server {loader.server.name}"
    if not loader.is_up:
        advice = "Look at its url and headers. It is asked again in the background."
        yield Finding(name, FAIL, "it does not answer: its tools are missing", advice)
        return
    yield Finding(name, OK, f"it has {len(loader.tools)} tools")
    for tool in loader.tools:
        for wire_format in _FORMATS:
            if reason := wire_format.refusal(tool):
                detail = f"the tool {tool.name!r} is not offered on {wire_format.NAME}: {reason}"
                yield Finding(name, WARN, detail, "Have the server's schema changed, or `deny` the tool.")


def check_url(settings: Settings, url: str) -> Iterator[Finding]:
    """Whether the bridge is behind this URL, and large requests pass what is in front of it."""
    root = f"{url.rstrip('/')}{settings.url_prefix}"
    try:
        answer = requests.get(f"{root}/healthz", timeout=_SECONDS)
        if not answer.ok:
            detail = f"{root}/healthz answers with status {answer.status_code}"
            yield Finding("url", FAIL, detail, "Look at the proxy's target, and at url_prefix.")
            return
        yield Finding("url", OK, f"the bridge answers at {root}", _STREAMS)
        yield _check_size(settings, root)
    except requests.RequestException as error:
        yield Finding("url", FAIL, f"{root} cannot be reached: {type(error).__name__}", "Look at the proxy.")


def _check_size(settings: Settings, root: str) -> Finding:
    """Sends what is no JSON, so that the bridge itself refuses it."""
    enabled = [provider for provider in map(build, settings.providers) if provider.enabled]
    path = f"{enabled[0].name}{next(iter(enabled[0].bridged_routes))}" if enabled else ""
    size = min(_PROBE_BYTES, settings.max_body_bytes)
    advice = f"Let it pass {settings.max_body_bytes} bytes (nginx: client_max_body_size 0)."
    try:
        answer = requests.post(f"{root}/{path}", data=b" " * size, timeout=_SECONDS * 4)
    except requests.ConnectionError:
        return Finding("url size", WARN, f"a request of {size >> 20} MiB was broken off", advice)
    if answer.status_code == 413 and answer.headers.get("Content-Type") != "application/json":
        detail = f"what is in front of the bridge refuses {size >> 20} MiB: long conversations fail"
        return Finding("url size", FAIL, detail, advice)
    return Finding("url size", OK, f"requests of {size >> 20} MiB pass")
